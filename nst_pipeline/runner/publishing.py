"""Publishing: a result gets its final name whole, once, and never by chance.

The result is written to a hidden file beside its place and verified; the ledger notes its
digest (``committing``); it is renamed; the folder is made durable; the ledger notes ``done``.
After a kill, `recover` finds each job on one side or the other of every step.
"""

import contextlib
import os
import warnings
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from nst_pipeline.digests import bytes_digest, file_digest
from nst_pipeline.errors import ImageError, OutputError
from nst_pipeline.files import (
    cannot_write,
    is_numbered,
    numbered,
    shown,
    write_temporary,
)
from nst_pipeline.folders import Folders
from nst_pipeline.images.decoding import decode, need
from nst_pipeline.jobs.job_table import JobTable
from nst_pipeline.jobs.state import Entry, JobState

T = TypeVar("T")
R = TypeVar("R")
THREADS = 8
"""So many results of a group are written and read back at a time."""
SMALL_BYTES = 32 * 2**20
"""One that takes more memory to be decoded is decoded alone: small files may hold many pixels."""
MOST_PIXELS = 2**62
"""What is made here is not refused for its size."""

OnConflict = Literal["replace", "suffix", "fail"]


class ConflictError(OutputError):
    """The output's name is taken, and nothing may be replaced."""


@dataclass(frozen=True)
class _Whole:
    """A result that is whole in a hidden file, of this digest."""

    entry: Entry
    temporary: Path
    sha256: str


@dataclass(frozen=True)
class _Name:
    """The name that a result is to get; ``may_replace``: whatever stands there."""

    whole: _Whole
    final: Path
    may_replace: bool


Published = Path | Exception | None
"""Where a result is now, or why it is not; None: its job was cancelled meanwhile."""


def publish_result(
    jobs: JobTable,
    folders: Folders,
    entry: Entry,
    data: bytes,
    on_conflict: OnConflict,
    mode: int = 0o666,
) -> Path | None:
    """Publish a result; return its path, or None if the job was cancelled meanwhile.

    Args:
        jobs: where the steps are noted.
        folders: to reach its place in.
        entry: the job.
        data: the result, an image file.
        on_conflict: what is done when the name is taken.
        mode: the permissions, of which the umask is taken off.

    Raises:
        ConflictError: it is, and ``on_conflict`` is ``fail``.
        CannotCreateError: the outbox cannot be written to.
        OutputError: the write failed; nothing is left behind.
    """
    (done,) = publish_results(jobs, folders, [(entry, data)], on_conflict, mode)
    if isinstance(done, Exception):
        raise done
    return done


def publish_results(
    jobs: JobTable,
    folders: Folders,
    results: Sequence[tuple[Entry, bytes]],
    on_conflict: OnConflict,
    mode: int = 0o666,
) -> list[Published]:
    """Publish results of several jobs, each step of all before the next, so that disks wait less.

    Args:
        jobs: where the steps are noted.
        folders: to reach their places in.
        results: the jobs, each with its result.
        on_conflict: what is done when a name is taken.
        mode: the permissions, of which the umask is taken off.

    Returns:
        Of each what `publish_result` returns or raises: what becomes of one stops no other.

    Raises:
        DatabaseError: the ledger cannot be written to.
    """
    done: dict[int, Published] = {}
    whole: dict[int, _Whole] = {}

    def write(result: tuple[Entry, bytes]) -> Exception | None:
        entry, data = result
        try:
            temporary = write_temporary(entry.output, data, folders, mode)
            whole[entry.id] = one = _Whole(entry, temporary, bytes_digest(data))
            _verify(folders, temporary, one.sha256)
        except Exception as error:  # noqa: BLE001 - the caller has it
            return error
        return None

    try:
        peaks = {entry.id: _peak_bytes(data) for entry, data in results}
        small = [one for one in results if peaks[one[0].id] <= SMALL_BYTES]
        large = [one for one in results if peaks[one[0].id] > SMALL_BYTES]
        errors = [*_side_by_side(write, small), *map(write, large)]
        for (entry, _), error in zip([*small, *large], errors, strict=True):
            if error:
                done[entry.id] = error
        written = [whole[entry.id] for entry, _ in results if entry.id not in done]
        done |= _rename(jobs, folders, written, on_conflict)
    finally:
        for one in whole.values():
            with contextlib.suppress(OSError):
                folders.unlink(one.temporary)
    return [done[entry.id] for entry, _ in results]


def _peak_bytes(data: bytes) -> int:
    """Return the memory that a result takes to be decoded, by its header alone."""
    try:
        return need(data, "result", MOST_PIXELS).peak
    except ImageError:  # it is refused by its header when it is decoded, too
        return 2 * len(data)


def _side_by_side(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Return what a function returns of each item; several are done at a time, for disks wait."""
    if len(items) < 2:
        return [function(item) for item in items]
    # Here, because those that the threads put back may not be those that there were.
    with warnings.catch_warnings(), ThreadPoolExecutor(THREADS, "results") as pool:
        return list(pool.map(function, items))


def publish_duplicate(
    jobs: JobTable,
    folders: Folders,
    entry: Entry,
    on_conflict: OnConflict,
    on_found: Callable[[Entry], None] = lambda _: None,
) -> Entry | None:
    """Publish a result that was made before, for another name or place; return whose it is.

    None if there is none whose file is still as it was made. Before anything is published,
    ``on_found`` is told whose it is.

    Raises:
        ConflictError, CannotCreateError, OutputError: see `publish_result`.
    """
    made = (one for one in jobs.finished_with(entry.key) if one.id != entry.id)
    original = next((one for one in (entry, *made) if is_intact(folders, one)), None)
    if original is None or original.final is None or original.sha256 is None:
        return None
    on_found(original)
    temporary = folders.temporary(entry.output)
    try:
        folders.link(original.final, temporary)
    except OSError:  # another file system, or one without links
        return _publish_copy(jobs, folders, entry, original, on_conflict)
    with _removed(folders, temporary):
        if not _has_digest(folders, temporary, original.sha256):
            return None
        whole = _Whole(entry, temporary, original.sha256)
        final = _rename(jobs, folders, [whole], on_conflict)[entry.id]
        if isinstance(final, Exception):
            raise final
        return original if final else None


def _publish_copy(
    jobs: JobTable, folders: Folders, entry: Entry, original: Entry, on_conflict: OnConflict
) -> Entry | None:
    """Publish a result's bytes once more; whoever may not read the original may not read these."""
    assert original.final
    with contextlib.suppress(OSError), folders.reader(original.final) as file:
        data, mode = file.read(), os.fstat(file.fileno()).st_mode & 0o666
        if bytes_digest(data) == original.sha256:
            final = publish_result(jobs, folders, entry, data, on_conflict, mode)
            return original if final else None
    return None


def is_intact(folders: Folders, entry: Entry) -> bool:
    """Tell whether a job's output is there, with the bytes that it was made with."""
    return entry.final is not None and _has_digest(folders, entry.final, entry.sha256)


def recover(
    jobs: JobTable,
    folders: Folders,
    on_conflict: OnConflict,
    max_attempts: int | None,
    report: Callable[[str], None],
    on_give_up: Callable[[Entry, str], None] = lambda *_: None,
) -> None:
    """Bring every job that a kill interrupted to where it can go on.

    A job that was committing is done if its final file is whole, and goes on if its temporary file
    is. Otherwise it is queued, as is one that was being painted, or given up if it was begun
    ``max_attempts`` times and the process ended each time; ``on_give_up`` is told so before it is.
    None: the workers were no part of the process, so no job ended it, and nothing is an attempt.
    """
    for entry in jobs.in_state(JobState.COMMITTING):
        if not _resume(jobs, folders, entry, on_conflict, report):
            what = "its result was lost with the process"
            _begin_again(jobs, entry, what, max_attempts, report, on_give_up)
    for entry in jobs.in_state(JobState.RUNNING):
        what = "the process ended while it was painted"
        _begin_again(jobs, entry, what, max_attempts, report, on_give_up)


def _begin_again(
    jobs: JobTable,
    entry: Entry,
    what: str,
    max_attempts: int | None,
    report: Callable[[str], None],
    on_give_up: Callable[[Entry, str], None],
) -> None:
    reason = f"{shown(entry.source)} in {entry.style}: {what}, {_times(entry.attempts)}"
    if max_attempts is None:
        jobs.requeue(entry.id, is_attempt=False)
        report(f"{shown(entry.source)} in {entry.style}: {what}; queued again")
    elif entry.attempts >= max_attempts:
        whole = f"{reason} (killed, crashed or out of memory)"
        on_give_up(entry, whole)
        jobs.fail(entry.id, whole, poison=True)
        report(f"{reason}; given up")
    else:
        jobs.requeue(entry.id, reason)
        report(f"{reason}; queued again")


def _resume(
    jobs: JobTable,
    folders: Folders,
    entry: Entry,
    on_conflict: OnConflict,
    report: Callable[[str], None],
) -> bool:
    """Publish what a job made, if it is there; return whether it is."""
    where = f"{shown(entry.source)} in {entry.style}"
    if is_intact(folders, entry) and entry.final is not None:
        with contextlib.suppress(OSError):
            folders.sync(entry.final.parent)
        jobs.finish(entry.id)
        report(f"{where}: its result was published before the process ended")
        return True
    temporary, final = entry.temporary, entry.final
    if temporary and final:
        with _removed(folders, temporary), contextlib.suppress(OSError):
            if _has_digest(folders, temporary, entry.sha256):
                if on_conflict == "replace":
                    folders.replace(temporary, final)
                else:
                    folders.rename_new(temporary, final)
                jobs.finish(entry.id)
                report(f"{where}: its result was finished before the process ended; published now")
                return True
    return False


def _has_digest(folders: Folders, path: Path, sha256: str | None) -> bool:
    try:
        return file_digest(path, folders) == sha256
    except OSError:
        return False


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _verify(folders: Folders, temporary: Path, sha256: str) -> None:
    """Read a result back and decode it."""
    try:
        with folders.reader(temporary) as file:
            data = file.read()
    except OSError as error:
        raise OutputError(f"{shown(temporary)}: cannot be read back: {error.strerror}") from error
    if bytes_digest(data) != sha256:
        raise OutputError(f"{shown(temporary)}: reads back otherwise than written; check the disk")
    decode(data, shown(temporary), MOST_PIXELS)


def _rename(
    jobs: JobTable, folders: Folders, whole: list[_Whole], on_conflict: OnConflict
) -> dict[int, Published]:
    """Give results their names; return what became of each, by its job's number.

    The ledger notes all names at once, and each folder is made durable once. What goes to one name
    goes there one after the other.
    """
    done: dict[int, Published] = {}
    numbers = {one.entry.id: 1 for one in whole}
    while whole:
        names: dict[Path, _Name] = {}
        left: list[_Whole] = []
        for one in whole:
            try:
                name = _choose(folders, one, on_conflict, numbers, names)
                if names.setdefault(name.final, name) is not name:
                    left.append(one)
            except (ConflictError, OSError) as error:
                done[one.entry.id] = _why(one, error)
        with jobs.together(is_durable=True):
            begun = [name for name in names.values() if _begin_commit(jobs, name)]
        done |= {name.whole.entry.id: None for name in names.values()}
        whole = left
        for name in begun:
            try:
                rename = folders.replace if name.may_replace else folders.rename_new
                rename(name.whole.temporary, name.final, durably=False)
                done[name.whole.entry.id] = name.final
            except FileExistsError:  # somebody was faster
                if on_conflict == "fail":
                    done[name.whole.entry.id] = _taken(name.final)
                    continue
                numbers[name.whole.entry.id] += 1
                whole.append(name.whole)
            except OSError as error:
                done[name.whole.entry.id] = _why(name.whole, error)
        for folder in {name.final.parent for name in begun}:
            try:
                folders.sync(folder)
            except OSError as error:
                there = [name.whole for name in begun if name.final.parent == folder]
                done |= {one.entry.id: _why(one, error) for one in there}
        with jobs.together():
            for name in begun:
                if isinstance(done[name.whole.entry.id], Path):
                    jobs.finish(name.whole.entry.id)
    return done


def _choose(
    folders: Folders,
    whole: _Whole,
    on_conflict: OnConflict,
    numbers: dict[int, int],
    taken: Container[Path],
) -> _Name:
    """Choose a name for a result, from its own number on, that is none of those taken just now.

    Raises:
        ConflictError: it is taken, and ``on_conflict`` is ``fail``.
        OSError: its place cannot be looked at.
    """
    entry = whole.entry
    is_own = _is_own(folders, entry)
    if on_conflict == "replace" or is_own:
        final = entry.final if is_own and entry.final else entry.output
        return _Name(whole, final, may_replace=True)
    while True:
        final = numbered(entry.output, numbers[entry.id])
        if final not in taken and not folders.exists(final):
            return _Name(whole, final, may_replace=False)
        if on_conflict == "fail":
            raise _taken(final)
        numbers[entry.id] += 1


def _taken(final: Path) -> ConflictError:
    return ConflictError(
        f"{shown(final)}: exists already; move it away, or set on_conflict to replace "
        "or suffix, and retry it"
    )


def _begin_commit(jobs: JobTable, name: _Name) -> bool:
    whole = name.whole
    return jobs.begin_commit(whole.entry.id, name.final, whole.temporary, whole.sha256)


def _why(whole: _Whole, error: ConflictError | OSError) -> Exception:
    return error if isinstance(error, ConflictError) else cannot_write(whole.entry.output, error)


def _is_own(folders: Folders, entry: Entry) -> bool:
    """Tell whether what stands at the output's name, or one of its numbers, is the job's result."""
    is_at_place = entry.final is not None and is_numbered(entry.final, entry.output)
    return is_at_place and entry.sha256 is not None and is_intact(folders, entry)


@contextlib.contextmanager
def _removed(folders: Folders, temporary: Path) -> Iterator[None]:
    """Leave no temporary file behind, whatever happens."""
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            folders.unlink(temporary)
