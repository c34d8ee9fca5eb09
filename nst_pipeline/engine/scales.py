"""Coarse to fine: the sizes of a content's pastiches, and the steps at each. Pure."""

from dataclasses import dataclass

from nst_pipeline.config.recipe import LARGEST_SIDE, Bounds, Recipe, plan_sides
from nst_pipeline.config.sizes import painted_size
from nst_pipeline.engine.images import fit
from nst_pipeline.errors import ImageError


@dataclass(frozen=True)
class Scale:
    """A size at which a pastiche is optimised.

    Attributes:
        size: of the pastiche, (height, width).
        longer_side: that was asked for, in pixels; styles are scaled by it.
        iterations: steps of the optimiser.
    """

    size: tuple[int, int]
    longer_side: int
    iterations: int


def plan_scales(recipe: Recipe, size: tuple[int, int]) -> list[Scale]:
    """Return the scales, coarse to fine, of a content of ``size`` (height, width).

    Raises:
        ImageError: of a width or height alone follows a side that is too long.
    """
    painted = painted_size(recipe.size, size)
    if isinstance(recipe.size, Bounds):
        if max(painted) > LARGEST_SIDE:
            raise ImageError(
                f"size: {recipe.size} makes the picture of {size[1]} x {size[0]} pixels "
                f"{painted[1]} x {painted[0]}; {LARGEST_SIDE} is the most: give width and height"
            )
        size = painted  # in its proportions, for something may be cut off
    return [
        Scale(fit(size, side), side, iterations)
        for side, iterations in plan_sides(recipe, max(painted))
    ]
