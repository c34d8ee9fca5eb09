"""Convolutions whose weights are fixed: there is a gradient of the image alone."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nst_pipeline.config.recipe import Padding
from nst_pipeline.engine import winograd

FEWEST_CHANNELS = 64
"""In and out, with which Winograd's algorithm can be faster than torch's."""
FEWEST_PRODUCTS = 64 * 128
"""Channels in by channels out with which it is on one thread."""
FEWEST_ON_SEVERAL = 112 * 256
"""With which it is on several threads, too, wherever their cores are.

What one thread makes another takes, which is slow where they share no cache.
"""
FEWEST_TILES = 12


def is_by_winograd(channels: int, widths: int, height: int = 64, width: int = 64) -> bool:
    """Tell whether Winograd's algorithm is the faster one, for as many threads as torch has.

    Args:
        channels: of the image.
        widths: channels of the result.
        height: of the result, in pixels.
        width: of the result, in pixels.
    """
    fewest = FEWEST_PRODUCTS if torch.get_num_threads() == 1 else FEWEST_ON_SEVERAL
    return (
        min(channels, widths) >= FEWEST_CHANNELS
        and channels * widths >= fewest
        and math.prod(winograd.tiles(height, width)) >= FEWEST_TILES
    )


class Convolution(nn.Conv2d):
    """A convolution of 3 x 3, which gives as many rows and columns as it takes.

    It keeps neither its input nor the copy of it with a border, as torch's would, and after
    `prepare` it takes Winograd's algorithm on a CPU where that is faster.
    """

    def __init__(self, channels: int, widths: int, padding: Padding) -> None:
        """Take images of so many ``channels``, give so many ``widths``."""
        super().__init__(channels, widths, 3, padding=1, padding_mode=padding)
        self.requires_grad_(False)
        self._kernels: Tensor | None = None

    def prepare(self) -> None:
        """Transform the weights, where they now are, for Winograd's algorithm if it may pay."""
        fits = self.weight.device.type == "cpu" and self.weight.dtype == torch.float32
        if fits and is_by_winograd(self.in_channels, self.out_channels):
            self._kernels = winograd.transform_kernels(self.weight)

    def forward(self, image: Tensor) -> Tensor:
        """Return the convolution (B, widths, H, W) of an ``image`` (B, channels, H, W)."""
        assert self.bias is not None
        if self._kernels is not None and is_by_winograd(*self.weight.shape[:2], *image.shape[2:]):
            bordered = with_border(image, self.padding_mode)
            return winograd.convolve(bordered, self._kernels, self.bias)
        border = 1 if self.padding_mode == "zeros" else 0
        if not border:
            image = with_border(image, self.padding_mode)
        result: Tensor = _Direct.apply(image, self.weight, self.bias, border)
        return result


def prepare(trunk: nn.Sequential, device: torch.device, dtype: torch.dtype) -> nn.Sequential:
    """Move a network to where it stays, and have its convolutions compute as fast as they can."""
    trunk = trunk.to(device, dtype).to(memory_format=torch.channels_last)
    for layer in trunk.modules():
        if isinstance(layer, Convolution):
            layer.prepare()
    return trunk


def with_border(image: Tensor, kind: str) -> Tensor:
    """Return an image (B, C, H, W) with one row and column more on each side.

    Args:
        image: best with its channels last in memory.
        kind: what stands there: ``zeros``, or the pixels next to it (``replicate``) or next to
            these (``reflect``).
    """
    if kind == "replicate" and min(image.shape[2:]) > 1:
        result: Tensor = _Replicated.apply(image)
        return result
    return F.pad(image, (1, 1, 1, 1), mode="constant" if kind == "zeros" else kind)


class _Replicated(torch.autograd.Function):
    """As by `F.pad`, which on a GPU changes the layout, and sorts where it may not add atomically.

    Opposite sides are one view: on a GPU it is the number of operations that takes time.
    """

    @staticmethod
    def forward(ctx: Any, image: Tensor) -> Tensor:
        batch, channels, height, width = image.shape
        shape = batch, height + 2, width + 2, channels
        result = image.new_empty(shape).permute(0, 3, 1, 2)
        result[:, :, 1:-1, 1:-1] = image
        result[:, :, 1:-1, :: width + 1] = image[..., :: width - 1]
        result[:, :, :: height + 1] = result[:, :, 1 : height + 1 : height - 1]
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        height, width = gradient.shape[2] - 2, gradient.shape[3] - 2
        result = gradient[:, :, 1:-1, 1:-1].clone(memory_format=torch.preserve_format)
        outer = gradient[:, :, :: height + 1]
        rows = result[:, :, :: height - 1]
        rows.add_(outer[..., 1:-1])
        rows[..., :: width - 1].add_(outer[..., :: width + 1])
        result[..., :: width - 1].add_(gradient[:, :, 1:-1, :: width + 1])
        return result


class _Direct(torch.autograd.Function):
    """torch's convolution, but for what that keeps; all its bytes are the same."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, weight: Tensor, bias: Tensor, border: int) -> Tensor:
        ctx.weight, ctx.border = weight, border
        return F.conv2d(image, weight, bias, padding=border)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return F.conv_transpose2d(gradient, ctx.weight, padding=ctx.border), None, None, None
