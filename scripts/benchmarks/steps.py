"""Fewer steps: what other schedules of the scales, and other settings, make of the same pictures.

Every picture is looked at twice: its own loss, the default recipe's in fp32 by the network that
painted it, and the judge's, content loss + style weight x style loss of `compact_judge`. Both are
divided by what the first of the group has on the same pair.
"""

import contextlib
import itertools
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from compact_judge import judge as verdict_of
from compact_network import Trunk, load_teacher
from torch import Tensor

from benchmarks import workload
from nst_pipeline.config.recipe import RecipeChanges, plan_sides
from nst_pipeline.config.weights import COMPACT_PATH
from nst_pipeline.engine import Recipe, Result, StyleTransfer, images, make_recipe
from nst_pipeline.engine.devices import Precision, resolve_device

Row = dict[str, object]

PAIRS = 6


@dataclass(frozen=True)
class Change:
    """What is done otherwise.

    Attributes:
        recipe: gives the recipe's fields at a size.
        constants: of the package, by where they stand.
        precision: of the network.
    """

    recipe: Callable[[int], Mapping[str, Any]] = lambda size: {}
    constants: Mapping[str, float] = field(default_factory=dict)
    precision: Precision = "auto"

    def made(self, size: int) -> Recipe:
        """Return the recipe of pictures of ``size``."""
        return make_recipe(RecipeChanges.model_validate({"size": size, **self.recipe(size)}))

    @contextlib.contextmanager
    def in_force(self) -> Iterator[None]:
        """Have the package compute with these constants."""
        with contextlib.ExitStack() as stack:
            for place, value in self.constants.items():
                stack.enter_context(patch(place, value))
            yield


def _schedule(first: int, growth: float, steps: int, power: float) -> Change:
    """Return scales from ``first`` pixels by ``growth``, and steps by their sides' power."""

    def fields(size: int) -> Mapping[str, Any]:
        sides = [float(size)]
        while sides[0] / growth > first * 0.99:
            sides.insert(0, sides[0] / growth)
        weights = [side**power for side in sides]
        shares = [max(1, round(steps * weight / sum(weights))) for weight in weights]
        return {"scales": [round(side) for side in sides[:-1]] or 1, "iterations": shares}

    return Change(fields)


def _fields(**fields: Any) -> Change:
    return Change(lambda size: fields)


def _until_settled(tolerance: float) -> Change:
    def fields(size: int) -> Mapping[str, Any]:
        scales = plan_sides(make_recipe(RecipeChanges(size=size)), size)
        return {"iterations": [300] * len(scales), "tolerance": tolerance}

    return Change(fields)


SCHEDULES: dict[str, Change] = {
    "root of 2, 300 by 1/side": _schedule(128, 2**0.5, 300, -1),
    "root of 2, 150 by 1/side": _schedule(128, 2**0.5, 150, -1),
    "doubling, 150 by 1/side": _schedule(128, 2, 150, -1),
    "doubling, 150 by 1/root of the side": Change(),
    "doubling, 100 by 1/root": _fields(iterations=100),
    "doubling, 200 by 1/root": _fields(iterations=200),
    "root of 2, 200 by 1/side": _schedule(128, 2**0.5, 200, -1),
    "root of 2, 100 by 1/side": _schedule(128, 2**0.5, 100, -1),
    "root of 2, 150, all scales alike": _schedule(128, 2**0.5, 150, 0),
    "root of 2, 150 by 1/side squared": _schedule(128, 2**0.5, 150, -2),
    "doubling, 100 by 1/side": _schedule(128, 2, 100, -1),
    "from 64 px by the root of 2, 150 by 1/side": _schedule(64, 2**0.5, 150, -1),
    "from 64 px by the root of 2, 300 by 1/side": _schedule(64, 2**0.5, 300, -1),
    "from 64 px, 150, all scales alike": _schedule(64, 2**0.5, 150, 0),
    "at one scale, 150": _fields(scales=1),
}
"""The first is the default of before, the fourth the present one."""

_FIRST_STEP = "nst_pipeline.engine.lbfgs.FIRST_STEP"
_LONGEST_STEP = "nst_pipeline.engine.batch.LONGEST_STEP"
CHANGES: dict[str, Change] = {
    "default": Change(),
    "in fp32": Change(precision="fp32"),
    "first step of 0.03 radii, not 0.1": Change(constants={_FIRST_STEP: 0.03}),
    "first step of 0.3 radii": Change(constants={_FIRST_STEP: 0.3}),
    "longest step of 0.05, not 0.1": Change(constants={_LONGEST_STEP: 0.05}),
    "longest step of 0.2": Change(constants={_LONGEST_STEP: 0.2}),
    "history of 5, not 10": _fields(history_size=5),
    "history of 20": _fields(history_size=20),
    "history of 40": _fields(history_size=40),
    "Adam, rate 0.03": _fields(optimizer="adam", learning_rate=0.03),
    "Adam, rate 0.05": _fields(optimizer="adam"),
    "up to 300 steps a scale, tolerance 0.01": _until_settled(0.01),
    "up to 300 steps a scale, tolerance 0.02": _until_settled(0.02),
    "up to 300 steps a scale, tolerance 0.03": _until_settled(0.03),
}
QUICK = {"default, 10 steps": _fields(iterations=10), "20 steps": _fields(iterations=20)}


@dataclass(frozen=True)
class Outcome:
    """What a picture came to.

    Attributes:
        cost: evaluations, in those of the full size.
        own: the network's loss.
        verdict: the judge's.
    """

    cost: float
    own: float
    verdict: float


def measure(
    rounds: int | None = None,
    sizes: Sequence[int] | None = None,
    device: str = "auto",
    images: Path | None = None,
    judge: Path | None = None,
    quick: bool = False,
) -> list[Row]:
    """Return a row a network, size and change.

    Args:
        rounds: pairs of pictures; None: `PAIRS`.
        sizes: longer sides of the picture; None: 256.
        device: as `StyleTransfer` takes it.
        images: folder of pictures; None: noise.
        judge: VGG-16's convolutions, which judge and paint, too; None: the network shipped.
        quick: tiny, one pair, few steps.
    """
    trunk, rows = load_teacher(judge or COMPACT_PATH).to(resolve_device(device)), []
    for network in dict.fromkeys((COMPACT_PATH, judge or COMPACT_PATH)):
        for size in sizes or (workload.QUICK_SIZES if quick else (256,)):
            pairs = list(workload.pictures(images, size, rounds or (1 if quick else PAIRS)))
            for changes in (QUICK,) if quick else (SCHEDULES, CHANGES):
                found = {
                    name: [outcome(network, device, trunk, size, change, *pair) for pair in pairs]
                    for name, change in changes.items()
                }
                facts: Row = {"network": network.stem, "size": size}
                rows += [facts | {"change": name} | row(found, name) for name in found]
    return rows


def outcome(
    network: Path,
    device: str,
    trunk: Trunk,
    size: int,
    change: Change,
    content: Tensor,
    style: Tensor,
) -> Outcome:
    """Paint a picture by a change, and look at it."""
    with change.in_force():
        transfer = StyleTransfer(change.made(size), device, change.precision, str(network))
        (result,) = transfer.run(content, [style])
    saved = images.to_tensor(result.pixels)
    plain = make_recipe(RecipeChanges(size=size, scales=1))
    same = StyleTransfer(plain, device, "fp32", str(network))
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        (own,) = workload.objective(same, content, [style]).of_finished(saved.to(same.device))
    judged = verdict_of(trunk, *(images.to_image(one) for one in (content, style, saved)))
    return Outcome(_cost(result, size), own.total, judged.loss(plain.style_weight))


def _cost(result: Result, size: int) -> float:
    """Return the evaluations, in those of the full size: at each scale one more than steps."""
    ends = [0, *(curve.steps[-1] for curve in result.curve)]
    shares = [(max(curve.size) / size) ** 2 for curve in result.curve]
    return sum(
        (end - first + 1) * share
        for (first, end), share in zip(itertools.pairwise(ends), shares, strict=True)
    )


def row(found: Mapping[str, Sequence[Outcome]], name: str) -> Row:
    """Return what a change came to, divided pair by pair by what the first did."""
    base, ours = next(iter(found.values())), found[name]
    facts: Row = {"cost": statistics.mean(each.cost for each in ours)}
    for what in ("own", "verdict"):
        ratios = [getattr(a, what) / getattr(b, what) for a, b in zip(ours, base, strict=True)]
        facts |= {
            what: statistics.mean(ratios),
            f"{what} low": min(ratios),
            f"{what} high": max(ratios),
        }
    return facts
