"""A whole transfer: wall time, and the float32 loss of the saved image.

The engine against the tutorial, bf16 against fp32, and coarse to fine against one size.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from reference import Reference
from torch import Tensor

from benchmarks import pairs, workload
from nst_pipeline.config.recipe import RecipeChanges
from nst_pipeline.engine import Result, StyleTransfer, make_recipe
from nst_pipeline.engine import images as engine_images
from nst_pipeline.engine.devices import resolve_device

PAIRS = 6
"""Pairs of pictures that bf16 is compared on."""

Row = dict[str, object]
Loaded = list[tuple[Tensor, Tensor]]


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
            loaded = list(workload.pictures(images, size, 1 if quick else PAIRS))
            count = rounds or (3 if size <= 256 else 1)
            facts = {"network": name, "size": size}
            for precision in ("auto", "fp32"):
                made = workload.recipe(iterations)
                ours = workload.engine(name, device, precision, made)
                rows.append(facts | _against_tutorial(name, ours, *loaded[0], count, iterations))
            rows.append(facts | _precisions(name, loaded, device, iterations))
            rows.append(facts | _scales(name, size, *loaded[0], count, device, iterations))
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
        saved["engine"] = _pixels(ours.run(content, [style])[0])

    timed = pairs.alternate(tutorial, engine, rounds, warm_up=0)
    rounded = engine_images.to_tensor(engine_images.to_image(saved["tutorial"]))
    ratio = _loss(theirs, saved["engine"]) / _loss(theirs, rounded)
    compared = f"tutorial : engine {ours.describe()[1]}"
    return pairs.row(timed, "first", "second", compared=compared) | {"loss ratio": ratio}


def _precisions(name: str, loaded: Loaded, device: str, iterations: int) -> Row:
    """Return the ratio of the float32 losses of the images that bf16 and fp32 give."""
    made = workload.recipe(iterations)
    engines = [workload.engine(name, device, precision, made) for precision in ("bf16", "fp32")]
    found = []
    for content, style in loaded:
        judge = workload.reference(name, resolve_device(device), content, style)
        bf16, fp32 = (_loss(judge, _pixels(e.run(content, [style])[0])) for e in engines)
        found.append((bf16, fp32))
    ratios = pairs.ratios(found)
    return {
        "compared": f"bf16 : fp32, {len(found)} pictures",
        "loss ratio": ratios["median"],
        "loss low": ratios["low"],
        "loss high": ratios["high"],
    }


def _scales(
    name: str, size: int, content: Tensor, style: Tensor, rounds: int, device: str, iterations: int
) -> Row:
    """Return the time of the default recipe, coarse to fine, against all steps at the last size."""
    fine, coarse = (
        make_recipe(RecipeChanges(size=size, scales=scales, iterations=iterations))
        for scales in (1, "auto")
    )
    one, many = (workload.engine(name, device, "auto", made) for made in (fine, coarse))
    timed = pairs.alternate(
        lambda: one.run(content, [style]), lambda: many.run(content, [style]), rounds, warm_up=0
    )
    return pairs.row(timed, "first", "second", compared="one size : coarse to fine")


def _pixels(result: Result) -> Tensor:
    return engine_images.to_tensor(result.pixels)


@torch.no_grad()
def _loss(reference: Reference, pixels: Tensor) -> float:
    device = reference.style_losses[0].target.device
    return float(reference.loss(pixels.to(device)))
