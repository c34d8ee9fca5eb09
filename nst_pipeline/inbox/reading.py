"""The way in: list files, and read them once."""

import errno
import fcntl
import fnmatch
import functools
import logging
import os
import re
import signal
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from nst_pipeline.errors import BeingWrittenError, ImageError, NotReadyError, UsageError
from nst_pipeline.files import facts, shown
from nst_pipeline.images.decoding import IMAGE_SUFFIXES
from nst_pipeline.inbox.companions import Companion, Listed, paired, seen, together

log = logging.getLogger(__name__)

IMAGE_ENDINGS = tuple(IMAGE_SUFFIXES)
BEING_WRITTEN = "still being written; run again when it is complete"


@dataclass(frozen=True, slots=True)
class Found:
    """A file to paint.

    Attributes:
        path: the file.
        folder: its folder relative to where the search started; kept in the outbox.
        root: where the search started.
        facts: what the file was seen with, or None.
        arrived_ns: when the last of it and its companions got its name or its bytes, in ns since
            the epoch; 0: not known.
        companions: the files that say how it is painted.
    """

    path: Path
    folder: PurePath
    root: Path
    facts: str | None = None
    arrived_ns: int = 0
    companions: tuple[Companion, ...] = ()

    @property
    def seen(self) -> str:
        """What it and its companions were seen with."""
        return seen(self.facts, self.companions)


def find(
    paths: list[Path], ignore: tuple[str, ...] = (), apart: tuple[Path, ...] = ()
) -> list[Found]:
    """List what there is to paint, in a stable order, each file once.

    Args:
        paths: files, taken as they are, and folders, searched with their subfolders. Companions
            come with their pictures.
        ignore: shell patterns of file names that folders hold but nobody wants painted.
        apart: files and folders to pass over, such as the outbox.

    Raises:
        UsageError: one of ``paths`` does not exist.
    """
    listed: dict[str, Listed] = {}
    for path in paths:
        if not os.path.lexists(path):
            raise UsageError(f"{shown(path)}: no such file or folder")
        if path.is_dir():
            files = ((e.path, at) for e, at in walk(path, ignore, apart))
        else:
            files = ((str(p.absolute()), PurePath()) for p in together(path))
        for name, folder in files:
            listed.setdefault(name, (name, folder, path, None))
    return [
        Found(Path(name), folder, root if root.is_dir() else root.parent, companions=companions)
        for (name, folder, root, _), companions in paired(listed.values())
    ]


def walk(
    folder: Path, ignore: tuple[str, ...] = (), apart: tuple[Path, ...] = ()
) -> Iterator[tuple["os.DirEntry[str]", PurePath]]:
    """List the files of a folder and its subfolders, each with its folder relative to the first.

    Left out are hidden files, those that ``ignore`` and ``apart`` name, and symbolic links to
    folders or out of the searched folder. A subfolder that cannot be read is told and left out.

    Raises:
        OSError: ``folder`` itself cannot be read.
    """
    names = _matching(ignore)
    places = frozenset(str(path) for path in apart)
    yield from _walk(folder.absolute(), PurePath(), os.path.realpath(folder), names, places)


def _walk(
    folder: Path, relative: PurePath, root: str, ignore: re.Pattern[str], apart: frozenset[str]
) -> Iterator[tuple["os.DirEntry[str]", PurePath]]:
    with os.scandir(folder) as scan:
        entries = sorted(scan, key=lambda entry: os.fsencode(entry.name))
    for entry in entries:
        if entry.name.startswith(".") or ignore.match(entry.name) or entry.path in apart:
            continue
        # A folder that is named like an image is a mistake to report, not a place to search.
        if entry.is_dir(follow_symlinks=False) and not entry.name.lower().endswith(IMAGE_ENDINGS):
            try:
                yield from _walk(Path(entry.path), relative / entry.name, root, ignore, apart)
            except OSError as error:
                log.warning("%s: cannot be searched: %s", shown(entry.path), error.strerror)
        elif not entry.is_symlink() or _stays_in(entry.path, root):
            yield entry, relative


def _stays_in(link: str, root: str) -> bool:
    target = os.path.realpath(link)
    return target.startswith(f"{root}/") and not Path(target).is_dir()


@functools.lru_cache(maxsize=8)
def _matching(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """Return one expression for many shell patterns; none of them: it matches nothing."""
    return re.compile("|".join(fnmatch.translate(p) for p in patterns) or r"(?!)", re.DOTALL)


def read(path: Path, max_bytes: int, known: str | None = None) -> bytes:
    """Return the bytes of a regular file that nobody changed meanwhile.

    Args:
        path: the file.
        max_bytes: refused above this.
        known: the facts that it was seen with; another file by now is refused.

    Raises:
        BeingWrittenError: being written, or another file than was seen.
        NotReadyError: empty or unreadable.
        ImageError: not a regular file, or too large.
    """
    try:
        # O_NONBLOCK: a FIFO without a writer must not hang the run.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        reason = "a link to nowhere" if path.is_symlink() and not path.exists() else error.strerror
        raise NotReadyError(f"{shown(path)}: {reason}") from error
    try:
        before = os.fstat(descriptor)
        _check_kind(before, path, max_bytes)
        if known not in (None, facts(before)) or _is_being_written(descriptor):
            raise BeingWrittenError(f"{shown(path)}: {BEING_WRITTEN}")
        data = _read_all(descriptor)
        after = os.fstat(descriptor)
    except OSError as error:
        raise NotReadyError(f"{shown(path)}: {error.strerror}") from error
    finally:
        os.close(descriptor)
    if len(data) != before.st_size or facts(after) != facts(before):
        raise BeingWrittenError(f"{shown(path)}: {BEING_WRITTEN}")
    return data


def _is_being_written(descriptor: int) -> bool:
    """Tell whether a process of this machine has the file open for writing.

    The kernel grants a read lease only where there is none; False where it cannot tell.
    """
    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    try:
        # A writer that comes in this very moment has the kernel signal us: with something
        # that is ignored unless somebody asked for it.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    return False


def _check_kind(status: os.stat_result, path: Path, max_bytes: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or device"
        raise ImageError(f"{shown(path)}: {kind}, not an image file")
    if status.st_size == 0:
        raise NotReadyError(f"{shown(path)}: empty; copy it again")
    if status.st_size > max_bytes:
        raise ImageError(
            f"{shown(path)}: {status.st_size:,} bytes; limits.max_bytes allows {max_bytes:,}"
        )


def _read_all(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        return file.read()
