"""Which files of the inbox are stable: complete as far as anybody can tell without reading."""

import contextlib
import fnmatch
import functools
import gc
import logging
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from nst_pipeline.errors import InboxGoneError, UsageError
from nst_pipeline.files import shown, signature
from nst_pipeline.images.decoding import IMAGE_SUFFIXES
from nst_pipeline.inbox.companions import (
    Companion,
    Listed,
    combined_signature,
    named_with_companions,
    with_companions,
)
from nst_pipeline.inbox.mounts import is_network

log = logging.getLogger(__name__)

IMAGE_ENDINGS = tuple(IMAGE_SUFFIXES)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to paint.

    Attributes:
        path: the file.
        folder: its folder relative to where the search started; kept in the outbox.
        root: where the search started.
        signature: what the file was seen with, or None.
        arrived_ns: when the last of it and its companions got its name or its bytes, in ns since
            the epoch; 0: not known.
        companions: the files that say how it is painted.
    """

    path: Path
    folder: PurePath
    root: Path
    signature: str | None = None
    arrived_ns: int = 0
    companions: tuple[Companion, ...] = ()

    @property
    def signatures(self) -> str:
        """What it and its companions were seen with."""
        return combined_signature(self.signature, self.companions)


def find(
    paths: list[Path], ignore: tuple[str, ...] = (), excluded: tuple[Path, ...] = ()
) -> list[SourceFile]:
    """List what there is to paint, in a stable order, each file once.

    Args:
        paths: files, taken as they are, and folders, searched with their subfolders. Companions
            come with their pictures.
        ignore: shell patterns of file names that folders hold but nobody wants painted.
        excluded: files and folders to pass over, such as the outbox.

    Raises:
        UsageError: one of ``paths`` does not exist.
    """
    listed: dict[str, Listed] = {}
    for path in paths:
        if not os.path.lexists(path):
            raise UsageError(f"{shown(path)}: no such file or folder")
        if path.is_dir():
            files = ((e.path, at) for e, at in walk(path, ignore, excluded))
        else:
            files = ((str(p.absolute()), PurePath()) for p in named_with_companions(path))
        for name, folder in files:
            listed.setdefault(name, (name, folder, path, None))
    return [
        SourceFile(
            Path(name), folder, root if root.is_dir() else root.parent, companions=companions
        )
        for (name, folder, root, _), companions in with_companions(listed.values())
    ]


def walk(
    folder: Path, ignore: tuple[str, ...] = (), excluded: tuple[Path, ...] = ()
) -> Iterator[tuple["os.DirEntry[str]", PurePath]]:
    """List the files of a folder and its subfolders, each with its folder relative to the first.

    Left out are hidden files, those that ``ignore`` and ``excluded`` name, and symbolic links to
    folders or out of the searched folder. A subfolder that cannot be read is told and left out.

    Raises:
        OSError: ``folder`` itself cannot be read.
    """
    names = _matching(ignore)
    places = frozenset(str(path) for path in excluded)
    yield from _walk(folder.absolute(), PurePath(), os.path.realpath(folder), names, places)


def _walk(
    folder: Path, relative: PurePath, root: str, ignore: re.Pattern[str], excluded: frozenset[str]
) -> Iterator[tuple["os.DirEntry[str]", PurePath]]:
    with os.scandir(folder) as scan:
        entries = sorted(scan, key=lambda entry: os.fsencode(entry.name))
    for entry in entries:
        if entry.name.startswith(".") or ignore.match(entry.name) or entry.path in excluded:
            continue
        # A folder that is named like an image is a mistake to report, not a place to search.
        if entry.is_dir(follow_symlinks=False) and not entry.name.lower().endswith(IMAGE_ENDINGS):
            try:
                yield from _walk(Path(entry.path), relative / entry.name, root, ignore, excluded)
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


@dataclass(frozen=True)
class Scan:
    """What a look at the folders found.

    Attributes:
        stable: files that are ready and have something left to do, the first to do first.
        unstable: files that changed too recently.
        finished: folder and name of the files that nothing is left to do for.
        wait_seconds: when the next of ``unstable`` may be stable; None: there is none.
    """

    stable: list[SourceFile] = field(default_factory=list)
    unstable: list[SourceFile] = field(default_factory=list)
    finished: list[tuple[PurePath, str]] = field(default_factory=list)
    wait_seconds: float | None = None


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Look for no garbage meanwhile: among a million objects, none of it, that takes long."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


class Scanner:
    """Looks at folders again and again, and remembers since when each file has been the same.

    Attributes:
        knows: for its user, to tell what `forget` was last told of.
    """

    def __init__(
        self,
        roots: list[Path],
        ignore: tuple[str, ...],
        excluded: tuple[Path, ...],
        settle_seconds: float,
        urgent: str = "",
    ) -> None:
        """Look at nothing yet.

        Args:
            roots: folders, and files that are taken as they are.
            ignore: as `inbox.walk` takes it.
            excluded: likewise.
            settle_seconds: how long a file must stay the same.
            urgent: subfolder of a root whose files come first.
        """
        self._roots, self._ignore, self._excluded = roots, ignore, excluded
        self._settle_seconds, self._urgent = settle_seconds, urgent
        self._since: dict[str, tuple[str, float]] = {}
        self._finished: dict[str, str] = {}
        self.knows = ""
        # Where others write, their clock is not ours, and only watching tells a file's age.
        self._trusts_clock = not any(is_network(root) for root in roots)

    def forget(self, finished: dict[str, str]) -> None:
        """Take in anew which files (paths as text, with their signatures) have nothing left to do.

        One with companions is none of them: it is looked at again.
        """
        self._finished = finished

    def finish(self, found: SourceFile) -> None:
        """Leave a file out from now on, until it changes."""
        if found.signature:
            self._finished[shown(found.path)] = found.signatures

    def age_seconds(self, found: SourceFile) -> float:
        """Return how long a file has been the same, as far as is known."""
        known, since = self._since.get(str(found.path), (None, 0.0))
        watched = time.monotonic() - since if known and known == found.signatures else 0.0
        by_clock = (time.time_ns() - found.arrived_ns) / 1e9 if self._trusts_clock else 0.0
        return max(watched, by_clock)

    @uncollected()
    def scan(self) -> Scan:
        """Look at all files: one stat each, no reading.

        Raises:
            InboxGoneError: a folder to search is not there.
            UsageError: another path that was given is not there.
        """
        stable: list[SourceFile] = []
        unstable: list[SourceFile] = []
        finished: list[tuple[PurePath, str]] = []
        ages: list[float] = []
        seen: dict[str, tuple[str, float]] = {}
        now = time.monotonic()
        for (path, folder, root, status), beside in with_companions(self._files()):
            own = signature(status) if status else None
            known = combined_signature(own, beside)
            if own and self._finished and self._finished.get(shown(path)) == known:
                finished.append((folder, PurePath(path).stem))
                continue
            if path in seen:
                continue
            before = self._since.get(path)
            seen[path] = before if before and before[0] == known else (known, now)
            arrived = max([status.st_ctime_ns if status else 0, *(c.arrived_ns for c in beside)])
            found = SourceFile(Path(path), folder, root, own, arrived, beside)
            age = now - seen[path][1]
            if self._trusts_clock:
                age = max(age, (time.time_ns() - arrived) / 1e9)
            if age >= self._settle_seconds:
                stable.append(found)
            else:
                unstable.append(found)
                ages.append(age)
        self._since = seen
        stable.sort(key=self._rank)
        wait = max(0.0, self._settle_seconds - max(ages)) if ages else None
        return Scan(stable, unstable, finished, wait)

    def _rank(self, found: SourceFile) -> tuple[bool, int]:
        return not self.is_urgent(found), found.arrived_ns

    def is_urgent(self, found: SourceFile) -> bool:
        """Tell whether a file is to come first."""
        return bool(self._urgent) and found.folder.parts[:1] == (self._urgent,)

    def _files(self) -> Iterator[tuple[str, PurePath, Path, os.stat_result | None]]:
        for root in self._roots:
            if not os.path.lexists(root):
                raise UsageError(f"{shown(root)}: no such file or folder")
            if not root.is_dir():
                for path in named_with_companions(root):
                    yield str(path.absolute()), PurePath(), root.parent, _status(path)
                continue
            try:
                for entry, folder in walk(root, self._ignore, self._excluded):
                    try:
                        status = entry.stat()
                    except FileNotFoundError:
                        if not entry.is_symlink():
                            continue  # taken away since the folder was read
                        status = None
                    except OSError:
                        status = None
                    yield entry.path, folder, root, status
            except OSError as error:
                problem = f"inbox: {shown(root)}: {error.strerror}; mount or create it"
                raise InboxGoneError([problem]) from error


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None
