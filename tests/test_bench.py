"""The bench runs, and its rows are well formed."""

import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[1] / "scripts" / "bench"


def test_evaluation_compares_the_engine_with_the_tutorial() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCH), "evaluation", "--quick", "--json", "--rounds", "2"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["machine"]["threads"] == 1
    rows = found["rows"]["evaluation"]
    assert {row["weights"] for row in rows} == {"frozen", "with gradients"}
    for row in rows:
        assert 0 < row["low"] <= row["ratio"] <= row["high"]
        assert row["tutorial ms"] > 0 and row["engine ms"] > 0
