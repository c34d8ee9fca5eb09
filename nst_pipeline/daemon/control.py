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
from nst_pipeline.daemon.live import PAUSED_NAME
from nst_pipeline.errors import UsageError
from nst_pipeline.files import (
    TEMPORARY_PREFIX,
    cannot_write,
    make_folder,
    rename_new,
    shown,
    sync_folder,
)
from nst_pipeline.inbox.companions import role
from nst_pipeline.jobs.ledger import Ledger
from nst_pipeline.jobs.lock import holder
from nst_pipeline.jobs.planning import ledger_path
from nst_pipeline.runner.moves import report_path


def retry(config: Config, names: list[str]) -> list[Path]:
    """Put failed and cancelled files back into the inbox and the queue; return them.

    Args:
        config: the settings.
        names: of files, as paths, relative to the inbox, or alone; none: all that failed.

    Raises:
        UsageError: no such file, or its place in the inbox is taken.
        OutputError: it cannot be moved.
    """
    with _ledger(config) as ledger:
        failures = _failures(ledger)
        failed = _sources(ledger, "failed")
        if names:
            known = [*failures, *failed, *_sources(ledger, "cancelled"),
                     *_sources(ledger, "queued")]  # fmt: skip
            chosen = _choose(names, known, config)
        else:
            chosen = [*failures, *failed]
        # Companions first, so that their picture is never seen without them.
        chosen = list(dict.fromkeys([*_companions(chosen, failures), *chosen]))
        for source in chosen:
            # The jobs first: should we be killed, the file is still listed as failed.
            ledger.database.execute(
                "UPDATE jobs SET state = 'gone' WHERE source = ? AND state IN "
                "('failed', 'cancelled')",
                (os.fsencode(source),),
            )
            ledger.database.execute(
                "UPDATE jobs SET next_try = 0 WHERE source = ? AND state = 'queued'",
                (os.fsencode(source),),
            )
            if (place := failures.get(source)) is not None and place != source:
                _move_back(place, source)
            ledger.database.execute("DELETE FROM failures WHERE source = ?", (os.fsencode(source),))
            ledger.unsettle(source)
        _tell(ledger)
    nudge(config.state)
    return chosen


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
        known = [*_sources(ledger, "queued"), *_sources(ledger, "running")]
        chosen = _choose(names, known, config)
        for source in chosen:
            ledger.database.execute(
                "UPDATE jobs SET state = 'cancelled' WHERE source = ? AND state IN "
                "('queued', 'running')",
                (os.fsencode(source),),
            )
        _tell(ledger)
    nudge(config.state)
    return chosen


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
    nudge(config.state)


def resume(config: Config) -> None:
    """End a pause.

    Raises:
        CannotCreateError: the state folder cannot be written to.
    """
    try:
        (config.state / PAUSED_NAME).unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(config.state / PAUSED_NAME, error) from error
    nudge(config.state)


def nudge(state: Path) -> None:
    """Have a daemon look at once; one of another user looks at its next scan."""
    who = holder(state)
    if who is not None and who.command == "watch" and who.pid:
        with contextlib.suppress(OSError):
            os.kill(who.pid, signal.SIGUSR1)


def _ledger(config: Config) -> Ledger:
    path = ledger_path(config)
    if not path.is_file():
        raise UsageError(f"{shown(path)}: there is no ledger yet: nothing was ever queued")
    return Ledger(path)


def _tell(ledger: Ledger) -> None:
    ledger.set_fact("told", str(time.time_ns()))


def _failures(ledger: Ledger) -> dict[Path, Path]:
    rows = ledger.database.execute("SELECT source, place FROM failures ORDER BY failed")
    return {Path(os.fsdecode(source)): Path(os.fsdecode(place)) for source, place in rows}


def _sources(ledger: Ledger, state: str) -> list[Path]:
    rows = ledger.database.execute(
        "SELECT DISTINCT source FROM jobs WHERE state = ? AND source <> X''", (state,)
    )
    return [Path(os.fsdecode(source)) for (source,) in rows]


def _choose(names: list[str], known: list[Path], config: Config) -> list[Path]:
    """Return the known files that the names mean.

    Raises:
        UsageError: a name means none of them, or several.
    """
    known = list(dict.fromkeys(known))
    chosen, problems = [], []
    for name in names:
        places = (Path(name).absolute(), config.inbox / name)
        found = [path for path in known if path in places] or [
            path for path in known if path.name == Path(name).name and "/" not in name
        ]
        if len(found) == 1:
            chosen.append(found[0])
        elif found:
            several = ", ".join(shown(path) for path in found)
            problems.append(f"{name}: several files: {several}; give more of the path")
        else:
            some = ", ".join(shown(path.name) for path in known[:5]) or "none"
            problems.append(f"{name}: no such file there; known: {some}")
    if problems:
        raise UsageError("\n".join(problems))
    return chosen


def _move_back(place: Path, source: Path) -> None:
    if not os.path.lexists(place):
        return  # somebody put it back, or threw it away
    try:
        make_folder(source.parent)
        try:
            rename_new(place, source)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy_back(place, source)
        report_path(place).unlink(missing_ok=True)
    except FileExistsError:
        raise UsageError(
            f"{shown(source)}: another file has its name by now; rename one of them"
        ) from None
    except OSError as error:
        raise cannot_write(source, error) from error


def _copy_back(place: Path, source: Path) -> None:
    temporary = source.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-back")
    try:
        shutil.copy2(place, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        rename_new(temporary, source)
    finally:
        temporary.unlink(missing_ok=True)
    place.unlink()
    sync_folder(place.parent)
