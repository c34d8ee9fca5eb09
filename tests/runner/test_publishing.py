"""The commit protocol and the way back in: every state that a kill can leave."""

import dataclasses
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import FakeExecutor, Silent, configure, draw, make_home, outputs, painted

from nst_pipeline.config.pipeline import Config, load
from nst_pipeline.digests import bytes_digest
from nst_pipeline.errors import Abandoned, CannotCreateError, DiskFullError, ImageError
from nst_pipeline.files import free_bytes, numbered, rename_new, signature
from nst_pipeline.inbox import reading
from nst_pipeline.jobs.ledger import Entry, Ledger
from nst_pipeline.jobs.planning import ledger_path, make_plan
from nst_pipeline.runner import moves, publishing
from nst_pipeline.runner.runner import Hooks, run_once


@pytest.fixture
def config(tmp_path: Path) -> Config:
    home = make_home(tmp_path / "home", watch={"settle_seconds": 0})
    draw(home / "inbox/a.png", 1)
    return load(home / "pipeline.yaml")


@pytest.fixture
def ledger(config: Config) -> Iterator[Ledger]:
    with Ledger(ledger_path(config)) as ledger:
        yield ledger


def queue(config: Config, ledger: Ledger) -> Entry:
    """Queue and start the only job, as if a process then had been killed."""
    (entry,) = ledger.enqueue(make_plan(config, ledger).todo)
    ledger.start([entry.id])
    ledger.set_fact("clean", "no")
    entry.output.parent.mkdir(exist_ok=True)
    return ledger.entry(entry.id)


def result(home: Path) -> bytes:
    draw(home / "result.png", 77)
    return (home / "result.png").read_bytes()


def run(config: Config, **options: object) -> Silent:
    listener = Silent()
    run_once(config, FakeExecutor, listener, **options)  # type: ignore[arg-type]
    return listener


def home_of(config: Config) -> Path:
    return config.inbox.parent


# Recovery, state by state


def test_a_published_result_that_was_not_noted_is_noted_not_painted_again(
    config: Config, ledger: Ledger
) -> None:
    entry = queue(config, ledger)
    data = result(home_of(config))
    entry.output.write_bytes(data)
    ledger.commit_begins(
        entry.id, entry.output, entry.output.with_name(".nst-x"), bytes_digest(data)
    )
    run(config)
    assert ledger.entry(entry.id).state == "done" and painted(home_of(config)) == []
    assert entry.output.read_bytes() == data


@pytest.mark.parametrize("on_success", ["keep", "move"])
def test_a_finished_temporary_file_is_published_not_painted_again(
    config: Config, ledger: Ledger, on_success: str
) -> None:
    config = configure(home_of(config), on_success=on_success, watch={"settle_seconds": 0})
    entry = queue(config, ledger)
    data = result(home_of(config))
    temporary = entry.output.with_name(".nst-x")
    temporary.write_bytes(data)
    ledger.commit_begins(entry.id, entry.output, temporary, bytes_digest(data))
    run(config)
    assert entry.output.read_bytes() == data and painted(home_of(config)) == []
    assert outputs(home_of(config)) == ["a-s.png"]


def test_half_a_temporary_file_is_removed_and_the_job_done_again(
    config: Config, ledger: Ledger
) -> None:
    entry = queue(config, ledger)
    data = result(home_of(config))
    temporary = entry.output.with_name(".nst-x")
    temporary.write_bytes(data[:100])
    ledger.commit_begins(entry.id, entry.output, temporary, bytes_digest(data))
    run(config)
    assert painted(home_of(config)) == ["a.png"] and outputs(home_of(config)) == ["a-s.png"]
    assert ledger.entry(entry.id).state == "done"


def test_another_file_under_the_final_name_is_not_taken_for_the_result(
    config: Config, ledger: Ledger
) -> None:
    entry = queue(config, ledger)
    entry.output.write_bytes(b"somebody else's")
    ledger.commit_begins(entry.id, entry.output, entry.output.with_name(".nst-x"), "0" * 64)
    run(config)
    assert painted(home_of(config)) == ["a.png"]


def test_a_job_that_was_at_work_is_queued_until_it_killed_too_often(
    config: Config, ledger: Ledger
) -> None:
    entry = queue(config, ledger)
    for attempt in (1, 2):
        publishing.recover(ledger, "replace", 3, lambda _: None)
        assert ledger.entry(entry.id).state == "queued"
        assert ledger.entry(entry.id).attempts == attempt
        ledger.start([entry.id])
    publishing.recover(ledger, "replace", 3, lambda _: None)
    assert ledger.entry(entry.id).state == "failed" and ledger.entry(entry.id).poison
    listener = run(config)
    assert [record.status for record in listener.records] == ["failed"]
    assert painted(home_of(config)) == []


def test_an_interrupt_in_good_order_counts_as_no_attempt(config: Config, ledger: Ledger) -> None:
    class Interrupted(FakeExecutor):
        def poll(self):  # type: ignore[no-untyped-def]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_once(config, Interrupted, Silent())
    (entry,) = ledger.entries()
    assert (entry.state, entry.attempts) == ("queued", 0)
    assert not list((config.state / "work").iterdir())


def test_a_job_that_is_abandoned_goes_back_and_the_next_one_is_painted(
    config: Config, ledger: Ledger
) -> None:
    draw(config.inbox / "b.png", 2)

    class Picky(FakeExecutor):
        def poll(self):  # type: ignore[no-untyped-def]
            if self._tasks[0].content.path.name == "a.png":
                self._tasks.clear()
                raise Abandoned
            return super().poll()

    run_once(config, Picky, Silent(), hooks=Hooks())
    assert outputs(home_of(config)) == ["b-s.png"]
    assert {e.source.name: e.state for e in ledger.entries()} == {
        "a.png": "queued", "b.png": "done",
    }  # fmt: skip


def test_a_result_that_cannot_be_decoded_is_never_published(config: Config, ledger: Ledger) -> None:
    entry = queue(config, ledger)
    with pytest.raises(ImageError):
        publishing.commit(ledger, entry, b"no picture", "replace")
    assert not list(config.outbox.iterdir())


# Names that are taken


def test_no_file_is_ever_replaced_by_chance(config: Config, ledger: Ledger) -> None:
    entry = queue(config, ledger)
    entry.output.write_bytes(b"theirs")
    data = result(home_of(config))
    with pytest.raises(publishing.ConflictError):
        publishing.commit(ledger, entry, data, "fail")
    final, _ = publishing.commit(ledger, entry, data, "suffix")
    assert final == numbered(entry.output, 2) and final.read_bytes() == data
    assert entry.output.read_bytes() == b"theirs"
    assert ledger.entry(entry.id).final == final


def test_rename_new_never_replaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nst_pipeline import files

    for way in ("kernel", "links"):
        if way == "links":
            monkeypatch.setattr(files, "_renameat2", lambda: None)
        (tmp_path / "a").write_text("a")
        (tmp_path / "b").write_text("b")
        with pytest.raises(FileExistsError):
            rename_new(tmp_path / "a", tmp_path / "b")
        assert (tmp_path / "b").read_text() == "b"
        rename_new(tmp_path / "a", tmp_path / "c")
        assert (tmp_path / "c").read_text() == "a" and not (tmp_path / "a").exists()
        (tmp_path / "c").unlink()


def test_older_outputs_that_were_written_over_are_no_longer_done(
    config: Config, ledger: Ledger
) -> None:
    run(config)
    first = (config.inbox / "a.png").read_bytes()
    draw(config.inbox / "a.png", 2)
    run(config)
    assert sorted(entry.state for entry in ledger.entries()) == ["done", "replaced"]
    (config.inbox / "a.png").write_bytes(first)
    run(config)
    assert painted(home_of(config)) == ["a.png"] * 3


# Duplicates


def test_a_duplicate_is_a_hard_link_and_an_edited_output_is_no_source_of_them(
    config: Config, ledger: Ledger
) -> None:
    shutil.copy(config.inbox / "a.png", config.inbox / "b.png")
    run(config)
    assert (config.outbox / "a-s.png").samefile(config.outbox / "b-s.png")
    (config.outbox / "a-s.png").unlink()
    (config.outbox / "b-s.png").write_bytes(b"edited")
    shutil.copy(config.inbox / "a.png", config.inbox / "c.png")
    run(config, paths=[config.inbox / "c.png"])
    assert painted(home_of(config)) == ["a.png", "c.png"]


def test_where_links_are_impossible_a_duplicate_is_a_copy(
    config: Config, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    shutil.copy(config.inbox / "a.png", config.inbox / "b.png")
    monkeypatch.setattr(Path, "hardlink_to", refuse)
    run(config)
    assert painted(home_of(config)) == ["a.png"]
    assert not (config.outbox / "a-s.png").samefile(config.outbox / "b-s.png")
    assert (config.outbox / "a-s.png").read_bytes() == (config.outbox / "b-s.png").read_bytes()


# Disposal


def moved(config: Config, kind: moves.Kind = "move") -> moves.Move:
    source = config.inbox / "a.png"
    known = signature(source.stat())
    if kind == "delete":
        return moves.deletion(source, known)
    report = json.dumps({"reason": "because"}) if kind == "fail" else ""
    return moves.Move(source, config.processed / "sub/a.png", known, kind, report)


@pytest.mark.parametrize("kind", ["move", "delete", "fail"])
@pytest.mark.parametrize("point", ["intended", "moved"])
def test_a_disposal_that_was_killed_is_completed(
    config: Config, ledger: Ledger, kind: moves.Kind, point: str
) -> None:
    run(config)
    move = moved(config, kind)
    moves._intend(ledger, move)
    if point == "moved":
        move.target.parent.mkdir(parents=True, exist_ok=True)
        move.source.rename(move.target)
    else:
        move.target.parent.mkdir(parents=True, exist_ok=True)
    moves.recover(ledger)
    assert not move.source.exists()
    assert move.target.exists() == (kind != "delete")
    assert moves.pending(ledger) == []


@pytest.mark.parametrize("kind", ["move", "delete"])
def test_a_source_that_was_written_anew_is_left_alone(
    config: Config, ledger: Ledger, kind: moves.Kind
) -> None:
    move = moved(config, kind)
    draw(config.inbox / "a.png", 5)
    os.utime(config.inbox / "a.png", ns=(1, 1))
    before = (config.inbox / "a.png").read_bytes()
    assert moves.dispose(ledger, move) is None
    assert (config.inbox / "a.png").read_bytes() == before and not move.target.exists()


@pytest.mark.parametrize("kind", ["move", "delete"])
def test_a_file_that_slips_into_the_sources_place_is_put_back(
    config: Config, ledger: Ledger, kind: moves.Kind
) -> None:
    move = moved(config, kind)
    moves._intend(ledger, move)
    draw(home_of(config) / "new.png", 6)
    os.utime(home_of(config) / "new.png", ns=(1, 1))
    new = (home_of(config) / "new.png").read_bytes()
    move.target.parent.mkdir(parents=True, exist_ok=True)
    # Between our last look and the rename, another program replaced the source.
    (home_of(config) / "new.png").rename(move.target)
    move.source.unlink()
    moves.recover(ledger)
    assert move.source.read_bytes() == new


def test_a_name_that_is_taken_in_processed_is_numbered(config: Config, ledger: Ledger) -> None:
    (config.processed / "sub").mkdir(parents=True)
    (config.processed / "sub/a.png").write_text("older")
    place = moves.dispose(ledger, moved(config))
    assert place == config.processed / "sub/a-2.png" and place.is_file()
    assert (config.processed / "sub/a.png").read_text() == "older"


@pytest.fixture
def other_disk(config: Config) -> Iterator[Path]:
    import tempfile

    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == config.inbox.stat().st_dev:
        pytest.skip("needs a second file system in /dev/shm")
    with tempfile.TemporaryDirectory(dir=shm) as folder:
        yield Path(folder)


@pytest.mark.parametrize("killed", [False, True])
def test_a_move_to_another_file_system_copies_first(
    config: Config, ledger: Ledger, other_disk: Path, killed: bool
) -> None:
    move = dataclasses.replace(moved(config), target=other_disk / "sub/a.png")
    data = move.source.read_bytes()
    if killed:  # with the copy complete and the source still there
        moves._intend(ledger, move)
        move.target.parent.mkdir()
        shutil.copy2(move.source, move.target)
        moves.recover(ledger)
    else:
        assert moves.dispose(ledger, move) == move.target
    assert move.target.read_bytes() == data and not move.source.exists()
    assert [path.name for path in move.target.parent.iterdir()] == ["a.png"]


# The ledger


def test_a_ledger_of_version_1_is_taken_over(config: Config) -> None:
    run(config)
    with Ledger(ledger_path(config)) as new:
        (entry,) = new.entries()
    ledger_path(config).unlink()
    old = sqlite3.connect(ledger_path(config))
    from nst_pipeline.jobs import schema

    old.executescript(schema.VERSION_1)
    old.execute("INSERT INTO done VALUES (?, ?, ?, 1)", (str(entry.final), entry.key, entry.sha256))
    old.execute("PRAGMA user_version = 1")
    old.commit()
    old.close()
    run(config)
    assert painted(home_of(config)) == ["a.png"]
    with Ledger(ledger_path(config)) as new:
        (entry,) = new.entries()
        assert entry.state == "done" and entry.final == config.outbox / "a-s.png"


def test_a_ledger_of_a_newer_version_is_refused(config: Config, ledger: Ledger) -> None:
    ledger.database.execute("PRAGMA user_version = 99")
    with pytest.raises(CannotCreateError, match="newer"):
        Ledger(ledger_path(config))


def test_a_damaged_ledger_is_told_not_overwritten(config: Config) -> None:
    config.state.mkdir(exist_ok=True)
    ledger_path(config).write_bytes(b"no database" * 1000)
    with pytest.raises(CannotCreateError, match="damaged"):
        run(config)
    assert ledger_path(config).read_bytes() == b"no database" * 1000


def test_known_files_are_not_read_again(
    config: Config, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nst_pipeline.jobs import ledger as ledger_module

    monkeypatch.setattr(ledger_module, "RACY_NS", 0)
    (config.inbox / "bad.png").write_text("hello")
    run(config)
    reads: list[str] = []
    monkeypatch.setattr(reading, "read", lambda path, *_: reads.append(path.name))
    plan = make_plan(config, ledger)
    assert reads == [] and len(plan.done) == 1 and "known format" in plan.broken[0].reason


def test_a_run_begins_nothing_with_less_room_than_asked_for(config: Config) -> None:
    config = configure(home_of(config), limits={"min_free_bytes": 2**62})
    with pytest.raises(DiskFullError, match="make room"):
        run(config)
    assert painted(home_of(config)) == [] and DiskFullError.exit_code == 74


def test_free_bytes_of_a_folder_that_is_not_made_yet(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "not/yet") == pytest.approx(free_bytes(tmp_path), rel=0.1)
