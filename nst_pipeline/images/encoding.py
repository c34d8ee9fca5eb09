"""Pixels to image files: the same bytes for the same picture."""

import functools
import io
import json
import zlib
from typing import Any

import numpy as np
from PIL import Image, ImageCms
from PIL.PngImagePlugin import putchunk

from nst_pipeline import __version__
from nst_pipeline.config.settings import OutputSettings
from nst_pipeline.images.decoding import Pixels, to_depth

SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "tiff": ".tif", "avif": ".avif"}
IMAGE_DESCRIPTION, SOFTWARE, ICC_PROFILE = 0x010E, 0x0131, 0x8773
CAMERA_TAGS = frozenset(
    (0x010F, 0x0110, 0x011A, 0x011B, 0x0128, 0x0132, 0x013B, 0x013C, 0x4746, 0x4749, 0x8298,
     0x8769, 0x8825, *range(0x9C9B, 0x9CA0))
)  # fmt: skip
"""EXIF tags that may be carried over: they say nothing of how their file is laid out."""
PNG_HEADER_BYTES = 33
STRIP_ROWS = 64


def encode(
    pixels: Pixels,
    alpha: Pixels | None,
    settings: OutputSettings,
    made_by: dict[str, Any],
    exif: bytes = b"",
) -> bytes:
    """Return a picture as a file: the same bytes for the same arguments.

    sRGB is embedded; the EXIF description holds ``made_by`` as JSON.

    Args:
        pixels: (H, W, 3), uint8 or uint16; brought to ``settings.bit_depth``.
        alpha: (h, w), uint8 or uint16, scaled to H x W; JPEG, which has none, gets white
            beneath it.
        settings: format, quality, bits.
        made_by: how the image was made.
        exif: the content's EXIF block, carried over only if ``settings.keep_exif``.
    """
    samples = to_depth(pixels, settings.bit_depth)
    if alpha is not None:
        fitted = _fit(to_depth(alpha, settings.bit_depth), pixels.shape[:2])
        samples = np.dstack((samples, fitted))
    block = _metadata(made_by, exif if settings.keep_exif else b"")
    if settings.format == "tiff":
        return _tiff(samples, block)
    if samples.dtype == np.uint16:
        return _deep_png(samples, block)
    return _shallow(Image.fromarray(samples), settings, block)


def _fit(alpha: Pixels, size: tuple[int, ...]) -> Pixels:
    if alpha.shape == size:
        return alpha
    resized = Image.fromarray(alpha.astype(np.float32)).resize((size[1], size[0]))
    return np.asarray(resized).round().clip(0, np.iinfo(alpha.dtype).max).astype(alpha.dtype)


def _metadata(made_by: dict[str, Any], camera: bytes) -> Image.Exif:
    block = Image.Exif()
    block.load(camera)
    for tag in set(block) - CAMERA_TAGS:
        del block[tag]
    block[SOFTWARE] = f"nst-pipeline {__version__}"
    block[IMAGE_DESCRIPTION] = json.dumps(made_by, sort_keys=True)
    return block


def _shallow(image: Image.Image, settings: OutputSettings, block: Image.Exif) -> bytes:
    options: dict[str, Any] = {"exif": block, "icc_profile": _srgb_profile()}
    if settings.format == "jpeg":
        if image.mode == "RGBA":
            white = Image.new("RGB", image.size, "white")
            image = Image.composite(image.convert("RGB"), white, image.getchannel("A"))
        options |= {"optimize": True}
    if settings.format in ("jpeg", "avif"):
        options |= {"quality": settings.quality, "subsampling": settings.subsampling}
    elif settings.format == "webp":
        options |= {"quality": settings.quality, "lossless": settings.quality == 100, "exact": True}
    buffer = io.BytesIO()
    image.save(buffer, settings.format, **options)
    return buffer.getvalue()


def _deep_png(samples: Pixels, block: Image.Exif) -> bytes:
    """Return a 16-bit PNG with its metadata, which the library that encodes it cannot write."""
    import imagecodecs  # here, because most runs write no such file

    plain = bytes(imagecodecs.png_encode(np.ascontiguousarray(samples), level=6))
    buffer = io.BytesIO()
    buffer.write(plain[:PNG_HEADER_BYTES])
    putchunk(buffer, b"iCCP", b"ICC Profile\0\0" + zlib.compress(_srgb_profile()))
    putchunk(buffer, b"eXIf", block.tobytes().removeprefix(b"Exif\0\0"))
    buffer.write(plain[PNG_HEADER_BYTES:])
    return buffer.getvalue()


def _tiff(samples: Pixels, block: Image.Exif) -> bytes:
    """Return a TIFF: an EXIF block is one already, but for the tags that describe its pixels."""
    height, width, channels = samples.shape
    bits = samples.dtype.itemsize * 8
    is_little = block.tobytes()[6:8] == b"II"
    # Differences of neighbours (predictor 2) are what deflate compresses well.
    steps = np.diff(samples, axis=1, prepend=np.zeros((height, 1, channels), samples.dtype))
    steps = steps.astype(steps.dtype.newbyteorder("<" if is_little else ">"))
    strips = [
        zlib.compress(rows.tobytes())
        for rows in np.split(steps, range(STRIP_ROWS, height, STRIP_ROWS))
    ]
    offsets = np.cumsum([0, *map(len, strips)]).tolist()
    for tag, value in {
        256: width, 257: height, 258: (bits,) * channels, 259: 8, 262: 2, 277: channels,
        273: tuple(offsets[:-1]), 278: STRIP_ROWS, 279: tuple(map(len, strips)),
        284: 1, 317: 2, ICC_PROFILE: _srgb_profile(),
    }.items():  # fmt: skip
        block[tag] = value
    if channels == 4:
        block[338] = 2  # alpha, not premultiplied
    # Pillow makes the offsets of strips count from the end of the block.
    return block.tobytes().removeprefix(b"Exif\0\0") + b"".join(strips)


@functools.cache
def _srgb_profile() -> bytes:
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    # Bytes 24 to 35 are the time of creation, which would make every file differ.
    profile[24:36] = bytes((0x07, 0xCC, 0, 2, 0, 9, 0, 6, 0, 49, 0, 0))
    return bytes(profile)
