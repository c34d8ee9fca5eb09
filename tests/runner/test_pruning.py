"""What piles up beside the results is counted, and pruned in order."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from support import (
    Watch,
    configure,
    draw,
    make_home,
    manifests,
    outputs,
    program,
    run_once,
    states,
    wait_until,
)

from nst_pipeline.config.pipeline import Config
from nst_pipeline.runner.pruning import Kept, kept, prune

DAY = 86_400.0


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_home(tmp_path / "home")


def put(path: Path, count: int = 1, age_days: float = 0) -> None:
    """Write a file of so many bytes that was last used so long ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * count)
    used = time.time() - age_days * DAY
    os.utime(path, (used, used))


def with_keep(home: Path, **keep: Any) -> Config:
    return configure(home, keep=keep)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_targets_that_were_not_used_for_the_longest_time_go_first(home: Path) -> None:
    config = with_keep(home, targets_bytes=250)
    for number, age in enumerate((3, 9, 1, 5)):
        put(config.state / f"targets/{number}.safetensors", 100, age)
    put(config.state / "targets/.nst-unfinished", 1000, 99)
    assert prune(config, set())["targets"] == Kept(2, 200)
    assert names(config.state / "targets") == [
        ".nst-unfinished", "0.safetensors", "2.safetensors",
    ]  # fmt: skip


def test_checkpoints_of_jobs_that_do_not_wait_go_when_they_are_old(home: Path) -> None:
    config = with_keep(home, checkpoint_days=7)
    for key, age in (("a", 8), ("b", 6), ("c", 8)):
        put(config.state / f"checkpoints/{key}-0", 10, age)
    assert prune(config, {"c"})["checkpoints"] == Kept(2, 20)
    assert names(config.state / "checkpoints") == ["b-0", "c-0"]


def test_the_last_manifests_stay_and_nothing_else_is_touched(home: Path) -> None:
    config = with_keep(home, manifests=2)
    folder = config.outbox / "manifests"
    for day in (3, 1, 2):
        put(folder / f"2026010{day}T000000Z-00ff.json", 1, 10 - day)
    put(folder / "notes.json", 1, 99)
    assert prune(config, set())["manifests"] == Kept(2, 2)
    assert names(folder) == [
        "20260102T000000Z-00ff.json", "20260103T000000Z-00ff.json", "notes.json",
    ]  # fmt: skip


def test_nothing_is_pruned_or_counted_through_a_link(home: Path, tmp_path: Path) -> None:
    config = with_keep(home, manifests=1)
    theirs = tmp_path / "theirs"
    for day in (1, 2, 3):
        put(theirs / f"2026010{day}T000000Z-00ff.json")
    config.outbox.mkdir(exist_ok=True)
    (config.outbox / "manifests").symlink_to(theirs)
    assert prune(config, set())["manifests"] == Kept(0, 0)
    assert len(names(theirs)) == 3


def test_where_nothing_piled_up_there_is_nothing_to_prune(home: Path) -> None:
    config = with_keep(home)
    assert (
        kept(config)
        == prune(config, set())
        == {kind: Kept(0, 0) for kind in ("checkpoints", "targets", "manifests")}
    )


def test_a_run_prunes_when_it_is_over(home: Path) -> None:
    config = with_keep(home, manifests=2, targets_bytes=0)
    for number in range(4):
        draw(home / f"inbox/{number}.png", number)
        put(config.state / "targets/t", 10)
        run_once(config)
    assert len(manifests(home)) == 2 and len(outputs(home)) == 4
    assert not names(config.state / "targets")
    done = [job for run in manifests(home) for job in run["jobs"] if job["status"] == "done"]
    assert sorted(Path(job["content"]["path"]).name for job in done) == ["2.png", "3.png"]


def test_a_cancelled_jobs_checkpoint_stays_for_its_time_and_is_counted(home: Path) -> None:
    configure(home, metrics={"textfile": str(home / "nst.prom")})
    draw(home / "inbox/a.png", 1)
    (home / "orders/a.png").write_text("slow")
    with Watch(home) as watch:
        watch.until_painting()
        put(home / "state/checkpoints/0123-4567", 1_000_000, 6)
        assert program(home, "cancel", "a.png").returncode == 0
        wait_until(lambda: states(home) == {"a.png": "cancelled"})
        watch.until_idle()
        assert watch.status()["kept"]["checkpoints"] == {"files": 1, "bytes": 1_000_000}
        assert "kept       1 checkpoint (1 MB), 0 targets (0 MB)" in program(home, "status").stdout
        assert json.loads(program(home, "status", "--json").stdout)["kept"]["manifests"]["files"]
        put(home / "state/checkpoints/0123-4567", 1_000_000, 8)
        draw(home / "inbox/b.png", 2)
        watch.until_outputs("b-s.png")
        wait_until(lambda: not names(home / "state/checkpoints"))
        assert watch.stop() == 0
    text = (home / "nst.prom").read_text()
    assert 'nst_pipeline_kept_files{kind="manifests"} 2.0' in text
    assert 'nst_pipeline_kept_bytes{kind="checkpoints"} 0.0' in text
