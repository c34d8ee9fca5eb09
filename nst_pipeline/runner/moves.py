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
    TEMPORARY_PREFIX,
    as_text,
    cannot_write,
    fitted_name,
    make_folder,
    numbered,
    publish,
    rename_new,
    shown,
    signature,
    sync_folder,
)
from nst_pipeline.jobs.file_table import Move
from nst_pipeline.jobs.ledger import Ledger

log = logging.getLogger(__name__)

REPORT_SUFFIX = ".error.json"


def dispose(ledger: Ledger, move: Move, along: Sequence[Move] = ()) -> Path | None:
    """Carry out a move; return where the file is now, or None if it changed and was left.

    Args:
        ledger: where the intention is noted.
        move: of the source.
        along: of what goes with it. All are noted at once, so that after a kill all go on; one
            whose file changed is left out.

    Raises:
        OutputError: one could not be moved. All stay with a source that stays; what goes with one
            that went is moved all the same, or by the next start.
    """
    if not _is_same(move.source, move.signature):
        return None
    moves = [move, *(one for one in along if _is_same(one.source, one.signature))]
    place, failed = None, None
    try:
        moves = [_prepared(one) for one in moves]
        _intend(ledger, moves)
    except OSError as error:
        raise _cannot_move(move, error) from error
    for one in moves:
        try:
            moved = _carry_out(ledger, one)
            place = moved if one is moves[0] else place
        except OSError as error:
            failed = failed or _cannot_move(one, error)
        except (CannotCreateError, OutputError) as error:  # its report cannot be written
            failed = failed or OutputError(str(error))
        if os.path.lexists(move.source):
            for each in moves:
                _forget(ledger, each)  # they stay together
            break
    if failed:
        raise failed
    return place


def _cannot_move(move: Move, error: OSError) -> OutputError:
    return OutputError(f"{shown(move.source)}: cannot be moved away: {error.strerror}")


def _prepared(move: Move) -> Move:
    if move.kind == "delete":
        return move
    make_folder(move.target.parent)
    return _at_free_target(move)


def deletion(source: Path, known: str) -> Move:
    """Return the move that deletes a source."""
    name = f"{TEMPORARY_PREFIX}gone-{secrets.token_hex(4)}"
    return Move(source, source.with_name(name), known, "delete")


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


def recover(ledger: Ledger) -> None:
    """Finish or undo what a kill left half done.

    Raises:
        OutputError: that is impossible, as on a broken disk.
    """
    for move in ledger.files.intended():
        try:
            _recover(ledger, move)
        except OSError as error:
            if not os.path.lexists(move.source):
                raise cannot_write(move.target, error) from error
            log.error("%s; it stays where it is", _cannot_move(move, error))
            _forget(ledger, move)
        except (CannotCreateError, OutputError) as error:  # its report cannot be written
            if not os.path.lexists(move.source):
                raise
            log.error("%s; it stays where it is", error)
            _forget(ledger, move)


def _recover(ledger: Ledger, move: Move) -> None:
    if _is_same(move.source, move.signature):
        if _is_copy(move.source, move.target):
            _remove_source(ledger, move)
        else:
            _carry_out(ledger, move)
    elif os.path.lexists(move.target):
        _finish(ledger, move)
    elif os.path.lexists(move.source):
        _forget(ledger, move)  # somebody put a new file there: it is not ours to move
    else:
        _complete(ledger, move)


def _is_copy(source: Path, target: Path) -> bool:
    try:
        return not target.samefile(source) and file_digest(target) == file_digest(source)
    except OSError:
        return False


def report_path(place: Path) -> Path:
    """Return where the reason of a failed file stands."""
    return place.with_name(fitted_name(place.name, REPORT_SUFFIX))


def _carry_out(ledger: Ledger, move: Move) -> Path | None:
    if move.kind == "fail":
        publish(report_path(move.target), move.report.encode())
    try:
        rename_new(move.source, move.target)
    except FileExistsError:
        move = _again(ledger, move)
        return _carry_out(ledger, move)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return _copy_over(ledger, move)
    return _finish(ledger, move)


def _finish(ledger: Ledger, move: Move) -> Path | None:
    """Look at what was moved: a file that was put in the source's place meanwhile goes back."""
    if not _is_same(move.target, move.signature, moved=True):
        if not os.path.lexists(move.source):
            rename_new(move.target, move.source)
            if move.kind == "fail":
                report_path(move.target).unlink(missing_ok=True)
            _forget(ledger, move)
            return None
        if move.kind == "delete":
            # Never delete what we do not know; give it a name that people and scans see.
            stem = f"kept-{secrets.token_hex(2)}-{move.source.stem}"
            kept = move.source.with_name(fitted_name(stem, move.source.suffix))
            rename_new(move.target, kept)
            _forget(ledger, move)
            return None
    if move.kind == "delete":
        move.target.unlink()
        sync_folder(move.target.parent)
    _complete(ledger, move)
    return move.target


def _copy_over(ledger: Ledger, move: Move) -> Path | None:
    """Move to another file system: a durable copy first, and only then the source goes."""
    temporary = move.target.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}")
    try:
        shutil.copy2(move.source, temporary)
        descriptor = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if not _is_same(move.source, move.signature) or file_digest(move.source) != file_digest(
            temporary
        ):
            _forget(ledger, move)
            return None
        rename_new(temporary, move.target)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return _remove_source(ledger, move)


def _remove_source(ledger: Ledger, move: Move) -> Path:
    move.source.unlink()
    sync_folder(move.source.parent)
    _complete(ledger, move)
    return move.target


def _is_same(path: Path, known: str, moved: bool = False) -> bool:
    """Tell whether a file is the one that was seen; a move changes its ctime, or its inode."""
    try:
        now = signature(path.lstat()).split()
    except OSError:
        return False
    return now[:2] == known.split()[:2] if moved else now == known.split()


def _at_free_target(move: Move) -> Move:
    number = 1
    while os.path.lexists(numbered(move.target, number)):
        number += 1
    return replace(move, target=numbered(move.target, number))


def _again(ledger: Ledger, move: Move) -> Move:
    if move.kind == "fail":
        report_path(move.target).unlink(missing_ok=True)
    move = _at_free_target(move)
    _intend(ledger, [move])
    return move


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
