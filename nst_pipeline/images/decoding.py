"""Image files to upright sRGB arrays, safely: limits first, and no half-decoded picture."""

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)

from nst_pipeline.errors import ImageError, NotReadyError, UnreadableError
from nst_pipeline.images import colour, containers, metadata, png, raw, tiff
from nst_pipeline.images.containers import Container
from nst_pipeline.images.metadata import Metadata, Reading

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "HEIF")
IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif", ".heic", ".heif")
)
READERS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
}
PARTS = {"TIFF": "pages", "JPEG": "pictures", "HEIF": "pictures"}
"""What a file has several of; else frames."""
STRIP_ROWS = 256
FINENESS = 4
"""How much finer than the pastiche a reduced mask is, at least."""
PEAK_BYTES = {"": (13, 19), "WEBP": (18, 26)}
"""Of a pixel of 8 bits a channel while it is decoded, opaque or not, as measured."""
DEEP_PEAK_BYTES = 16
"""Of a pixel of more bits, besides two copies of its samples."""
JPEG_END = b"\xff\xd9"
JPEG_FILLS = (
    b"\x55" * 4096,
    b"\xaa" * 4096,
    b"".join(bytes((0xFF, marker)) + b"\x55" * 64 for marker in range(0xD0, 0xD8)) * 8,
)
"""What may stand for missing data of a JPEG's scan, one with marks of new intervals."""

# The limit that the caller gives decides, and not Pillow's own.
Image.MAX_IMAGE_PIXELS = None

Pixels = NDArray[Any]
"""Samples, uint8 or uint16."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """An upright sRGB image.

    Attributes:
        pixels: (H, W, 3), uint8, or uint16 where the file holds more than 8 bits a channel.
        alpha: (H, W) of the same dtype, or None where everything is opaque.
        metadata: what the file says about itself, as far as it can be read.
        note: what else is in the file, for people; empty: nothing.
    """

    pixels: Pixels
    alpha: Pixels | None
    metadata: Metadata = metadata.NOTHING
    note: str = ""


def decode(data: bytes, name: str, max_pixels: int) -> Decoded:
    """Decode an image file, by content and not by suffix.

    EXIF orientation is applied, colours are converted to sRGB through the profile. PNG and TIFF
    keep 16 bits a channel (RGB, grey, with and without alpha), and what has more is brought to
    16; RAW files of cameras are developed to 16 bits; all else is reduced to 8. Of several pages
    the largest is decoded, of several frames the first.

    Args:
        data: the whole file, in one of `FORMATS`, or a RAW file.
        name: of the file, for messages.
        max_pixels: refused above this, before any pixel is decoded.

    Raises:
        ImageError: not such an image, cut short, damaged or too large.
    """
    with _refusing(data, name), _looked_at(data, name, max_pixels) as look:
        samples = _samples(look)
        about, reading = _metadata(look)
        profile = look.file.profile or look.info.get("icc_profile") or b""
        pixels = _in_srgb(samples, profile, reading)
        _check_size(pixels.shape[:2], name, max_pixels)  # for a header may be wrong
        return Decoded(
            UPRIGHT[reading.orientation](pixels),
            None if samples.alpha is None else UPRIGHT[reading.orientation](samples.alpha),
            about,
            _note(look, name),
        )


def identify(data: bytes, name: str, max_pixels: int) -> tuple[int, int]:
    """Return an image file's (height, width) as it is stored, by its header alone.

    Raises:
        ImageError: not an image in one of `FORMATS`, or too large.
    """
    with _refusing(data, name), _looked_at(data, name, max_pixels) as look:
        return look.size


@dataclass(frozen=True)
class Need:
    """The bytes of memory that an image takes: while it is decoded, its file included, and then."""

    peak: int
    held: int


def need(data: bytes, name: str, max_pixels: int) -> Need:
    """Return the memory that `decode` takes at most, by an image file's header alone.

    Raises:
        ImageError: not an image in one of `FORMATS`, or too large.
    """
    with _refusing(data, name), _looked_at(data, name, max_pixels) as look:
        samples, sample_bytes, has_alpha = _layout(look)
        if sample_bytes == 1:
            peak = PEAK_BYTES.get(look.file.kind, PEAK_BYTES[""])[has_alpha]
        else:
            peak = DEEP_PEAK_BYTES + 2 * samples * sample_bytes
        held = (3 + has_alpha) * min(sample_bytes, 2)
        pixels = look.size[0] * look.size[1]
        return Need(pixels * peak + 2 * len(data), pixels * held)


def check_need(data: bytes, name: str, max_pixels: int, memory_bytes: int) -> None:
    """See that an image takes no more memory than it may to be decoded.

    Raises:
        NotReadyError: it does.
        ImageError: not an image in one of `FORMATS`, or too large.
    """
    peak = need(data, name, max_pixels).peak
    if peak > memory_bytes:
        raise NotReadyError(
            f"{name}: takes {peak / 1e9:.2f} GB of memory to be decoded; limits.max_memory_bytes "
            f"allows {memory_bytes / 1e9:.2f} GB"
        )


def to_depth(pixels: Pixels, bits: int) -> Pixels:
    """Return samples as uint8 (``bits`` 8) or uint16 (16), black and white staying themselves."""
    if pixels.dtype.itemsize * 8 == bits:
        return pixels
    if bits == 16:
        return pixels.astype(np.uint16) * np.uint16(257)
    # Exact rounding of x / 257, in 16-bit steps that never overflow 32.
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def to_grey(pixels: Pixels) -> NDArray[np.uint8]:
    """Return the luma (ITU-R BT.601) of (H, W, 3) pixels as (H, W) in 8 bits."""
    return np.array(Image.fromarray(to_depth(pixels, 8)).convert("L"))


def reduced(grey: NDArray[np.uint8], longest: int) -> NDArray[np.uint8]:
    """Return (H, W) grey pixels by means over squares, `FINENESS` times ``longest`` or longer.

    What is not twice as long as that, or would be black all over, stays as it is.
    """
    factor = max(grey.shape) // (FINENESS * longest)
    if factor < 2:
        return grey
    small = np.array(Image.fromarray(grey).reduce(factor))
    return small if small.any() else grey


@contextlib.contextmanager
def _refusing(data: bytes, name: str) -> Iterator[None]:
    """Make whatever goes wrong with a file inside an `ImageError`."""
    with warnings.catch_warnings():
        # Pillow warns of odd files; what can be decoded is.
        warnings.simplefilter("ignore")
        try:
            yield
        except ImageError:
            raise
        except MemoryError as error:
            raise NotReadyError(
                f"{name}: memory does not suffice to decode it; free some"
            ) from error
        except Exception as error:  # noqa: BLE001 - decoders raise anything for a damaged file
            if isinstance(error, OSError) and error.errno is not None:  # not of bytes in memory
                raise UnreadableError(f"{name}: cannot be decoded now: {error.strerror}") from error
            kind, said = type(error).__name__, error.args[:1] or ("",)
            words = said[0].decode(errors="replace") if isinstance(said[0], bytes) else str(error)
            if not isinstance(error, OSError | SyntaxError | ValueError) or not words:
                words = f"{kind}: {words}".removesuffix(": ")  # alone, they say little
            raise ImageError(
                f"{name}: damaged or cut short after {len(data):,} bytes ({words}); copy it again"
            ) from error


@dataclass(eq=False)
class _Look:
    """A file whose header was read.

    Attributes:
        data: the whole file.
        file: the file taken apart.
        size: (height, width) of the picture that is decoded, as it is stored.
        image: as Pillow opened it; None: Pillow is not needed.
        raw: as rawpy opened it.
        number: of the picture, from 1.
        count: of the pictures; 0: several.
    """

    data: bytes
    file: Container
    size: tuple[int, int]
    image: ImageFile.ImageFile | None = None
    raw: Any = None
    number: int = 1
    count: int = 1

    @property
    def info(self) -> dict[Any, Any]:
        """What Pillow says besides the pixels."""
        return self.image.info if self.image else {}


@contextlib.contextmanager
def _looked_at(data: bytes, name: str, max_pixels: int) -> Iterator[_Look]:
    """Read a file's header, and refuse what is too large."""
    file = containers.take_apart(data)
    page = file.directory
    if page:
        tiff.check_tiles(page)
    with contextlib.ExitStack() as stack:
        if file.kind == "RAW":
            opened = stack.enter_context(raw.opened(data, name))
            look = _Look(data, file, raw.size(opened), raw=opened)
        elif page and tiff.is_deep(page):
            look = _Look(data, file, page.size, None, None, file.page, file.pages)
        else:
            if file.canvas:
                _check_size(file.canvas, name, max_pixels)
            image = stack.enter_context(_reader(file.kind, name)(io.BytesIO(file.pixels)))
            number, count = _seek_largest(image, file)
            look = _Look(data, file, (image.height, image.width), image, None, number, count)
        _check_size(look.size, name, max_pixels)
        yield look


def _layout(look: _Look) -> tuple[int, int, bool]:
    """Return the samples of a pixel, the bytes of a sample, and whether one is transparency."""
    page, image = look.file.directory, look.image
    if look.raw:
        return 4, 4, False
    if image is None:
        assert page
        samples = min(page.number(tiff.SAMPLES, 1), tiff.MOST_SAMPLES)
        return samples, max(2, page.number(tiff.BITS) // 8), samples in (2, 4)
    if look.file.kind == "PNG" and png.header(look.file.pixels).bits == 16:
        has_alpha = image.has_transparency_data
        return 3 + has_alpha, 2, has_alpha
    return 3, 1, image.has_transparency_data


def _check_size(size: tuple[int, ...], name: str, max_pixels: int) -> None:
    height, width = size
    if height * width > max_pixels:
        raise ImageError(
            f"{name}: {width} x {height} pixels; limits.max_pixels allows {max_pixels:,}"
        )
    if height * width == 0:
        raise ValueError(f"{width} x {height} pixels")


def _reader(kind: str, name: str) -> Callable[[io.BytesIO], ImageFile.ImageFile]:
    if kind == "HEIF":
        try:
            import pillow_heif
        except ImportError:
            raise ImageError(
                f"{name}: HEIC, which needs one package more: pip install 'nst-pipeline[heif]'"
            ) from None
        return pillow_heif.HeifImageFile
    if kind not in READERS or (kind == "AVIF" and not features.check("avif")):
        raise ImageError(f"{name}: not an image in a known format ({', '.join(FORMATS)})")
    return READERS[kind]


def _seek_largest(image: ImageFile.ImageFile, file: Container) -> tuple[int, int]:
    """Turn to the largest picture of a file; return its number and how many there are."""
    # Of a GIF it takes long to count them.
    count: int = 1 if file.kind == "GIF" else getattr(image, "n_frames", 1)
    if file.kind != "HEIF" or count == 1:  # the frames of all others are of one size
        return file.page, max(file.pages, count)
    primary, areas = image.tell(), {}
    for number in range(min(count, containers.MOST_PICTURES)):
        image.seek(number)
        areas[number] = image.width * image.height
    best = max(areas, key=lambda number: (areas[number], number == primary))
    image.seek(best)
    return best + 1, count


def _note(look: _Look, name: str) -> str:
    """Say what else is in a file; empty: nothing."""
    count: int | str = look.count
    if isinstance(look.image, GifImagePlugin.GifImageFile):
        with contextlib.suppress(Exception):  # what follows the first frame decides nothing
            count = "several" if look.image.is_animated else 1
    if count == 1:
        return ""
    used = "the first" if look.number == 1 else f"number {look.number}, the largest,"
    return f"{name}: has {count} {PARTS.get(look.file.kind, 'frames')}; {used} is used"


def _metadata(look: _Look) -> tuple[Metadata, Reading]:
    """Return what a file says about itself, and what of that decides its pixels."""
    file, info = look.file, look.info
    if file.kind in ("AVIF", "HEIF"):
        with (
            contextlib.suppress(Exception),  # with its metadata, it may not even be opened
            _reader(file.kind, "")(io.BytesIO(look.data)) as whole,
        ):
            info = whole.info
    # Of a TIFF the resolution is in its tags, which Pillow was not given.
    dpi = None if file.kind == "TIFF" else info.get("dpi")
    about, reading = metadata.read(
        file.exif or info.get("exif") or b"", file.xmp or info.get("xmp") or b"", dpi
    )
    return about, Reading() if look.raw else reading


# Pixels


@dataclass(frozen=True, eq=False)
class _Samples:
    """What a decoder gives: an image of 8 bits, or samples of 16, and the transparency."""

    colours: Image.Image | NDArray[np.uint16]
    alpha: Pixels | None
    is_srgb: bool = False


def _samples(look: _Look) -> _Samples:
    if look.raw:
        return _Samples(raw.develop(look.raw), None, is_srgb=True)
    if look.image is None:
        assert look.file.directory
        return _deep(*tiff.read_deep(look.file.directory, look.file.pixels))
    if look.file.kind == "PNG" and png.header(look.file.pixels).bits == 16:
        return _deep_png(look)
    return _shallow(_loaded(look.image, look.file))


def _deep(colours: NDArray[np.uint16], alpha: NDArray[np.uint16] | None) -> _Samples:
    is_opaque = alpha is None or alpha.min() == 65535
    return _Samples(colours, None if is_opaque else np.ascontiguousarray(alpha))


def _deep_png(look: _Look) -> _Samples:
    samples = png.read_deep(look.file.pixels)
    if samples.shape[:2] != look.size:
        raise ValueError("its parts disagree about its size")
    colours = samples.shape[2] - (samples.shape[2] + 1) % 2
    alpha = samples[..., colours] if samples.shape[2] > colours else None
    return _deep(samples[..., :colours], alpha)


def _loaded(image: ImageFile.ImageFile, file: Container) -> Image.Image:
    """Load an image; a JPEG that lacks nothing but the mark of its end is whole, too."""
    try:
        image.load()
    except OSError:
        if file.kind != "JPEG" or not containers.has_all_scans(file.pixels):
            raise
        # What follows the last pixel is passed over: it makes a difference only if one is missing.
        stuffing = b"\0" if file.pixels.endswith(b"\xff") else b""
        ended, *others = (
            JpegImagePlugin.JpegImageFile(io.BytesIO(file.pixels + fill + JPEG_END))
            for fill in (b"", *(stuffing + fill for fill in JPEG_FILLS))
        )
        if any(other.tobytes() != ended.tobytes() for other in others):
            raise
        return ended
    return image


def _shallow(image: Image.Image) -> _Samples:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        # Of 12 bits, for those of 16 and more are read elsewhere.
        grey = (np.asarray(image).clip(0, 4095) * (65535 / 4095)).round().astype(np.uint16)
        return _deep(grey[..., None], None)
    if not image.has_transparency_data:
        return _Samples(image, None)
    is_grey = image.mode in ("1", "L", "LA", "La")
    image = image.convert("RGBA")
    alpha = image.getchannel("A")
    colours = image.getchannel("R") if is_grey else image.convert("RGB")
    return _Samples(colours, None if alpha.getextrema() == (255, 255) else np.array(alpha))


def _in_srgb(samples: _Samples, profile: bytes, reading: Reading) -> Pixels:
    """Return (H, W, 3) pixels."""
    colours = samples.colours
    if not profile and reading.is_adobe_rgb:
        profile = colour.adobe_rgb()
    if isinstance(colours, Image.Image):
        return _as_array(colour.to_srgb(colours, profile))
    return colours if samples.is_srgb else colour.to_deep_srgb(colours, profile)


def _as_array(image: Image.Image) -> NDArray[np.uint8]:
    """Return an RGB image as (H, W, 3), strip by strip: at once, it would be copied twice more."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, STRIP_ROWS):
        bottom = min(image.height, top + STRIP_ROWS)
        pixels[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
    return pixels


UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p.swapaxes(0, 1)[::-1, ::-1],
    8: lambda p: np.rot90(p),
}
"""What turns a picture upright, by its EXIF orientation."""
