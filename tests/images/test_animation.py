"""Snapshots, animations, and work that goes on where it was ended."""

import io
import json
import signal
import subprocess
from pathlib import Path

import pytest
from conftest import Program, command, picture
from PIL import Image
from support import wait_until

from nst_pipeline.config.settings import OutputSettings
from nst_pipeline.images.animation import animate, extra_path, snapshot_steps
from nst_pipeline.workers import checkpoints


def test_snapshots_lie_beside_the_result_and_the_manifest_names_them(
    project: Path, program: Program
) -> None:
    done = program("run", "--snapshots", "2", "--making", "gif", "--iterations", "5", "--json",
                   "-s", "ink", cwd=project)  # fmt: skip
    assert done.returncode == 0, done.stderr
    outbox = project / "outbox"
    steps = sorted(path.name for path in (outbox / "boat-ink.steps").iterdir())
    assert steps == ["00002.png", "00004.png"]
    with Image.open(outbox / "boat-ink.gif") as gif, Image.open(outbox / "boat-ink.png") as result:
        assert gif.n_frames == 3
        assert gif.size == result.size
    with Image.open(outbox / "boat-ink.steps/00002.png") as early:
        description = json.loads(early.getexif()[0x010E])
    assert description["steps"] == 2 and description["style"] == "ink"
    manifest = json.loads(done.stdout)
    assert manifest["jobs"][0]["extras"] == [
        str(outbox / "boat-ink.steps/00002.png"), str(outbox / "boat-ink.steps/00004.png"),
        str(outbox / "boat-ink.gif"),
    ]  # fmt: skip


def test_snapshots_do_not_make_finished_work_new(project: Path, program: Program) -> None:
    assert program("run", cwd=project).returncode == 0
    again = program("run", "--making", "webp", cwd=project)
    assert "nothing to do" in again.stdout


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_an_animation_ends_with_the_result_at_its_size(kind: str) -> None:
    frames = [(1, picture(32, 24, seed=1)), (2, picture(64, 48, seed=2))]
    data = animate(frames, Image.new("RGB", (64, 48), "red"), kind)
    with Image.open(io.BytesIO(data)) as animation:
        assert animation.n_frames == 3 and animation.size == (64, 48)
        animation.seek(2)
        red, green, blue = animation.convert("RGB").getpixel((30, 20))
    assert red > 240 and green < 15 and blue < 15


def test_an_animation_alone_takes_its_own_number_of_snapshots() -> None:
    assert snapshot_steps(OutputSettings(), 300) == 0
    assert snapshot_steps(OutputSettings(making="gif"), 300) == 10
    assert snapshot_steps(OutputSettings(making="gif"), 5) == 1
    assert snapshot_steps(OutputSettings(making="gif", snapshots=50), 300) == 50


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".steps/00010.png"])
def test_the_longest_name_of_a_result_still_has_extras_of_its_own(
    tmp_path: Path, suffix: str
) -> None:
    assert extra_path(tmp_path / "photo-ink.png", suffix) == tmp_path / f"photo-ink{suffix}"
    results = [tmp_path / ("p" * 250 + f"{letter}.png") for letter in "ab"]
    extras = {extra_path(result, suffix) for result in results}
    for path in (*results, *extras):
        path.parent.mkdir(exist_ok=True)
        path.touch(exist_ok=False)
    assert len(extras) == 2


def _start(project: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(command("run", "-s", "ink"), cwd=project, stderr=subprocess.PIPE)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_was_ended_goes_on_and_ends_as_if_it_never_was(
    project: Path, program: Program, how: signal.Signals
) -> None:
    settings = (project / "pipeline.yaml").read_text()
    (project / "inbox/hill.png").unlink()
    picture(64, 48, seed=1).save(project / "inbox/boat.jpg")
    settings = settings.replace("{size: 48, iterations: 3}", "{size: 64, iterations: 100}")
    (project / "pipeline.yaml").write_text(settings + "checkpoint_seconds: 0.1\n")
    assert program("run", "-s", "ink", cwd=project).returncode == 0
    output = project / "outbox/boat-ink.png"
    whole = output.read_bytes()
    manifest = json.loads(next((project / "outbox/manifests").glob("*.json")).read_text())
    for folder in ("outbox", "state"):
        subprocess.run(["rm", "-r", project / folder], check=True)
    process = _start(project)
    folder = project / "state/checkpoints"
    try:
        wait_until(lambda: folder.is_dir() and any(folder.glob("[0-9a-f]*-*")))
        process.send_signal(how)
    finally:
        process.communicate(timeout=60)
    assert not output.exists()
    assert list(folder.glob("[0-9a-f]*-*"))
    assert program("run", "-s", "ink", cwd=project).returncode == 0
    assert output.read_bytes() == whole
    assert not list(folder.glob("[0-9a-f]*-*"))
    assert manifest["jobs"][0]["iterations"] == 100


def test_checkpoints_go_with_the_jobs_that_they_are_of(tmp_path: Path) -> None:
    checkpoints.keep(tmp_path, ["a" * 64, "b" * 64], b"both")
    checkpoints.keep(tmp_path, ["c" * 64], b"one")
    assert checkpoints.find(tmp_path, ["a" * 64, "b" * 64]) == b"both"
    assert checkpoints.find(tmp_path, ["a" * 64]) is None
    checkpoints.forget(tmp_path, "a" * 64)
    assert checkpoints.find(tmp_path, ["a" * 64, "b" * 64]) is None
    checkpoints.forget_all_but(tmp_path, {"c" * 64})
    assert checkpoints.find(tmp_path, ["c" * 64]) == b"one"
    checkpoints.forget_all_but(tmp_path, set())
    assert checkpoints.find(tmp_path, ["c" * 64]) is None
