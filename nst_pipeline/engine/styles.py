"""Styles and their targets: the statistics that a pastiche is to have."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import nn

from nst_pipeline.config.recipe import Recipe
from nst_pipeline.config.weights import Weights
from nst_pipeline.digests import bytes_digest, digest
from nst_pipeline.engine import colour
from nst_pipeline.engine.alpha import Seen, see
from nst_pipeline.engine.images import Picture, fit, padded, padded_weights
from nst_pipeline.engine.scene import Scene
from nst_pipeline.engine.targets import TargetCache, Targets
from nst_pipeline.engine.tiles import Tiling
from nst_pipeline.errors import ImageError


@dataclass(frozen=True, eq=False)
class Style:
    """What a pastiche is to look like: one picture, or several that are blended.

    Two instances are two styles, even of the same pictures: an instance that serves many contents
    is prepared once.

    Attributes:
        images: the pictures.
        weights: of each picture's statistics; empty: all alike.
    """

    images: tuple[Picture, ...]
    weights: tuple[float, ...] = ()

    def shares(self) -> list[float]:
        """Return the weights, made to sum to 1."""
        weights = self.weights or (1.0,) * len(self.images)
        return [weight / sum(weights) for weight in weights]


COLOURS_SIDE = 256
"""Longer side, in pixels, at which a style's colours are taken."""

StyleSet = Mapping[str, Style]
"""A style for each region, by the name of its mask; ``""`` alone: one for the whole picture."""

AnyStyle = Picture | Style | Mapping[str, Picture | Style]


def make_style(
    regions: Mapping[str, Sequence[tuple[Picture, float]]],
) -> Style | dict[str, Style]:
    """Return the style, or the style of each region, that pictures with their weights make.

    Args:
        regions: pictures with the weights of their statistics, by the name of the region's mask;
            ``""`` alone: the whole picture's.
    """
    styles = {
        name: Style(tuple(picture for picture, _ in images), tuple(weight for _, weight in images))
        for name, images in regions.items()
    }
    return styles[""] if list(styles) == [""] else styles


def style_set(style: AnyStyle) -> StyleSet:
    """Return any way to give a style as a set, its regions in order of their names."""
    parts = style if isinstance(style, Mapping) else {"": style}
    return {
        name: part if isinstance(part, Style) else Style((part,))
        for name, part in sorted(parts.items())
    }


def regions(styles: StyleSet) -> tuple[str, ...]:
    """Return the names of a set's regions; none if one style is for the whole picture."""
    return () if list(styles) == [""] else tuple(styles)


class StyleTargets:
    """Prepares targets for one recipe and network, and remembers what it prepared."""

    def __init__(
        self,
        trunk: nn.Sequential,
        recipe: Recipe,
        weights: Weights,
        cache: TargetCache,
        tiling: Tiling,
    ) -> None:
        """Take what targets depend on, where they are kept, and how large styles are evaluated."""
        self._trunk, self._recipe, self._cache, self._tiling = trunk, recipe, cache, tiling
        parameter = next(trunk.parameters())
        self._device = parameter.device
        self._shapes = _shapes(trunk, recipe)
        self._settings = [
            sorted(recipe.style_layers), recipe.statistic, recipe.pooling, recipe.padding,
            weights.sha256, str(parameter.dtype),
        ]  # fmt: skip
        self._colours: WeakKeyDictionary[Style, colour.Moments] = WeakKeyDictionary()
        self._keys: WeakKeyDictionary[Style, dict[tuple[int, int], str]] = WeakKeyDictionary()

    def get(self, styles: StyleSet, scene: Scene) -> Targets:
        """Return the statistics (1, R, C, C or C + 1) by layer."""
        parts = [self._blended(style, scene) for style in styles.values()]
        return {layer: torch.cat([part[layer] for part in parts], 1) for layer in parts[0]}

    def colours(self, styles: StyleSet) -> colour.Moments:
        """Return the colours of a set's first style, remembered with it."""
        style = next(iter(styles.values()))
        if style not in self._colours:
            parts = [colour.moments(*self._see(image, COLOURS_SIDE)) for image in style.images]
            shares = torch.tensor(style.shares()).to(parts[0][0])
            mean, covariance = (torch.stack(part) for part in zip(*parts, strict=True))
            self._colours[style] = shares @ mean, torch.tensordot(shares, covariance, 1)
        return self._colours[style]

    def _blended(self, style: Style, scene: Scene) -> Targets:
        parts = [self._of_picture(style, i, scene) for i in range(len(style.images))]
        if len(parts) == 1:
            return parts[0]
        return {
            layer: sum(
                (share * part[layer] for share, part in zip(style.shares(), parts, strict=True)),
                torch.zeros_like(parts[0][layer]),
            )
            for layer in parts[0]
        }

    def _of_picture(self, style: Style, index: int, scene: Scene) -> Targets:
        longer = round(scene.scale.longer_side * self._recipe.style_scale)
        seen = functools.cache(lambda: self._see(style.images[index], longer))
        if self._recipe.colors == "content":  # the targets are this content's alone
            pixels, alpha = seen()
            grey = colour.match_luminance(pixels, scene.content, alpha, scene.alpha)
            return self._compute(Seen(grey, alpha))
        if self._recipe.colors == "matched":
            pixels, alpha = seen()
            wanted = colour.moments(scene.content, scene.alpha)
            return self._compute(Seen(colour.match_colours(pixels, wanted, alpha), alpha))
        keys = self._keys.setdefault(style, {})
        if (index, longer) not in keys:
            keys[index, longer] = digest([*_digests(seen()), *self._settings])
        key = keys[index, longer]
        return self._cache.get(key, self._device, self._shapes, lambda: self._compute(seen()))

    def _see(self, picture: Picture, longer: int) -> Seen:
        """Return what is seen of a picture, so large.

        Raises:
            ImageError: nothing.
        """
        seen = see(picture)
        if seen.alpha is not None and not seen.alpha.any():
            raise ImageError("style: all of the picture is transparent; give one that is seen")
        return seen.at(fit(seen.size, longer), self._device)

    def _compute(self, seen: Seen) -> Targets:
        recipe = self._recipe
        return self._tiling.statistics(
            self._trunk, padded(seen.pixels), set(recipe.style_layers), recipe.statistic,
            padded_weights(seen.alpha, seen.pixels),
        )  # fmt: skip


def _shapes(trunk: nn.Sequential, recipe: Recipe) -> dict[str, tuple[int, ...]]:
    """Return the shape of one picture's statistic, by layer."""
    channels, widths = 3, {"pixels": 3}
    for name, layer in trunk.named_children():
        channels = layer.out_channels if isinstance(layer, nn.Conv2d) else channels
        widths[name] = channels
    more = 0 if recipe.statistic == "gram" else 1
    return {name: (1, 1, widths[name], widths[name] + more) for name in recipe.style_layers}


def _digests(seen: Seen) -> list[object]:
    """Return what a picture is known by among targets."""
    parts = [part for part in seen if part is not None]
    return [bytes_digest(part.cpu().numpy().tobytes()) for part in parts] + [
        list(seen.pixels.shape)
    ]
