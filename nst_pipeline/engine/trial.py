"""A trial of the device: how fast it paints, before there is anything to tell by."""

import itertools
import statistics
import time

import numpy as np
from PIL import Image

from nst_pipeline.config.recipe import make_recipe, step_costs
from nst_pipeline.config.weights import Weights
from nst_pipeline.engine.devices import Precision, resolve_device
from nst_pipeline.engine.transfer import StyleTransfer

SIDE, STEPS, CPU_STEPS = 256, 8, 4
"""Of the picture that is painted."""


def try_out(device: str, precision: Precision, weights: Weights) -> tuple[float, bool]:
    """Return how long a step takes for each pixel, as `step_costs` counts them.

    Args:
        device: as `StyleTransfer` takes it.
        precision: likewise.
        weights: of the network.

    Returns:
        The seconds, and whether a CPU took them.

    Raises:
        UnavailableError: no such device or weights.
    """
    is_cpu = resolve_device(device).type == "cpu"
    recipe = make_recipe(size=SIDE, iterations=CPU_STEPS if is_cpu else STEPS, scales=1)
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    picture, transfer = Image.fromarray(noise), StyleTransfer(recipe, device, precision, weights)
    ends: list[float] = []
    transfer.run(picture, [picture], check=lambda: ends.append(time.perf_counter()))
    if is_cpu:  # which only the first step keeps waiting
        step = statistics.median(end - start for start, end in itertools.pairwise(ends))
        return step / step_costs(recipe)[-1], True
    # Its first picture takes far longer than any other, and no step is over when it was asked for.
    (result,) = transfer.run(picture, [picture])
    return result.seconds / sum(step_costs(recipe)), False
