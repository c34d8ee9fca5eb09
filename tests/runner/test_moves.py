"""Moving a source away, killed at every state, and names that are taken."""

import dataclasses
import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from support import (
    draw,
    home_of,
    observed_run,
)

from nst_pipeline.config.pipeline import Config
from nst_pipeline.errors import OutputError
from nst_pipeline.files import identity, signature
from nst_pipeline.folders import Folders
from nst_pipeline.jobs.file_table import Move
from nst_pipeline.jobs.ledger import Ledger
from nst_pipeline.runner import moves
from nst_pipeline.runner.moves import report_path


@pytest.fixture
def folders(config: Config) -> Folders:
    return Folders(config.roots, "me")


def moved(config: Config, kind: str = "move") -> Move:
    source = config.inbox / "a.png"
    known = identity(source.stat())
    if kind == "delete":
        return moves.deletion(Folders(), source, known)
    report = json.dumps({"reason": "because"}) if kind == "fail" else ""
    return Move(source, config.processed / "sub/a.png", known, kind, report)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["move", "delete", "fail"])
@pytest.mark.parametrize("point", ["intended", "moved"])
def test_a_disposal_that_was_killed_is_completed(
    config: Config, ledger: Ledger, folders: Folders, kind: str, point: str
) -> None:
    observed_run(config)
    move = moved(config, kind)
    moves._intend(ledger, [move])
    if point == "moved":
        move.target.parent.mkdir(parents=True, exist_ok=True)
        move.source.rename(move.target)
    else:
        move.target.parent.mkdir(parents=True, exist_ok=True)
    moves.recover(ledger, folders)
    assert not move.source.exists()
    assert move.target.exists() == (kind != "delete")
    assert ledger.files.intended() == []


@pytest.mark.parametrize("kind", ["move", "delete"])
def test_a_source_that_was_written_anew_is_left_alone(
    config: Config, ledger: Ledger, folders: Folders, kind: str
) -> None:
    move = moved(config, kind)
    draw(config.inbox / "a.png", 5)
    os.utime(config.inbox / "a.png", ns=(1, 1))
    before = (config.inbox / "a.png").read_bytes()
    assert moves.dispose(ledger, folders, move) is None
    assert (config.inbox / "a.png").read_bytes() == before and not move.target.exists()


@pytest.mark.parametrize("kind", ["move", "delete"])
def test_a_file_that_slips_into_the_sources_place_is_put_back(
    config: Config, ledger: Ledger, folders: Folders, kind: str
) -> None:
    move = moved(config, kind)
    moves._intend(ledger, [move])
    draw(home_of(config) / "new.png", 6)
    os.utime(home_of(config) / "new.png", ns=(1, 1))
    new = (home_of(config) / "new.png").read_bytes()
    move.target.parent.mkdir(parents=True, exist_ok=True)
    # Between our last look and the rename, another program replaced the source.
    (home_of(config) / "new.png").rename(move.target)
    move.source.unlink()
    moves.recover(ledger, folders)
    assert move.source.read_bytes() == new


@pytest.mark.parametrize("name", ["b.png", "漢" * 83 + ".png", "b" * 251 + ".png"])
def test_a_strange_file_in_the_place_of_one_to_delete_is_kept_under_a_name_that_people_see(
    config: Config, ledger: Ledger, folders: Folders, name: str
) -> None:
    source = config.inbox / name
    draw(source, 2)
    move = moves.deletion(Folders(), source, identity(source.stat()))
    moves._intend(ledger, [move])
    source.unlink()
    draw(move.target, 3)
    os.utime(move.target, ns=(1, 1))
    draw(source, 4)
    moves.recover(ledger, folders)
    (kept,) = config.inbox.glob("kept-*.png")
    assert source.is_file() and kept.is_file() and not move.target.exists()


def test_a_name_that_is_taken_in_processed_is_numbered(
    config: Config, ledger: Ledger, folders: Folders
) -> None:
    (config.processed / "sub").mkdir(parents=True)
    (config.processed / "sub/a.png").write_text("older")
    place = moves.dispose(ledger, folders, moved(config))
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
    config: Config, ledger: Ledger, folders: Folders, other_disk: Path, killed: bool
) -> None:
    move = dataclasses.replace(moved(config), target=other_disk / "sub/a.png")
    data = move.source.read_bytes()
    if killed:  # with the copy complete and the source still there
        moves._intend(ledger, [move])
        move.target.parent.mkdir()
        shutil.copy2(move.source, move.target)
        moves.recover(ledger, folders)
    else:
        assert moves.dispose(ledger, folders, move) == move.target
    assert move.target.read_bytes() == data and not move.source.exists()
    assert [path.name for path in move.target.parent.iterdir()] == ["a.png"]


@pytest.mark.parametrize("fails", ["rename", "sync", "companion"])
def test_companions_go_with_a_picture_that_went_and_stay_with_one_that_stayed(
    config: Config, ledger: Ledger, folders: Folders, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    draw(config.inbox / "a.mask.png", 2)
    move = moved(config)
    mask = dataclasses.replace(
        move,
        source=config.inbox / "a.mask.png",
        target=move.target.with_name("a.mask.png"),
        identity=identity((config.inbox / "a.mask.png").stat()),
    )
    rename = Folders.rename_new

    def failing(folders: Folders, source: Path, target: Path) -> None:
        if source.name == ("a.mask.png" if fails == "companion" else "a.png"):
            if fails == "sync":  # the name is changed, and the disk then fails
                source.rename(target)
            raise OSError(5, "Input/output error")
        rename(folders, source, target)

    monkeypatch.setattr(Folders, "rename_new", failing)
    with pytest.raises(OutputError, match="Input/output error"):
        moves.dispose(ledger, folders, move, [mask])
    assert move.target.exists() == (not move.source.exists()) == (fails != "rename")
    assert mask.target.exists() == (not mask.source.exists()) == (fails == "sync")
    monkeypatch.setattr(Folders, "rename_new", rename)
    moves.recover(ledger, folders)
    assert ledger.files.intended() == []
    assert mask.target.exists() == move.target.exists() == (fails != "rename")


def test_a_companion_that_can_never_be_moved_ends_no_start(
    config: Config, ledger: Ledger, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = moved(config)
    ledger.files.intend([move])

    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Folders, "rename_new", refused)
    moves.recover(ledger, folders)
    assert move.source.exists() and ledger.files.intended() == []


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o400])
def test_a_copy_is_at_no_moment_more_readable_than_its_source(
    config: Config,
    ledger: Ledger,
    folders: Folders,
    other_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: int,
) -> None:
    move = dataclasses.replace(moved(config), target=other_disk / "sub/a.png")
    move.source.chmod(mode)
    move = dataclasses.replace(move, identity=identity(move.source.stat()))
    modified = move.source.stat().st_mtime_ns
    meanwhile = set()
    copy = shutil.copyfileobj

    def watched(old: BinaryIO, new: BinaryIO) -> None:
        copy(old, new)
        meanwhile.update(path.stat().st_mode & 0o777 for path in (other_disk / "sub").iterdir())

    monkeypatch.setattr(shutil, "copyfileobj", watched)
    assert moves.dispose(ledger, folders, move) == move.target
    assert meanwhile == {0o600}
    assert move.target.stat().st_mode & 0o777 == mode
    assert move.target.stat().st_mtime_ns == modified


def test_the_report_of_a_picture_that_cannot_be_copied_away_goes_again(
    config: Config,
    ledger: Ledger,
    folders: Folders,
    other_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = other_disk / "sub/a.png"
    move = dataclasses.replace(moved(config), target=target, kind="fail", report="{}")

    def full(*_: object) -> None:
        assert report_path(target).exists()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(OutputError, match="No space left"):
        moves.dispose(ledger, folders, move)
    assert move.source.exists() and not list(target.parent.iterdir())


def test_what_comes_into_the_place_of_a_source_that_was_copied_stays(
    config: Config,
    ledger: Ledger,
    folders: Folders,
    other_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    move = dataclasses.replace(moved(config), target=other_disk / "a.png")
    data = move.source.read_bytes()
    complete = moves._complete

    def late(ledger: Ledger, move: Move) -> None:
        complete(ledger, move)
        if move.kind == "move":  # the copy is there, and the source is looked at for the last time
            draw(config.inbox / "new.png", 7)
            (config.inbox / "new.png").replace(move.source)

    monkeypatch.setattr(moves, "_complete", late)
    assert moves.dispose(ledger, folders, move) == move.target
    assert move.target.read_bytes() == data and move.source.read_bytes() not in (b"", data)
    assert ledger.files.intended() == []


def test_a_file_of_another_device_is_not_taken_for_the_one_that_was_read(
    config: Config, ledger: Ledger, folders: Folders
) -> None:
    move = moved(config)
    status = move.source.stat()
    for other in (f"{signature(status)} {status.st_dev + 1}", identity(status)[1:]):
        assert moves.dispose(ledger, folders, dataclasses.replace(move, identity=other)) is None
    moves._intend(ledger, [dataclasses.replace(move, identity=f"{signature(status)} 1")])
    move.target.parent.mkdir(parents=True)
    moves.recover(ledger, folders)  # perhaps after a start of the machine, with other numbers
    assert move.target.is_file() and not move.source.exists()


def test_no_report_is_left_of_a_file_that_could_not_be_given_up(
    config: Config, ledger: Ledger, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Folders.rename_new

    def failing(folders: Folders, source: Path, target: Path) -> None:
        if source.name == "a.png":
            raise OSError(5, "Input/output error")
        rename(folders, source, target)

    monkeypatch.setattr(Folders, "rename_new", failing)
    with pytest.raises(OutputError):
        moves.dispose(ledger, folders, moved(config, "fail"))
    assert list((config.processed / "sub").iterdir()) == []


def test_a_linked_folder_that_a_file_was_on_its_way_to_ends_no_start(
    config: Config, ledger: Ledger, folders: Folders, tmp_path: Path
) -> None:
    move = moved(config, "fail")
    moves._intend(ledger, [move])
    config.processed.mkdir()
    move.target.parent.symlink_to(tmp_path)
    before = sorted(tmp_path.iterdir())
    moves.recover(ledger, folders)
    assert move.source.is_file() and ledger.files.intended() == []
    assert sorted(tmp_path.iterdir()) == before
