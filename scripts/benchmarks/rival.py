"""The recipe of crowsonkb's style-transfer-pytorch, in plain fp32: Adam, coarse to fine, W2.

The style is the squared 2-Wasserstein distance of the features' normal distributions: means and
covariances. Written anew from its published description; nothing of the engine's model is used.
"""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from compact_network import load_teacher
from torch import Tensor

from nst_pipeline.engine import images

STYLE_WEIGHTS = {"1_1": 256.0, "2_1": 64.0, "3_1": 16.0, "4_1": 4.0, "5_1": 1.0}
CONTENT_LAYER, CONTENT_WEIGHT, TV_WEIGHT = "4_2", 0.015, 2.0
COARSEST_SIDE, STEP_SIZE, DECAY, EPSILON = 128, 0.02, 0.99, 1e-4

OnStep = Callable[[Tensor], None]
"""Takes the picture after a step: the average of the iterates so far at its scale."""


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    flat = features[0].flatten(1)
    mean = flat.mean(1)
    centred = flat - mean[:, None]
    covariance = centred @ centred.T / flat.shape[1]
    return mean, covariance + EPSILON * torch.eye(len(mean), device=mean.device)


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp_min(0).sqrt() @ vectors.T


class _Wasserstein:
    """The squared distance of two normal distributions, over the channels' number."""

    def __init__(self, features: Tensor) -> None:
        self.mean, self.covariance = _moments(features)
        self.root = _root(self.covariance)

    def __call__(self, features: Tensor) -> Tensor:
        mean, covariance = _moments(features)
        product = self.root @ covariance @ self.root
        values = torch.linalg.eigvalsh((product + product.T) / 2)
        cross = values.clamp_min(EPSILON**2).sqrt().sum()
        spread = covariance.trace() + self.covariance.trace() - 2 * cross
        return ((mean - self.mean).square().sum() + spread) / len(mean)


def paint(
    network: Path, content: Tensor, style: Tensor, iterations: int, on_step: OnStep
) -> Tensor:
    """Return the pastiche (1, 3, H, W) of a content and a style of its size.

    Args:
        network: a file with the layers' paper names.
        content: (1, 3, H, W), values in [0, 1].
        style: the same.
        iterations: at each scale; twice as many at the first.
        on_step: called after every step.
    """
    trunk, final = load_teacher(network).to(content.device), max(content.shape[-2:])
    picture, steps = None, 2 * iterations
    for side in _sides(final):
        size = images.fit(tuple(content.shape[-2:]), side)
        goal, look = (images.resize(image, size) for image in (content, style))
        picture = goal if picture is None else images.resize(picture, size)
        picture = _at_one_scale(trunk, goal, look, picture, steps, on_step)
        steps = iterations
    assert picture is not None
    return picture


def _sides(final: int) -> list[int]:
    sides, side = [], float(final)
    while side > COARSEST_SIDE * 0.99:
        sides.append(round(side))
        side /= 2**0.5
    return sides[::-1] or [final]


def _at_one_scale(
    trunk: Callable[[Tensor], dict[str, Tensor]],
    content: Tensor,
    style: Tensor,
    start: Tensor,
    iterations: int,
    on_step: OnStep,
) -> Tensor:
    with torch.no_grad():
        found = trunk(style)
        distances = {name: _Wasserstein(found[name]) for name in STYLE_WEIGHTS}
        wanted = trunk(content)[CONTENT_LAYER]
    total = sum(STYLE_WEIGHTS.values())
    image, average = start.clone().requires_grad_(), torch.zeros_like(start)
    adam = torch.optim.Adam([image], lr=STEP_SIZE, betas=(0.9, DECAY))
    for step in range(1, iterations + 1):
        adam.zero_grad()
        features = trunk(image)
        loss = CONTENT_WEIGHT * F.mse_loss(features[CONTENT_LAYER], wanted)
        for name, weight in STYLE_WEIGHTS.items():
            loss = loss + weight / total * distances[name](features[name])
        loss = loss + TV_WEIGHT * _variation(image)
        loss.backward()
        adam.step()
        with torch.no_grad():
            image.clamp_(0, 1)
            average.mul_(DECAY).add_(image, alpha=1 - DECAY)
            on_step(average / (1 - DECAY**step))
    return average / (1 - DECAY**iterations)


def _variation(image: Tensor) -> Tensor:
    rows, columns = image.diff(dim=2), image.diff(dim=3)
    return rows.square().mean() + columns.square().mean()
