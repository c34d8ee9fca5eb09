"""Colours to sRGB, through the profile that a file names or holds; and to grey."""

import contextlib
import functools
import io
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

MODES = {"GRAY": "L", "RGB ": "RGB", "CMYK": "CMYK", "Lab ": "LAB"}
"""Pillow's mode for pixels of a profile's colour space."""


@functools.cache
def adobe_rgb() -> bytes:
    """Return the profile of Adobe RGB (1998)."""
    import imagecodecs  # here, because most runs meet no such file

    return bytes(imagecodecs.cms_profile("adobergb"))


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Return an image without alpha as RGB, through its profile if that fits it.

    A broken or mismatched profile is ignored, as most programs do.
    """
    if profile:
        with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError, TypeError):
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            mode = MODES[source.profile.xcolor_space]
            converted = ImageCms.profileToProfile(
                image if image.mode == mode else _without_profile(image, mode),
                source,
                ImageCms.createProfile("sRGB"),
                outputMode="RGB",
            )
            if converted is not None:
                return converted
    return image if image.mode == "RGB" else image.convert("RGB")


def _without_profile(image: Image.Image, mode: str) -> Image.Image:
    """Return an image in the mode of a profile, where that changes no number.

    Raises:
        ValueError: it would.
    """
    is_grey = image.mode in ("1", "L")
    if mode == ("L" if is_grey else "RGB") or (is_grey and mode == "RGB"):
        return image.convert(mode)
    raise ValueError(f"a profile of {mode} does not fit {image.mode}")


def to_deep_srgb(samples: NDArray[np.uint16], profile: bytes) -> NDArray[np.uint16]:
    """Return (H, W, 1 or 3) uint16 samples as sRGB, (H, W, 3), as `to_srgb` does."""
    import imagecodecs

    is_grey = samples.shape[2] == 1
    samples = np.ascontiguousarray(samples[..., 0] if is_grey else samples)
    if profile:
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


def to_luminance(samples: NDArray[Any]) -> NDArray[Any]:
    """Return the luminance of sRGB samples (H, W, 3), uint8 or uint16, as (H, W, 1).

    It is that of light, as `grey_profile` means it: black, grey and white stay what they are.
    """
    import imagecodecs

    grey: NDArray[Any] = imagecodecs.cms_transform(
        np.ascontiguousarray(samples),
        imagecodecs.cms_profile("srgb"),
        grey_profile(),
        colorspace="rgb",
        outcolorspace="gray",
        outdtype=samples.dtype,
    )
    return grey.reshape(*samples.shape[:2], 1)


def in_grey(picture: Image.Image) -> Image.Image:
    """Return an RGB picture with its luminance alone."""
    return Image.fromarray(to_luminance(np.asarray(picture))[..., 0])


@functools.cache
def grey_profile() -> bytes:
    """Return an ICC profile (ICC.1:2010) of grey with the tone curve of sRGB."""
    d50 = _fixed(0.9642, 1, 0.8249)
    curve = struct.pack(">2H", 3, 0) + _fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    tags = {
        b"desc": _text("sRGB grey"),
        b"cprt": _text("No copyright, use freely"),
        b"wtpt": b"XYZ " + bytes(4) + d50,
        b"kTRC": b"para" + bytes(4) + curve,
    }
    table, body, start = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        table += struct.pack(">4s2I", name, start + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    made = struct.pack(">6H", 1998, 12, 1, 0, 0, 0)  # always the same, so that files are
    kind = b"mntrGRAYXYZ "
    header = struct.pack(">3I", start + len(body), 0, 0x04200000) + kind + made + b"acsp"
    return header.ljust(68, b"\0") + d50.ljust(60, b"\0") + table + body


def _fixed(*values: float) -> bytes:
    """Return numbers as s15Fixed16."""
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def _text(text: str) -> bytes:
    """Return an English text as a multiLocalizedUnicodeType."""
    data = text.encode("utf-16-be")
    return b"mluc" + struct.pack(">3I4s2I", 0, 1, 12, b"enUS", len(data), 28) + data
