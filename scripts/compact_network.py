"""The compact network: VGG-19's topology, narrow, with batch norm while it trains."""

from __future__ import annotations

import torch
import torch.nn.functional as F
import typer
from torch import Tensor, nn

BLOCKS = (2, 2, 4, 4, 1)
NAMES = tuple(f"{b + 1}_{i + 1}" for b, depth in enumerate(BLOCKS) for i in range(depth))
WIDTHS = (32, 32, 48, 48, 128, 96, 96, 96, 256, 192, 192, 192, 256)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class CompactNetwork(nn.Module):
    """VGG-19 to relu5_1 with average pooling and batch norm before each ReLU."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        """Build the layers; `widths` are the channels of conv1_1 .. conv5_1."""
        super().__init__()
        inputs = (3, *widths[:-1])
        self.convs, self.norms = nn.ModuleDict(), nn.ModuleDict()
        for name, i, o in zip(NAMES, inputs, widths, strict=True):
            self.convs[name] = nn.Conv2d(i, o, 3, padding=1, bias=False)
            self.norms[name] = nn.BatchNorm2d(o)
            nn.init.kaiming_normal_(self.convs[name].weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the rectified output of every layer for normalised images (B, 3, H, W)."""
        features = {}
        for name in NAMES:
            if name.endswith("_1") and name != "1_1":
                x = F.avg_pool2d(x, 2)
            x = F.relu(self.norms[name](self.convs[name](x)))
            features[name] = x
        return features


def normalise(x: Tensor) -> Tensor:
    """Return images in [0, 1] with ImageNet's mean taken off and its deviation divided out."""
    mean, std = (x.new_tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (x - mean) / std


def fold(network: CompactNetwork) -> dict[str, Tensor]:
    """Return the weights and biases of the same network without its batch norm, float32."""
    folded = {}
    for name in NAMES:
        norm = network.norms[name]
        gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        weight = network.convs[name].weight * gain[:, None, None, None]
        folded[f"conv{name}.weight"] = weight.detach().float().cpu().contiguous()
        bias = norm.bias - norm.running_mean * gain
        folded[f"conv{name}.bias"] = bias.detach().float().cpu().contiguous()
    return folded


@torch.no_grad()
def start_from(network: CompactNetwork, weights: dict[str, Tensor], pictures: Tensor) -> None:
    """Give a network the function of folded weights that may be narrower than it.

    Batch norm is set so that it undoes itself on `pictures`. Channels beyond the given ones keep
    their random weights, at the deviation typical of the layer, and nothing reads them yet.

    Args:
        network: as wide as the weights or wider in every layer.
        weights: `conv1_1.weight`, `conv1_1.bias` and so on.
        pictures: normalised images (B, 3, H, W) to measure the deviations on.
    """
    x = pictures
    for name in NAMES:
        if name.endswith("_1") and name != "1_1":
            x = F.avg_pool2d(x, 2)
        conv, norm = network.convs[name], network.norms[name]
        given = weights[f"conv{name}.weight"].float()
        outputs, inputs = given.shape[:2]
        if outputs > conv.out_channels or inputs > conv.in_channels:
            raise typer.BadParameter(f"conv{name}: the weights started from are wider")
        conv.weight[:outputs] = 0
        conv.weight[:outputs, :inputs] = given
        y = conv(x)
        var, mean = torch.var_mean(y, (0, 2, 3), correction=0)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(var)
        std = (var + norm.eps).sqrt()
        norm.weight.copy_(std)
        norm.weight[outputs:] = std[:outputs].median()
        norm.bias.zero_()
        norm.bias[:outputs] = mean[:outputs] + weights[f"conv{name}.bias"].float()
        x = F.relu(F.batch_norm(y, mean, var, norm.weight, norm.bias, eps=norm.eps))
