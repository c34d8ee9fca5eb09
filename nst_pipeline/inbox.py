"""The way in: list files, read them once, decode them safely to upright sRGB."""

import contextlib
import errno
import fcntl
import fnmatch
import functools
import hashlib
import io
import logging
import os
import re
import signal
import stat
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError, features

from nst_pipeline.errors import BeingWrittenError, ImageError, NotReadyError, UsageError
from nst_pipeline.files import facts, shown

log = logging.getLogger(__name__)

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")
IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif")
)
IMAGE_ENDINGS = tuple(IMAGE_SUFFIXES)
BEING_WRITTEN = "still being written; run again when it is complete"
ORIENTATION = 0x0112


@dataclass(frozen=True, slots=True)
class Found:
    """A file to paint.

    Attributes:
        path: the file.
        folder: its folder relative to where the search started; kept in the outbox.
        root: where the search started.
        facts: what the file was seen with, or None.
        arrived_ns: when it got its name or its bytes, in ns since the epoch; 0: not known.
    """

    path: Path
    folder: PurePath
    root: Path
    facts: str | None = None
    arrived_ns: int = 0


@dataclass(frozen=True)
class Decoded:
    """An upright 8-bit sRGB image.

    Attributes:
        image: mode RGB.
        alpha: mode L, or None where everything is opaque.
        exif: the file's EXIF block without the orientation; empty where there is none.
    """

    image: Image.Image
    alpha: Image.Image | None
    exif: bytes


def find(
    paths: list[Path], ignore: tuple[str, ...] = (), apart: tuple[Path, ...] = ()
) -> list[Found]:
    """List what there is to paint, in a stable order, each file once.

    Args:
        paths: files, taken as they are, and folders, searched with their subfolders.
        ignore: shell patterns of file names that folders hold but nobody wants painted.
        apart: files and folders to pass over, such as the outbox.

    Raises:
        UsageError: one of ``paths`` does not exist.
    """
    found: dict[Path, Found] = {}
    for path in paths:
        if not os.path.lexists(path):
            raise UsageError(f"{shown(path)}: no such file or folder")
        if not path.is_dir():
            items = iter([Found(path.absolute(), PurePath(), path.parent)])
        else:
            items = (Found(Path(e.path), at, path) for e, at in walk(path, ignore, apart))
        for item in items:
            found.setdefault(item.path, item)
    return list(found.values())


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


def bytes_digest(data: bytes) -> str:
    """Return the SHA-256 of ``data``, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def decode(data: bytes, name: str, max_pixels: int) -> Decoded:
    """Decode an image file, by content and not by suffix.

    EXIF orientation is applied, colours are converted to sRGB through the embedded profile,
    16-bit samples are reduced to 8.

    Args:
        data: the whole file, in one of `FORMATS`.
        name: of the file, for messages.
        max_pixels: refused above this, before any pixel is decoded.

    Raises:
        ImageError: not such an image, cut short, damaged or too large.
    """
    with _opened(data, name, max_pixels) as image:
        image.load()
        return _normalise(image)


def identify(data: bytes, name: str, max_pixels: int) -> tuple[int, int]:
    """Return an image file's (height, width), by its header alone.

    Raises:
        ImageError: not an image in one of `FORMATS`, or too large.
    """
    with _opened(data, name, max_pixels) as image:
        return image.height, image.width


@contextlib.contextmanager
def _opened(data: bytes, name: str, max_pixels: int) -> Iterator[Image.Image]:
    """Open an image; whatever goes wrong with it, here or in the with block, is an ImageError."""
    with warnings.catch_warnings():
        # Pillow warns of large images and odd metadata; the limits decide.
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=_formats()) as image:
                if image.width * image.height > max_pixels:
                    raise ImageError(
                        f"{name}: {image.width} x {image.height} pixels; "
                        f"limits.max_pixels allows {max_pixels:,}"
                    )
                yield image
        except UnidentifiedImageError as error:
            raise ImageError(
                f"{name}: not an image in a known format ({', '.join(_formats())})"
            ) from error
        except Image.DecompressionBombError as error:
            raise ImageError(f"{name}: too large; limits.max_pixels is {max_pixels:,}") from error
        except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
            raise ImageError(
                f"{name}: damaged or cut short after {len(data):,} bytes ({error}); copy it again"
            ) from error


def _formats() -> list[str]:
    return [f for f in FORMATS if f != "AVIF" or features.check("avif")]


def _normalise(image: Image.Image) -> Decoded:
    profile = image.info.get("icc_profile")
    exif = image.getexif()
    upright = ImageOps.exif_transpose(image)
    exif.pop(ORIENTATION, None)
    exif_bytes = exif.tobytes() if len(exif) else b""
    if upright.mode in ("I", "F") or upright.mode.startswith("I;16"):
        upright, profile = _to_8_bit(upright), None
    alpha = None
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        alpha = upright.getchannel("A")
        if alpha.getextrema() == (255, 255):
            alpha = None
        upright = upright.convert("RGB")
    return Decoded(_to_srgb(upright, profile), alpha, exif_bytes)


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Reduce 16-bit, 32-bit or float grey samples to 8 bits, by the range they use."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    top = float(values.max(initial=0.0))
    whites = {"F": (1.0, 255.0, 65535.0), "I": (255.0, 65535.0)}.get(image.mode, (65535.0,))
    white = next((white for white in whites if top <= white), top)
    return Image.fromarray(np.clip(values / white * 255, 0, 255).round().astype(np.uint8))


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if profile:
        if image.mode in ("P", "1", "LA", "PA", "La"):
            image = image.convert("RGB")
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(
                image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass  # a broken or mismatched profile: what most programs do is to ignore it
    return image.convert("RGB")
