"""The way out: the results' names and their encoding."""

import functools
import io
import json
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

from PIL import Image, ImageCms

from nst_pipeline import __version__
from nst_pipeline.config import OutputSettings

SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
IMAGE_DESCRIPTION, SOFTWARE = 0x010E, 0x0131


def output_namer(settings: OutputSettings, **fields: object) -> Callable[[str], str]:
    """Return what makes an output's name in its folder of what stands for the content.

    Args:
        settings: hold the template and the format.
        fields: what else the template may use: style, recipe, size.
    """
    template = str(PurePath(settings.name)) + SUFFIXES[settings.format]
    return lambda content: template.format(content=content, **fields)


def encode(
    image: Image.Image,
    alpha: Image.Image | None,
    settings: OutputSettings,
    made_by: dict[str, Any],
    exif: bytes = b"",
) -> bytes:
    """Return ``image`` as a file: the same bytes for the same arguments.

    sRGB is embedded; the EXIF description holds ``made_by`` as JSON.

    Args:
        image: mode RGB.
        alpha: mode L of the same size; JPEG, which has none, gets white beneath it.
        settings: format and quality.
        made_by: how the image was made.
        exif: the content's EXIF block, carried over only if ``settings.keep_exif``.
    """
    if alpha is not None and settings.format == "jpeg":
        white = Image.new("RGB", image.size, "white")
        image = Image.composite(image, white, alpha)
    elif alpha is not None:
        image = image.copy()
        image.putalpha(alpha)
    block = Image.Exif()
    if settings.keep_exif and exif:
        block.load(exif)
    block[SOFTWARE] = f"nst-pipeline {__version__}"
    block[IMAGE_DESCRIPTION] = json.dumps(made_by, sort_keys=True)
    options: dict[str, Any] = {"exif": block, "icc_profile": _srgb_profile()}
    if settings.format == "jpeg":
        options |= {"quality": settings.quality, "subsampling": "4:4:4", "optimize": True}
    elif settings.format == "webp":
        options |= {"quality": settings.quality, "lossless": settings.quality == 100, "exact": True}
    buffer = io.BytesIO()
    image.save(buffer, settings.format, **options)
    return buffer.getvalue()


@functools.cache
def _srgb_profile() -> bytes:
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    # Bytes 24 to 35 are the time of creation, which would make every file differ.
    profile[24:36] = bytes((0x07, 0xCC, 0, 2, 0, 9, 0, 6, 0, 49, 0, 0))
    return bytes(profile)
