"""What the live page shows of the outbox: results, their thumbnails, and the gallery's files."""

import contextlib
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from nst_pipeline.config.pipeline import Config
from nst_pipeline.errors import PipelineError
from nst_pipeline.folders import Folders
from nst_pipeline.gallery.pictures import SMALL, thumbnail_path
from nst_pipeline.gallery.pieces import ID_DIGITS
from nst_pipeline.images.encoding import SUFFIXES
from nst_pipeline.images.reduction import thumbnail
from nst_pipeline.inbox.kinds import MANIFESTS_NAME
from nst_pipeline.jobs.ledger import Ledger, ledger_path

RESULT_TYPES = {
    ".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp", ".tif": "image/tiff",
    ".avif": "image/avif", ".gif": "image/gif",
}  # fmt: skip
GALLERY_TYPES = RESULT_TYPES | {
    ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8", ".json": "application/json",
    ".svg": "image/svg+xml", ".ico": "image/x-icon", ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}  # fmt: skip
LATEST = 12
"""How many of the last results are shown."""
THUMBNAIL_PIXELS = 40_000_000
"""Of a larger result there is no thumbnail, for it would take too long from the work."""
THUMBNAIL_BYTES = 8 * 2**20
"""Thumbnails that are kept in memory."""


@dataclass(frozen=True)
class Found:
    """A file that may be read.

    Attributes:
        file: open.
        kind: its media type.
        bytes: its size.
        tag: another one when its bytes are.
    """

    file: BufferedReader
    kind: str
    bytes: int
    tag: str


@dataclass(frozen=True)
class Result:
    """A job's result, to be shown.

    Attributes:
        job: its number in the ledger.
        content: the content's name.
        style: the style's name.
        place: its path in the outbox.
        sha256: of the file.
        time: when it was made, in seconds since the epoch.
    """

    job: int
    content: str
    style: str
    place: bytes
    sha256: str
    time: float


class Shelf:
    """Reads the outbox for others: no path leads out of it, or to what is none of theirs.

    Every method may be called in any thread, and reads files.
    """

    def __init__(self, config: Config) -> None:
        """Read the outbox of these settings."""
        self._config = config
        self._folders = Folders((config.outbox,))
        self._alone = threading.Lock()
        self._thumbnails: OrderedDict[str, bytes] = OrderedDict()
        self._without: set[str] = set()

    def latest(self) -> list[Result]:
        """Return the last results that are still there, the last first."""
        with self._ledger() as ledger:
            made = ledger.jobs.latest(2 * LATEST) if ledger else []
        outbox, found = self._config.outbox, []
        for entry, when in made:
            path = entry.final
            if path and path.is_relative_to(outbox) and self._is_there(path):
                place = os.fsencode(path.relative_to(outbox))
                found.append(
                    Result(entry.id, entry.source.name, entry.style, place, str(entry.sha256), when)
                )
        return found[:LATEST]

    def result(self, place: bytes) -> Found | None:
        """Open a result, what goes with one, or a manifest; None: there is none of this name.

        Args:
            place: its path in the outbox.
        """
        path = self._inside(place)
        if path and path.suffix == ".json" and path.parent == self._config.outbox / MANIFESTS_NAME:
            return self._open(path, "application/json")
        if path is None or path.suffix not in RESULT_TYPES:
            return None
        with self._ledger() as ledger:
            if ledger is None or not any(map(ledger.jobs.has_made, _results(path))):
                return None
        return self._open(path, RESULT_TYPES[path.suffix])

    def gallery(self, place: bytes) -> Found | None:
        """Open a file of the gallery; None: there is none of this name.

        Args:
            place: its path in the gallery's folder.
        """
        path = self._inside(os.fsencode(self._config.gallery.name) + b"/" + place)
        if path is None or path.suffix not in GALLERY_TYPES:
            return None
        return self._open(path, GALLERY_TYPES[path.suffix])

    def thumbnail(self, job: int, side: int) -> bytes | None:
        """Return one of the last results, small, as WebP; None: it is none, or too large for that.

        Args:
            job: the number of the job that made it.
            side: the longer side, in pixels.
        """
        result = next((one for one in self.latest() if one.job == job), None)
        if result is None:
            return None
        key, kept = f"{result.sha256} {side}", self._thumbnails
        with self._alone:
            made = kept.pop(key, None) or self._thumbnail_of_gallery(result, side)
            if not made and key not in self._without:
                made = self._make_thumbnail(result, side, key)
            if made:
                kept[key] = made
            while len(kept) > 4 * LATEST or sum(map(len, kept.values())) > THUMBNAIL_BYTES:
                kept.popitem(last=False)
        return made or None

    def _thumbnail_of_gallery(self, result: Result, side: int) -> bytes:
        """Return the gallery's thumbnail; empty: there is none."""
        name, gallery = result.sha256[:ID_DIGITS], self._config.gallery
        # What is small has no large one.
        for made in dict.fromkeys((side, SMALL)):
            if known := self._read(thumbnail_path(gallery, name, made)):
                return known
        return b""

    def _make_thumbnail(self, result: Result, side: int, key: str) -> bytes:
        """Return a thumbnail; empty: there can be none, which is remembered, or not now."""
        if data := self._read(self._config.outbox / os.fsdecode(result.place)):
            try:
                return thumbnail(data, result.content, THUMBNAIL_PIXELS, side)
            except PipelineError:
                self._without.add(key)
        return b""

    def _read(self, path: Path) -> bytes:
        """Return a file's bytes; empty: it cannot be read, or is larger than a picture may be."""
        if found := self._open(path, ""):
            with found.file as file, contextlib.suppress(OSError):
                limit = self._config.limits.max_bytes
                return file.read(limit) if found.bytes <= limit else b""
        return b""

    def _is_there(self, path: Path) -> bool:
        with contextlib.suppress(OSError):
            return self._folders.exists(path)
        return False

    def _inside(self, place: bytes) -> Path | None:
        """Return what a path in the outbox means; None: it leads out, or to what is hidden."""
        names = os.fsdecode(place).split("/")
        if "\0" in os.fsdecode(place) or any(not name or name.startswith(".") for name in names):
            return None
        return self._config.outbox.joinpath(*names)

    def _open(self, path: Path, kind: str) -> Found | None:
        """Open a file, which no link leads to; None: it cannot be read, or is no file."""
        with contextlib.suppress(OSError):
            if not path.is_relative_to(self._config.outbox):
                return None
            file = self._folders.reader(path)
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode):
                tag = f'"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"'
                return Found(file, kind, status.st_size, tag)
            file.close()
        return None

    @contextlib.contextmanager
    def _ledger(self) -> Iterator[Ledger | None]:
        ledger = Ledger.to_read(ledger_path(self._config.state))
        if ledger is None:
            yield None
            return
        with ledger:
            yield ledger


def _results(path: Path) -> Iterator[Path]:
    """Give the results that a file may be, or go with."""
    yield path
    for suffix in SUFFIXES.values():
        yield path.with_suffix(suffix)
        if path.parent.suffix == ".steps":
            yield path.parent.with_suffix(suffix)
