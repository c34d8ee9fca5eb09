"""A content at one scale, its masks, and what the pastiche starts as and ends as there."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nst_pipeline.config.recipe import Recipe
from nst_pipeline.engine import colour
from nst_pipeline.engine.images import resize
from nst_pipeline.engine.scales import Scale
from nst_pipeline.engine.tiles import Tiling
from nst_pipeline.errors import ImageError

PAINTED = ""
"""Name of the mask that says where anything is painted at all."""


@dataclass(frozen=True)
class Scene:
    """A content at one scale: all of it that does not depend on the styles.

    Attributes:
        recipe: what decides the pixels.
        scale: size and steps.
        content: the picture, (1, 3, H, W).
        seen: the picture as the network sees it: in grey if the recipe keeps the colours.
        features: of ``seen``, by content layer.
    """

    recipe: Recipe
    scale: Scale
    content: Tensor
    seen: Tensor
    features: dict[str, Tensor]

    def finish(self, pastiche: Tensor, painted: Tensor | None) -> Tensor:
        """Return a pastiche (B, 3, H, W) as people are to see it."""
        pastiche = blend(self.seen, pastiche, painted)
        if self.recipe.colors == "content":
            return colour.with_colours_of(pastiche, self.content)
        return pastiche

    def view(self, finished: Tensor) -> Tensor:
        """Return a finished picture (B, 3, H, W) as the network sees it."""
        return colour.grey(finished) if self.recipe.colors == "content" else finished


def make_scene(
    trunk: nn.Sequential, recipe: Recipe, content: Tensor, scale: Scale, tiling: Tiling
) -> Scene:
    """Return the scene of a content (1, 3, H, W) of any size."""
    device = next(trunk.parameters()).device
    content = resize(content, scale.size).to(device)
    seen = colour.grey(content) if recipe.colors == "content" else content
    features = tiling.features(trunk, seen, set(recipe.content_layers))
    return Scene(recipe, scale, content, seen, features)


def blend(content: Tensor, pastiche: Tensor, painted: Tensor | None) -> Tensor:
    """Return ``pastiche`` where ``painted`` is 1, ``content`` where it is 0."""
    return pastiche if painted is None else torch.lerp(content, pastiche, painted)


def masks_at(
    masks: Mapping[str, Tensor], regions: tuple[str, ...], like: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """Return where is painted (1, 1, H, W) and the regions of the styles (1, R, H, W).

    Args:
        masks: (1, 1, H, W) in [0, 1], by name; `PAINTED` limits all.
        regions: names of the masks, one for each style of a set; empty: one style for all.
        like: what size and device they are wanted for, (1, 3, H, W).

    Raises:
        ImageError: a region has no mask.
    """
    if missing := [name for name in regions if name not in masks]:
        raise ImageError(
            f"there is no mask for the region {missing[0]!r}; put NAME.mask.{missing[0]}.png "
            "beside the content NAME"
        )
    height, width = like.shape[-2:]
    fitted = {name: resize(mask, (height, width)).to(like) for name, mask in masks.items()}
    painted = fitted.get(PAINTED)
    if not regions:
        return painted, painted
    parts = torch.cat([fitted[name] for name in regions], 1)
    if painted is None:
        return parts.sum(1, keepdim=True).clamp(0, 1), parts
    return painted, parts * painted


def first_pastiche(
    scene: Scene, colours: Callable[[], colour.Moments], init: Tensor | None
) -> Tensor:
    """Return what the pastiche (1, 3, H, W) starts as.

    Args:
        scene: at the coarsest scale.
        colours: gives the style's.
        init: a picture (1, 3, H, W) to start from, whatever the recipe says.

    Raises:
        ImageError: the recipe wants a picture, and there is none.
    """
    recipe, content = scene.recipe, scene.content
    if init is not None:
        return scene.view(resize(init, scene.scale.size).to(content))
    if recipe.init == "image":
        raise ImageError("init: image needs a picture; put NAME.init.png beside the content NAME")
    if recipe.init == "style-colors":
        return scene.view(colour.match_colours(content, colours()))
    if recipe.init == "noise":
        generator = torch.Generator().manual_seed(recipe.seed)
        return scene.view(torch.rand(content.shape, generator=generator).to(content))
    return scene.seen.clone()
