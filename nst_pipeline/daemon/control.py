"""What people ask of a daemon: retry, cancel, pause, resume, stop. Safe beside one at work."""

import errno
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from nst_pipeline.config.pipeline import Config
from nst_pipeline.daemon.wake_up import wake
from nst_pipeline.digests import digest, file_digest
from nst_pipeline.errors import PipelineError, UsageError
from nst_pipeline.files import as_text, cannot_write, is_gone, shown
from nst_pipeline.folders import Folders, LinkError, make_folder
from nst_pipeline.inbox.companions import role
from nst_pipeline.jobs.ledger import Ledger, ledger_path
from nst_pipeline.jobs.lock import Holder, holder
from nst_pipeline.jobs.planning import make_plan, make_scanner
from nst_pipeline.jobs.state import FINISHED, IN_QUEUE, JobState
from nst_pipeline.runner.moves import copy, report_path
from nst_pipeline.runner.runner import folders_of

PAUSED_NAME = "paused"
STOP_NAME = "stop"


def retry(
    config: Config, names: list[str], force: bool = False
) -> tuple[list[Path], list[PipelineError]]:
    """Put failed and cancelled files back into the inbox and the queue.

    Args:
        config: the settings.
        force: have named files that are done painted again, too.
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
        folders = folders_of(config, ledger)
        places = {one.source: one.place for one in ledger.files.failed()}
        failed = ledger.jobs.sources(JobState.FAILED)
        if names:
            others = ledger.jobs.sources(JobState.CANCELLED, JobState.QUEUED)
            known, done_before = [*places, *failed, *others], ledger.jobs.sources(*FINISHED)
            chosen = _choose(
                names, config, [known, done_before] if force else [known], places, done_before
            )
        else:
            chosen = [*places, *failed]
        # Companions first, so that their picture is never seen without them.
        chosen = list(dict.fromkeys([*_companions(chosen, places), *chosen]))
        left: set[tuple[Path, str]] = set()
        for source in chosen:
            try:
                if _retry(folders, source, places.get(source, source), ledger, left, force):
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


def _retry(
    folders: Folders,
    source: Path,
    place: Path,
    ledger: Ledger,
    left: set[tuple[Path, str]],
    force: bool,
) -> bool:
    """Put a file back into the inbox and the queue; return whether it is there.

    Args:
        folders: to reach it in.
        source: where it belongs.
        place: where it is.
        ledger: holds its jobs.
        left: folders and stems of the pictures that a companion cannot come back to.
        force: have what is done painted again, too.

    Raises:
        UsageError: its place in the inbox is taken, or a companion's is.
        CannotCreateError, OutputError: it cannot be moved.
    """
    if is_gone(source) and is_gone(place):
        return False
    if (source.parent, source.stem) in left:
        raise UsageError(f"{shown(source)}: stays where its mask or start is, which cannot go back")
    if place != source and _is_taken(folders, source, place):
        raise _taken(source)
    # The jobs first: should we be killed, the file is still listed as failed.
    ledger.jobs.retry(source, force)
    if place != source:
        _move_back(folders, place, source)
    ledger.files.forgive(source)
    ledger.files.forget(source)
    return True


def _companions(chosen: list[Path], failures: Iterable[Path]) -> list[Path]:
    """Return the failed files that went away with one of those that come back."""
    pictures = {(path.parent, path.stem) for path in chosen}
    known = ((path, role(path.name)) for path in failures)
    return [path for path, it in known if it and (path.parent, it[0]) in pictures]


@dataclass(frozen=True)
class Cancellation:
    """What became of a file that was to be cancelled.

    Attributes:
        source: the file.
        cancelled: the styles that it is not painted in.
        late: those that it was painted in already.
    """

    source: Path
    cancelled: list[str]
    late: list[str]


def cancel(config: Config, names: list[str]) -> list[Cancellation]:
    """Take the jobs of some files out of the queue, also those at work; return what was decided.

    Raises:
        UsageError: no such file is in the queue, or was.
    """
    with _ledger(config) as ledger:
        _queue_new(names, ledger, config)
        known = [ledger.jobs.sources(*IN_QUEUE), ledger.jobs.sources(*FINISHED)]
        chosen = _choose(names, config, known)
        decided = [Cancellation(source, *ledger.jobs.cancel(source)) for source in chosen]
        _note_change(ledger)
    wake(config.state)
    return decided


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


def stop(config: Config) -> Holder | None:
    """Ask the daemon to stop, as SIGTERM does; return who it is, or None if there is none.

    Raises:
        UsageError: who works with the state folder is no daemon.
        CannotCreateError: the state folder cannot be written to.
    """
    who = holder(config.state)
    if who is None:
        return None
    if who.command != "watch":
        raise UsageError(
            f"{shown(config.state)}: `nst-pipeline {who.command}`, process {who.pid}, works with "
            "it, and is no daemon; Ctrl-C stops it where it was begun"
        )
    path = config.state / STOP_NAME
    try:
        path.write_text(_stop_request(who))
    except OSError as error:
        raise cannot_write(path, error) from error
    wake(config.state)
    return who


def is_asked_to_stop(state: Path, who: Holder) -> bool:
    """Tell whether somebody asked for the end of this daemon, and no other before it."""
    try:
        return (state / STOP_NAME).read_text() == _stop_request(who)
    except (OSError, UnicodeDecodeError):
        return False


def _stop_request(who: Holder) -> str:
    return f"{who.pid} {who.since}"


def _ledger(config: Config) -> Ledger:
    path = ledger_path(config.state)
    if not path.is_file():
        raise UsageError(f"{shown(path)}: there is no ledger yet: nothing was ever queued")
    if Ledger.is_older(path) and holder(config.state):
        raise UsageError(
            f"{shown(path)}: of an older version, as is who works with it; stop that first"
        )
    return Ledger(path)


def _note_change(ledger: Ledger) -> None:
    """Have a daemon ask the ledger anew what is finished."""
    ledger.set_fact("changed_by_hand", str(time.time_ns()))


def _choose(
    names: list[str],
    config: Config,
    known: list[list[Path]],
    places: Mapping[Path, Path] = MappingProxyType({}),
    done: Sequence[Path] = (),
) -> list[Path]:
    """Return the known files that the names mean: of the first of the lists that holds such.

    Args:
        names: paths, or ends of paths.
        config: the settings.
        known: the files that can be chosen.
        places: where those are that are not where they belong.
        done: files that cannot be chosen, for they are done.

    Raises:
        UsageError: a name means none of them, or several.
    """
    chosen, problems = [], []
    for name in names:
        found = next(filter(None, (_meant(name, config, files, places) for files in known)), [])
        if len(found) == 1:
            chosen.append(found[0])
        elif found:
            several = ", ".join(shown(path) for path in found)
            problems.append(f"{shown(name)}: several files: {several}; give more of the path")
        elif is_done := _meant(name, config, done, {}):
            again = config.command("retry", is_done[0], "--force")
            problems.append(f"{shown(is_done[0])}: is done; `{again}` paints it again")
        else:
            some = ", ".join(shown(path.name) for path in known[0][:5]) or "none"
            problems.append(f"{shown(name)}: no such file there; known: {some}")
    if problems:
        raise UsageError("\n".join(problems))
    return chosen


def _meant(
    name: str, config: Config, files: Sequence[Path], places: Mapping[Path, Path]
) -> list[Path]:
    """Return those of some files that a name means: a path, or at the end of one.

    A file that was moved away is known by its place, and by its report's, too.
    """
    wanted = {Path(name).absolute(), config.inbox / name}
    texts = {shown(place) for place in wanted}  # a name may be copied from what was printed
    forms = {}
    for path in dict.fromkeys(files):
        place = places.get(path, path)
        forms[path] = {path, place, report_path(place)}
    return (
        [path for path in forms if path in wanted]
        or [path for path, known in forms.items() if known & wanted]
        or [path for path, known in forms.items() if texts & set(map(shown, known))]
        or [p for p, known in forms.items() if shown(name) in {shown(k.name) for k in known}]
    )


def _taken(source: Path) -> UsageError:
    return UsageError(f"{shown(source)}: another file has its name by now; rename one of them")


def _is_taken(folders: Folders, source: Path, place: Path) -> bool:
    """Tell whether another file stands where one belongs, and not one of the same bytes."""
    try:
        if not folders.exists(source) or not folders.exists(place):
            return False
        return file_digest(source, folders) != file_digest(place, folders)
    except LinkError:
        return False  # the move will say so
    except OSError:
        return True


def _move_back(folders: Folders, place: Path, source: Path) -> None:
    """Move a file back, or go on with what a kill left of that.

    Raises:
        UsageError: another file has its name.
        CannotCreateError, OutputError: it cannot be moved.
    """
    try:
        if folders.exists(place):  # else somebody put it back, or we did
            folders.make(source.parent)
            _rename_back(folders, place, source)
        folders.unlink(report_path(place), missing_ok=True)
    except FileExistsError:
        raise _taken(source) from None
    except OSError as error:
        raise cannot_write(source, error) from error


def _rename_back(folders: Folders, place: Path, source: Path) -> None:
    if folders.exists(source) and not _is_taken(folders, source, place):
        _remove(folders, place)  # a copy is there already: a kill came before this
        return
    try:
        folders.rename_new(place, source)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy_back(folders, place, source)


def _copy_back(folders: Folders, place: Path, source: Path) -> None:
    """Move a file from another file system: a durable copy first, and only then it goes."""
    mark = f"back-{digest(as_text(source))[:16]}-"
    prefix = folders.temporary(source, mark).name
    for name in folders.names(source.parent):
        if name.startswith(prefix) and not _is_alive(int(name.removeprefix(prefix))):
            folders.unlink(source.with_name(name), missing_ok=True)
    temporary = folders.temporary(source, f"{mark}{os.getpid()}")
    try:
        copy(folders, place, temporary)
        folders.rename_new(temporary, source)
    finally:
        folders.unlink(temporary, missing_ok=True)
    _remove(folders, place)


def _remove(folders: Folders, place: Path) -> None:
    folders.unlink(place)
    folders.sync(place.parent)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
