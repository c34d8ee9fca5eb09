"""The commit protocol: a result gets its final name whole, once, and never by chance.

The result is written to a hidden file beside its place and verified; the ledger notes its
digest (``committing``); it is renamed; the folder is made durable; the ledger notes ``done``.
After a kill, `recover` finds each job on one side or the other of every step.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from nst_pipeline.digests import bytes_digest, file_digest
from nst_pipeline.errors import OutputError
from nst_pipeline.files import (
    TEMPORARY_PREFIX,
    cannot_write,
    make_folder,
    numbered,
    rename_new,
    shown,
    sync_folder,
    write_temporary,
)
from nst_pipeline.images.decoding import decode
from nst_pipeline.jobs.ledger import Ledger
from nst_pipeline.jobs.states import Entry

Policy = Literal["replace", "suffix", "fail"]


class ConflictError(OutputError):
    """The output's name is taken, and nothing may be replaced."""


def commit(ledger: Ledger, entry: Entry, data: bytes, policy: Policy) -> tuple[Path, str]:
    """Publish a painted result; return its path and its SHA-256.

    Args:
        ledger: where the steps are noted.
        entry: the job.
        data: the result, an image file.
        policy: what to do when the name is taken.

    Raises:
        ConflictError: it is, and ``policy`` is ``fail``.
        CannotCreateError: the outbox cannot be written to.
        OutputError: the write failed; nothing is left behind.
    """
    sha256 = bytes_digest(data)
    temporary = write_temporary(entry.output, data)
    with _removed(temporary):
        _verify(temporary, sha256)
        return _rename(ledger, entry, temporary, sha256, policy), sha256


def commit_twin(ledger: Ledger, entry: Entry, twins: list[Entry], policy: Policy) -> Entry | None:
    """Publish a result that was made before for another name; return whose it is.

    None if there is none whose file is still as it was made.

    Raises:
        ConflictError, CannotCreateError, OutputError: see `commit`.
    """
    twin = next((t for t in twins if t.id != entry.id and is_intact(t)), None)
    if twin is None or twin.final is None or twin.sha256 is None:
        return None
    temporary = entry.output.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{entry.id}")
    try:
        make_folder(entry.output.parent)
        temporary.unlink(missing_ok=True)
        temporary.hardlink_to(twin.final)
    except OSError:  # another file system, or one without links
        with contextlib.suppress(OSError):
            data = twin.final.read_bytes()
            if bytes_digest(data) == twin.sha256:
                commit(ledger, entry, data, policy)
                return twin
        return None
    with _removed(temporary):
        if file_digest(temporary) != twin.sha256:
            return None
        _rename(ledger, entry, temporary, twin.sha256, policy)
    return twin


def is_intact(entry: Entry) -> bool:
    """Tell whether a job's output is there, with the bytes that it was made with."""
    try:
        return entry.final is not None and file_digest(entry.final) == entry.sha256
    except OSError:
        return False


def recover(
    ledger: Ledger, policy: Policy, max_attempts: int, report: Callable[[str], None]
) -> None:
    """Bring every job that a kill interrupted to where it can go on.

    A job that was committing is done if its final file is whole, goes on if its temporary file
    is, and is queued otherwise. One that was being painted is queued, or given up if it was
    painted ``max_attempts`` times and ended the process each time.

    Raises:
        OutputError: a file could not be renamed.
    """
    for entry in ledger.entries("state = 'committing'"):
        _resume(ledger, entry, policy, report)
    for entry in ledger.entries("state = 'running'"):
        where = f"{shown(entry.source)} in {entry.style}"
        reason = f"{where}: the process ended while it was painted, {_times(entry.attempts)}"
        if entry.attempts >= max_attempts:
            ledger.fail(entry.id, f"{reason} (killed, crashed or out of memory)", poison=True)
            report(f"{reason}; given up")
        else:
            ledger.requeue(entry.id, reason)
            report(f"{reason}; queued again")


def _resume(ledger: Ledger, entry: Entry, policy: Policy, report: Callable[[str], None]) -> None:
    where = f"{shown(entry.source)} in {entry.style}"
    if is_intact(entry) and entry.final is not None:
        with contextlib.suppress(OSError):
            sync_folder(entry.final.parent)
        ledger.done(entry.id)
        report(f"{where}: its result was published before the process ended")
        return
    temporary, final = entry.temporary, entry.final
    if temporary and final and _has_digest(temporary, entry.sha256):
        with _removed(temporary), contextlib.suppress(OSError):
            if policy == "replace":
                temporary.replace(final)
                sync_folder(final.parent)
            else:
                rename_new(temporary, final)
            ledger.done(entry.id)
            report(f"{where}: its result was finished before the process ended; published now")
            return
    ledger.requeue(entry.id)
    report(f"{where}: its result was lost with the process; queued again")


def _has_digest(path: Path, sha256: str | None) -> bool:
    try:
        return file_digest(path) == sha256
    except OSError:
        return False


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _verify(temporary: Path, sha256: str) -> None:
    """Read a result back and decode it."""
    try:
        data = temporary.read_bytes()
    except OSError as error:
        raise OutputError(f"{shown(temporary)}: cannot be read back: {error.strerror}") from error
    if bytes_digest(data) != sha256:
        raise OutputError(f"{shown(temporary)}: reads back otherwise than written; check the disk")
    decode(data, shown(temporary), max_pixels=2**62)


def _rename(ledger: Ledger, entry: Entry, temporary: Path, sha256: str, policy: Policy) -> Path:
    try:
        if policy == "replace" or _is_own(entry):
            final = entry.final if _is_own(entry) and entry.final else entry.output
            ledger.commit_begins(entry.id, final, temporary, sha256)
            temporary.replace(final)
            sync_folder(final.parent)
        else:
            final = _rename_new(ledger, entry, temporary, sha256, policy)
    except ConflictError:
        raise
    except OSError as error:
        raise cannot_write(entry.output, error) from error
    ledger.done(entry.id)
    return final


def _is_own(entry: Entry) -> bool:
    """Tell whether what stands at the output's name is this very job's result."""
    return entry.final is not None and entry.sha256 is not None and is_intact(entry)


def _rename_new(ledger: Ledger, entry: Entry, temporary: Path, sha256: str, policy: Policy) -> Path:
    number = 1
    while True:
        final = numbered(entry.output, number)
        if not os.path.lexists(final):
            ledger.commit_begins(entry.id, final, temporary, sha256)
            with contextlib.suppress(FileExistsError):
                rename_new(temporary, final)
                return final
        if policy == "fail":
            raise ConflictError(
                f"{shown(final)}: exists already; move it away, or set on_conflict to replace "
                "or suffix, then `nst-pipeline retry`"
            )
        number += 1


@contextlib.contextmanager
def _removed(temporary: Path) -> Iterator[None]:
    """Leave no temporary file behind, whatever happens."""
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
