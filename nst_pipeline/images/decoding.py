"""Image files to upright sRGB arrays, safely: limits first, and no half-decoded picture."""

import contextlib
import io
import struct
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, TiffImagePlugin, UnidentifiedImageError, features

from nst_pipeline.errors import ImageError

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "HEIF")
IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif", ".heic", ".heif")
)
ORIENTATION = 0x0112
WIDTH, HEIGHT, BITS, PHOTOMETRIC, PLANES, EXTRA, SAMPLE_FORMAT = 256, 257, 258, 262, 284, 338, 339
"""Tags of TIFF."""
WHITE_IS_ZERO, UNSIGNED, PREMULTIPLIED, SEPARATE = 0, 1, 1, 2
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1")

Pixels = NDArray[Any]
"""Samples, uint8 or uint16."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """An upright sRGB image.

    Attributes:
        pixels: (H, W, 3), uint8, or uint16 where the file holds more than 8 bits a channel.
        alpha: (H, W) of the same dtype, or None where everything is opaque.
        exif: the file's EXIF block without the orientation; empty where there is none.
    """

    pixels: Pixels
    alpha: Pixels | None
    exif: bytes


def decode(data: bytes, name: str, max_pixels: int) -> Decoded:
    """Decode an image file, by content and not by suffix.

    EXIF orientation is applied, colours are converted to sRGB through the embedded profile.
    PNG and TIFF keep 16 bits a channel (RGB, RGBA, grey), all else is reduced to 8.

    Args:
        data: the whole file, in one of `FORMATS`.
        name: of the file, for messages.
        max_pixels: refused above this, before any pixel is decoded.

    Raises:
        ImageError: not such an image, cut short, damaged or too large.
    """
    with _opened(data, name, max_pixels) as image:
        if _is_deep(image, data):
            return _decode_deep(image, data)
        image.load()
        return _decode_shallow(image)


def identify(data: bytes, name: str, max_pixels: int) -> tuple[int, int]:
    """Return an image file's (height, width), by its header alone.

    Raises:
        ImageError: not an image in one of `FORMATS`, or too large.
    """
    with _opened(data, name, max_pixels) as image:
        return image.height, image.width


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


@contextlib.contextmanager
def _opened(data: bytes, name: str, max_pixels: int) -> Iterator[Image.Image]:
    """Open an image; whatever goes wrong with it, here or in the with block, is an ImageError."""
    is_heif = _is_heif(data)
    formats = _formats(name, is_heif)
    with warnings.catch_warnings():
        # Pillow warns of large images and odd metadata; the limits decide.
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=formats) as image:
                if image.width * image.height > max_pixels:
                    raise ImageError(
                        f"{name}: {image.width} x {image.height} pixels; "
                        f"limits.max_pixels allows {max_pixels:,}"
                    )
                yield image
        except Image.DecompressionBombError as error:
            raise ImageError(f"{name}: too large; limits.max_pixels is {max_pixels:,}") from error
        except (OSError, SyntaxError, ValueError, EOFError, RuntimeError, struct.error) as error:
            unknown = isinstance(error, UnidentifiedImageError)
            if unknown and not is_heif:
                raise ImageError(
                    f"{name}: not an image in a known format ({', '.join(FORMATS)})"
                ) from error
            detail = "no header" if unknown else error
            raise ImageError(
                f"{name}: damaged or cut short after {len(data):,} bytes ({detail}); copy it again"
            ) from error


def _is_heif(data: bytes) -> bool:
    return data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS and b"avif" not in data[12:64]


def _formats(name: str, is_heif: bool) -> list[str]:
    if is_heif:
        try:
            import pillow_heif
        except ImportError:
            raise ImageError(
                f"{name}: HEIC, which needs one package more: pip install 'nst-pipeline[heif]'"
            ) from None
        pillow_heif.register_heif_opener()
        return ["HEIF"]
    supported = {"HEIF": False, "AVIF": features.check("avif")}
    return [f for f in FORMATS if supported.get(f, True)]


# 8 bits: Pillow


def _decode_shallow(image: Image.Image) -> Decoded:
    profile = image.info.get("icc_profile")
    upright = ImageOps.exif_transpose(image)
    exif = _exif(image)
    if upright.mode in ("I", "F") or upright.mode.startswith("I;16"):
        grey = _to_16_bit(upright)
        return Decoded(np.stack([grey] * 3, 2), None, exif)
    alpha = None
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        alpha = upright.getchannel("A")
        if alpha.getextrema() == (255, 255):
            alpha = None
        upright = upright.convert("RGB")
    pixels = np.array(_to_srgb(upright, profile))
    return Decoded(pixels, None if alpha is None else np.array(alpha), exif)


def _exif(image: Image.Image) -> bytes:
    exif = image.getexif()
    exif.pop(ORIENTATION, None)
    return exif.tobytes() if len(exif) else b""


def _to_16_bit(image: Image.Image) -> NDArray[np.uint16]:
    """Bring 32-bit or float grey samples to 16 bits, by the range they use."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    top = float(values.max(initial=0.0))
    whites = {"F": (1.0, 255.0, 65535.0), "I": (255.0, 65535.0)}.get(image.mode, (65535.0,))
    white = next((white for white in whites if top <= white), top)
    return np.clip(values / white * 65535, 0, 65535).round().astype(np.uint16)


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


# 16 bits: libpng, libtiff and LittleCMS, for Pillow has no such RGB


def _is_deep(image: Image.Image, data: bytes) -> bool:
    if image.format == "PNG":
        return data[24] == 16  # the bit depth in IHDR, which comes first
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    tags = image.tag_v2
    return (
        set(tags.get(BITS, ())) == {16}
        and set(tags.get(SAMPLE_FORMAT, (UNSIGNED,))) == {UNSIGNED}
        and image.mode in ("I;16", "I;16B", "RGB", "RGBA")
    )


def _decode_deep(image: Image.Image, data: bytes) -> Decoded:
    import imagecodecs  # here, because most runs meet no such file

    orientation = image.getexif().get(ORIENTATION, 1)
    exif = _exif(image)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        samples = _read_tiff(image.tag_v2, data)
    else:
        samples = np.atleast_3d(imagecodecs.png_decode(data))
        if samples.shape[:2] != (image.height, image.width):
            raise ValueError("its parts disagree about its size")
    samples = UPRIGHT.get(orientation, UPRIGHT[1])(samples)
    colours = samples.shape[2] - (samples.shape[2] + 1) % 2
    alpha = None
    if samples.shape[2] > colours and samples[..., colours].min() < 65535:
        alpha = np.ascontiguousarray(samples[..., colours])
    pixels = _to_deep_srgb(samples[..., :colours], image.info.get("icc_profile"))
    return Decoded(pixels, alpha, exif)


def _read_tiff(tags: TiffImagePlugin.ImageFileDirectory_v2, data: bytes) -> NDArray[np.uint16]:
    """Return the samples of a 16-bit TIFF's first page as (H, W, C), alpha not premultiplied."""
    import imagecodecs

    height, width, count = tags[HEIGHT], tags[WIDTH], len(tags[BITS])
    is_planar = tags.get(PLANES) == SEPARATE and count > 1
    shape = (count, height, width) if is_planar else (height, width, count)
    # An array of the size that was checked: a file that lies about it is refused.
    samples = np.empty(shape[: 2 if count == 1 else 3], np.uint16)
    imagecodecs.tiff_decode(data, out=samples)
    samples = np.moveaxis(samples, 0, 2) if is_planar else np.atleast_3d(samples)
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        samples = 65535 - samples
    if count == 4 and tags.get(EXTRA, (2,))[0] == PREMULTIPLIED:
        alpha = np.maximum(samples[..., 3:], 1).astype(np.float32)
        colours = samples[..., :3] / alpha * np.float32(65535)
        samples[..., :3] = colours.clip(0, 65535).round()
    elif count == 4 and tags.get(EXTRA, (2,))[0] == 0:
        samples = samples[..., :3]  # a fourth channel that means nothing
    return samples


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


def _to_deep_srgb(samples: Pixels, profile: bytes | None) -> Pixels:
    """Return (H, W, 1 or 3) uint16 samples as sRGB."""
    import imagecodecs

    is_grey = samples.shape[2] == 1
    samples = np.ascontiguousarray(samples[..., 0] if is_grey else samples)
    if profile:
        # A broken or mismatched profile: what most programs do is to ignore it.
        with contextlib.suppress(imagecodecs.CmsError, ValueError):
            return imagecodecs.cms_transform(
                samples,
                profile,
                imagecodecs.cms_profile("srgb"),
                colorspace="gray" if is_grey else "rgb",
                outcolorspace="rgb",
                outdtype=np.uint16,
            )
    return np.stack([samples] * 3, 2) if is_grey else samples
