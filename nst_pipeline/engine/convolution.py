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

    On a CPU it keeps neither its input nor the copy of it with a border, as torch's would, and
    after `prepare` it takes Winograd's algorithm where that is faster.
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
        if image.device.type != "cpu":
            return super().forward(image)
        assert self.bias is not None
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        result: Tensor
        if self._kernels is not None and is_by_winograd(*self.weight.shape[:2], *image.shape[2:]):
            bordered = F.pad(image, (1, 1, 1, 1), mode=mode)
            return winograd.convolve(bordered, self._kernels, self.bias)
        if mode == "constant":
            result = _Direct.apply(image, self.weight, self.bias, 1)
        else:
            result = _Direct.apply(F.pad(image, (1, 1, 1, 1), mode=mode), self.weight, self.bias, 0)
        return result


def prepare(trunk: nn.Sequential, device: torch.device, dtype: torch.dtype) -> nn.Sequential:
    """Move a network to where it stays, and have its convolutions compute as fast as they can."""
    trunk = trunk.to(device, dtype).to(memory_format=torch.channels_last)
    for layer in trunk.modules():
        if isinstance(layer, Convolution):
            layer.prepare()
    return trunk


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
