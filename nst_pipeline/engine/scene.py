"""A content at one scale, its masks, and what a pastiche starts as and ends as there."""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst_pipeline.config.recipe import Recipe
from nst_pipeline.engine import colour
from nst_pipeline.engine.alpha import Seen, SeenWhole
from nst_pipeline.engine.images import missing, padded, padded_weights, resize
from nst_pipeline.engine.losses import SMALLEST_SHARE
from nst_pipeline.engine.scales import Scale
from nst_pipeline.engine.tiles import Tiling
from nst_pipeline.errors import ImageError

WHOLE = ""
"""Name of the mask that says where anything is painted at all; the others are regions'."""


@dataclass(frozen=True)
class Scene:
    """A content at one scale: all of it that does not depend on the styles.

    Attributes:
        recipe: what decides the pixels.
        scale: size and steps.
        content: the picture, (1, 3, H, W), hidden pixels filled.
        alpha: how much of each pixel is seen, (1, 1, H, W); None: all of every one.
        network_input: the picture as the network gets it: in grey if the recipe keeps the colours.
        features: of ``network_input``, `padded`, by content layer.
    """

    recipe: Recipe
    scale: Scale
    content: Tensor
    alpha: Tensor | None
    network_input: Tensor
    features: dict[str, Tensor]

    @property
    def visible_share(self) -> float:
        """The part of the picture that is seen."""
        return 1.0 if self.alpha is None else max(float(self.alpha.mean()), SMALLEST_SHARE)

    @property
    def weights(self) -> Tensor | None:
        """How much each pixel of the `padded` picture counts, (1, 1, H, W); None: all alike."""
        return padded_weights(self.alpha, self.content)

    def finish(self, pastiche: Tensor, mask: Tensor | None) -> Tensor:
        """Return an optimised pastiche (B, 3, H, W) as people get it."""
        pastiche = blend(self.network_input, pastiche, mask)
        if self.recipe.colors == "content":
            return colour.with_colours_of(pastiche, self.content)
        return pastiche

    def as_input(self, finished: Tensor) -> Tensor:
        """Return a finished picture (B, 3, H, W) as the network gets it."""
        return colour.grey(finished) if self.recipe.colors == "content" else finished


def make_scene(
    trunk: nn.Sequential, recipe: Recipe, content: Seen | SeenWhole, scale: Scale, tiling: Tiling
) -> Scene:
    """Return the scene of a content of any size."""
    pixels, alpha = content.at(scale.size, next(trunk.parameters()).device)
    network_input = colour.grey(pixels) if recipe.colors == "content" else pixels
    features = tiling.features(trunk, padded(network_input), set(recipe.content_layers))
    return Scene(recipe, scale, pixels, alpha, network_input, features)


def blend(content: Tensor, pastiche: Tensor, mask: Tensor | None) -> Tensor:
    """Return ``pastiche`` where ``mask`` is 1, ``content`` where it is 0."""
    return pastiche if mask is None else torch.lerp(content, pastiche, mask)


def guide_count(masks: Container[str], regions: Sequence[str], scene: Scene) -> int:
    """Return how many masks restrict the statistics of styles: those that `style_masks` gives."""
    return len(regions) or int(WHOLE in masks or scene.weights is not None)


def style_masks(scene: Scene, masks: Tensor | None) -> Tensor | None:
    """Return what of the `padded` picture each style is recognised by, (1, R, H, W).

    Args:
        scene: what is painted, of which only what is seen counts.
        masks: where each style is, (1, R, H, W), as `masks_at` gives them.

    Returns:
        None: all of it, for one style.
    """
    weights = scene.weights
    if masks is None or weights is None:
        return weights if masks is None else masks
    return F.pad(masks, missing(scene.content)) * weights


def masks_at(
    masks: Mapping[str, Tensor], regions: Sequence[str], like: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """Return where anything is painted (1, 1, H, W), and where each style is (1, R, H, W).

    Args:
        masks: (1, 1, H, W), uint8 or in [0, 1], by name; `WHOLE` limits all.
        regions: names of the masks, one for each style of a set; empty: one style for all.
        like: what size and device they are wanted for, (1, 3, H, W).

    Raises:
        ImageError: a region has no mask.
    """
    if missing := [name for name in regions if name not in masks]:
        raise ImageError(
            f"masks: there is none of the region {missing[0]!r}; give one of that name"
        )
    height, width = like.shape[-2:]
    fitted = {name: resize(_shares(m), (height, width)).to(like) for name, m in masks.items()}
    whole = fitted.get(WHOLE)
    if not regions:
        return whole, whole
    parts = torch.cat([fitted[name] for name in regions], 1)
    if whole is None:
        return parts.sum(1, keepdim=True).clamp(0, 1), parts
    return whole, parts * whole


def _shares(mask: Tensor) -> Tensor:
    return mask if mask.is_floating_point() else mask.float() / 255


def check_init(recipe: Recipe, init: object | None) -> None:
    """See that there is a picture to start from where the recipe demands one.

    Raises:
        ImageError: there is none.
    """
    if recipe.init == "image" and init is None:
        raise ImageError(
            "init: the recipe starts from a picture, and there is none; give one, or another "
            "recipe.init"
        )


def first_pastiche(
    scene: Scene, colours: Callable[[], colour.Moments], init: Seen | SeenWhole | None
) -> Tensor:
    """Return what a pastiche (1, 3, H, W) starts as.

    Args:
        scene: at the coarsest scale.
        colours: gives the style's.
        init: a picture to start from, whatever the recipe says.
    """
    recipe, content = scene.recipe, scene.content
    if init is not None:
        return scene.as_input(init.at(scene.scale.size, content.device).pixels)
    if recipe.init == "style-colors":
        return scene.as_input(colour.match_colours(content, colours(), scene.alpha))
    if recipe.init == "noise":
        generator = torch.Generator().manual_seed(recipe.seed)
        return scene.as_input(torch.rand(content.shape, generator=generator).to(content))
    return scene.network_input.clone()
