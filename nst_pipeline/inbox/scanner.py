"""The files of the inbox, and which of them are stable: no longer being written, by their look."""

import contextlib
import fnmatch
import functools
import gc
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from types import MappingProxyType

from nst_pipeline.errors import UsageError
from nst_pipeline.files import identity, shown, signature
from nst_pipeline.folders import Entry, Folders, LinkError, entries
from nst_pipeline.images.decoding import IMAGE_SUFFIXES
from nst_pipeline.inbox import reading
from nst_pipeline.inbox.companions import (
    Companion,
    ListedFile,
    combined_signature,
    named_with_companions,
    with_companions,
)
from nst_pipeline.inbox.kinds import SYSTEM_FOLDERS, is_no_picture, is_outbox
from nst_pipeline.inbox.mounts import inbox_gone, is_network
from nst_pipeline.inbox.style_folders import is_style_image, matching

log = logging.getLogger(__name__)

IMAGE_ENDINGS = tuple(IMAGE_SUFFIXES)
LEADS_OUT = (
    "a link to a folder or out of the folder that is searched, passed over; put the file itself "
    "there"
)
NOTES = 10
"""How many files are named of those that a search passes over, and people may wonder about."""

Excluded = Mapping[Path, str]
"""Files and folders to pass over, each with what is to be said of it; empty text: nothing."""


@dataclass
class PassedOver:
    """What a search passed over.

    Attributes:
        by_name: files that are no pictures by their names, or whose names are to be ignored.
        links: symbolic links to folders or out of the folder that is searched.
        results: what earlier runs made, where the outbox is searched.
        notes: of what people may wonder about, a line each.
    """

    by_name: int = 0
    links: int = 0
    results: int = 0
    notes: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """Return the numbers; empty if there is nothing to tell."""
        found = {"by_name": self.by_name, "links": self.links, "results": self.results}
        return found if any(found.values()) else {}

    def __str__(self) -> str:
        """Return the numbers, for people; empty if there is nothing to tell."""
        found = (
            (self.by_name, "file by its name", "files by their names"),
            (self.links, "link to a folder or out of the inbox",
             "links to folders or out of the inbox"),
            (self.results, "result of an earlier run", "results of earlier runs"),
        )  # fmt: skip
        return ", ".join(f"{n} {one if n == 1 else many}" for n, one, many in found if n)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to paint.

    Attributes:
        path: the file.
        folder: its folder relative to where the search started; kept in the outbox.
        root: where the search started; of a file that was named, that itself.
        signature: the file's when it was listed; None: it had none, as a link to nowhere.
        arrived_ns: when the last of it and its companions got its name or its bytes, in ns since
            the epoch; 0: not known.
        companions: the files that say how it is painted.
        device: the number of its file system's.
    """

    path: Path
    folder: PurePath
    root: Path
    signature: str | None = None
    arrived_ns: int = 0
    companions: tuple[Companion, ...] = ()
    device: int = 0

    @property
    def identity(self) -> str | None:
        """What `files.identity` gave when it was listed."""
        return self.signature and f"{self.signature} {self.device}"

    @property
    def signatures(self) -> str:
        """Its own signature with those of its companions."""
        return combined_signature(self.signature, self.companions)


def find(
    paths: list[Path],
    ignore: tuple[str, ...] = (),
    excluded: Excluded = MappingProxyType({}),
    style_paths: Sequence[Path] = (),
) -> list[SourceFile]:
    """Return the files to paint in the order of ``paths`` and of their names, each once.

    Args:
        paths: files, taken as they are, and folders, searched with their subfolders. Companions
            come with their pictures.
        ignore: shell patterns of the names of files to pass over in folders.
        excluded: files and folders to pass over, such as the outbox.
        style_paths: folders and patterns of styles, whose images are passed over in folders.

    Raises:
        UsageError: one of ``paths`` does not exist.
        InboxGoneError: one of them is a folder that cannot be read.
    """
    files: dict[str, ListedFile] = {}
    passed = PassedOver()
    for path in paths:
        for file in list_files(path, ignore, excluded, passed, style_paths=style_paths):
            files.setdefault(file.path, file)
    _tell(passed.notes)
    return [
        _source(file, _own_signature(file), companions)
        for file, companions in with_companions(files.values())
    ]


def list_files(
    root: Path,
    ignore: tuple[str, ...],
    excluded: Excluded,
    passed: PassedOver,
    is_inbox: bool = False,
    style_paths: Sequence[Path] = (),
) -> Iterator[ListedFile]:
    """List the files of a folder and its subfolders, or the file ``root`` and its companions.

    Left out of a folder are hidden files, those that ``ignore`` and ``excluded`` name, those whose
    names say that they are no pictures, the system's folders, symbolic links to folders or out of
    it, subfolders that cannot be read, images of folders of styles, and unless it is the inbox,
    outboxes of earlier runs.

    Args:
        root: the folder or file.
        ignore: shell patterns of file names, in any case.
        excluded: absolute paths.
        passed: told of what is left out.
        is_inbox: whether ``root`` has to be a folder; one that is not there may come back.
        style_paths: folders and patterns of styles.

    Raises:
        InboxGoneError: a folder that cannot be read, or an inbox that is not there.
        UsageError: anything else that is not there.
    """
    if not is_inbox and not os.path.lexists(root):
        raise UsageError(f"{shown(root)}: no such file or folder")
    if not is_inbox and not _is_folder(root):
        yield from _named(root.absolute(), passed)
        return
    try:
        yield from _Search(
            root.absolute(), os.path.realpath(root), _matching(ignore), _real(excluded), passed,
            is_inbox, style_paths,
        ).files()  # fmt: skip
    except OSError as error:
        raise inbox_gone(root, error) from error


def _named(root: Path, passed: PassedOver) -> Iterator[ListedFile]:
    """List a file that was named, and its companions but those that are links out of the folder."""
    for path in named_with_companions(root):
        try:
            status = reading.status(path, root)
        except LinkError:
            passed.links += 1
            passed.notes.append(f"{shown(path)}: {LEADS_OUT}")
            continue
        except OSError:
            status = None
        yield ListedFile(str(path), PurePath(), root, status)


@dataclass(frozen=True)
class _Search:
    """A search of a folder.

    Attributes:
        folder: its path.
        root: its real path.
        ignore: the names to pass over.
        excluded: the real paths to pass over, with what is to be said of them.
        passed: told of what is passed over.
        is_inbox: whether outboxes of earlier runs in it are searched like any folder.
        style_paths: folders and patterns of styles.
    """

    folder: Path
    root: str
    ignore: re.Pattern[str]
    excluded: Mapping[str, str]
    passed: PassedOver
    is_inbox: bool
    style_paths: Sequence[Path]

    def files(self) -> Iterator[ListedFile]:
        """List the files to paint, each folder's in the place of its name.

        Raises:
            OSError: the folder itself cannot be searched.
        """
        rest: list[ListedFile | PurePath] = [PurePath()]
        while rest:
            one = rest.pop()
            if isinstance(one, PurePath):
                rest.extend(reversed(self._found_in(one)))
            else:
                yield one

    def _found_in(self, relative: PurePath) -> list[ListedFile | PurePath]:
        """Return a folder's files to paint and its folders to search."""
        path = self.folder / relative
        try:
            with Folders((self.folder,)).opened(path) as folder:
                return list(self._entries(folder, path, relative))
        except OSError as error:
            if not relative.parts:
                raise
            if not isinstance(error, FileNotFoundError):  # taken away since its parent was read
                self._note(f"{shown(path)}: cannot be searched: {error.strerror}")
            return []

    def _entries(
        self, folder: int, path: Path, relative: PurePath
    ) -> Iterator[ListedFile | PurePath]:
        found = entries(folder)
        is_below = relative.parts and not self.is_inbox
        if is_below and is_outbox(path, {e.name for e in found}, Folders((self.folder,))):
            self._note(f"{shown(path)}: the outbox of an earlier run, passed over; name it to "
                       "have it painted")  # fmt: skip
            return
        real = f"{self.root}/{relative}" if relative.parts else self.root
        if self.style_paths:
            found = self._without_styles(found, path, real)
        for entry in found:
            name = entry.name
            if name.startswith("."):
                continue
            if (note := self.excluded.get(f"{real}/{name}")) is not None:
                self._note(note)
            # A folder that is named like an image is a mistake to report, not one to search.
            elif entry.is_folder and not _is_like_image(name):
                if not self.ignore.match(name) and name.lower() not in SYSTEM_FOLDERS:
                    yield relative / name
            elif self.ignore.match(name) or is_no_picture(name):
                self.passed.by_name += 1
            elif entry.is_link and not _stays_in(f"{path}/{name}", self.root):
                self.passed.links += 1
                self._note(f"{shown(path / name)}: {LEADS_OUT}")
            else:
                yield from self._listed(folder, path, relative, entry)

    def _without_styles(self, found: list[Entry], path: Path, real: str) -> list[Entry]:
        styles = matching(self.style_paths, real)
        if styles is None:
            return found
        rest = [
            entry
            for entry in found
            if entry.is_folder or not (is_style_image(entry.name) and styles.match(entry.name))
        ]
        if len(rest) < len(found):
            self._note(f"{shown(path)}: images of styles are passed over; name one as a picture to "
                       "have it painted")  # fmt: skip
        return rest

    def _listed(
        self, folder: int, path: Path, relative: PurePath, entry: Entry
    ) -> Iterator[ListedFile]:
        place, status = f"{path}/{entry.name}", None
        try:
            if entry.is_link:
                status = reading.status(Path(place), self.folder)
            else:
                status = os.stat(entry.name, dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not entry.is_link:
                return  # taken away since the folder was read
        yield ListedFile(place, relative, self.folder, status)

    def _note(self, note: str) -> None:
        if note:
            self.passed.notes.append(note)


def _is_like_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_ENDINGS)


def _real(excluded: Excluded) -> dict[str, str]:
    """Return real paths: of what is excluded, and should it be a link, of the link too."""
    found = {}
    for path, note in excluded.items():
        found[os.path.realpath(path)] = note
        found[os.path.join(os.path.realpath(path.parent), path.name)] = note  # noqa: PTH118
    return found


def _tell(notes: list[str]) -> None:
    """Log some notes, not too many."""
    for note in some_of(notes):
        log.warning("%s", note)


def some_of(notes: list[str]) -> list[str]:
    """Return notes for people, not too many, and how many more there are."""
    more = len(notes) - NOTES
    return [*notes[:NOTES], f"and {more} more like these"] if more > 0 else notes


def _stays_in(link: str, root: str) -> bool:
    try:
        target = os.path.realpath(link)
    except OSError:  # it is no link any more
        return False
    return target.startswith(f"{root}/") and not _is_folder(target)


def _is_folder(path: Path | str) -> bool:
    """Tell whether a path is a folder; one that cannot even be looked at is none."""
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises PermissionError


def _own_signature(file: ListedFile) -> str | None:
    return signature(file.status) if file.status else None


def _source(file: ListedFile, own: str | None, companions: tuple[Companion, ...]) -> SourceFile:
    arrived, device = (file.status.st_ctime_ns, file.status.st_dev) if file.status else (0, 0)
    arrived = max([arrived, *(companion.arrived_ns for companion in companions)])
    return SourceFile(Path(file.path), file.folder, file.root, own, arrived, companions, device)


@functools.lru_cache(maxsize=8)
def _matching(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """Return one expression for many shell patterns, in any case; of none, what matches nothing."""
    expression = "|".join(fnmatch.translate(p) for p in patterns) or r"(?!)"
    return re.compile(expression, re.DOTALL | re.IGNORECASE)


def is_unchanged(found: SourceFile) -> bool:
    """Tell whether a file is the very one that was listed."""
    try:
        return identity(reading.status(found.path, found.root)) == found.identity
    except OSError:
        return False


@dataclass(frozen=True)
class Scan:
    """What a look at the folders found.

    Attributes:
        stable: files that are complete as far as anybody can tell and have something left to do,
            the first to do first.
        unstable: files that changed too recently.
        finished: folder and stem of the files that nothing is left to do for.
        wait_seconds: when the next of ``unstable`` may be stable; None: there is none.
        passed_over: what is not painted.
    """

    stable: list[SourceFile] = field(default_factory=list)
    unstable: list[SourceFile] = field(default_factory=list)
    finished: list[tuple[PurePath, str]] = field(default_factory=list)
    wait_seconds: float | None = None
    passed_over: PassedOver = field(default_factory=PassedOver)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Switch Python's garbage collector off meanwhile: it would search a million live objects."""
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
        roots: what it looks at.
        known_as: what the files that are finished were called when they were set.
    """

    def __init__(
        self,
        roots: list[Path],
        ignore: tuple[str, ...],
        excluded: Excluded,
        settle_seconds: float,
        urgent: str = "",
        is_inbox: bool = False,
        style_paths: Sequence[Path] = (),
    ) -> None:
        """Look at nothing yet.

        Args:
            roots: folders, and files that are taken as they are.
            ignore: as `list_files` takes it.
            excluded: likewise.
            settle_seconds: how long a file must stay the same to be stable.
            urgent: subfolder of a root whose files come first.
            is_inbox: whether the roots are the inbox and not what somebody named; as `list_files`
                takes it.
            style_paths: as `list_files` takes them.
        """
        self.roots, self._ignore, self._excluded = roots, ignore, excluded
        self._settle_seconds, self._urgent, self._is_inbox = settle_seconds, urgent, is_inbox
        self._style_paths = style_paths
        self._since: dict[str, tuple[str, float]] = {}
        self._noted: set[str] = set()
        self._finished: dict[str, str] = {}
        self.known_as = ""
        # Where others write, their clock is not ours, and only watching tells a file's age.
        self._trusts_clock = not any(is_network(root) for root in roots)

    def set_finished(self, finished: dict[str, str], known_as: str) -> None:
        """Replace the files that nothing is left to do for.

        Args:
            finished: their signatures, by their paths. One that has companions by now is looked at
                again.
            known_as: what to call them, so that the caller sees whether they are still the right
                ones.
        """
        self._finished, self.known_as = finished, known_as

    def add_finished(self, found: SourceFile) -> None:
        """Leave a file out from now on, until it or a companion changes."""
        if found.signature:
            self._finished[str(found.path)] = found.signatures

    def age_seconds(self, found: SourceFile) -> float:
        """Return how long a file has been the same, as far as can be told."""
        before, since = self._since.get(str(found.path), (None, 0.0))
        now = time.monotonic()
        is_same = before and before == found.signatures
        return self._age_seconds(since if is_same else now, found.arrived_ns, now)

    def _age_seconds(self, since: float, arrived_ns: int, now: float) -> float:
        by_clock = (time.time_ns() - arrived_ns) / 1e9 if self._trusts_clock else 0.0
        return max(now - since, by_clock)

    @uncollected()
    def scan(self) -> Scan:
        """Look at all files: one stat each, no reading.

        Raises:
            InboxGoneError: a folder to search is not there, or cannot be read.
            UsageError: another path that was given is not there.
        """
        stable: list[SourceFile] = []
        unstable: list[SourceFile] = []
        finished: list[tuple[PurePath, str]] = []
        ages: list[float] = []
        seen: dict[str, tuple[str, float]] = {}
        now = time.monotonic()
        passed = PassedOver()
        for file, companions in with_companions(self._files(passed)):
            own = _own_signature(file)
            whole = combined_signature(own, companions)
            if own and self._finished.get(file.path) == whole:
                finished.append((file.folder, PurePath(file.path).stem))
                continue
            if file.path in seen:
                continue
            before = self._since.get(file.path)
            since = before[1] if before and before[0] == whole else now
            seen[file.path] = whole, since
            found = _source(file, own, companions)
            age = self._age_seconds(since, found.arrived_ns, now)
            if age >= self._settle_seconds:
                stable.append(found)
            else:
                unstable.append(found)
                ages.append(age)
        self._since = seen
        stable.sort(key=self._rank)
        wait = max(0.0, self._settle_seconds - max(ages)) if ages else None
        self._tell_once(passed.notes)
        return Scan(stable, unstable, finished, wait, passed)

    def _files(self, passed: PassedOver) -> Iterator[ListedFile]:
        for root in self.roots:
            yield from list_files(
                root, self._ignore, self._excluded, passed, self._is_inbox, self._style_paths
            )

    def _tell_once(self, notes: list[str]) -> None:
        """Log what the scan before did not find."""
        _tell([note for note in dict.fromkeys(notes) if note not in self._noted])
        self._noted = set(notes)

    def _rank(self, found: SourceFile) -> tuple[bool, int]:
        return not self.is_urgent(found), found.arrived_ns

    def is_urgent(self, found: SourceFile) -> bool:
        """Tell whether a file is to come first."""
        return bool(self._urgent) and found.folder.parts[:1] == (self._urgent,)
