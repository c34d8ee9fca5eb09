"""A short month of small jobs, as scripts/month lives through a whole one."""

import subprocess
import sys
from pathlib import Path

MONTH = Path(__file__).parents[2] / "scripts" / "month"


def test_a_month_of_small_jobs_is_painted_and_what_piles_up_is_bounded(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, MONTH, "--jobs", "60", "--days", "10", "--bursts", "6",
         "--on-success", "move", "--folder", tmp_path],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    heading, _, *rows = done.stdout.splitlines()
    names = [cell.strip() for cell in heading.strip("|").split("|")]
    assert len(rows) == 10 and not list(tmp_path.iterdir())
    last = dict(zip(names, map(float, rows[-1].strip("|").split("|")), strict=True))
    assert (last["jobs"], last["targets"], last["manifests"]) == (60, 60, 60)
    assert last["checkpoints"] <= 7 * 6 + 1
