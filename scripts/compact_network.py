"""VGG-16 and the narrow network that learns from it: their layers, and where the student starts.

At each layer the student keeps the teacher's channels that explain the others best (a pivoted QR
decomposition of the activations over photographs), and its kernels are fitted by least squares,
layer after layer, from what the student's own layer before gives to the teacher's responses (He et
al. 2017, *Channel Pruning*).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
import typer
from safetensors.torch import load_file
from torch import Tensor, nn

from nst_pipeline.engine.convolution import with_border

NAMES = ("1_1", "1_2", "2_1", "2_2", "3_1", "3_2", "3_3", "4_1", "4_2", "4_3", "5_1")
WIDTHS = (16, 24, 32, 64, 96, 96, 112, 288, 256, 256, 512)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SAMPLES = 20_000
"""Places of the photographs that the choice of channels and the fit of a layer look at."""
RIDGE = 1e-4


class Trunk(nn.Module):
    """VGG-16 to relu5_1, of any widths, with max pooling and replicated borders."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        """Take `conv1_1.weight`, `conv1_1.bias` and so on, to conv5_1."""
        super().__init__()
        self.convs = nn.ModuleDict()
        for name in NAMES:
            weight = weights[f"conv{name}.weight"]
            conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3)
            with torch.no_grad():
                conv.weight.copy_(weight)
                conv.bias.copy_(weights[f"conv{name}.bias"])
            self.convs[name] = conv
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the rectified output of every layer for images (B, 3, H, W) in [0, 1]."""
        x = self.normalise(x).contiguous(memory_format=torch.channels_last)
        features = {}
        for name in NAMES:
            x = F.relu(self.convs[name](with_border(pooled(x, name), "replicate")))
            features[name] = x
        return features

    def normalise(self, x: Tensor) -> Tensor:
        """Return images in [0, 1] with ImageNet's mean taken off and its deviation divided out."""
        return (x - self.mean) / self.std

    def widths(self) -> tuple[int, ...]:
        """Return the channels of conv1_1 .. conv5_1."""
        return tuple(self.convs[name].out_channels for name in NAMES)

    def weights(self) -> dict[str, Tensor]:
        """Return the parameters by the names that the constructor takes."""
        return {
            f"conv{name}.{kind}": getattr(self.convs[name], kind).detach().cpu().contiguous()
            for name in NAMES
            for kind in ("weight", "bias")
        }


def pooled(x: Tensor, name: str) -> Tensor:
    """Return a layer's input at the layer's scale."""
    return F.max_pool2d(x, 2) if name[2] == "1" and name != "1_1" else x


def load_teacher(path: Path) -> Trunk:
    """Return VGG-16 from a file with the layers' paper names, frozen."""
    try:
        return Trunk({k: v.float() for k, v in load_file(path).items()}).requires_grad_(False)
    except (OSError, KeyError, ValueError) as error:
        raise typer.BadParameter(f"{path}: not VGG-16's weights: {error}") from error


@torch.no_grad()
def start_from(
    teacher: Trunk, widths: Iterable[int], pictures: Tensor, generator: torch.Generator
) -> Trunk:
    """Return a student that already imitates the teacher.

    Args:
        teacher: the trunk to imitate.
        widths: the student's channels of conv1_1 .. conv5_1, at most the teacher's.
        pictures: images (B, 3, H, W) in [0, 1].
        generator: draws the places that are looked at.
    """
    weights = {}
    theirs, ours = (teacher.normalise(pictures) for _ in range(2))
    for name, width in zip(NAMES, widths, strict=True):
        theirs, ours = (with_border(pooled(each, name), "replicate") for each in (theirs, ours))
        places = (theirs.shape[2] - 2) * (theirs.shape[3] - 2)
        at = torch.randperm(places, generator=generator)
        at = at[: math.ceil(SAMPLES / len(pictures))]
        patches = torch.cat([F.unfold(x[None], 3)[0].T[at] for x in ours])
        theirs = teacher.convs[name](theirs)
        response = theirs.flatten(2)[:, :, at].transpose(1, 2).flatten(0, 1)
        kept = leading_channels(F.relu(response), width)
        solution = least_squares(patches, response[:, kept])
        weights[f"conv{name}.weight"] = solution[:-1].T.reshape(width, -1, 3, 3)
        weights[f"conv{name}.bias"] = solution[-1]
        ours = F.relu(F.conv2d(ours, weights[f"conv{name}.weight"], solution[-1]))
        theirs = F.relu(theirs)
    return Trunk(weights)


@torch.no_grad()
def fit_heads(
    teacher: Trunk, student: Trunk, pictures: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """Return how the teacher's activations are read from the student's.

    Args:
        teacher: the trunk whose activations are meant.
        student: the trunk that they are read from.
        pictures: images (B, 3, H, W) in [0, 1].
        generator: draws the places that are looked at.

    Returns:
        For each layer a matrix (teacher's channels, student's channels + 1) that gives the
        teacher's activations from the student's, the last column being a constant.
    """
    theirs, ours = teacher(pictures), student(pictures)
    heads = {}
    for name in NAMES:
        places = theirs[name][0, 0].numel()
        at = torch.randperm(places, generator=generator)[: math.ceil(SAMPLES / len(pictures))]
        seen, truth = (
            features[name].flatten(2)[:, :, at].transpose(1, 2).flatten(0, 1)
            for features in (ours, theirs)
        )
        heads[name] = least_squares(seen, truth).T
    return heads


def leading_channels(activations: Tensor, count: int) -> Tensor:
    """Return the channels that leave the least of the others unexplained, in ascending order.

    Args:
        activations: (places, channels).
        count: how many to keep, at most all.
    """
    left = activations.double() - activations.double().mean(0)
    kept: list[int] = []
    for _ in range(count):
        energy = left.square().sum(0)
        energy[kept] = -1
        best = int(energy.argmax())
        kept.append(best)
        direction = left[:, best] / left[:, best].norm().clamp_min(1e-9)
        left = left - direction[:, None] * (direction @ left)[None]
    return torch.tensor(sorted(kept))


def least_squares(inputs: Tensor, outputs: Tensor) -> Tensor:
    """Return the (inputs + 1, outputs) matrix of the best affine map, the constant last."""
    x = F.pad(inputs, (0, 1), value=1.0).double()
    gram = x.T @ x
    gram.diagonal().add_(RIDGE * gram.diagonal().mean())
    return torch.linalg.solve(gram, x.T @ outputs.double()).float()
