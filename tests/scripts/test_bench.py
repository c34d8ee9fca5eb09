"""The bench runs, and its rows are well formed."""

import json
import subprocess
import sys
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec
from pathlib import Path

BENCH = Path(__file__).parents[2] / "scripts" / "bench"


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCH), *arguments], capture_output=True, text=True, timeout=120
    )


def test_every_comparison_gives_rows() -> None:
    options = "--quick", "--json", "--rounds", "1", "--iterations", "1", "--sizes", "48"
    done = bench("evaluation", "convolution", "transfer", "optimiser", *options)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["machine"]["threads"] == 1
    for row in found["rows"]["evaluation"]:
        assert 0 < row["low"] <= row["ratio"] <= row["high"]
        assert row["tutorial ms"] > 0 and row["engine ms"] > 0
        assert (row["size"], row["rounds"]) == (48, 1)
    assert {(row["in"], row["out"]) for row in found["rows"]["convolution"]} >= {
        (64, 64),
        (512, 512),
    }
    assert len(found["rows"]["transfer"]) == (2 if found["machine"]["cpu"] else 1)
    for row in found["rows"]["transfer"]:
        assert row["loss ratio"] > 0 and (row["recipe"], row["pictures"]) == ("tutorial", 1)
    assert [row["batch"] for row in found["rows"]["optimiser"]] == [1, 2, 1]


def test_every_way_to_a_picture_is_judged_and_the_tutorial_is_the_measure() -> None:
    done = bench("picture", "--quick", "--json", "--sizes", "48")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    rows = {row["painted by"]: row for row in found["rows"]["picture"]}
    fast = ["compact, bf16"] if found["machine"]["cpu"] else []
    assert [*rows] == ["tutorial", "rival", "compact, fp32", *fast]
    assert rows["tutorial"]["sooner"] >= 1
    assert all(row["loss in the end"] > 0 and row["seconds in all"] > 0 for row in rows.values())
    ours = rows["compact, fp32"]
    assert 0 < ours["as good after s"] <= ours["seconds in all"]


def test_a_change_is_compared_with_the_first_of_its_kind_on_the_same_pictures() -> None:
    done = bench("steps", "--quick", "--json", "--sizes", "48", "--rounds", "2")
    assert done.returncode == 0, done.stderr
    default, longer = json.loads(done.stdout)["rows"]["steps"]
    assert (default["change"], longer["change"]) == ("default, 10 steps", "20 steps")
    assert (default["cost"], longer["cost"]) == (11, 21)
    assert default["own"] == default["verdict"] == 1
    assert longer["own low"] < longer["own"] < longer["own high"] < 1


def test_what_people_wait_for_before_the_painting_is_measured() -> None:
    done = bench("start", "--quick", "--json", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]["start"]
    assert [row["what"] for row in rows] == [
        "check, the first of a day", "check", "start to the first iteration",
        "preview at 64 px, a style of three",
    ]  # fmt: skip
    assert all(0 < row["low"] <= row["seconds"] <= row["high"] for row in rows)


def test_workers_that_sleep_are_measured_and_each_job_is_done_once() -> None:
    done = bench("cluster", "--quick", "--json", "--workers", "3", "--jobs", "12")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]["cluster"]
    assert [(row["command"], row["workers"], row["jobs"]) for row in rows] == [
        ("run", 3, 12), ("watch", 3, 12), ("run", 3, 12), ("watch", 3, 12),
    ]  # fmt: skip
    assert all(0 <= row["waiting %"] < 100 for row in rows[:2])
    assert all(row["jobs/s"] > 0 and row["MB at the end"] > 0 for row in rows)


def test_a_document_gets_a_table_with_the_command_and_the_machine() -> None:
    loader = SourceFileLoader("bench", str(BENCH))
    module = module_from_spec(ModuleSpec("bench", loader, origin=str(BENCH)))
    module.__file__ = str(BENCH)
    loader.exec_module(module)
    rows = [{"size": 256, "ratio": 6.1234}, {"size": 1024, "peak MB": 1234.5}]
    lines = module.markdown("evaluation", rows, "scripts/bench evaluation", "cpu").splitlines()
    assert lines[0] == "## evaluation"
    assert "`scripts/bench evaluation`" in lines and "cpu" in lines
    assert lines[-4:] == [
        "| size | ratio | peak MB |",
        "| --- | --- | --- |",
        "| 256 | 6.12 |  |",
        "| 1024 |  | 1234 |",
    ]


def test_a_benchmark_that_is_not_known_is_told() -> None:
    done = bench("speed")
    assert done.returncode == 2 and "evaluation" in done.stderr
