"""A whole transfer against the tutorial: wall time, and the float32 loss of the saved image."""

from collections.abc import Sequence
from pathlib import Path

import torch
from reference import Reference
from torch import Tensor

from benchmarks import pairs, workload
from nst_pipeline.engine import StyleTransfer
from nst_pipeline.engine import images as engine_images
from nst_pipeline.engine.devices import resolve_device

Row = dict[str, object]


def measure(
    rounds: int | None = None,
    sizes: Sequence[int] | None = None,
    device: str = "auto",
    images: Path | None = None,
    quick: bool = False,
    iterations: int = 300,
) -> list[Row]:
    """Return rows a network and size.

    The tutorial's own loop runs, in fp32, and its weights require gradients. It stops only after
    whole rounds of 20 evaluations: only a multiple of 20 compares equal work.

    Args:
        rounds: pairs of transfers; None: 3, and 1 above 256 pixels.
        sizes: longer sides of the picture.
        device: as `StyleTransfer` takes it.
        images: folder of pictures; None: noise.
        quick: tiny, with the compact network alone.
        iterations: of each transfer.
    """
    rows: list[Row] = []
    for name in workload.networks(quick):
        for size in sizes or (workload.QUICK_SIZES if quick else workload.SIZES):
            ((content, style),) = workload.pictures(images, size, 1)
            count = rounds or (3 if size <= 256 else 1)
            for precision in workload.precisions(resolve_device(device)):
                ours = workload.engine(name, device, precision, workload.recipe(iterations))
                found = _against_tutorial(name, ours, content, style, count, iterations)
                rows.append({"network": name, "size": size, **found})
    return rows


def _against_tutorial(
    name: str, ours: StyleTransfer, content: Tensor, style: Tensor, rounds: int, iterations: int
) -> Row:
    """Return the times and the float32 losses of the engine and the tutorial."""
    theirs = workload.reference(name, ours.device, content, style)
    saved: dict[str, Tensor] = {}

    def tutorial() -> None:
        saved["tutorial"] = theirs.run(content.to(ours.device), iterations - 1, frozen=False)

    def engine() -> None:
        saved["engine"] = engine_images.to_tensor(ours.run(content, [style])[0].pixels)

    timed = pairs.alternate(tutorial, engine, rounds, warm_up=0)
    rounded = engine_images.to_tensor(engine_images.to_image(saved["tutorial"]))
    ratio = _loss(theirs, saved["engine"]) / _loss(theirs, rounded)
    compared = f"tutorial : engine {ours.describe()[1]}"
    return pairs.row(timed, "first", "second", compared=compared) | {"loss ratio": ratio}


@torch.no_grad()
def _loss(reference: Reference, pixels: Tensor) -> float:
    device = reference.style_losses[0].target.device
    return float(reference.loss(pixels.to(device)))
