"""Coarse to fine: the sizes of a content's pastiches, and the steps at each. Pure."""

from dataclasses import dataclass

from nst_pipeline.config.recipe import Recipe, plan_sides
from nst_pipeline.engine.images import fit


@dataclass(frozen=True)
class Scale:
    """A size at which a pastiche is optimised.

    Attributes:
        size: of the pastiche, (height, width).
        longer_side: that was asked for, in pixels; styles are scaled by it.
        iterations: steps of L-BFGS.
    """

    size: tuple[int, int]
    longer_side: int
    iterations: int


def plan_scales(recipe: Recipe, size: tuple[int, int]) -> list[Scale]:
    """Return the scales, coarse to fine, of a content of ``size`` (height, width)."""
    return [
        Scale(fit(size, side), side, iterations)
        for side, iterations in plan_sides(recipe, max(size))
    ]
