"""Temporary folders go with their process, or with the next."""

import fcntl
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from nst_pipeline.workers.scratch import make_scratch, remove_scratch

KILLED = """
import os, signal
from nst_pipeline.workers.scratch import make_scratch
print((make_scratch() / "file").write_text("left"), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


def test_what_a_killed_process_left_goes_with_the_next_and_nothing_else(tmp_path: Path) -> None:
    other = tmp_path / "nst-pipeline-notes"
    other.mkdir()
    mine = make_scratch()
    subprocess.run([sys.executable, "-c", KILLED], check=False, stdout=subprocess.DEVNULL)
    assert len(list(tmp_path.iterdir())) == 3
    second = make_scratch()
    assert set(tmp_path.iterdir()) == {other, mine, second}
    for folder in (mine, second):
        remove_scratch(folder)
    assert list(tmp_path.iterdir()) == [other]


def test_where_names_would_be_too_long_it_is_below_tmp(tmp_path: Path) -> None:
    folder = make_scratch(most_letters=3)
    assert folder.parent == Path("/tmp") and folder.stat().st_mode & 0o777 == 0o700
    remove_scratch(folder)
    assert not folder.exists()


def test_who_comes_while_one_is_made_leaves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, others = fcntl.flock, []

    def flock_late(descriptor: int, how: int) -> None:
        if not others:
            others.append(None)
            others.append(make_scratch())
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock_late)
    mine = make_scratch()
    assert set(tmp_path.iterdir()) == {mine, others[1]}
    for folder in (mine, others[1]):
        remove_scratch(folder)
    assert list(tmp_path.iterdir()) == []
