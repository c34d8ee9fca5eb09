"""What VGG-16's features think of a pastiche, whatever network painted it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from compact_measures import fit
from compact_network import Trunk
from PIL import Image
from torch import Tensor

from nst_pipeline.engine import images

STYLE_LAYERS = ("1_1", "2_1", "3_1", "4_1", "5_1")
CONTENT_LAYER = "4_2"


@dataclass(frozen=True)
class Verdict:
    """How far a pastiche is from its style and from its content; 0 is the picture itself.

    Both fall together only if a pastiche is better; along one network's style weights one rises as
    the other falls, so compare the style at equal content.

    Attributes:
        style: the mean over `STYLE_LAYERS` of |G - Gs|^2 / |Gs|^2, of Gram matrices.
        content: |F - Fc|^2 / |Fc|^2 of the features at `CONTENT_LAYER`.
        layers: the style's terms.
    """

    style: float
    content: float
    layers: tuple[float, ...]

    def loss(self, style_weight: float) -> float:
        """Return both as one number, as a recipe with such a weight has them."""
        return self.content + style_weight * self.style


@torch.no_grad()
def judge(trunk: Trunk, content: Image.Image, style: Image.Image, picture: Image.Image) -> Verdict:
    """Compare a picture with its content and its style, both scaled to its size.

    Args:
        trunk: VGG-16.
        content: of the picture's shape.
        style: scaled so that its longer side is the picture's.
        picture: the pastiche.
    """
    content = content.convert("RGB").resize(picture.size, Image.Resampling.LANCZOS)
    c, s, x = (
        trunk(images.to_tensor(image).to(trunk.mean.device))
        for image in (content, fit(style, max(picture.size)), picture)
    )
    layers = tuple(_relative_error(_gram(x[name]), _gram(s[name])) for name in STYLE_LAYERS)
    distance = _relative_error(x[CONTENT_LAYER], c[CONTENT_LAYER])
    return Verdict(sum(layers) / len(layers), distance, layers)


def _gram(features: Tensor) -> Tensor:
    flat = features[0].flatten(1)
    return flat @ flat.T / flat.shape[1]


def _relative_error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).square().sum() / theirs.square().sum())
