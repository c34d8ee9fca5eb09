"""The whole program with the real engine: what no room can show by itself."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from support import SilentObserver, draw, make_home, manifests, outputs, run_once, wait_until

from nst_pipeline.config.pipeline import load
from nst_pipeline.engine import batch, tiles, transfer
from nst_pipeline.jobs.job import Job
from nst_pipeline.jobs.ledger import Ledger, ledger_path
from nst_pipeline.jobs.planning import Plan, make_scanner
from nst_pipeline.runner.runner import Runner
from nst_pipeline.workers.local import LocalExecutor


def test_a_job_that_ran_out_of_memory_may_be_tried_again(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def paint(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(batch.Batch, "paint", paint)
    config = load(project / "pipeline.yaml")
    observer = SilentObserver()
    run_once(config, LocalExecutor, observer)
    assert {record.status for record in observer.records} == {"failed"}
    with Ledger(ledger_path(config.state)) as ledger:
        assert {(e.state, e.attempts) for e in ledger.jobs.all()} == {("queued", 1)}


@pytest.mark.parametrize(
    ("tile", "way_out"),
    [("on", "a smaller recipe.size"), ("off", "tile to 'on', or a smaller recipe.size")],
)
def test_pipeline_yaml_says_whether_to_paint_in_tiles(
    tile: str, way_out: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "available_bytes", lambda device: 10**6)
    with (project / "pipeline.yaml").open("a") as settings:
        settings.write(f"tile: {tile}\n")
    observer = SilentObserver()
    run_once(load(project / "pipeline.yaml"), LocalExecutor, observer)
    reasons = [record.error.reason for record in observer.records if record.error]
    assert len(reasons) == 4
    for reason in reasons:
        assert "memory: the picture of 48 x 36 needs" in reason
        assert reason.endswith(f"; set {way_out}")


def test_the_whole_daemon_paints_with_the_network(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", on_success="move", recipe={"size": 64, "iterations": 3})
    draw(home / "inbox/a.png", 1)
    process = subprocess.Popen(
        [sys.executable, "-m", "nst_pipeline", "watch"], cwd=home, stderr=subprocess.DEVNULL
    )
    try:
        wait_until((home / "processed/a.png").exists)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    with Image.open(home / "outbox/a-s.png") as output:
        assert output.size == (64, 48)
    (manifest,) = manifests(home)
    job = manifest["jobs"][0]
    assert job["losses"]["end"]["total"] < job["losses"]["start"]["total"]
    assert manifest["run"]["status"] == "finished" and manifest["device"]["name"].startswith("cpu")


@pytest.mark.parametrize(
    ("recipe", "steps"),
    [
        ("{size: 48, scales: 1, iterations: [3, 4]}", 3),
        ("{size: 64, scales: [32, 48], iterations: [2]}", 6),
        ("{size: 64, iterations: [2, 3, 4]}", 9),
        ("{size: original, scales: [32, 48, 512], iterations: [2]}", 6),
        ("{size: 48, iterations: 5}", 5),
    ],
)
def test_progress_counts_the_steps_that_are_done(project: Path, recipe: str, steps: int) -> None:
    settings = (project / "pipeline.yaml").read_text()
    (project / "pipeline.yaml").write_text(settings.replace("{size: 48, iterations: 3}", recipe))
    (project / "inbox/hill.png").unlink()
    counted: list[tuple[int, int]] = []

    class Counting(SilentObserver):
        def stepped(self, job: Job, done: int, total: int, loss: float) -> None:
            counted.append((done, total))

    observer = Counting()
    run_once(load(project / "pipeline.yaml"), LocalExecutor, observer)
    assert {total for _, total in counted} == {steps}
    assert [record.iterations for record in observer.records] == [steps, steps]
    assert max(done for done, _ in counted) <= steps


@pytest.mark.parametrize("what", ["content", "mask", "style"])
def test_a_file_that_changes_while_its_picture_waits_makes_new_work_and_gives_nothing_up(
    tmp_path: Path, what: str
) -> None:
    styles = {"s": "style.png", "t": "style2.png"} if what == "style" else {"s": "style.png"}
    watch = {"settle_seconds": 0, "grace_seconds": 0}
    home = make_home(tmp_path / "home", styles=styles, watch=watch, limits={"batch": 1})
    draw(home / "inbox/a.png", 1)
    draw(home / "inbox/b.png", 2)
    draw(home / "inbox/b.mask.png", 3)
    name = {"content": "inbox/b.png", "mask": "inbox/b.mask.png", "style": "style2.png"}[what]

    class Meddling(SilentObserver):
        def planned(self, plan: Plan) -> None:
            super().planned(plan)
            if len(self.plans) == 1:
                draw(home / name, 77)

    config, observer = load(home / "pipeline.yaml"), Meddling()
    with Runner(config, LocalExecutor, observer) as runner:
        scanner = make_scanner(config)
        wait_until(lambda: runner.run_standing(scanner) or len(outputs(home)) == 2 * len(styles))
    assert not (home / "failed").exists()
    assert {record.status for record in observer.records} == {"done"}


def test_a_network_that_memory_has_no_room_for_fails_its_jobs_and_not_the_run(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(transfer, "_trunk", refuse)
    observer = SilentObserver()
    run_once(load(project / "pipeline.yaml"), LocalExecutor, observer)
    assert [record.status for record in observer.records] == ["failed"] * 4
    assert all("no memory is left" in r.error.reason for r in observer.records if r.error)
