"""Thumbnails: WebP in two sizes, upright and sRGB, made once and named by digests."""

import contextlib
import io
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from nst_pipeline.config.pipeline import Config
from nst_pipeline.digests import bytes_digest
from nst_pipeline.errors import ImageError, NotReadyError
from nst_pipeline.files import is_gone, numbered, publish, shown
from nst_pipeline.folders import Folders
from nst_pipeline.gallery.pieces import ID_DIGITS
from nst_pipeline.images.apart import try_apart
from nst_pipeline.images.decoding import check_need, decode, identify
from nst_pipeline.images.reduction import as_picture
from nst_pipeline.inbox import reading

SMALL, LARGE = 480, 1600
"""Longer sides in pixels; what is no longer than the first has that alone."""
QUALITY = {SMALL: 78, LARGE: 84}
EFFORT = 3
"""Of WebP's encoder: 4 takes half as long again, for 2 % less."""
MANY_PIXELS = 8_000_000
"""Pictures of more are decoded one at a time."""
THREADS = 2
FOLDER = "pictures"


class Size(NamedTuple):
    """The proportions of a picture, upright, and whether it has a large thumbnail."""

    height: int
    width: int
    has_large: bool


def thumbnail_path(gallery: Path, picture: str, side: int) -> Path:
    """Return where a thumbnail stands, by the first `ID_DIGITS` of the picture's SHA-256."""
    return gallery / FOLDER / picture[:2] / f"{picture}-{side}.webp"


class Pictures:
    """The thumbnails of a gallery.

    Attributes:
        sizes: of the pictures that have thumbnails, by the first digits of their SHA-256.
        made: those whose thumbnails were made just now.
        sound: digests of files that jobs decoded; any other is decoded in another process first,
            for it may be why a job failed.
    """

    def __init__(self, config: Config, folders: Folders, sizes: dict[str, Size]) -> None:
        """Work in the gallery's folder; ``sizes`` are those that an earlier update knew."""
        self._config, self._folders, self.sizes = config, folders, sizes
        self.made: list[str] = []
        self.sound: set[str] = set()
        self._unread: set[str] = set()
        self._alone = threading.Lock()

    def path(self, picture: str, side: int) -> Path:
        """Return where a thumbnail stands."""
        return thumbnail_path(self._config.gallery, picture, side)

    def make(self, path: Path, sha256: str = "") -> str | None:
        """Make the thumbnails of a file, unless they are there; return what they are named by.

        None: the file is not there, or is no picture of the digest, if one is given.
        """
        if known := self._known(sha256):
            return known
        limits = self._config.limits
        with contextlib.suppress(ImageError, OSError):
            try:
                data = reading.read(path, limits.max_bytes, root=self._config.root_of(path))
            except NotReadyError:
                if not is_gone(path):
                    self._unread.add(sha256 or str(path))
                raise
            found = bytes_digest(data)
            if sha256 and found != sha256:
                return None
            if known := self._known(found):
                return known
            if found not in self.sound:
                try_apart(data, shown(path), limits.max_pixels)
            picture = found[:ID_DIGITS]
            self.sizes[picture] = self._make(picture, data, shown(path))
            self.made.append(picture)
            return picture
        return None

    def is_unread(self, name: str) -> bool:
        """Tell whether a file was there, could not be read just now, and has no thumbnails.

        Args:
            name: its digest, if one is known; else its path.
        """
        return name in self._unread and name[:ID_DIGITS] not in self.sizes

    def _known(self, sha256: str) -> str | None:
        """Return what a picture is named by, if it has its thumbnails."""
        picture = sha256[:ID_DIGITS]
        if picture and picture not in self.sizes:
            # An update that was ended may have made them, or whoever deleted the source.
            with contextlib.suppress(OSError, UnidentifiedImageError):
                self.sizes[picture] = self._found(picture)
        return picture if picture in self.sizes else None

    def _found(self, picture: str) -> Size:
        # The large one is made first, so that both are there if the small one is.
        sizes: list[tuple[int, int]] = []
        for side in (SMALL, LARGE):
            with (
                contextlib.suppress(*([FileNotFoundError] if sizes else [])),
                self._folders.reader(self.path(picture, side)) as file,
                Image.open(file) as image,
            ):
                sizes.append(image.size)
        width, height = sizes[-1]
        return Size(height, width, len(sizes) == 2)

    def photograph(self, source: Path, sha256: str) -> str | None:
        """Do as `make`, of a content, wherever it was moved to."""
        if known := self._known(sha256):
            return known
        inbox = self._config.inbox
        relative = source.relative_to(inbox) if source.is_relative_to(inbox) else Path(source.name)
        moved = (self._config.processed / relative, self._config.failed / relative)
        places = [source, *(numbered(place, n) for place in moved for n in (1, 2, 3))]
        return next(filter(None, (self.make(place, sha256) for place in places)), None)

    def _make(self, picture: str, data: bytes, name: str) -> Size:
        limits = self._config.limits
        height, width = identify(data, name, limits.max_pixels)
        check_need(data, name, limits.max_pixels, limits.memory_bytes)
        with self._alone if height * width > MANY_PIXELS else contextlib.nullcontext():
            image = as_picture(decode(data, name, limits.max_pixels))
            size = Size(image.height, image.width, max(image.size) > SMALL)
            for side in (LARGE, SMALL) if size.has_large else (SMALL,):
                image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3)
                buffer = io.BytesIO()
                image.save(buffer, "WEBP", quality=QUALITY[side], method=EFFORT)
                publish(self.path(picture, side), buffer.getvalue(), self._folders, durably=False)
        return size


def at_once(work: Sequence[Callable[[], None]], check: Callable[[], None]) -> None:
    """Do several things, a few at a time; ``check``, which may raise, is called before each."""

    def do(one: Callable[[], None]) -> None:
        check()
        one()

    with ThreadPoolExecutor(THREADS) as pool:
        try:
            for _ in pool.map(do, work):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
