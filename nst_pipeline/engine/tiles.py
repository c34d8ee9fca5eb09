"""Exact evaluation in overlapping tiles (Galerne et al. 2022, arXiv:2212.13459).

A first pass adds up the moments of each style layer and the content loss over the tiles, and keeps
no activations. As the derivative of the loss to the moments is known then, a second pass can
differentiate one tile after the other. Each tile is evaluated with a halo as wide as the receptive
field, and counts only where its features are those of the whole image.
"""

import functools
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nst_pipeline.config.networks import LAYER_NAMES
from nst_pipeline.config.recipe import Statistic
from nst_pipeline.engine.losses import (
    ContentLoss,
    LossModel,
    StyleLoss,
    combine,
    extract,
    guides_of,
    moments,
    pooled,
)
from nst_pipeline.engine.memory import (
    HEAP_BLOCK,
    Need,
    available_bytes,
    estimate,
    fits,
    fitting_batch,
    refusal,
)
from nst_pipeline.errors import OutOfMemoryError

TileMode = Literal["auto", "on", "off"]

TILE_SIZE = 1024
"""Side of a tile without its halo, in pixels."""

LossLayers = tuple[Collection[str], Collection[str]]
"""Layers compared with the content, and those compared with the style."""

Means = dict[ContentLoss | StyleLoss, list[Tensor]]
"""The content losses (B,) and the style losses' moments (B, R, ...): means over places."""


@dataclass(frozen=True)
class Span:
    """Where a tile lies along one axis of an image.

    Attributes:
        core: (start, stop) of what is this tile's alone.
        extended: (start, stop) of the core with its halo.
        length: of the whole axis.
    """

    core: tuple[int, int]
    extended: tuple[int, int]
    length: int

    def of_features(self, stride: int) -> slice:
        """Return the core's places among the whole image's features."""
        return slice(self.core[0] // stride, self.core[1] // stride)

    def of_tile(self, stride: int) -> slice:
        """Return the core's places among the tile's features."""
        first, core = self.extended[0] // stride, self.of_features(stride)
        return slice(core.start - first, core.stop - first)

    def share(self, stride: int) -> float:
        """Return the part of all places that lie in the core."""
        return (self.core[1] // stride - self.core[0] // stride) / (self.length // stride)


@dataclass(frozen=True)
class Tile:
    """A part of an image that is evaluated by itself."""

    rows: Span
    columns: Span

    def of_image(self, image: Tensor) -> Tensor:
        """Return the view of (B, C, H, W) that the network takes: the core with its halo."""
        return image[..., slice(*self.rows.extended), slice(*self.columns.extended)]

    def of_features(self, features: Tensor, stride: int) -> Tensor:
        """Return the core's view of the whole image's features (B, C, H, W)."""
        return features[..., self.rows.of_features(stride), self.columns.of_features(stride)]

    def core(self, features: Tensor, stride: int) -> Tensor:
        """Return the core's view of the tile's features (B, C, H, W)."""
        return features[..., self.rows.of_tile(stride), self.columns.of_tile(stride)]

    def share(self, stride: int) -> float:
        """Return the part of all places that lie in the core; 0: there are none."""
        return self.rows.share(stride) * self.columns.share(stride)


def cut(network: nn.Sequential, image: Tensor, side: int) -> list[Tile]:
    """Return the tiles of an image.

    Args:
        network: its 3 x 3 convolutions and 2 x 2 poolings are known by their names.
        image: (B, C, H, W).
        side: most of a tile's side without its halo, but for rounding up to what poolings need.
    """
    strides = _strides(network)
    stride = max(strides.values())
    radius = sum(each for name, each in strides.items() if name.startswith("conv"))
    halo = -(-radius // stride) * stride
    rows, columns = (_spans(length, side, halo, stride) for length in image.shape[2:])
    return [Tile(row, column) for row in rows for column in columns]


def _strides(network: nn.Sequential) -> dict[str, int]:
    """Return how many pixels a place of each layer's output is wide."""
    found = {"pixels": 1}
    for name, _ in network.named_children():
        stride = next(reversed(found.values()))
        found[name] = stride * 2 if name.startswith("pool") else stride
    return found


def _spans(length: int, side: int, halo: int, stride: int) -> list[Span]:
    """Return spans alike, cut where all poolings of the whole image begin a new place."""
    count = -(-length // side)
    width = -(-length // (count * stride)) * stride
    cores = [(start, min(start + width, length)) for start in range(0, length, width)]
    return [Span(c, (max(0, c[0] - halo), min(length, c[1] + halo)), length) for c in cores]


@dataclass(frozen=True)
class TiledModel:
    """A `LossModel` that holds the activations of one tile at a time.

    Attributes:
        model: what gives the losses.
        side: of a tile, as `cut` takes it.
    """

    model: LossModel
    side: int

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the content loss and the style loss (B,) of an (B, 3, H, W) image."""
        losses: tuple[Tensor, Tensor] = _Evaluation.apply(image, self)
        return losses

    def means(self, image: Tensor) -> Means:
        """Return what the losses of an image (B, 3, H, W) are made of."""
        found: Means = {}
        for tile in cut(self.model.network, image, self.side):
            for loss, share, parts in self._parts(tile, tile.of_image(image)):
                parts = [share * part for part in parts]
                if loss in found:
                    parts = [a + b for a, b in zip(found[loss], parts, strict=True)]
                found[loss] = parts
        return found

    def losses(self, means: Means) -> tuple[Tensor, Tensor]:
        """Return the content loss and the style loss (B,) that means come to."""
        content = [means[loss][0] for loss in self.model.content.values()]
        style = [
            loss.compare(combine(means[loss], loss.kind)) for loss in self.model.style.values()
        ]
        return torch.stack(content).sum(0), torch.stack(style).sum(0)

    def gradient(self, image: Tensor, wanted: Means) -> Tensor:
        """Return the gradient (B, 3, H, W) of what has the derivatives ``wanted`` to the means."""
        gradient = torch.zeros_like(image)
        for tile in cut(self.model.network, image, self.side):
            with torch.enable_grad():
                pixels = tile.of_image(image).detach().requires_grad_()
                outputs, derivatives = [], []
                for loss, share, parts in self._parts(tile, pixels):
                    outputs += parts
                    derivatives += [share * derivative for derivative in wanted[loss]]
                (part,) = torch.autograd.grad(outputs, pixels, derivatives)
            tile.of_image(gradient).add_(part)
        return gradient

    def _parts(
        self, tile: Tile, pixels: Tensor
    ) -> Iterator[tuple[ContentLoss | StyleLoss, float, list[Tensor]]]:
        """Yield each loss that has places in a tile's core, their share, and the means over them.

        Args:
            tile: the part of the image.
            pixels: of its core and halo, (B, 3, H, W).
        """
        values = pixels.contiguous(memory_format=torch.channels_last)
        strides = _strides(self.model.network)
        for name, module in self.model.network.named_children():
            if not isinstance(module, ContentLoss | StyleLoss):
                values = module(values)
            elif share := tile.share(stride := strides[name]):
                yield module, share, _means(module, tile.core(values, stride), tile, stride)


def _means(loss: ContentLoss | StyleLoss, core: Tensor, tile: Tile, stride: int) -> list[Tensor]:
    """Return the means over the places of a tile's ``core`` (B, C, H, W)."""
    if isinstance(loss, StyleLoss):
        guides = None if loss.guides is None else tile.of_features(loss.guides, stride)
        return moments(core, loss.kind, guides)
    guide = None if loss.guide is None else tile.of_features(loss.guide, stride)
    part = ContentLoss(tile.of_features(loss.target, stride), loss.scale, guide)
    part(core)
    return [part.loss]


class _Evaluation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, model: TiledModel) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(image)
        ctx.model, ctx.means = model, model.means(image)
        return model.losses(ctx.means)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (image,) = ctx.saved_tensors
        leaves = {
            loss: [mean.detach().requires_grad_() for mean in means]
            for loss, means in ctx.means.items()
        }
        with torch.enable_grad():
            losses = ctx.model.losses(leaves)
            flat = [leaf for means in leaves.values() for leaf in means]
            found = iter(torch.autograd.grad(losses, flat, gradients))
        wanted = {loss: [next(found) for _ in means] for loss, means in leaves.items()}
        return ctx.model.gradient(image, wanted), None


@dataclass(frozen=True)
class Tiling:
    """Which images are evaluated in tiles, and in tiles of what size.

    Attributes:
        mode: ``on``: all; ``off``: none; ``auto``: those that memory would not suffice for.
        side: of a tile, as `cut` takes it.
    """

    mode: TileMode = "auto"
    side: int = TILE_SIZE

    def model(self, model: LossModel, image: Tensor, history_size: int) -> LossModel | TiledModel:
        """Return ``model`` as an optimiser is to evaluate images like ``image`` by it."""
        is_tiled = self._is_tiled(model.network, image, history_size)
        return TiledModel(model, self.side) if is_tiled else model

    @torch.no_grad()
    def features(self, trunk: nn.Sequential, image: Tensor, layers: set[str]) -> dict[str, Tensor]:
        """Return the activations (B, C, H, W) that `extract` returns."""
        found: dict[str, Tensor] = {}
        for tile, name, stride, core in self._cores(trunk, image, layers):
            if name not in found:
                size = [len(image), core.shape[1], *(side // stride for side in image.shape[2:])]
                found[name] = torch.empty(
                    size, dtype=core.dtype, device=core.device, memory_format=torch.channels_last
                )
            tile.of_features(found[name], stride).copy_(core)
        return found

    @torch.no_grad()
    def statistics(
        self,
        trunk: nn.Sequential,
        image: Tensor,
        layers: set[str],
        kind: Statistic,
        weights: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return the `style_statistic` (B, 1, C, C or C + 1) of each layer.

        Args:
            trunk: the network.
            image: (B, 3, H, W).
            layers: that are wanted.
            kind: of the statistic.
            weights: how much each pixel counts, (1, 1, H, W); None: all alike. So they do in a
                layer that has no place which counts.
        """
        sums: dict[str, list[Tensor]] = {}
        guides_at = functools.cache(lambda stride: _guides_at(weights, stride))
        for tile, name, stride, core in self._cores(trunk, image, layers):
            guides = guides_at(stride)
            guides = None if guides is None else tile.of_features(guides, stride)
            parts = [part * tile.share(stride) for part in moments(core, kind, guides)]
            found = sums.setdefault(name, [torch.zeros_like(part) for part in parts])
            sums[name] = [total + part for total, part in zip(found, parts, strict=True)]
        return {name: combine(found, kind) for name, found in sums.items()}

    def _cores(
        self, trunk: nn.Sequential, image: Tensor, layers: set[str]
    ) -> Iterator[tuple[Tile, str, int, Tensor]]:
        """Yield each tile's core (B, C, H, W) of each layer that has places there."""
        names = [name for name, _ in trunk.named_children()]
        last = max((names.index(name) for name in layers - {"pixels"}), default=0)
        trunk = trunk[: last + 1]
        side = self.side if self._is_tiled(trunk, image, 0) else max(image.shape)
        strides = _strides(trunk)
        for tile in cut(trunk, image, side):
            for name, values in extract(trunk, tile.of_image(image), layers).items():
                if tile.share(strides[name]):
                    yield tile, name, strides[name], tile.core(values, strides[name])

    def _is_tiled(self, network: nn.Sequential, image: Tensor, history_size: int) -> bool:
        if self.mode == "auto":
            layers, regions = _loss_layers(network), _regions(network)
            need = _need(network, layers, image, len(image), history_size, regions)
            return not fits(need, available_bytes(image.device))
        return self.mode == "on"

    def fit(
        self,
        trunk: nn.Sequential,
        layers: LossLayers,
        image: Tensor,
        batch: int,
        history_size: int,
        regions: int = 0,
    ) -> tuple[int, int]:
        """Return how many images fit in memory together, and how many steps can be remembered.

        Args:
            trunk: the network.
            layers: that are compared.
            image: one of the images, (1, 3, H, W).
            batch: how many are wanted.
            history_size: how many steps are wanted; halved until one image fits, but not below 1.
            regions: masks that the statistics are restricted by; 0: the whole picture's.

        Raises:
            OutOfMemoryError: not even one image with one step does.
        """
        available = available_bytes(image.device)
        need = self._needs(trunk, layers, image, regions)
        tries = [(history_size, False)] if self.mode == "auto" else []
        halved = [history_size >> k for k in range(max(1, history_size.bit_length()))]
        tries += [(steps, self.mode != "off") for steps in halved]
        for steps, is_tiled in tries:
            count = fitting_batch(functools.partial(need, steps, is_tiled), available, batch)
            if count:
                return count, steps
        raise self.refusal(trunk, layers, image, regions, available, min(history_size, 1))

    def refusal(
        self,
        trunk: nn.Sequential,
        layers: LossLayers,
        image: Tensor,
        regions: int = 0,
        available: int | None = None,
        history_size: int = 1,
    ) -> OutOfMemoryError:
        """Return the error to raise where not even one image with one step fits.

        Args:
            trunk: the network.
            layers: that are compared.
            image: (1, 3, H, W).
            regions: as `fit` takes them.
            available: bytes; None: nobody knows, or the device ran out of them.
            history_size: the fewest steps that the optimiser can remember.
        """
        is_tiled = self.mode != "off"
        need = self._needs(trunk, layers, image, regions)(history_size, is_tiled, 1)
        return refusal((image.shape[2], image.shape[3]), need, available, is_tiled)

    def _needs(
        self, trunk: nn.Sequential, layers: LossLayers, image: Tensor, regions: int
    ) -> Callable[[int, bool, int], Need]:
        """Return what gives the need at a history size, in tiles or whole, of a batch."""
        tile = max((t.of_image(image) for t in cut(trunk, image, self.side)), key=torch.numel)

        def need(history_size: int, is_tiled: bool, batch: int) -> Need:
            whole = _need(trunk, layers, image, batch, history_size, regions)
            if not is_tiled:
                return whole
            part = _need(trunk, layers, tile, batch, 0, regions)
            return replace(whole, network=part.network)

        return need


def _guides_at(weights: Tensor | None, stride: int) -> Tensor | None:
    """Return how much each place counts where one is ``stride`` pixels wide; None: all alike."""
    while weights is not None and stride > 1:
        weights, stride = pooled(weights), stride // 2
    return None if weights is None or not weights.any() else guides_of(weights)


def _loss_layers(network: nn.Sequential) -> LossLayers:
    """Return the layers that a network with losses inserted compares."""
    content, style = (
        [name.removeprefix(kind) for name, _ in network.named_children() if name.startswith(kind)]
        for kind in ("content_", "style_")
    )
    last = [name for name, _ in network.named_children() if name in LAYER_NAMES][-1]
    return content, style or [last]


def _regions(network: nn.Sequential) -> int:
    """Return how many masks restrict the statistics that a network with losses compares."""
    guides = (loss.guides for loss in network.children() if isinstance(loss, StyleLoss))
    return max((guide.shape[1] for guide in guides if guide is not None), default=0)


def _need(
    network: nn.Sequential,
    layers: LossLayers,
    image: Tensor,
    batch: int,
    history_size: int,
    regions: int,
) -> Need:
    """Return what images like ``image`` take if they are evaluated whole."""
    modules = list(network.children())
    convolutions = {
        name: layer for name, layer in network.named_children() if isinstance(layer, nn.Conv2d)
    }
    widths = {name: layer.out_channels for name, layer in convolutions.items()}
    return estimate(
        widths,
        *layers,
        (image.shape[2], image.shape[3]),
        batch,
        history_size,
        next(network.parameters()).itemsize,
        "max" if any(isinstance(module, nn.MaxPool2d) for module in modules) else "average",
        regions,
        HEAP_BLOCK if image.device.type == "cpu" else 0,
        next((layer.padding_mode for layer in convolutions.values()), "zeros"),
    )
