"""What the tests of the engine share: small transfers with the compact network, on the CPU."""

from typing import Any

import numpy as np
import torch
from conftest import picture
from PIL import Image
from torch import Tensor, nn

from nst_pipeline.config.recipe import RECIPES
from nst_pipeline.engine import Recipe, Result, StyleTransfer

RED = Image.new("RGB", (64, 48), (200, 40, 30))
BLUE = Image.new("RGB", (64, 48), (30, 60, 200))


def narrow_vgg(layers: tuple[str, ...], widths: tuple[int, ...] = (4, 4, 6, 6, 6)) -> dict:
    """Return random weights with torchvision's names and a classifier.

    Args:
        layers: of a VGG, or the first of them.
        widths: channels of its five blocks.
    """
    torch.manual_seed(0)
    state: dict[str, Tensor] = {}
    channels = 3
    for index, name in enumerate(layers):
        if name.startswith("conv"):
            conv = nn.Conv2d(channels, widths[int(name[4]) - 1], 3, padding=1)
            state[f"features.{index}.weight"] = conv.weight.detach()
            state[f"features.{index}.bias"] = conv.bias.detach()
            channels = conv.out_channels
    return state | {"classifier.0.weight": torch.zeros(4096, 100)}


def with_paper_names(state: dict, layers: tuple[str, ...]) -> dict:
    """Return the convolutions of a state dict with torchvision's names under the paper's."""
    parts = [(*key.split("."), value) for key, value in state.items() if "features" in key]
    return {f"{layers[int(index)]}.{kind}": value for _, index, kind, value in parts}


def small_recipe(**changes: Any) -> Recipe:
    """Return a recipe of the plain losses that is quickly done, with ``changes``."""
    quick = {"size": 48, "iterations": 12, "style_weight": 300}
    return Recipe.model_validate(RECIPES["gatys"] | quick | changes)


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
