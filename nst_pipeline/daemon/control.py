"""What people ask of the queue: retry, cancel, pause, resume. Safe beside a daemon at work."""

import contextlib
import errno
import os
import shutil
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from nst_pipeline.config.pipeline import Config
from nst_pipeline.digests import digest, file_digest
from nst_pipeline.errors import PipelineError, UsageError
from nst_pipeline.files import (
    TEMPORARY_PREFIX,
    as_text,
    cannot_write,
    is_gone,
    make_folder,
    rename_new,
    shown,
    sync_folder,
)
from nst_pipeline.inbox.companions import role
from nst_pipeline.jobs.ledger import Ledger, ledger_path
from nst_pipeline.jobs.lock import holder
from nst_pipeline.jobs.planning import make_plan, make_scanner
from nst_pipeline.jobs.state import JobState
from nst_pipeline.runner.moves import report_path

PAUSED_NAME = "paused"


def retry(config: Config, names: list[str]) -> tuple[list[Path], list[PipelineError]]:
    """Put failed and cancelled files back into the inbox and the queue.

    Args:
        config: the settings.
        names: of files, as paths, relative to the inbox, or alone; none: all that failed.

    Returns:
        The files that are back, and why others are not: their place in the inbox is taken, they
        cannot be moved, or they are gone (of which is told only by name).

    Raises:
        UsageError: no such file.
    """
    done: list[Path] = []
    problems: list[PipelineError] = []
    with _ledger(config) as ledger:
        places = {one.source: one.place for one in ledger.files.failed()}
        failed = ledger.jobs.sources(JobState.FAILED)
        if names:
            others = ledger.jobs.sources(JobState.CANCELLED, JobState.QUEUED)
            chosen = _choose(names, [*places, *failed, *others], config)
        else:
            chosen = [*places, *failed]
        # Companions first, so that their picture is never seen without them.
        chosen = list(dict.fromkeys([*_companions(chosen, places), *chosen]))
        left: set[tuple[Path, str]] = set()
        for source in chosen:
            try:
                if _retry(source, places.get(source, source), ledger, left):
                    done.append(source)
                elif names:
                    problems.append(UsageError(f"{shown(source)}: is gone; put it there again"))
            except PipelineError as error:
                problems.append(error)
                if found := role(source.name):
                    left.add((source.parent, found[0]))
        _note_change(ledger)
    wake(config.state)
    return done, problems


def _retry(source: Path, place: Path, ledger: Ledger, left: set[tuple[Path, str]]) -> bool:
    """Put a file back into the inbox and the queue; return whether it is there.

    Args:
        source: where it belongs.
        place: where it is.
        ledger: holds its jobs.
        left: folders and stems of the pictures that a companion cannot come back to.

    Raises:
        UsageError: its place in the inbox is taken, or a companion's is.
        CannotCreateError, OutputError: it cannot be moved.
    """
    if is_gone(source) and is_gone(place):
        return False
    if (source.parent, source.stem) in left:
        raise UsageError(f"{shown(source)}: stays where its mask or start is, which cannot go back")
    if place != source and _is_taken(source, place):
        raise _taken(source)
    # The jobs first: should we be killed, the file is still listed as failed.
    ledger.jobs.retry(source)
    if place != source:
        _move_back(place, source)
    ledger.files.forgive(source)
    ledger.files.forget(source)
    return True


def _companions(chosen: list[Path], failures: Iterable[Path]) -> list[Path]:
    """Return the failed files that went away with one of those that come back."""
    pictures = {(path.parent, path.stem) for path in chosen}
    known = ((path, role(path.name)) for path in failures)
    return [path for path, it in known if it and (path.parent, it[0]) in pictures]


def cancel(config: Config, names: list[str]) -> list[Path]:
    """Take the jobs of some files out of the queue, also those at work; return the files.

    Raises:
        UsageError: no such file is in the queue.
    """
    with _ledger(config) as ledger:
        _queue_new(names, ledger, config)
        known = ledger.jobs.sources(JobState.QUEUED, JobState.RUNNING)
        chosen = _choose(names, known, config)
        late = [source for source in chosen if not ledger.jobs.cancel(source)]
        _note_change(ledger)
    wake(config.state)
    if late:
        raise UsageError("\n".join(f"{shown(path)}: too late, it is done" for path in late))
    return chosen


def _queue_new(names: list[str], ledger: Ledger, config: Config) -> None:
    """Queue named files of the inbox that no plan has come to yet, to have them cancelled."""
    known = set(ledger.jobs.sources(*JobState))
    places = (config.inbox / name for name in names)
    new = [path for path in places if path.is_file() and path not in known]
    if new:
        ledger.jobs.add(make_plan(config, ledger, make_scanner(config, new, 0)).todo)


def is_paused(state: Path) -> bool:
    """Tell whether somebody asked for a pause."""
    return os.path.exists(state / PAUSED_NAME)  # noqa: PTH110 - Path.exists raises


def pause(config: Config) -> None:
    """Have no further job begun, until `resume`, also after a restart.

    Raises:
        CannotCreateError: the state folder cannot be written to.
    """
    try:
        make_folder(config.state)
        (config.state / PAUSED_NAME).touch()
    except OSError as error:
        raise cannot_write(config.state / PAUSED_NAME, error) from error
    wake(config.state)


def resume(config: Config) -> None:
    """End a pause.

    Raises:
        CannotCreateError: the state folder cannot be written to.
    """
    try:
        (config.state / PAUSED_NAME).unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(config.state / PAUSED_NAME, error) from error
    wake(config.state)


def wake(state: Path) -> None:
    """Have a daemon look at once; one of another user looks at its next scan."""
    who = holder(state)
    if who is not None and who.command == "watch" and who.pid:
        with contextlib.suppress(OSError):
            os.kill(who.pid, signal.SIGUSR1)


def _ledger(config: Config) -> Ledger:
    path = ledger_path(config.state)
    if not path.is_file():
        raise UsageError(f"{shown(path)}: there is no ledger yet: nothing was ever queued")
    return Ledger(path)


def _note_change(ledger: Ledger) -> None:
    """Have a daemon ask the ledger anew what is finished."""
    ledger.set_fact("changed_by_hand", str(time.time_ns()))


def _choose(names: list[str], known: list[Path], config: Config) -> list[Path]:
    """Return the known files that the names mean.

    Raises:
        UsageError: a name means none of them, or several.
    """
    known = list(dict.fromkeys(known))
    chosen, problems = [], []
    for name in names:
        places = (Path(name).absolute(), config.inbox / name)
        texts = {shown(place) for place in places}  # a name may be copied from what was printed
        found = [path for path in known if shown(path) in texts] or [
            path for path in known if shown(path.name) == shown(name)
        ]
        if len(found) == 1:
            chosen.append(found[0])
        elif found:
            several = ", ".join(shown(path) for path in found)
            problems.append(f"{shown(name)}: several files: {several}; give more of the path")
        else:
            some = ", ".join(shown(path.name) for path in known[:5]) or "none"
            problems.append(f"{shown(name)}: no such file there; known: {some}")
    if problems:
        raise UsageError("\n".join(problems))
    return chosen


def _taken(source: Path) -> UsageError:
    return UsageError(f"{shown(source)}: another file has its name by now; rename one of them")


def _is_taken(source: Path, place: Path) -> bool:
    """Tell whether another file stands where one belongs, and not one of the same bytes."""
    if not os.path.lexists(source) or not os.path.lexists(place):
        return False
    try:
        return file_digest(source) != file_digest(place)
    except OSError:
        return True


def _move_back(place: Path, source: Path) -> None:
    """Move a file back, or go on with what a kill left of that.

    Raises:
        UsageError: another file has its name.
        CannotCreateError, OutputError: it cannot be moved.
    """
    try:
        if os.path.lexists(place):  # else somebody put it back, or we did
            make_folder(source.parent)
            _rename_back(place, source)
        report_path(place).unlink(missing_ok=True)
    except FileExistsError:
        raise _taken(source) from None
    except OSError as error:
        raise cannot_write(source, error) from error


def _rename_back(place: Path, source: Path) -> None:
    if os.path.lexists(source) and not _is_taken(source, place):
        _remove(place)  # a copy is there already: a kill came before this
        return
    try:
        rename_new(place, source)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy_back(place, source)


def _copy_back(place: Path, source: Path) -> None:
    """Move a file from another file system: a durable copy first, and only then it goes."""
    prefix = f"{TEMPORARY_PREFIX}back-{digest(as_text(source))[:16]}-"
    for old in source.parent.glob(f"{prefix}*"):
        if not _is_alive(int(old.name.removeprefix(prefix))):
            old.unlink(missing_ok=True)
    temporary = source.with_name(f"{prefix}{os.getpid()}")
    try:
        shutil.copy2(place, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        rename_new(temporary, source)
    finally:
        temporary.unlink(missing_ok=True)
    _remove(place)


def _remove(place: Path) -> None:
    place.unlink()
    sync_folder(place.parent)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
