"""What the tests of the engine share: small transfers with the compact network, on the CPU."""

from typing import Any

import numpy as np
from conftest import picture
from PIL import Image

from nst_pipeline.engine import Recipe, Result, StyleTransfer

RED = Image.new("RGB", (64, 48), (200, 40, 30))
BLUE = Image.new("RGB", (64, 48), (30, 60, 200))


def small_recipe(**changes: Any) -> Recipe:
    """Return a recipe that is quickly done, with ``changes``."""
    return Recipe.model_validate({"size": 48, "iterations": 12, "pooling": "average"} | changes)


def transfer(recipe: Recipe | None, **options: Any) -> StyleTransfer:
    """Return an engine, exact unless ``options`` say otherwise."""
    options = {"device": "cpu", "precision": "fp32", "weights": "compact"} | options
    return StyleTransfer(recipe, **options)


def paint(
    style: Any = None,
    content: Any = None,
    start: Any = None,
    masks: Any = None,
    bits: Any = 8,
    **changes: Any,
) -> Result:
    """Return a content painted in a style, from ``start``, by the small recipe with ``changes``."""
    content = picture(seed=1) if content is None else content
    style = picture(seed=2) if style is None else style
    engine = transfer(small_recipe(**changes), bits=bits)
    (result,) = engine.run(content, [style], init=start, masks=masks)
    return result


def mean_colour(pixels: np.ndarray) -> np.ndarray:
    """Return the mean of red, green and blue."""
    return pixels.reshape(-1, 3).astype(float).mean(0)
