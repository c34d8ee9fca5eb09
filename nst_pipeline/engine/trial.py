"""A trial of the device: how fast it paints, before there is anything to tell by."""

import numpy as np
from PIL import Image

from nst_pipeline.config.recipe import make_recipe, step_costs
from nst_pipeline.config.weights import Weights
from nst_pipeline.engine.devices import Precision
from nst_pipeline.engine.transfer import StyleTransfer

SIDE, STEPS = 256, 8
"""Of the picture that is painted."""


def seconds_per_pixel(device: str, precision: Precision, weights: Weights) -> float:
    """Return how long a step takes for each pixel, as `step_costs` counts them.

    Args:
        device: as `StyleTransfer` takes it.
        precision: likewise.
        weights: of the network.

    Raises:
        UnavailableError: no such device or weights.
    """
    recipe = make_recipe(size=SIDE, iterations=STEPS, scales=1)
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    picture, transfer = Image.fromarray(noise), StyleTransfer(recipe, device, precision, weights)
    if transfer.device.type != "cpu":  # where the first picture takes far longer than any other
        transfer.run(picture, [picture])
    (result,) = transfer.run(picture, [picture])
    return result.seconds / sum(step_costs(recipe))
