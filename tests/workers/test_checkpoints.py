"""Work that goes on where it was ended."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Program, picture

from nst_pipeline.workers import checkpoints

ENDED = """
import os, sys
from nst_pipeline import cli
from nst_pipeline.workers import checkpoints
number, keep = int(sys.argv.pop()), checkpoints.keep
def keep_and_end(*arguments):
    keep(*arguments)
    checkpoints.keep = keep
    os.kill(os.getpid(), number)
checkpoints.keep = keep_and_end
cli.main()
"""
"""The program, sent the signal of its last argument once there is a checkpoint."""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_was_ended_goes_on_and_ends_as_if_it_never_was(
    project: Path, here: Program, how: signal.Signals
) -> None:
    settings = (project / "pipeline.yaml").read_text()
    (project / "inbox/hill.png").unlink()
    picture(64, 48, seed=1).save(project / "inbox/boat.jpg")
    settings = settings.replace("{size: 48, iterations: 3}", "{size: 64, iterations: 100}")
    (project / "pipeline.yaml").write_text(settings + "checkpoint_seconds: 0.1\n")
    assert here("run", "-s", "ink", cwd=project).returncode == 0
    output = project / "outbox/boat-ink.png"
    whole = output.read_bytes()
    manifest = json.loads(next((project / "outbox/manifests").glob("*.json")).read_text())
    for folder in ("outbox", "state"):
        subprocess.run(["rm", "-r", project / folder], check=True)
    folder = project / "state/checkpoints"
    words = [sys.executable, "-c", ENDED, "run", "-s", "ink", str(int(how))]
    done = subprocess.run(words, cwd=project, capture_output=True, check=False)
    assert done.returncode == (-how if how == signal.SIGKILL else 128 + how)
    assert not output.exists()
    assert list(folder.glob("[0-9a-f]*-*"))
    assert here("run", "-s", "ink", cwd=project).returncode == 0
    assert output.read_bytes() == whole
    assert not list(folder.glob("[0-9a-f]*-*"))
    assert manifest["jobs"][0]["iterations"] == 100
    path = max(
        (project / "outbox/manifests").glob("*.json"), key=lambda one: one.stat().st_mtime_ns
    )
    (resumed,) = json.loads(path.read_text())["jobs"]
    assert resumed["curve"] == manifest["jobs"][0]["curve"] != []
    assert sum(len(scale["steps"]) for scale in resumed["curve"]) <= 100


def test_checkpoints_go_with_the_jobs_that_they_are_of(tmp_path: Path) -> None:
    checkpoints.keep(tmp_path, ["a" * 64, "b" * 64], b"both")
    checkpoints.keep(tmp_path, ["c" * 64], b"one")
    assert checkpoints.find(tmp_path, ["a" * 64, "b" * 64]) == b"both"
    assert checkpoints.find(tmp_path, ["a" * 64]) is None
    assert checkpoints.of_jobs(tmp_path, ["a" * 64, "b" * 64]) == {
        checkpoints.name(["a" * 64, "b" * 64]): b"both"
    }
    checkpoints.forget(tmp_path, "a" * 64)
    assert checkpoints.find(tmp_path, ["a" * 64, "b" * 64]) is None
    assert checkpoints.find(tmp_path, ["c" * 64]) == b"one"


def test_work_in_the_middle_is_for_nobody_else_to_see(tmp_path: Path) -> None:
    checkpoints.keep(tmp_path, ["key"], b"pixels")
    (path,) = (tmp_path / "checkpoints").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
