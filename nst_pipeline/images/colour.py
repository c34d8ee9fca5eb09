"""Colours to sRGB, through the profile that a file names or holds."""

import contextlib
import functools
import io

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
