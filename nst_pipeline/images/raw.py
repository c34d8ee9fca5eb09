"""RAW files of cameras, developed by LibRaw where the package rawpy is installed."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nst_pipeline.errors import ImageError

SRGB_CURVE = (2.4, 12.92)
"""LibRaw's power and slope of sRGB's tone curve."""


def opened(data: bytes, name: str) -> Any:
    """Return a RAW file as rawpy opens it, by its header alone; to be used as a context manager.

    Raises:
        ImageError: rawpy is not installed, or does not know the camera.
    """
    try:
        import rawpy
    except ImportError:
        raise ImageError(
            f"{name}: a camera's RAW file, which needs one package more: "
            "pip install 'nst-pipeline[raw]'; or export it as TIFF or JPEG"
        ) from None
    try:
        return rawpy.imread(io.BytesIO(data))
    except rawpy.LibRawFileUnsupportedError:
        raise ImageError(
            f"{name}: a RAW file of a camera that LibRaw does not know, or damaged; bring rawpy up "
            "to date, or export it as TIFF or JPEG"
        ) from None


def size(raw: Any) -> tuple[int, int]:
    """Return (height, width) of what `develop` makes, upright."""
    sizes = raw.sizes
    turned = sizes.flip in (5, 6)
    return (sizes.width, sizes.height) if turned else (sizes.height, sizes.width)


def develop(raw: Any) -> NDArray[np.uint16]:
    """Return a RAW file as sRGB, (H, W, 3), upright, with the camera's white balance."""
    developed = raw.postprocess(use_camera_wb=True, output_bps=16, gamma=SRGB_CURVE)
    # Of a camera without colours there is one channel.
    return developed if developed.shape[2] == 3 else np.repeat(developed[..., :1], 3, 2)
