"""Publishing: a result gets its final name whole, once, and never by chance.

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
    is_numbered,
    make_folder,
    numbered,
    rename_new,
    shown,
    sync_folder,
    write_temporary,
)
from nst_pipeline.images.decoding import decode
from nst_pipeline.jobs.job_table import JobTable
from nst_pipeline.jobs.state import Entry, JobState

OnConflict = Literal["replace", "suffix", "fail"]


class ConflictError(OutputError):
    """The output's name is taken, and nothing may be replaced."""


def publish_result(
    jobs: JobTable, entry: Entry, data: bytes, on_conflict: OnConflict
) -> Path | None:
    """Publish a result; return its path, or None if the job was cancelled meanwhile.

    Args:
        jobs: where the steps are noted.
        entry: the job.
        data: the result, an image file.
        on_conflict: what is done when the name is taken.

    Raises:
        ConflictError: it is, and ``on_conflict`` is ``fail``.
        CannotCreateError: the outbox cannot be written to.
        OutputError: the write failed; nothing is left behind.
    """
    sha256 = bytes_digest(data)
    temporary = write_temporary(entry.output, data)
    with _removed(temporary):
        _verify(temporary, sha256)
        return _rename(jobs, entry, temporary, sha256, on_conflict)


def publish_duplicate(jobs: JobTable, entry: Entry, on_conflict: OnConflict) -> Entry | None:
    """Publish a result that was made before, for another name or place; return whose it is.

    None if there is none whose file is still as it was made.

    Raises:
        ConflictError, CannotCreateError, OutputError: see `publish_result`.
    """
    made = (one for one in jobs.finished_with(entry.key) if one.id != entry.id)
    original = next(filter(is_intact, (entry, *made)), None)
    if original is None or original.final is None or original.sha256 is None:
        return None
    temporary = entry.output.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{entry.id}")
    try:
        make_folder(entry.output.parent)
        temporary.unlink(missing_ok=True)
        temporary.hardlink_to(original.final)
    except OSError:  # another file system, or one without links
        with contextlib.suppress(OSError):
            data = original.final.read_bytes()
            if bytes_digest(data) == original.sha256:
                return original if publish_result(jobs, entry, data, on_conflict) else None
        return None
    with _removed(temporary):
        if file_digest(temporary) != original.sha256:
            return None
        return original if _rename(jobs, entry, temporary, original.sha256, on_conflict) else None


def is_intact(entry: Entry) -> bool:
    """Tell whether a job's output is there, with the bytes that it was made with."""
    try:
        return entry.final is not None and file_digest(entry.final) == entry.sha256
    except OSError:
        return False


def recover(
    jobs: JobTable, on_conflict: OnConflict, max_attempts: int, report: Callable[[str], None]
) -> None:
    """Bring every job that a kill interrupted to where it can go on.

    A job that was committing is done if its final file is whole, and goes on if its temporary file
    is. Otherwise it is queued, as is one that was being painted, or given up if it was begun
    ``max_attempts`` times and the process ended each time.

    Raises:
        OutputError: a file could not be renamed.
    """
    for entry in jobs.in_state(JobState.COMMITTING):
        if not _resume(jobs, entry, on_conflict, report):
            _begin_again(jobs, entry, "its result was lost with the process", max_attempts, report)
    for entry in jobs.in_state(JobState.RUNNING):
        what = "the process ended while it was painted"
        _begin_again(jobs, entry, what, max_attempts, report)


def _begin_again(
    jobs: JobTable, entry: Entry, what: str, max_attempts: int, report: Callable[[str], None]
) -> None:
    reason = f"{shown(entry.source)} in {entry.style}: {what}, {_times(entry.attempts)}"
    if entry.attempts >= max_attempts:
        jobs.fail(entry.id, f"{reason} (killed, crashed or out of memory)", poison=True)
        report(f"{reason}; given up")
    else:
        jobs.requeue(entry.id, reason)
        report(f"{reason}; queued again")


def _resume(
    jobs: JobTable, entry: Entry, on_conflict: OnConflict, report: Callable[[str], None]
) -> bool:
    """Publish what a job made, if it is there; return whether it is."""
    where = f"{shown(entry.source)} in {entry.style}"
    if is_intact(entry) and entry.final is not None:
        with contextlib.suppress(OSError):
            sync_folder(entry.final.parent)
        jobs.finish(entry.id)
        report(f"{where}: its result was published before the process ended")
        return True
    temporary, final = entry.temporary, entry.final
    if temporary and final and _has_digest(temporary, entry.sha256):
        with _removed(temporary), contextlib.suppress(OSError):
            if on_conflict == "replace":
                temporary.replace(final)
                sync_folder(final.parent)
            else:
                rename_new(temporary, final)
            jobs.finish(entry.id)
            report(f"{where}: its result was finished before the process ended; published now")
            return True
    return False


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


def _rename(
    jobs: JobTable, entry: Entry, temporary: Path, sha256: str, on_conflict: OnConflict
) -> Path | None:
    try:
        if on_conflict == "replace" or _is_own(entry):
            final = entry.final if _is_own(entry) and entry.final else entry.output
            if not jobs.begin_commit(entry.id, final, temporary, sha256):
                return None
            temporary.replace(final)
            sync_folder(final.parent)
        else:
            free = _rename_new(jobs, entry, temporary, sha256, on_conflict)
            if free is None:
                return None
            final = free
    except ConflictError:
        raise
    except OSError as error:
        raise cannot_write(entry.output, error) from error
    jobs.finish(entry.id)
    return final


def _is_own(entry: Entry) -> bool:
    """Tell whether what stands at the output's name, or one of its numbers, is the job's result."""
    is_at_place = entry.final is not None and is_numbered(entry.final, entry.output)
    return is_at_place and entry.sha256 is not None and is_intact(entry)


def _rename_new(
    jobs: JobTable, entry: Entry, temporary: Path, sha256: str, on_conflict: OnConflict
) -> Path | None:
    number = 1
    while True:
        final = numbered(entry.output, number)
        if not os.path.lexists(final):
            if not jobs.begin_commit(entry.id, final, temporary, sha256):
                return None
            with contextlib.suppress(FileExistsError):
                rename_new(temporary, final)
                return final
        if on_conflict == "fail":
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
