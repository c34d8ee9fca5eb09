"""Moving a source away, deleting it, or giving it up with its reason, so that a kill loses nothing.

The ledger notes the intention first, so that a kill at any point leaves either the source where
it was or the move complete. A source that changed since it was painted is left alone.
"""

import contextlib
import errno
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nst_pipeline.digests import file_digest
from nst_pipeline.errors import CannotCreateError, OutputError
from nst_pipeline.files import (
    as_text,
    cannot_write,
    cause,
    fitted_name,
    identity,
    numbered,
    publish,
    shown,
    signature,
)
from nst_pipeline.folders import Folders
from nst_pipeline.jobs.file_table import Move
from nst_pipeline.jobs.ledger import Ledger

log = logging.getLogger(__name__)

REPORT_SUFFIX = ".error.json"


def dispose(
    ledger: Ledger, folders: Folders, move: Move, along: Sequence[Move] = ()
) -> Path | None:
    """Carry out a move; return where the file is now, or None if it changed and was left.

    Args:
        ledger: where the intention is noted.
        folders: to reach the files in.
        move: of the source.
        along: of what goes with it. All are noted at once, so that after a kill all go on; one
            whose file changed is left out.

    Raises:
        OutputError: one could not be moved. All stay with a source that stays; what goes with one
            that went is moved all the same, or by the next start.
    """
    if not _is_same(folders, move):
        return None
    moves = [move, *(one for one in along if _is_same(folders, one))]
    place, failed = None, None
    try:
        moves = [_prepared(folders, one) for one in moves]
        _intend(ledger, moves)
    except OSError as error:
        raise _cannot_move(move, error) from error
    for one in moves:
        try:
            moved = _carry_out(ledger, folders, one)
            place = moved if one is moves[0] else place
        except (OSError, CannotCreateError, OutputError) as error:
            failed = failed or _cannot_move(one, error)
        if _is_there(folders, move.source):
            for each in moves:
                _forget(ledger, each)  # they stay together
            break
    if failed:
        raise failed
    return place


def _cannot_move(move: Move, error: Exception) -> OutputError:
    why = cause(move.source, error) if isinstance(error, OSError) else error
    return OutputError(f"{shown(move.source)}: cannot be moved away: {why}")


def _prepared(folders: Folders, move: Move) -> Move:
    if move.kind == "delete":
        return move
    folders.make(move.target.parent)
    return _at_free_target(folders, move)


def deletion(folders: Folders, source: Path, known: str) -> Move:
    """Return the move that deletes a source."""
    return Move(source, folders.temporary(source), known, "delete")


def failure_report(
    source: Path,
    reason: str,
    attempts: int,
    jobs: list[dict[str, Any]],
    command: str,
    sha256: str | None = None,
) -> str:
    """Return the text of an .error.json."""
    report = {
        "source": as_text(source),
        "sha256": sha256,
        "reason": reason,
        "attempts": attempts,
        "failed": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "jobs": jobs,
        "retry": command,
    }
    return json.dumps(report, indent=2)


def recover(ledger: Ledger, folders: Folders) -> None:
    """Finish or undo what a kill left half done.

    Raises:
        OutputError: that is impossible, as on a broken disk.
    """
    for noted in ledger.files.intended():
        # The numbers of devices may be others by now.
        move = replace(noted, identity=" ".join(noted.identity.split()[:4]))
        try:
            _recover(ledger, folders, move)
        except (OSError, CannotCreateError, OutputError) as error:
            if not _is_there(folders, move.source):
                if isinstance(error, OSError):
                    raise cannot_write(move.target, error) from error
                raise
            log.error("%s; it stays where it is", _cannot_move(move, error))
            _forget(ledger, move)


def _recover(ledger: Ledger, folders: Folders, move: Move) -> None:
    if _is_same(folders, move):
        if move.kind != "delete" and _is_copy(folders, move.source, move.target):
            _remove_source(ledger, folders, move)
        else:
            _carry_out(ledger, folders, move)
    elif _is_there(folders, move.target):
        _finish(ledger, folders, move)
    elif _is_there(folders, move.source):
        _forget(ledger, move)  # somebody put a new file there: it is not ours to move
    else:
        _complete(ledger, move)


def _is_copy(folders: Folders, source: Path, target: Path) -> bool:
    try:
        if os.path.samestat(folders.status(source), folders.status(target)):
            return False
        return file_digest(target, folders) == file_digest(source, folders)
    except OSError:
        return False


def report_path(place: Path) -> Path:
    """Return where the reason of a failed file stands."""
    return place.with_name(fitted_name(place.name, REPORT_SUFFIX))


def _carry_out(ledger: Ledger, folders: Folders, move: Move) -> Path | None:
    if move.kind == "fail":
        publish(report_path(move.target), move.report.encode(), folders)
    try:
        folders.rename_new(move.source, move.target)
    except FileExistsError:
        move = _again(ledger, folders, move)
        return _carry_out(ledger, folders, move)
    except OSError as error:
        if error.errno == errno.EXDEV:
            return _copy_over(ledger, folders, move)
        if _is_there(folders, move.source):
            _take_back_report(folders, move)
        raise
    return _finish(ledger, folders, move)


def _finish(ledger: Ledger, folders: Folders, move: Move) -> Path | None:
    """Look at what was moved: a file that was put in the source's place meanwhile goes back."""
    if not _is_moved(folders, move):
        if not _is_there(folders, move.source):
            folders.rename_new(move.target, move.source)
            _take_back_report(folders, move)
            _forget(ledger, move)
            return None
        if move.kind == "delete":
            # Never delete what we do not know; give it a name that people and scans see.
            stem = f"kept-{secrets.token_hex(2)}-{move.source.stem}"
            kept = move.source.with_name(fitted_name(stem, move.source.suffix))
            folders.rename_new(move.target, kept)
            _forget(ledger, move)
            return None
    if move.kind == "delete":
        folders.unlink(move.target)
        folders.sync(move.target.parent)
    _complete(ledger, move)
    return move.target


def _copy_over(ledger: Ledger, folders: Folders, move: Move) -> Path | None:
    """Move to another file system: a durable copy first, and only then the source goes."""
    temporary = folders.temporary(move.target)
    try:
        copy(folders, move.source, temporary)
        same_bytes = file_digest(move.source, folders) == file_digest(temporary, folders)
        if not (same_bytes and _is_same(folders, move)):
            _take_back_report(folders, move)
            _forget(ledger, move)
            return None
        folders.rename_new(temporary, move.target)
    except OSError:
        if _is_there(folders, move.source):
            _take_back_report(folders, move)  # it stays, and may yet be painted
        raise
    finally:
        with contextlib.suppress(OSError):
            folders.unlink(temporary)
    return _remove_source(ledger, folders, move)


def _remove_source(ledger: Ledger, folders: Folders, move: Move) -> Path:
    """Delete a source that was copied, as any is deleted: not what came into its place."""
    rest = deletion(folders, move.source, move.identity)
    with ledger.durably(), ledger.transaction():
        _complete(ledger, move)
        _intend(ledger, [rest])
    _carry_out(ledger, folders, rest)
    return move.target


def copy(folders: Folders, source: Path, target: Path) -> None:
    """Copy a file durably to a new one, which nobody may read who may not read the source.

    Raises:
        OSError: that is impossible.
    """
    with folders.reader(source) as old, folders.create(target, 0o600) as new:
        shutil.copyfileobj(old, new)
        new.flush()
        _keep_attributes(old.fileno(), new.fileno())
        os.fsync(new.fileno())


def _keep_attributes(old: int, new: int) -> None:
    """Give a copy the times, extended attributes and permissions of its original."""
    known = os.fstat(old)
    for owner in ((known.st_uid, -1), (-1, known.st_gid)):
        with contextlib.suppress(OSError):  # only root may give files away
            os.fchown(new, *owner)
    mode = known.st_mode & 0o777
    if os.fstat(new).st_gid != known.st_gid:  # our group is one of the others there
        mode &= ~0o070 | (mode & 0o007) << 3
    with contextlib.suppress(OSError):  # not every file system has any
        for name in os.listxattr(old):
            with contextlib.suppress(OSError):  # of the system's own
                os.setxattr(new, name, os.getxattr(old, name))
    with contextlib.suppress(OSError):
        os.fchmod(new, mode)
    os.utime(new, ns=(known.st_atime_ns, known.st_mtime_ns))


def _is_same(folders: Folders, move: Move) -> bool:
    """Tell whether the source is still the file that was seen."""
    try:
        now = identity(folders.status(move.source)).split()
    except OSError:
        return False
    known = move.identity.split()
    return now[: len(known)] == known


def _is_moved(folders: Folders, move: Move) -> bool:
    """Tell whether the target is the file that was seen; a move changes its ctime, or its inode."""
    try:
        now = signature(folders.status(move.target)).split()
    except OSError:
        return False
    size, modified, _, inode = move.identity.split()[:4]
    return now[:2] == [size, modified] and (move.kind != "delete" or now[3] == inode)


def _is_there(folders: Folders, path: Path) -> bool:
    with contextlib.suppress(OSError):
        return folders.exists(path)
    return False


def _at_free_target(folders: Folders, move: Move) -> Move:
    number = 1
    while folders.exists(numbered(move.target, number)):
        number += 1
    return replace(move, target=numbered(move.target, number))


def _again(ledger: Ledger, folders: Folders, move: Move) -> Move:
    _take_back_report(folders, move)
    move = _at_free_target(folders, move)
    _intend(ledger, [move])
    return move


def _take_back_report(folders: Folders, move: Move) -> None:
    if move.kind == "fail":
        with contextlib.suppress(OSError):
            folders.unlink(report_path(move.target))


def _intend(ledger: Ledger, moves: Iterable[Move]) -> None:
    ledger.set_fact("clean", "no")
    ledger.files.intend(moves)


def _complete(ledger: Ledger, move: Move) -> None:
    with ledger.transaction():
        if move.kind == "fail":
            reason = json.loads(move.report)["reason"]
            ledger.files.fail(move.source, move.target, reason)
        else:
            ledger.jobs.dispose(move.source)
        _forget(ledger, move)


def _forget(ledger: Ledger, move: Move) -> None:
    ledger.files.end_move(move.source)
