"""Pixels to image files: the same bytes for the same picture."""

import functools
import io
import json
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo, putchunk

from nst_pipeline import __version__
from nst_pipeline.config.settings import OutputSettings
from nst_pipeline.images import colour, keeping, metadata
from nst_pipeline.images.decoding import Pixels, to_depth
from nst_pipeline.images.metadata import Metadata

SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "tiff": ".tif", "avif": ".avif"}
SOFTWARE, XMP, ICC_PROFILE, INCH = 0x0131, 700, 0x8773, 2
XMP_IN_PNG = "XML:com.adobe.xmp"
PNG_HEADER_BYTES, METRES_PER_INCH = 33, 0.0254
STRIP_ROWS = 64


def encode(
    pixels: Pixels,
    alpha: Pixels | None,
    settings: OutputSettings,
    made_by: dict[str, Any],
    about: Metadata = metadata.NOTHING,
) -> bytes:
    """Return a picture as a file: the same bytes for the same arguments.

    The profile of sRGB, or of grey, is embedded; the EXIF description holds ``made_by`` as JSON.

    Args:
        pixels: (H, W, 3), uint8 or uint16; brought to ``settings.bit_depth``.
        alpha: (h, w), uint8 or uint16, scaled to H x W; JPEG, which has none, gets white
            beneath it.
        settings: format, quality, bits, and whether it is to be grey: WebP, which has no such
            pictures, gets three equal channels.
        made_by: how the image was made.
        about: what the content says about itself; ``settings.keep_exif`` and ``settings.dpi`` say
            what of it is carried over.
    """
    samples = to_depth(pixels, settings.bit_depth)
    if settings.mode == "grey":
        samples = colour.to_luminance(samples)
        if settings.format == "webp":
            samples = np.repeat(samples, 3, axis=2)
    is_grey, size = samples.shape[2] == 1, (samples.shape[0], samples.shape[1])
    if alpha is not None:
        samples = np.dstack((samples, _fit(to_depth(alpha, settings.bit_depth), size)))
    said = _said(settings, made_by, about, size, is_grey)
    if settings.format == "tiff":
        return _tiff(samples, said)
    if samples.dtype == np.uint16:
        return _deep_png(samples, said)
    image = Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)
    return _shallow(image, settings, said)


@dataclass(frozen=True)
class _Said:
    """What a file says besides its pixels; ``dpi`` across and down."""

    profile: bytes
    block: Image.Exif
    xmp: bytes
    dpi: tuple[float, float] | None


def _said(
    settings: OutputSettings,
    made_by: dict[str, Any],
    about: Metadata,
    size: tuple[int, int],
    is_grey: bool,
) -> _Said:
    ours: dict[int, Any] = {
        SOFTWARE: f"nst-pipeline {__version__}",
        metadata.DESCRIPTION: json.dumps(made_by, sort_keys=True),
    }
    dpi = about.dpi if settings.dpi == "keep" else (settings.dpi, settings.dpi)
    if dpi:
        ours |= dict(zip((metadata.X_RESOLUTION, metadata.Y_RESOLUTION), dpi, strict=True))
        ours[metadata.UNIT] = INCH
    block = keeping.exif_block(about, settings.keep_exif, size, ours)
    profile = colour.grey_profile() if is_grey else _srgb_profile()
    return _Said(profile, block, keeping.xmp_packet(about, settings.keep_exif), dpi)


def _fit(alpha: Pixels, size: tuple[int, ...]) -> Pixels:
    if alpha.shape == size:
        return alpha
    resized = Image.fromarray(alpha.astype(np.float32)).resize((size[1], size[0]))
    return np.asarray(resized).round().clip(0, np.iinfo(alpha.dtype).max).astype(alpha.dtype)


def _shallow(image: Image.Image, settings: OutputSettings, said: _Said) -> bytes:
    options: dict[str, Any] = {"exif": said.block, "icc_profile": said.profile}
    if said.dpi:
        options["dpi"] = said.dpi
    if said.xmp and settings.format == "png":
        options["pnginfo"] = info = PngInfo()
        info.add_itxt(XMP_IN_PNG, said.xmp.decode())
    elif said.xmp:
        options["xmp"] = said.xmp
    if settings.format == "jpeg":
        if image.mode in ("RGBA", "LA"):
            mode = image.mode.removesuffix("A")
            white = Image.new(mode, image.size, "white")
            image = Image.composite(image.convert(mode), white, image.getchannel("A"))
        options |= {"optimize": True}
    if settings.format in ("jpeg", "avif"):
        options |= {"quality": settings.quality, "subsampling": settings.subsampling}
        if settings.format == "avif" and image.mode in ("L", "LA"):
            options["subsampling"] = "4:0:0"
    elif settings.format == "webp":
        options |= {"quality": settings.quality, "lossless": settings.quality == 100, "exact": True}
    buffer = io.BytesIO()
    image.save(buffer, settings.format, **options)
    return buffer.getvalue()


def _deep_png(samples: Pixels, said: _Said) -> bytes:
    """Return a 16-bit PNG with its metadata, which the library that encodes it cannot write."""
    import imagecodecs  # here, because most runs write no such file

    samples = samples[..., 0] if samples.shape[2] == 1 else samples
    plain = bytes(imagecodecs.png_encode(np.ascontiguousarray(samples), level=6))
    buffer = io.BytesIO()
    buffer.write(plain[:PNG_HEADER_BYTES])
    putchunk(buffer, b"iCCP", b"ICC Profile\0\0" + zlib.compress(said.profile))
    if said.dpi:
        per_metre = (round(dots / METRES_PER_INCH) for dots in said.dpi)
        putchunk(buffer, b"pHYs", struct.pack(">IIB", *per_metre, 1))
    putchunk(buffer, b"eXIf", said.block.tobytes().removeprefix(b"Exif\0\0"))
    if said.xmp:
        putchunk(buffer, b"iTXt", XMP_IN_PNG.encode() + bytes(5) + said.xmp)
    buffer.write(plain[PNG_HEADER_BYTES:])
    return buffer.getvalue()


def _tiff(samples: Pixels, said: _Said) -> bytes:
    """Return a TIFF: an EXIF block is one already, but for the tags that describe its pixels."""
    block = said.block
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
        256: width, 257: height, 258: (bits,) * channels, 259: 8,
        262: 1 if channels < 3 else 2, 277: channels,
        273: tuple(offsets[:-1]), 278: STRIP_ROWS, 279: tuple(map(len, strips)),
        284: 1, 317: 2, ICC_PROFILE: said.profile,
    }.items():  # fmt: skip
        block[tag] = value
    if channels in (2, 4):
        block[338] = 2  # alpha, not premultiplied
    if said.xmp:
        block[XMP] = said.xmp
    # Pillow makes the offsets of strips count from the end of the block.
    return block.tobytes().removeprefix(b"Exif\0\0") + b"".join(strips)


@functools.cache
def _srgb_profile() -> bytes:
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    # Bytes 24 to 35 are the time of creation, which would make every file differ.
    profile[24:36] = bytes((0x07, 0xCC, 0, 2, 0, 9, 0, 6, 0, 49, 0, 0))
    return bytes(profile)
