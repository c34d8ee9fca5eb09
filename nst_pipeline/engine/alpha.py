"""What is seen of a picture: its hidden pixels count for nothing."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from nst_pipeline.engine.images import (
    Picture,
    WithAlpha,
    check_samples,
    resize,
    resize_samples,
    scaled,
    to_tensor,
)

LARGE_PIXELS = 2**24
"""Of a larger picture the samples are kept as they came, and made floats whenever it is resized."""
HIDDEN = 0.5
"""What a picture of no visible pixel is filled with: grey."""


class Seen(NamedTuple):
    """What is seen of a picture.

    Attributes:
        pixels: (1, 3, H, W) in [0, 1]; hidden ones continue the visible ones.
        alpha: how much of each pixel is seen, (1, 1, H, W) in [0, 1]; None: all of every one.
    """

    pixels: Tensor
    alpha: Tensor | None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[2], self.pixels.shape[3]

    def at(self, size: tuple[int, int], device: torch.device) -> "Seen":
        """Return it at another size (height, width), on a device; if nothing is seen, then all."""
        pixels = resize(self.pixels, size).to(device)
        if self.alpha is None or not self.alpha.any():
            return Seen(pixels, None)
        return Seen(pixels, resize(self.alpha, size).to(device))

    def part(self, rows: slice, columns: slice) -> "Seen":
        """Return some rows and columns of it."""
        alpha = None if self.alpha is None else self.alpha[..., rows, columns]
        return Seen(self.pixels[..., rows, columns], alpha)


@dataclass(frozen=True, eq=False)
class SeenWhole:
    """What is seen of a large picture of which all is: floats would take four times the room.

    Attributes:
        samples: (H, W, 3), uint8 or uint16.
        alpha: as `Seen` has it.
    """

    samples: NDArray[Any]
    alpha: None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.samples.shape[0], self.samples.shape[1]

    def at(self, size: tuple[int, int], device: torch.device) -> Seen:
        """Return it at another size (height, width), on a device."""
        return Seen(resize_samples(self.samples, size).to(device), None)

    def part(self, rows: slice, columns: slice) -> "SeenWhole":
        """Return some rows and columns of it."""
        return SeenWhole(self.samples[rows, columns])


def see(picture: Picture) -> Seen | SeenWhole:
    """Return what is seen of a picture.

    Raises:
        ShapeError: a tensor or an array of another shape than a picture has.
    """
    if callable(picture):
        picture = picture()
    alpha = None
    if isinstance(picture, Image.Image):
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            alpha = np.array(picture.getchannel("A"))
    elif isinstance(picture, WithAlpha):
        alpha, picture = picture.alpha, picture.pixels
    is_whole = alpha is None or alpha.min() == np.iinfo(alpha.dtype).max
    if is_whole and isinstance(picture, np.ndarray) and picture.size > 3 * LARGE_PIXELS:
        check_samples(picture)
        return SeenWhole(picture)
    pixels = to_tensor(picture)
    if alpha is None or is_whole:
        return Seen(pixels, None)
    weights = scaled(alpha[None, None])
    return Seen(fill_hidden(pixels, weights), weights)


def fill_hidden(pixels: Tensor, alpha: Tensor) -> Tensor:
    """Return a picture whose hidden pixels continue the visible ones, smoothly.

    By pull-push (Gortler et al. 1996, 3.4): a hidden pixel has the mean of what is visible at the
    finest size at which anything is. Hidden colours decide nothing.

    Args:
        pixels: (1, 3, H, W).
        alpha: (1, 1, H, W) in [0, 1]; 0 is hidden. Where all is, all becomes grey.
    """
    if not alpha.any():
        return torch.full_like(pixels, HIDDEN)
    hidden = alpha == 0
    if not hidden.any():
        return pixels
    weight = _halved(alpha)
    coarse = _halved(pixels * alpha) / torch.where(weight > 0, weight, 1)
    filled = fill_hidden(coarse, weight)
    return torch.where(hidden, F.interpolate(filled, pixels.shape[2:], mode="bilinear"), pixels)


def _halved(values: Tensor) -> Tensor:
    return F.avg_pool2d(values, 2, ceil_mode=True, count_include_pad=False)
