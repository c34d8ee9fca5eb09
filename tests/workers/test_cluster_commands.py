"""`run` and `check` with a cluster, as processes: what signals and kills leave. Real Ray."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from clusters import MARK, Nodes, drivers, marked, nodes, processes, workers
from conftest import Program, command
from support import draw, free_port, outputs, states, wait_until


def settle(project: Path, steps: int, **more: object) -> None:
    """Have a project painted in one style, with so many steps."""
    (project / "pipeline.yaml").write_text(
        json.dumps(
            {
                "weights": "compact",
                "device": "cpu",
                "styles": {"ink": "styles/ink.png"},
                "recipe": {"size": 48, "scales": 1, "iterations": steps},
                "watch": {"settle_seconds": 0},
                **more,
            }
        )
    )


def results(project: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (project / "outbox").glob("*.png")}


def start(project: Path, *words: object) -> subprocess.Popen[str]:
    log = (project / "run.log").open("w")
    with log:
        return subprocess.Popen(command("run", *words), cwd=project, stdout=log, stderr=log)


@pytest.mark.parametrize("by", ["address", "client_address"])
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_nothing_behind_and_goes_on_without_a_cluster(
    project: Path, two: Nodes, here: Program, how: signal.Signals, by: str
) -> None:
    settle(project, 150, checkpoint_seconds=0.05)
    assert here("run", cwd=project).returncode == 0
    whole = results(project)
    assert len(whole) == 2
    for folder in ("outbox", "state"):
        subprocess.run(["rm", "-r", project / folder], check=True)
    process = start(project, "--cluster", getattr(two, by))
    kept = project / "state/checkpoints"
    try:  # the two need not be at work together: a worker may start long after the other
        wait_until(
            lambda: (kept.is_dir() and list(kept.glob("[0-9a-f]*-*"))) or process.poll() is not None
        )
        begun = set(kept.glob("[0-9a-f]*-*"))
        process.send_signal(how)
        code = process.wait(60)
    finally:
        process.kill()
        process.wait()
    assert code == (-how if how == signal.SIGKILL else 128 + how), (project / "run.log").read_text()
    wait_until(lambda: not drivers(os.environ[MARK]) and not workers(os.environ[MARK]), 30)
    assert results(project) == {} and begun and begun <= set(kept.glob("[0-9a-f]*-*"))
    assert here("run", cwd=project).returncode == 0
    assert results(project) == whole
    assert not list(kept.glob("[0-9a-f]*-*"))


def test_by_rays_client_a_run_gives_the_same_bytes_as_without_a_cluster(
    project: Path, two: Nodes, here: Program
) -> None:
    settle(project, 20)
    assert here("run", cwd=project).returncode == 0
    whole = results(project)
    for folder in ("outbox", "state"):
        subprocess.run(["rm", "-r", project / folder], check=True)
    done = here("run", "--cluster", two.client_address, cwd=project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert results(project) == whole and len(whole) == 2


def test_by_rays_client_a_run_whose_head_is_lost_ends_and_says_so(
    project: Path, tmp_path: Path
) -> None:
    settle(project, 100_000, checkpoint_seconds=0.05)
    with nodes(tmp_path, has_clients=True) as one:
        one.add()
        process = start(project, "--cluster", one.client_address)
        kept = project / "state/checkpoints"
        try:
            wait_until(lambda: kept.is_dir() and list(kept.glob("[0-9a-f]*-*")))
            one.close()
            code = process.wait(60)
        finally:
            process.kill()
            process.wait()
        wait_until(lambda: not drivers(os.environ[MARK]), 30)
    text = (project / "run.log").read_text()
    assert code == 69 and f"cluster {one.client_address}: its head" in text, text
    assert set(states(project).values()) == {"queued"}


def test_workers_killed_at_random_lose_nothing_and_double_nothing(
    project: Path, two: Nodes, request: pytest.FixtureRequest
) -> None:
    kills, jobs = (request.config.getoption(f"--worker-{what}") for what in ("kills", "jobs"))
    settle(project, 20, watch={"settle_seconds": 0, "max_attempts": 100})
    for old in (project / "inbox").iterdir():
        old.unlink()
    for number in range(jobs):
        draw(project / "inbox" / f"p{number:03}.png", number)
    process, chance = start(project, "--cluster", two.address), random.Random(0)
    mark = os.environ[MARK]
    try:
        for _ in range(kills):
            wait_until(lambda: workers(mark) or process.poll() is not None)
            time.sleep(chance.uniform(0, 1))  # any moment of a worker's life
            if alive := workers(mark):
                os.kill(chance.choice(alive), signal.SIGKILL)
        assert process.wait(600) == 0, (project / "run.log").read_text()
    finally:
        process.kill()
        process.wait()
    assert outputs(project) == [f"p{number:03}-ink.png" for number in range(jobs)]
    assert set(states(project).values()) == {"done"}
    done = [line for line in (project / "run.log").read_text().splitlines() if "done  " in line]
    assert len(done) == jobs


def test_a_cluster_of_this_machine_is_begun_and_ended_with_the_run(
    project: Path, tmp_path: Path
) -> None:
    settle(project, 2, cluster={"workers": 2})
    with marked(tmp_path) as mark:
        place = Path(os.environ.pop("RAY_TMPDIR"))
        done = subprocess.run(
            command("run", "--cluster", "local"), cwd=project, capture_output=True, text=True,
            env=os.environ | {"TMPDIR": str(place), "HOME": str(tmp_path)},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert outputs(project) == ["boat-ink.png", "hill-ink.png"]
        assert "ray" not in (done.stdout + done.stderr).lower().replace(str(tmp_path), "")
        assert not processes(mark) and list(place.iterdir()) == []
        assert not (tmp_path / ".ray").exists()


def test_check_says_which_workers_there_would_be(project: Path, two: Nodes, here: Program) -> None:
    settle(project, 2, cluster={"address": two.address})
    done = here("check", cwd=project)
    assert done.returncode == 0, done.stdout
    assert f"workers    2, by the cluster {two.address}" in done.stdout
    assert "1 on north: CPU, 1 thread" in done.stdout and "1 on south" in done.stdout


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_where_no_cluster_is_a_run_ends_and_says_so(
    project: Path, here: Program, scheme: str
) -> None:
    settle(project, 2)
    address = f"{scheme}127.0.0.1:{free_port()}"
    done = here("run", "--cluster", address, cwd=project)
    assert done.returncode == 69 and f"cluster {address}: nobody answers there" in done.stderr
    assert states(project) == {"boat.jpg": "queued", "hill.png": "queued"}
