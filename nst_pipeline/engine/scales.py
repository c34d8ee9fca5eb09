"""Coarse to fine: the sizes a pastiche grows through, and the steps at each. Pure."""

import math
from dataclasses import dataclass

from nst_pipeline.config.recipe import Recipe
from nst_pipeline.engine.images import fit

COARSEST = 128
"""Longer side, in pixels, that ``scales: auto`` begins with."""


@dataclass(frozen=True)
class Scale:
    """One size of the way.

    Attributes:
        size: of the pastiche, (height, width).
        longer: the longer side that was asked for, in pixels; styles are scaled by it.
        iterations: steps of L-BFGS.
    """

    size: tuple[int, int]
    longer: int
    iterations: int


def plan_scales(recipe: Recipe, size: tuple[int, int]) -> list[Scale]:
    """Return the scales, coarse to fine, of a content of ``size`` (height, width).

    ``scales: auto`` begins with `COARSEST` and about doubles. ``iterations`` as one number is the
    sum: every scale gets half the steps of the one before, where a step is cheap and changes much.
    As a list it says how many scales ``auto`` makes.
    """
    final = max(size) if recipe.size == "original" else recipe.size
    if recipe.scales == "auto":
        doublings = max(0, round(math.log2(final / COARSEST)))
        if not isinstance(recipe.iterations, int):
            doublings = len(recipe.iterations) - 1
        sides = [round(COARSEST * (final / COARSEST) ** (k / doublings)) for k in range(doublings)]
    else:
        sides = [side for side in recipe.scales if side < final] if recipe.scales != 1 else []
    sides.append(final)
    if isinstance(recipe.iterations, int):
        sides = sides[-recipe.iterations :]
        steps = _spread(recipe.iterations, len(sides))
    else:
        given = recipe.iterations
        steps = [given[min(k, len(given) - 1)] for k in range(len(sides))]
    return [Scale(fit(size, side), side, count) for side, count in zip(sides, steps, strict=True)]


def _spread(total: int, parts: int) -> list[int]:
    """Return ``parts`` numbers from 1 up that halve from one to the next and sum to ``total``."""
    left, numbers = total - parts, []
    for part in range(parts):
        share = 1 / (2 - 0.5 ** (parts - part - 1))
        numbers.append(round(left * share))
        left -= numbers[-1]
    return [number + 1 for number in numbers]
