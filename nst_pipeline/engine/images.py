"""Pictures to tensors and back. The only module here that meets PIL's (width, height)."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from nst_pipeline.config.recipe import SHORTEST_SIDE
from nst_pipeline.errors import ShapeError

Pixels = Image.Image | NDArray[Any] | Tensor
"""A PIL image; an array (H, W, 3), uint8 or uint16; or a tensor (1, 3, H, W) in [0, 1]."""

Picture = Pixels | Callable[[], Pixels]
"""Pixels, or a function that gives them whenever they are needed, so that they need not stay."""

Bits = Literal[8, 16]


def to_tensor(picture: Picture) -> Tensor:
    """Return a picture as a (1, 3, H, W) float32 tensor in [0, 1].

    Raises:
        ShapeError: a tensor or an array of another shape.
    """
    if callable(picture):
        picture = picture()
    if isinstance(picture, Tensor):
        if picture.dim() != 4 or picture.shape[:2] != (1, 3):
            raise ShapeError(f"a picture as a tensor is (1, 3, H, W), not {tuple(picture.shape)}")
        return picture.float()
    if isinstance(picture, Image.Image):
        picture = np.array(picture.convert("RGB"))
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype not in (np.uint8, np.uint16):
        raise ShapeError(
            "a picture as an array is (H, W, 3) and uint8 or uint16, "
            f"not {picture.shape} and {picture.dtype}"
        )
    planes = np.empty((1, 3, *picture.shape[:2]), np.float32)
    np.divide(
        picture.transpose(2, 0, 1)[None], np.iinfo(picture.dtype).max, planes, dtype=np.float32
    )
    return torch.from_numpy(planes)


def fit(size: tuple[int, int], longer: int | Literal["original"]) -> tuple[int, int]:
    """Return (height, width) scaled so that the longer side has ``longer`` pixels.

    No side becomes shorter than `SHORTEST_SIDE`.
    """
    scale = 1.0 if longer == "original" else longer / max(size)
    height, width = (max(SHORTEST_SIDE, round(side * scale)) for side in size)
    return height, width


def resize(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Return (B, C, H, W) ``pixels`` in [0, 1] at ``size`` (height, width): antialiased bicubic."""
    if pixels.shape[-2:] == size:
        return pixels
    return F.interpolate(pixels, size, mode="bicubic", antialias=True).clamp_(0, 1)


def quantise(pixels: Tensor, bits: Bits = 8) -> NDArray[Any]:
    """Return (3, H, W) or (1, 3, H, W) pixels as a file holds them: (H, W, 3), uint8 or uint16."""
    top, kind = (255, np.uint8) if bits == 8 else (65535, np.uint16)
    pixels = pixels.detach().reshape(pixels.shape[-3:]).permute(1, 2, 0)
    values: NDArray[Any] = pixels.clamp(0, 1).mul_(top).round_().cpu().numpy().astype(kind)
    return values


def to_image(pixels: Tensor) -> Image.Image:
    """Return a (1, 3, H, W) or (3, H, W) tensor as an 8-bit image, clamped to [0, 1]."""
    return Image.fromarray(quantise(pixels))
