"""The loss modules of Gatys, Ecker and Bethge (2016), and the network with them inserted.

Everything here takes a batch and gives one loss for each of its images, in float32 whatever
the network runs in.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nst_pipeline.config.recipe import Statistic
from nst_pipeline.engine.devices import can_widen
from nst_pipeline.errors import ShapeError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

SMALLEST_SHARE = 1e-4
"""Of a picture, the share that a region is taken to have at least."""

STRIP = 256
"""Rows at a time, in what would otherwise hold several copies of a large image."""

BLOCK, MOST_BLOCKS, FEWEST_ROWS = 64, 512, 1024
"""Of a Gram matrix on a GPU: the side of what one of its cores computes, how many of these keep the
cores busy, and of how many rows one should be the sum."""


def gram_matrix(features: Tensor) -> Tensor:
    """Return the channel correlations of a feature map (Gatys et al. 2016, eq. 3).

    Args:
        features: activations, (B, C, H, W), any float dtype.

    Returns:
        (B, C, C), divided by C*H*W; float32, or float64 for float64 activations.

    Raises:
        ShapeError: ``features`` is not 4-D.
    """
    if features.dim() != 4:
        raise ShapeError(f"gram_matrix: takes (B, C, H, W), not {tuple(features.shape)}")
    gram: Tensor = _Gram.apply(features)
    return gram


class _Gram(torch.autograd.Function):
    """The product with the own transpose, whose derivative needs one product and not two.

    Only the features as they are stay in memory for it, not their copy in float32.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.save_for_backward(features)
        rows = _rows(features)
        return sum_of_products(rows, _parts(rows)) / features[0].numel()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (features,) = ctx.saved_tensors
        symmetric = (gradient + gradient.transpose(1, 2)) / features[0].numel()
        batch, channels, height, width = features.shape
        product: Tensor = _rows(features) @ symmetric.to(features.dtype)
        return product.view(batch, height, width, channels).permute(0, 3, 1, 2)


def sum_of_products(rows: Tensor, parts: int) -> Tensor:
    """Return the sums (B, C, C) of each row's products with itself, over rows (B, N, C).

    Args:
        rows: any float dtype; the result is in float32, or float64 for float64.
        parts: of the rows, which are summed up beside each other.
    """
    length = len(rows[0]) // parts
    first, rest = rows[:, : parts * length], rows[:, parts * length :]
    products = _products(first.reshape(-1, length, rows.shape[2]))
    if parts > 1:
        products = products.view(len(rows), parts, *products.shape[1:]).sum(1)
    return products + _products(rest) if rest.shape[1] else products


def _products(rows: Tensor) -> Tensor:
    if rows.dtype == torch.bfloat16 and can_widen(rows.device):
        return torch.bmm(rows.mT, rows, out_dtype=torch.float32)
    rows = _at_least_float32(rows)
    return rows.mT @ rows


def _parts(rows: Tensor) -> int:
    """Return the parts of rows (B, N, C) of which enough for a GPU are computed together."""
    if rows.is_cpu:
        return 1
    blocks = len(rows) * math.ceil(rows.shape[2] / BLOCK) ** 2
    parts = min(MOST_BLOCKS // blocks, rows.shape[1] // FEWEST_ROWS)
    return 1 << parts.bit_length() - 1 if parts else 1


class _SquaredError(torch.autograd.Function):
    """The mean squared difference (B,), from one difference in the features' own dtype.

    ``guide`` says how much each place counts, (1, 1, H, W) of mean 1; None: all alike.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, target: Tensor, guide: Tensor | None = None) -> Tensor:
        difference = features - target
        root = None if guide is None else guide.sqrt().to(difference.dtype)
        if root is not None:
            difference *= root
        ctx.save_for_backward(difference, root)
        dtype = torch.promote_types(features.dtype, torch.float32)
        lines = difference.permute(0, 2, 3, 1).flatten(2)  # one long sum would lose digits
        lengths = torch.linalg.vector_norm(lines, dim=2, dtype=dtype)
        loss: Tensor = lengths.square().sum(1) / difference[0].numel()
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        difference, root = ctx.saved_tensors
        scale = (2 / difference[0].numel() * gradient).to(difference.dtype)
        result = difference * scale.view(-1, 1, 1, 1)
        return result if root is None else result.mul_(root), None, None


def _rows(features: Tensor) -> Tensor:
    """Return (B, C, H, W) as (B, H*W, C); no copy where the channels lie last in memory."""
    return features.permute(0, 2, 3, 1).flatten(1, 2)


def style_statistic(
    features: Tensor, kind: Statistic = "gram", guides: Tensor | None = None
) -> Tensor:
    """Return what a style is recognised by, of the whole picture or of each of its regions.

    Args:
        features: activations, (B, C, H, W).
        kind: ``gram``: `gram_matrix`; ``gram+mean``: with the channels' means as one column more;
            ``covariance``: the channels' covariances, scaled like it, and their means.
        guides: how much each place counts in each of R regions, (1, R, H, W), of mean 1
            (Gatys et al. 2017, eq. 4); None: all places alike, and R is 1.

    Returns:
        (B, R, C, C) or (B, R, C, C + 1), float32, or float64 for float64 activations.
    """
    return combine(moments(features, kind, guides), kind)


def moments(features: Tensor, kind: Statistic, guides: Tensor | None = None) -> list[Tensor]:
    """Return Gram matrices (B, R, C, C) and, if ``kind`` needs them, means (B, R, C).

    Both are means over places: those of an image are the means of those of its parts.
    """
    regions = [None] if guides is None else [g[:, None] for g in guides.unbind(1)]
    found = [torch.stack([gram_matrix(_guided(features, guide)) for guide in regions], 1)]
    if kind != "gram":
        dtype = torch.promote_types(features.dtype, torch.float32)
        weighted = (features if g is None else features.to(dtype) * g for g in regions)
        found.append(torch.stack([each.mean((2, 3), dtype=dtype) for each in weighted], 1))
    return found


def _guided(features: Tensor, guide: Tensor | None) -> Tensor:
    return features if guide is None else features * guide.sqrt().to(features.dtype)


def combine(moments: Sequence[Tensor], kind: Statistic) -> Tensor:
    """Return the statistic (B, R, C, C) or (B, R, C, C + 1) that moments come to."""
    if kind == "gram":
        return moments[0]
    gram, column = moments[0], moments[1][..., None]
    if kind == "covariance":
        gram = gram - column @ column.mT / len(column[0, 0])
    return torch.cat([gram, column], -1)


def pooled(masks: Tensor) -> Tensor:
    """Return masks (1, R, H, W) at the size that they have behind a pooling."""
    return F.avg_pool2d(masks, 2)


def guides_of(masks: Tensor | None) -> Tensor | None:
    """Return how much each place counts in masks (1, R, H, W) in [0, 1]: of mean 1."""
    return None if masks is None else masks / masks.mean((2, 3), True).clamp_min(SMALLEST_SHARE)


def total_variation(pixels: Tensor) -> Tensor:
    """Return the mean square of the differences of neighbours (Mahendran and Vedaldi 2015).

    Args:
        pixels: (B, C, H, W).

    Returns:
        (B,), the mean over rows plus the mean over columns; 0 along a side of one pixel.
    """
    variation: Tensor = _TotalVariation.apply(pixels)
    return variation


class _TotalVariation(torch.autograd.Function):
    """Strip by strip: no differences of a whole image are ever held."""

    @staticmethod
    def forward(ctx: Any, pixels: Tensor) -> Tensor:
        ctx.save_for_backward(pixels)
        sums = [
            share * (later - earlier).square().sum((1, 2, 3))
            for later, earlier, share in _neighbours(pixels)
        ]
        return torch.stack(sums).sum(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (pixels,) = ctx.saved_tensors
        result = torch.zeros_like(pixels)
        for (later, earlier, share), (to_later, to_earlier, _) in zip(
            _neighbours(pixels), _neighbours(result), strict=True
        ):
            difference = (later - earlier).mul_(2 * share * gradient[:, None, None, None])
            to_later += difference
            to_earlier -= difference
        return result


def _neighbours(pixels: Tensor) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Yield views of neighbours, below and beside each other, and the share of one in the mean."""
    for axis in (2, 3):
        count = pixels.shape[axis] - 1
        later, earlier = pixels.narrow(axis, 1, count), pixels.narrow(axis, 0, count)
        for pair in zip(torch.split(later, STRIP, 2), torch.split(earlier, STRIP, 2), strict=True):
            yield *pair, 1 / max(1, later[0].numel())


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


class Normalization(nn.Module):
    """Subtract ImageNet's mean and divide by its standard deviation, a channel at a time."""

    mean: Tensor
    std: Tensor

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        """Normalise in the image's precision, then hand on ``dtype``."""
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        self.dtype = dtype

    def forward(self, image: Tensor) -> Tensor:
        """Return the normalised (B, 3, H, W) ``image``, values in [0, 1] before."""
        return ((image - self.mean) / self.std).to(self.dtype)


class _TargetLoss(nn.Module):
    """A loss against a fixed target."""

    target: Tensor
    scale: Tensor

    def __init__(self, target: Tensor, scale: Tensor | None = None) -> None:
        """Compare with ``target`` (1 or B, ...), and multiply by ``scale`` (1 or B,)."""
        super().__init__()
        self.register_buffer("target", target.detach())
        self.register_buffer("scale", torch.ones(1) if scale is None else scale.detach())
        self.loss = torch.zeros(())


class ContentLoss(_TargetLoss):
    """Mean squared error to fixed features (1 or B, C, H, W); hands its input on unchanged."""

    guide: Tensor | None

    def __init__(
        self, target: Tensor, scale: Tensor | None = None, guide: Tensor | None = None
    ) -> None:
        """Compare with ``target``; ``guide`` (1, 1, H, W), of mean 1, says how much places count.

        Without one all count alike.
        """
        super().__init__(target, scale)
        self.register_buffer("guide", guide)

    def forward(self, features: Tensor) -> Tensor:
        """Set ``loss`` (B,) and return ``features`` (B, C, H, W)."""
        loss: Tensor = _SquaredError.apply(features, self.target, self.guide)
        self.loss = loss * self.scale
        return features


class StyleLoss(_TargetLoss):
    """Mean squared error to a fixed `style_statistic`; hands its input on unchanged."""

    guides: Tensor | None

    def __init__(
        self,
        target: Tensor,
        scale: Tensor | None = None,
        kind: Statistic = "gram",
        guides: Tensor | None = None,
    ) -> None:
        """Compare with ``target`` (1 or B, R, C, C or C + 1).

        Args:
            target: the statistic that is wanted.
            scale: factor of the squared differences, of a shape that goes with them.
            kind: of the statistic.
            guides: of the picture, (1, R, H, W) as `style_statistic` takes them.
        """
        super().__init__(target, scale)
        self.kind = kind
        self.register_buffer("guides", guides)

    def forward(self, features: Tensor) -> Tensor:
        """Set ``loss`` (B,) and return ``features`` (B, C, H, W)."""
        self.loss = self.compare(style_statistic(features, self.kind, self.guides))
        return features

    def compare(self, statistic: Tensor) -> Tensor:
        """Return the loss (B,) of a statistic (B, R, C, C or C + 1)."""
        return ((statistic - self.target).square() * self.scale).flatten(1).mean(1)


@dataclass(frozen=True)
class LossModel:
    """A network whose one forward pass yields every loss.

    Attributes:
        network: normalisation, trunk layers and loss modules in order, cut after the last loss.
        content: the content losses among them, by layer name.
        style: the style losses among them, by layer name.
    """

    network: nn.Sequential
    content: dict[str, ContentLoss]
    style: dict[str, StyleLoss]

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the content loss and the style loss (B,) of an (B, 3, H, W) image."""
        self.network(image.contiguous(memory_format=torch.channels_last))
        return _sum(self.content), _sum(self.style)


def _sum(modules: Mapping[str, ContentLoss | StyleLoss]) -> Tensor:
    return torch.stack([module.loss for module in modules.values()]).sum(0)


def extract(trunk: nn.Sequential, image: Tensor, layers: set[str]) -> dict[str, Tensor]:
    """Return the activations of ``image`` (B, 3, H, W) in [0, 1] at the named layers.

    ``pixels`` is the normalised image.
    """
    image = image.contiguous(memory_format=torch.channels_last)
    values = Normalization(next(trunk.parameters()).dtype).to(image.device)(image)
    found = {"pixels": values} if "pixels" in layers else {}
    for name, layer in trunk.named_children():
        values = layer(values)
        if name in layers:
            found[name] = values
    return found


def build_model(
    trunk: nn.Sequential,
    content_targets: Mapping[str, Tensor],
    style_targets: Mapping[str, Tensor],
    content_weights: Mapping[str, float],
    style_weights: Mapping[str, float],
    balanced: bool,
    kind: Statistic = "gram",
    masks: Tensor | None = None,
    weights: Tensor | None = None,
) -> LossModel:
    """Walk the trunk and insert the losses after their layers.

    Args:
        trunk: as `vgg.load_trunk` gives it.
        content_targets: features (1 or B, C, H, W) by layer.
        style_targets: statistics (1 or B, R, C, C or C + 1), float32, by layer.
        content_weights: weight of each content layer.
        style_weights: weight of each style layer.
        balanced: divide each layer's loss by its target's mean square, and the weights by
            their sum.
        kind: of the style statistics.
        masks: the regions that the statistics are of, (1, R, H, W) in [0, 1]; None: one region,
            the whole picture.
        weights: how much each pixel counts in the content losses, (1, 1, H, W) in [0, 1]; None:
            all count alike.
    """
    dtype = next(trunk.parameters()).dtype
    layers: OrderedDict[str, nn.Module] = OrderedDict(normalization=Normalization(dtype))
    content: dict[str, ContentLoss] = {}
    style: dict[str, StyleLoss] = {}
    previous = ""
    for name, layer in (("pixels", None), *trunk.named_children()):
        if layer is not None:
            # In place, unless a loss compares what comes in: half of the memory's traffic.
            is_compared = previous in content_targets or previous in style_targets
            in_place = isinstance(layer, nn.ReLU) and not is_compared
            layers[name], previous = nn.ReLU(inplace=True) if in_place else layer, name
        if name.startswith("pool"):
            masks, weights = (each if each is None else pooled(each) for each in (masks, weights))
        if name in content_targets:
            target, guide = content_targets[name], guides_of(weights)
            share = _share(content_weights, name, balanced)
            scale = _content_scale(target, share, balanced, guide)
            layers[f"content_{name}"] = content[name] = ContentLoss(target, scale, guide)
        if name in style_targets:
            target = style_targets[name]
            scale = _style_scale(target, _share(style_weights, name, balanced), balanced)
            layers[f"style_{name}"] = style[name] = StyleLoss(target, scale, kind, guides_of(masks))
        if len(content) == len(content_targets) and len(style) == len(style_targets):
            break
    device = next(trunk.parameters()).device
    return LossModel(nn.Sequential(layers).to(device), content, style)


def _share(weights: Mapping[str, float], layer: str, balanced: bool) -> float:
    return weights[layer] / sum(weights.values()) if balanced else weights[layer]


def _content_scale(target: Tensor, share: float, balanced: bool, guide: Tensor | None) -> Tensor:
    strips = torch.split(target, STRIP, 2)
    guide = target.new_ones(1, 1, target.shape[2], 1) if guide is None else guide
    squares = [
        (_at_least_float32(strip).square() * part).sum((1, 2, 3))
        for strip, part in zip(strips, torch.split(guide, STRIP, 2), strict=True)
    ]
    energy = torch.stack(squares).sum(0) / target[0].numel()
    return share / energy.clamp_min(1e-20) if balanced else torch.full_like(energy, share)


def _style_scale(target: Tensor, share: float, balanced: bool) -> Tensor:
    """Return the factor of each squared difference; matrix and means have equal shares."""
    channels, columns = target.shape[-2:]
    parts = [part for part in target.tensor_split([channels], -1) if part.shape[-1]]
    scales = []
    for part in parts:
        energy = part.square().mean((2, 3), keepdim=True)
        scale = share / energy.clamp_min(1e-20) if balanced else torch.full_like(energy, share)
        scale = scale * columns / (len(parts) * part.shape[-1])
        scales.append(scale if len(parts) == 1 else scale.expand(-1, -1, 1, part.shape[-1]))
    return torch.cat(scales, -1)
