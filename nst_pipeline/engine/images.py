"""Pictures to tensors and back. The only module here that meets PIL's (width, height)."""

from collections.abc import Callable
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from nst_pipeline.config.recipe import SHORTEST_SIDE
from nst_pipeline.errors import ShapeError


@runtime_checkable
class WithAlpha(Protocol):
    """A picture whose transparency is apart from its colours.

    ``pixels`` are (H, W, 3), uint8 or uint16; ``alpha`` is (H, W) of the same dtype, or None
    where everything is opaque.
    """

    @property
    def pixels(self) -> NDArray[Any]:
        """The colours."""

    @property
    def alpha(self) -> NDArray[Any] | None:
        """How much of each pixel is seen."""


Pixels = Image.Image | NDArray[Any] | Tensor | WithAlpha
"""A PIL image; an array (H, W, 3), uint8 or uint16, with or without an alpha beside it; or a
tensor (1, 3, H, W) in [0, 1]."""

Picture = Pixels | Callable[[], Pixels]
"""Pixels, or a function that gives them whenever they are needed, so that they need not stay."""

Bits = Literal[8, 16]


def to_tensor(picture: Image.Image | NDArray[Any] | Tensor) -> Tensor:
    """Return a picture's colours as a (1, 3, H, W) float32 tensor in [0, 1].

    Raises:
        ShapeError: a tensor or an array of another shape.
    """
    if isinstance(picture, Tensor):
        if picture.dim() != 4 or picture.shape[:2] != (1, 3):
            raise ShapeError(f"a picture as a tensor is (1, 3, H, W), not {tuple(picture.shape)}")
        return picture.float()
    if isinstance(picture, Image.Image):
        picture = np.array(picture.convert("RGB"))
    check_samples(picture)
    return scaled(picture.transpose(2, 0, 1)[None])


def check_samples(samples: NDArray[Any]) -> None:
    """See that an array is (H, W, 3), uint8 or uint16.

    Raises:
        ShapeError: it is not.
    """
    if samples.ndim != 3 or samples.shape[2] != 3 or samples.dtype not in (np.uint8, np.uint16):
        raise ShapeError(
            "a picture as an array is (H, W, 3) and uint8 or uint16, "
            f"not {samples.shape} and {samples.dtype}"
        )


def resize_samples(samples: NDArray[Any], size: tuple[int, int]) -> Tensor:
    """Return what `resize` makes of `to_tensor` of an array, with a third of the memory."""
    pixels = torch.empty(1, 3, *size)
    for channel in range(3):
        pixels[:, channel] = resize(scaled(samples[None, None, ..., channel]), size)[0]
    return pixels


def scaled(samples: NDArray[Any]) -> Tensor:
    """Return uint8 or uint16 samples as a float32 tensor in [0, 1], in C order."""
    values = np.empty(samples.shape, np.float32)
    np.divide(samples, np.iinfo(samples.dtype).max, values, dtype=np.float32)
    return torch.from_numpy(values)


def fit(size: tuple[int, int], longer: int | Literal["original"]) -> tuple[int, int]:
    """Return (height, width) scaled so that the longer side has ``longer`` pixels."""
    scale = 1.0 if longer == "original" else longer / max(size)
    height, width = (max(1, round(side * scale)) for side in size)
    return height, width


def padded(image: Tensor) -> Tensor:
    """Return an image (B, C, H, W) as large as the network needs it.

    Where a side is shorter than `SHORTEST_SIDE`, its last row or column is repeated.
    """
    border = missing(image)
    return F.pad(image, border, mode="replicate") if any(border) else image


def padded_weights(weights: Tensor | None, image: Tensor) -> Tensor | None:
    """Return how much each place of a `padded` image counts, (1, 1, H, W).

    Args:
        weights: of the image as it was, (1, 1, h, w); None: all its places count alike.
        image: as it was, (B, C, h, w).

    Returns:
        0 where it was padded; None: all places count alike.
    """
    border = missing(image)
    if not any(border):
        return weights
    return F.pad(torch.ones_like(image[:1, :1]) if weights is None else weights, border)


def missing(image: Tensor) -> list[int]:
    """Return how much wider and higher an image (B, C, H, W) is when it is `padded`, for torch."""
    height, width = (max(0, SHORTEST_SIDE - side) for side in image.shape[-2:])
    return [0, width, 0, height]


def resize(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Return (B, C, H, W) ``pixels`` in [0, 1] at ``size`` (height, width): antialiased bicubic."""
    if pixels.shape[-2:] == size:
        return pixels
    if pixels.device.type == "mps":  # for which torch 2.6 has no antialiased bicubic
        return resize(pixels.cpu(), size).to(pixels)
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
