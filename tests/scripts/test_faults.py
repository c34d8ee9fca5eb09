"""A sample of what scripts/faults does in full: a run broken at the calls that matter most."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FAULTS = Path(__file__).parents[2] / "scripts" / "faults"

pytestmark = pytest.mark.skipif(
    shutil.which("strace") is None, reason="needs strace (apt-get install strace)"
)


@pytest.mark.parametrize(
    ("policies", "calls", "sample"),
    [
        ("move", "renameat,renameat2,linkat", 1),
        ("delete", "fdatasync", 8),
        ("delete", "unlinkat", 2),
    ],
)
def test_a_run_that_is_killed_at_a_call_loses_nothing(
    policies: str, calls: str, sample: int
) -> None:
    done = subprocess.run(
        [
            sys.executable, str(FAULTS), "--parts", "run", "--no-errors", "--policies", policies,
            "--calls", calls, "--sample", str(sample),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("0 problems\n")


def test_a_disk_that_fails_or_fills_loses_nothing() -> None:
    done = subprocess.run(
        [
            sys.executable, str(FAULTS), "--parts", "run", "--policies", "move",
            "--calls", "fsync", "--sample", "7",
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("part", "call", "sample"), [("watch", "renameat2", 1), ("transient", "openat", 4)]
)
def test_a_daemon_that_is_killed_or_cannot_read_loses_and_blames_nothing(
    part: str, call: str, sample: int
) -> None:
    done = subprocess.run(
        [
            sys.executable, str(FAULTS), "--parts", part, "--policies", "move",
            "--calls", call, "--sample", str(sample),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("0 problems\n")
