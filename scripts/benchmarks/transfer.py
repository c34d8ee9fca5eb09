"""A whole transfer against the tutorial: wall time, and the float32 loss of the saved image."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from reference import Reference
from torch import Tensor

from benchmarks import pairs, workload
from nst_pipeline.config.recipe import RecipeChanges
from nst_pipeline.engine import StyleTransfer, make_recipe
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
    """Return rows a network, size, precision and way.

    The tutorial's own loop runs, in fp32, and its weights require gradients. It stops only after
    whole rounds of 20 evaluations: only a multiple of 20 compares equal work. Where the engine
    paints styles together, on a GPU, it does so in rows of their own, by the tutorial's recipe and
    by the default one; the tutorial's loop paints one, whose time counts as often.

    Args:
        rounds: transfers of each way; None: 3, and 1 above 256 pixels.
        sizes: longer sides of the picture.
        device: as `StyleTransfer` takes it.
        images: folder of pictures; None: noise.
        quick: tiny, with the compact network alone.
        iterations: of each transfer by the tutorial's recipe.
    """
    place, rows = resolve_device(device), list[Row]()
    for name in workload.networks(quick):
        for size in sizes or (workload.QUICK_SIZES if quick else workload.SIZES):
            ways = _ways(name, place, size, iterations)
            shown = list(workload.pictures(images, size, max(way.pictures for way in ways)))
            count = rounds or (3 if size <= 256 else 1)
            facts = {"network": name, "size": size}
            rows += [facts | row for row in _against_tutorial(name, ways, shown, count, iterations)]
    return rows


@dataclass(frozen=True)
class _Way:
    """How the engine paints so many pictures."""

    recipe: str
    transfer: StyleTransfer
    pictures: int


def _ways(name: str, device: torch.device, size: int, iterations: int) -> list[_Way]:
    found: list[_Way] = []
    for precision in workload.precisions(device):
        same = workload.engine(name, str(device), precision, workload.recipe(iterations))
        found.append(_Way("tutorial", same, 1))
        if same.batch > 1:
            made = make_recipe(RecipeChanges(size=size))
            default = workload.engine(name, str(device), precision, made)
            found += [_Way("tutorial", same, same.batch), _Way("default", default, same.batch)]
    return found


def _against_tutorial(
    name: str,
    ways: Sequence[_Way],
    pictures: Sequence[tuple[Tensor, Tensor]],
    rounds: int,
    iterations: int,
) -> list[Row]:
    """Return the times, and the first picture's float32 loss where both minimise the same."""
    (content, style), styles = pictures[0], [style for _, style in pictures]
    device = ways[0].transfer.device
    theirs = workload.reference(name, device, content, style)
    saved: dict[_Way | None, Tensor] = {}

    def tutorial() -> None:
        saved[None] = theirs.run(content.to(device), iterations - 1, frozen=False)

    def engine(way: _Way) -> None:
        result, *_ = way.transfer.run(content, styles[: way.pictures])
        saved[way] = engine_images.to_tensor(result.pixels)

    if device.type != "cpu":  # whose libraries choose how they compute what they first meet
        theirs.run(content.to(device), num_steps=0, frozen=False)
        for way in ways:
            engine(way)
    timed: dict[_Way, pairs.Pairs] = {way: [] for way in ways}
    for _ in range(rounds):
        seconds = pairs.seconds(tutorial)
        for way, found in timed.items():
            found.append((seconds * way.pictures, pairs.seconds(functools.partial(engine, way))))
    rounded = engine_images.to_tensor(engine_images.to_image(saved[None]))
    rows = []
    for way, found in timed.items():
        precision = way.transfer.describe()[1]
        facts = {"recipe": way.recipe, "precision": precision, "pictures": way.pictures}
        row = pairs.row(found, "tutorial", "engine", **facts)
        if way.recipe == "tutorial":
            row["loss ratio"] = _loss(theirs, saved[way]) / _loss(theirs, rounded)
        rows.append(row)
    return rows


@torch.no_grad()
def _loss(reference: Reference, pixels: Tensor) -> float:
    device = reference.style_losses[0].target.device
    return float(reference.loss(pixels.to(device)))
