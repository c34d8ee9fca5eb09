"""Where a picture and its companions go when nothing is left to do for them."""

import json
import os
from pathlib import Path

import pytest
from support import (
    SilentObserver,
    Watch,
    configure,
    draw,
    make_home,
    outputs,
    painted,
    plan_of,
    program,
    run_once,
    wait_until,
)

from nst_pipeline.config.pipeline import Config
from nst_pipeline.files import signature
from nst_pipeline.folders import Folders
from nst_pipeline.jobs import file_table
from nst_pipeline.jobs.file_table import Move
from nst_pipeline.jobs.ledger import Ledger, ledger_path
from nst_pipeline.manifest.model import JobRecord
from nst_pipeline.runner import moves


def run(config: Config) -> list[JobRecord]:
    observer = SilentObserver()
    run_once(config, None, observer)
    return observer.records


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


@pytest.mark.parametrize("policy", ["keep", "move", "delete"])
def test_companions_go_where_their_picture_goes(config: Config, policy: str) -> None:
    draw(config.inbox / "a.mask.png", 2)
    draw(config.inbox / "a.init.png", 3)
    both = {"a.png", "a.mask.png", "a.init.png"}
    changed = config.model_copy(update={"on_success": policy})
    assert [record.status for record in run(changed)] == ["done"]
    assert names(config.inbox) == (both if policy == "keep" else set())
    assert names(config.processed) == (both if policy == "move" else set())


def test_companions_stay_for_another_picture_of_the_same_stem(config: Config) -> None:
    draw(config.inbox / "a.jpg", 4)
    draw(config.inbox / "a.mask.png", 2)
    run(config.model_copy(update={"on_success": "move"}))
    assert names(config.inbox) == set()
    assert names(config.processed) == {"a.png", "a.jpg", "a.mask.png"}
    draw(config.inbox / "a.png", 5)
    draw(config.inbox / "a.jpg", 6)
    draw(config.inbox / "a.mask.png", 7)
    (config.inbox.parent / "orders/a.jpg").write_text("fail")
    run(config.model_copy(update={"on_success": "move"}))
    assert names(config.inbox) == {"a.jpg", "a.mask.png"}


@pytest.mark.parametrize("kind", ["move", "delete"])
@pytest.mark.parametrize("done", [0, 1])
def test_a_kill_between_a_picture_and_its_companions_is_made_good(
    config: Config, monkeypatch: pytest.MonkeyPatch, kind: str, done: int
) -> None:
    draw(config.inbox / "a.mask.png", 2)
    planned = []
    for name in ("a.png", "a.mask.png"):
        path = config.inbox / name
        known = signature(path.stat())
        target = config.processed / name
        planned.append(
            Move(path, target, known, "move")
            if kind == "move"
            else moves.deletion(Folders(), path, known)
        )
    carry_out, carried = moves._carry_out, []

    def killed(ledger: Ledger, folders: Folders, move: Move) -> Path | None:
        if len(carried) == done:
            raise KeyboardInterrupt
        carried.append(move)
        return carry_out(ledger, folders, move)

    with Ledger(ledger_path(config.state)) as ledger:
        monkeypatch.setattr(moves, "_carry_out", killed)
        with pytest.raises(KeyboardInterrupt):
            moves.dispose(ledger, Folders(), planned[0], planned[1:])
        monkeypatch.undo()
        assert len(ledger.files.intended()) == 2 - done
        moves.recover(ledger, Folders())
        assert not ledger.files.intended()
    assert names(config.inbox) == set()
    assert names(config.processed) == ({"a.png", "a.mask.png"} if kind == "move" else set())


def test_a_companion_that_changed_stays_and_a_changed_picture_keeps_its_companions(
    config: Config,
) -> None:
    draw(config.inbox / "a.mask.png", 2)
    planned = [
        Move(path, config.processed / path.name, signature(path.stat()), "move")
        for path in (config.inbox / "a.png", config.inbox / "a.mask.png")
    ]
    with Ledger(ledger_path(config.state)) as ledger:
        os.utime(config.inbox / "a.png", ns=(1, 1))
        assert moves.dispose(ledger, Folders(), planned[0], planned[1:]) is None
        assert names(config.inbox) == {"a.png", "a.mask.png"} and not ledger.files.intended()
        path = config.inbox / "a.png"
        planned[0] = Move(path, config.processed / "a.png", signature(path.stat()), "move")
        os.utime(config.inbox / "a.mask.png", ns=(1, 1))
        assert (
            moves.dispose(ledger, Folders(), planned[0], planned[1:]) == config.processed / "a.png"
        )
        assert names(config.inbox) == {"a.mask.png"} and not ledger.files.intended()


def test_a_finished_picture_with_companions_is_left_out_of_no_plan(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_table, "RACY_NS", 0)
    draw(config.inbox / "b.png", 2)
    draw(config.inbox / "a.mask.png", 3)
    for _ in range(2):
        run(config)
        with Ledger(ledger_path(config.state)) as ledger:
            assert [
                Path(path).name for path in ledger.files.finished(plan_of(config, ledger).digest)
            ] == ["b.png"]


def test_watch_paints_anew_when_a_mask_comes_changes_or_goes(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    draw(home / "inbox/a.png", 1)
    with Watch(home) as watch:
        watch.until_outputs("a-s.png")
        watch.until_idle()
        for number, change in enumerate((2, 3), 2):
            draw(home / "inbox/a.mask.png", change)
            wait_until(lambda number=number: len(painted(home)) == number)
            watch.until_idle()
        watch.stop()
    (home / "inbox/a.mask.png").unlink()
    with Watch(home) as watch:
        wait_until(lambda: len(painted(home)) == 4)
        watch.until_idle()
    assert outputs(home) == ["a-s.png"]


def test_watch_gives_a_picture_up_with_its_companions_and_retry_brings_both_back(
    tmp_path: Path,
) -> None:
    home = make_home(tmp_path / "home")
    configure(home, on_success="move")
    draw(home / "inbox/a.mask.png", 2)
    (home / "orders/a.png").write_text("fail")
    draw(home / "inbox/a.png", 1)
    with Watch(home) as watch:
        wait_until((home / "failed/a.mask.png").exists)
        watch.until_idle()
        report = json.loads((home / "failed/a.mask.png.error.json").read_text())
        assert "goes with a.png" in report["reason"]
        assert "nst-pipeline retry a.png" in report["retry"]
        (home / "orders/a.png").unlink()
        assert program(home, "retry", "a.png").returncode == 0
        watch.until_outputs("a-s.png")
        wait_until((home / "processed/a.mask.png").exists)
        watch.until_idle()
    assert names(home / "processed") == {"a.png", "a.mask.png"}
    assert not names(home / "failed") and not names(home / "inbox")
    assert painted(home) == ["a.png"]
