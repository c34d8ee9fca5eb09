"""A convolution and its gradient, in fp32 on the CPU: torch's algorithm, and what the engine takes.

A convolution of few channels, or of a tiny picture, is torch's in either case.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from benchmarks import pairs, workload
from nst_pipeline.engine.convolution import Convolution

SHAPES = (
    (64, 64, 1), (64, 128, 2), (128, 128, 2), (128, 256, 4), (256, 256, 4), (256, 512, 8),
    (512, 512, 8), (512, 512, 16), (96, 96, 4), (288, 256, 8),
)  # fmt: skip
"""Channels in and out, and by how much the picture is reduced there: VGG's, then the compact's."""


def measure(
    rounds: int | None = None, sizes: Sequence[int] | None = None, quick: bool = False
) -> list[dict[str, object]]:
    """Return a row a size and shape.

    Args:
        rounds: pairs; None: as `pairs.rounds_at` says.
        sizes: longer sides of the picture.
        quick: tiny.
    """
    rows = []
    for size in sizes or (workload.QUICK_SIZES if quick else (512,)):
        for channels, widths, part in SHAPES:
            height, width = size * 3 // 4 // part, size // part
            image = torch.rand(1, channels, height, width)
            image = image.contiguous(memory_format=torch.channels_last).requires_grad_()
            ours = Convolution(channels, widths, "zeros").to(memory_format=torch.channels_last)
            theirs = nn.Conv2d(channels, widths, 3, padding=1).requires_grad_(False)
            theirs = theirs.to(memory_format=torch.channels_last)
            ours.prepare()
            timed = pairs.alternate(
                _both(theirs, image), _both(ours, image), pairs.rounds_at(size, rounds)
            )
            facts = {"in": channels, "out": widths, "at": f"{height} x {width}"}
            rows.append(pairs.row(timed, "torch", "engine", **facts))
    return rows


def _both(layer: nn.Module, image: Tensor) -> Callable[[], object]:
    def work() -> object:
        found = layer(image)
        return torch.autograd.grad(found, image, found.detach())

    return work
