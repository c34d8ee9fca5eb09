"""Convolutions of 3 x 3 by the algorithm of Winograd (Lavin and Gray 2016), in float32 on a CPU.

F(4 x 4, 3 x 3): a tile of 6 x 6 pixels gives 4 x 4 results by 36 products and not 144. The products
of all tiles are 36 matrix products over the channels, so it pays where there are many.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

TILE = 4
"""Results on a side of a tile."""
POINTS = (TILE + 2) ** 2
BAND_BYTES = 2 * 2**20
"""Of the transformed tiles that are worked on at once: they stay in a core's cache."""
BAND_TILES = 192
"""Fewer at once would read the kernels too often."""


def _in_two_dimensions(rows: list[list[float]]) -> Tensor:
    matrix = torch.tensor(rows, dtype=torch.float64)
    return torch.kron(matrix, matrix)


# Of a tile, of a kernel and of the products (Lavin and Gray 2016, section 4.3).
OF_TILE = _in_two_dimensions(
    [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
     [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]]
).float()  # fmt: skip
OF_KERNEL = _in_two_dimensions(
    [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
     [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]]
)  # fmt: skip
OF_PRODUCTS = _in_two_dimensions(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
).float()


def transform_kernels(weight: Tensor) -> Tensor:
    """Return a convolution's kernels (O, I, 3, 3) as `convolve` takes them, (36, I, O)."""
    flat = weight.double().permute(2, 3, 1, 0).flatten(0, 1).flatten(1)
    return (OF_KERNEL @ flat).to(weight).view(POINTS, weight.shape[1], weight.shape[0])


def tiles(height: int, width: int) -> tuple[int, int]:
    """Return how many rows and columns of tiles make up so many results."""
    return -(-height // TILE), -(-width // TILE)


def room_bytes(channels: int, widths: int, height: int, width: int) -> int:
    """Return what `convolve` takes besides the image and its (H, W) results, at its peak."""
    rows, columns = tiles(height, width)
    most = max(channels, widths)
    is_whole = (TILE * rows, TILE * columns) == (height, width)
    spare = 0 if is_whole else (TILE * rows + 2) * (TILE * columns + 2) * most
    return 4 * (2 * POINTS * _band(rows, columns, most) * columns * most + spare)


def convolve(image: Tensor, kernels: Tensor, bias: Tensor) -> Tensor:
    """Return the convolution of images that have their border already.

    Only the gradient of the images is ever computed, and for it nothing of them is kept.

    Args:
        image: (B, I, H + 2, W + 2), float32, on the CPU.
        kernels: (36, I, O) of `transform_kernels`.
        bias: (O,).

    Returns:
        (B, O, H, W), its channels last in memory.
    """
    result: Tensor = _Winograd.apply(image, kernels, bias)
    return result


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, kernels: Tensor, bias: Tensor) -> Tensor:
        ctx.kernels = kernels
        batch, _, height, width = image.shape
        rows, columns = tiles(height - 2, width - 2)
        image = _extended(image, TILE * rows + 2, TILE * columns + 2)
        result = torch.empty(
            (batch, kernels.shape[2], TILE * rows, TILE * columns),
            memory_format=torch.channels_last,
        )
        for one, into in zip(image, result.permute(0, 2, 3, 1), strict=True):
            _convolve(one, kernels, bias, into)
        return _cropped(result, height - 2, width - 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        batch, _, height, width = gradient.shape
        rows, columns = tiles(height, width)
        gradient = _extended(gradient, TILE * rows, TILE * columns)
        result = torch.empty(
            (batch, ctx.kernels.shape[1], TILE * rows + 2, TILE * columns + 2),
            memory_format=torch.channels_last,
        )
        result[:, :, -2:] = 0
        result[:, :, :, -2:] = 0
        for one, into in zip(gradient, result.permute(0, 2, 3, 1), strict=True):
            _transposed(one, ctx.kernels, into)
        return _cropped(result, height + 2, width + 2), None, None


def _extended(images: Tensor, height: int, width: int) -> Tensor:
    """Return (B, C, H, W) as (B, height, width, C), with zeros after its rows and columns."""
    values = images.permute(0, 2, 3, 1)
    if values.shape[1:3] == (height, width):
        return values.contiguous()
    found = values.new_zeros(len(values), height, width, values.shape[3])
    found[:, : values.shape[1], : values.shape[2]] = values
    return found


def _cropped(images: Tensor, height: int, width: int) -> Tensor:
    """Return the first rows and columns, as no view: autograd changes none in place."""
    if images.shape[2:] == (height, width):
        return images
    return images[:, :, :height, :width].clone(memory_format=torch.channels_last)


def _bands(rows: int, columns: int, kernels: Tensor) -> tuple[list[tuple[int, int]], list[Tensor]]:
    """Return the rows of tiles that are worked on together, first and end, and room for two."""
    width = max(kernels.shape[1:])
    band = _band(rows, columns, width)
    room = kernels.new_empty(2, POINTS * band * columns * width)
    return list(itertools.pairwise([*range(0, rows, band), rows])), list(room)


def _band(rows: int, columns: int, width: int) -> int:
    fitting = BAND_BYTES // (POINTS * 4 * width * columns)
    return min(rows, max(1, fitting, -(-BAND_TILES // columns)))


def _within(room: Tensor, *shape: int) -> Tensor:
    return room[: math.prod(shape)].view(shape)


def _convolve(image: Tensor, kernels: Tensor, bias: Tensor, into: Tensor) -> None:
    """Write what an image (H, W, I) gives to ``into`` (4 rows, 4 columns, O)."""
    rows, columns = (side // TILE for side in into.shape[:2])
    _, channels, widths = kernels.shape
    bands, (one, other) = _bands(rows, columns, kernels)
    for first, last in bands:
        shape, count = (last - first, columns), (last - first) * columns
        tiles = _within(one, POINTS, count * channels)
        tiles.view(TILE + 2, TILE + 2, *shape, channels).copy_(
            _blocks(image, first, (0, 0), (TILE + 2, TILE + 2, *shape, channels))
        )
        seen = torch.mm(OF_TILE, tiles, out=_within(other, *tiles.shape))
        seen = seen.view(POINTS, count, channels)
        products = torch.bmm(seen, kernels, out=_within(one, POINTS, count, widths)).flatten(1)
        made = torch.mm(OF_PRODUCTS, products, out=_within(other, TILE**2, products.shape[1]))
        blocks = _blocks(into, first, (0, 0), (TILE, TILE, *shape, widths))
        torch.add(made.view(TILE, TILE, *shape, widths), bias, out=blocks)


def _transposed(gradient: Tensor, kernels: Tensor, into: Tensor) -> None:
    """Write an image's gradient to ``into`` (H, W, I), from that of what it gave: the transpose.

    The last two rows and columns of ``into`` are zeros before.
    """
    rows, columns = (side // TILE for side in gradient.shape[:2])
    _, channels, widths = kernels.shape
    bands, (one, other) = _bands(rows, columns, kernels)
    for first, last in reversed(bands):
        shape, count = (last - first, columns), (last - first) * columns
        values = _within(one, TILE**2, count * widths)
        values.view(TILE, TILE, *shape, widths).copy_(
            _blocks(gradient, first, (0, 0), (TILE, TILE, *shape, widths))
        )
        products = torch.mm(OF_PRODUCTS.T, values, out=_within(other, POINTS, values.shape[1]))
        products = products.view(POINTS, count, widths)
        seen = torch.bmm(products, kernels.mT, out=_within(one, POINTS, count, channels)).flatten(1)
        found = torch.mm(OF_TILE.T, seen, out=_within(other, *seen.shape))
        tiles = found.view(TILE + 2, TILE + 2, *shape, channels)
        # Tiles overlap the next by two rows and columns, which are there by now.
        _blocks(into, first, (0, 0), (TILE, TILE, *shape, channels)).copy_(tiles[:TILE, :TILE])
        for top, left in ((0, TILE), (TILE, 0), (TILE, TILE)):
            part = tiles[top : top + TILE, left : left + TILE]
            _blocks(into, first, (top, left), part.shape).add_(part)


def _blocks(image: Tensor, row: int, corner: tuple[int, int], shape: Sequence[int]) -> Tensor:
    """Return a view of an image (H, W, C) as (rows, columns, tile's row, tile's column, C).

    Args:
        image: with all that the view needs.
        row: of the first tiles.
        corner: of each block, from that of its tile, down and to the right.
        shape: of the view.
    """
    down, right, _ = image.stride()
    strides = down, right, TILE * down, TILE * right, 1
    return image[TILE * row + corner[0] :, corner[1] :].as_strided(shape, strides)
