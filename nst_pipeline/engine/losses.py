"""The loss modules of Gatys, Ecker and Bethge (2016), and the network with them inserted.

Everything here takes a batch and gives one loss for each of its images, in float32 whatever
the network runs in.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nst_pipeline.errors import ShapeError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def gram_matrix(features: Tensor) -> Tensor:
    """Return the channel correlations of a feature map (Gatys et al. 2016, eq. 3).

    Args:
        features: activations, (B, C, H, W), any float dtype.

    Returns:
        (B, C, C), divided by C*H*W; float32, or float64 for float64 activations. Those of bf16
        activations are within 2**-9 of the exact ones, typically several times closer.

    Raises:
        ShapeError: ``features`` is not 4-D.
    """
    if features.dim() != 4:
        raise ShapeError(f"gram_matrix: takes (B, C, H, W), not {tuple(features.shape)}")
    gram: Tensor = _Gram.apply(features)
    return gram


class _Gram(torch.autograd.Function):
    """The product with the own transpose, whose derivative needs one product and not two.

    No copy of the features is made in float32. The product of each part of the rows is rounded
    to the features' dtype (for bf16 by at most 2**-9), and the parts are summed in float32.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.save_for_backward(features)
        batch, channels = features.shape[:2]
        parts = _rows(features).reshape(batch * _parts(features), -1, channels)
        products = (parts.transpose(1, 2) @ parts).view(batch, -1, channels, channels)
        gram: Tensor = products.sum(1, dtype=_at_least_float32(features[:0]).dtype)
        return gram.div_(features[0].numel())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (features,) = ctx.saved_tensors
        symmetric = (gradient + gradient.transpose(1, 2)) / features[0].numel()
        batch, channels, height, width = features.shape
        product: Tensor = _rows(features) @ symmetric.to(features.dtype)
        return product.view(batch, height, width, channels).permute(0, 3, 1, 2)


class _SquaredError(torch.autograd.Function):
    """The mean squared difference (B,), from one difference in the features' own dtype."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, target: Tensor) -> Tensor:
        difference = features - target
        ctx.save_for_backward(difference)
        dtype = _at_least_float32(features[:0]).dtype
        lines = difference.permute(0, 2, 3, 1).flatten(2)  # one long sum would lose digits
        lengths = torch.linalg.vector_norm(lines, dim=2, dtype=dtype)
        loss: Tensor = lengths.square().sum(1) / difference[0].numel()
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (difference,) = ctx.saved_tensors
        scale = (2 / difference[0].numel() * gradient).to(difference.dtype)
        return difference * scale.view(-1, 1, 1, 1), None


def _parts(features: Tensor) -> int:
    """Return in how many parts to multiply: each rounds its product to the features' dtype."""
    if features.dtype not in (torch.bfloat16, torch.float16):
        return 1
    channels, pixels = features.shape[1], features[0, 0].numel()
    most = max(1, min(32, pixels // channels))
    return max(parts for parts in range(1, most + 1) if pixels % parts == 0)


def _rows(features: Tensor) -> Tensor:
    """Return (B, C, H, W) as (B, H*W, C); no copy where the channels lie last in memory."""
    return features.permute(0, 2, 3, 1).flatten(1, 2)


def total_variation(pixels: Tensor) -> Tensor:
    """Return the mean square of the differences of neighbours (Mahendran and Vedaldi 2015).

    Args:
        pixels: (B, C, H, W).

    Returns:
        (B,), the mean over rows plus the mean over columns.
    """
    down = (pixels[..., 1:, :] - pixels[..., :-1, :]).square().mean((1, 2, 3))
    across = (pixels[..., :, 1:] - pixels[..., :, :-1]).square().mean((1, 2, 3))
    return down + across


def _at_least_float32(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


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

    def forward(self, features: Tensor) -> Tensor:
        """Set ``loss`` (B,) and return ``features`` (B, C, H, W)."""
        loss: Tensor = _SquaredError.apply(features, self.target)
        self.loss = loss * self.scale
        return features


class StyleLoss(_TargetLoss):
    """Mean squared error to a fixed Gram matrix (1 or B, C, C); hands its input on unchanged."""

    def forward(self, features: Tensor) -> Tensor:
        """Set ``loss`` (B,) and return ``features`` (B, C, H, W)."""
        difference = gram_matrix(features) - self.target
        self.loss = difference.square().mean((1, 2)) * self.scale
        return features


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
        self.network(image)
        return _sum(self.content), _sum(self.style)


def _sum(modules: Mapping[str, ContentLoss | StyleLoss]) -> Tensor:
    return torch.stack([module.loss for module in modules.values()]).sum(0)


def extract(trunk: nn.Sequential, image: Tensor, layers: set[str]) -> dict[str, Tensor]:
    """Return the activations of ``image`` (B, 3, H, W) in [0, 1] at the named layers."""
    found = {}
    values = Normalization(next(trunk.parameters()).dtype).to(image.device)(image)
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
) -> LossModel:
    """Walk the trunk and insert the losses after their layers.

    Args:
        trunk: as `vgg.load_trunk` gives it.
        content_targets: features (1 or B, C, H, W) by layer.
        style_targets: Gram matrices (1 or B, C, C), float32, by layer.
        content_weights: weight of each content layer.
        style_weights: weight of each style layer.
        balanced: divide each layer's loss by its target's mean square, and the weights by
            their sum.
    """
    dtype = next(trunk.parameters()).dtype
    layers: OrderedDict[str, nn.Module] = OrderedDict(normalization=Normalization(dtype))
    content: dict[str, ContentLoss] = {}
    style: dict[str, StyleLoss] = {}
    seen = ""
    for name, layer in trunk.named_children():
        # In place, unless a loss looks at what comes in: half of the memory's traffic.
        is_watched = seen in content_targets or seen in style_targets
        in_place = isinstance(layer, nn.ReLU) and not is_watched
        layers[name], seen = nn.ReLU(inplace=True) if in_place else layer, name
        if name in content_targets:
            target = content_targets[name]
            scale = _scale(target, name, content_weights, balanced)
            layers[f"content_{name}"] = content[name] = ContentLoss(target, scale)
        if name in style_targets:
            target = style_targets[name]
            scale = _scale(target, name, style_weights, balanced)
            layers[f"style_{name}"] = style[name] = StyleLoss(target, scale)
        if len(content) == len(content_targets) and len(style) == len(style_targets):
            break
    device = next(trunk.parameters()).device
    return LossModel(nn.Sequential(layers).to(device), content, style)


def _scale(target: Tensor, layer: str, weights: Mapping[str, float], balanced: bool) -> Tensor:
    energy = _at_least_float32(target).square().flatten(1).mean(1)
    if not balanced:
        return torch.full_like(energy, weights[layer])
    share = weights[layer] / sum(weights.values())
    return share / energy.clamp_min(1e-20)
