"""The trunk of a VGG-19 or VGG-16 (Simonyan and Zisserman 2015), from its weights."""

import zipfile
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nst_pipeline.config.networks import identify, no_network, no_state_dict
from nst_pipeline.config.recipe import STYLE_LAYER_NAMES, Padding, Pooling
from nst_pipeline.engine.convolution import Convolution
from nst_pipeline.errors import UnavailableError
from nst_pipeline.files import shown


def deepest(layers: Iterable[str]) -> str:
    """Return the deepest of the named layers."""
    return max(layers, key=STYLE_LAYER_NAMES.index)


def load_trunk(
    path: Path, last_layer: str, pooling: Pooling = "max", padding: Padding = "zeros"
) -> nn.Sequential:
    """Return the trunk up to and with ``last_layer``: frozen, in eval mode, float32, on the CPU.

    Args:
        path: a .pth state dict or a .safetensors file, as `load_convolutions` takes it.
        last_layer: its paper name.
        pooling: of the pool layers.
        padding: of the convolutions.

    Returns:
        The layers as named children, in order. Channel counts are those of the file.

    Raises:
        UnavailableError: the file is no such thing, or its network has no such layer.
    """
    names, state = load_convolutions(path)
    if last_layer not in names:
        raise UnavailableError(
            f"weights: {shown(path)}: has no layer {last_layer}, but {', '.join(names)}"
        )
    channels = 3
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name in names[: names.index(last_layer) + 1]:
        if name.startswith("conv"):
            layers[name] = layer = _convolution(state, name, channels, path, padding)
            channels = layer.out_channels
        elif name.startswith("relu"):
            layers[name] = nn.ReLU()
        else:
            layers[name] = _pooling(pooling)
    return nn.Sequential(layers).eval().requires_grad_(False)


def _pooling(kind: Pooling) -> nn.Module:
    if kind == "max":
        return nn.MaxPool2d(2)
    return nn.AvgPool2d(2, divisor_override=2 if kind == "rescaled-average" else None)


def _convolution(
    state: dict[str, Any], name: str, channels: int, path: Path, padding: Padding
) -> Convolution:
    """Return a convolution of an image of so many channels."""
    try:
        weight, bias = (_parameter(state, f"{name}.{kind}") for kind in ("weight", "bias"))
        if weight.shape[1:] != (channels, 3, 3) or bias.shape != weight.shape[:1]:
            raise ValueError(f"{name} has weights of the shape {tuple(weight.shape)}")
    except (KeyError, ValueError) as error:
        raise no_network(path, error) from error
    layer = Convolution(channels, len(weight), padding)
    assert layer.bias is not None
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


def _parameter(state: dict[str, Any], key: str) -> Tensor:
    """Return a parameter.

    Raises:
        KeyError: there is none.
        ValueError: it is no tensor of finite numbers.
    """
    value = state[key]
    if not isinstance(value, Tensor):
        raise ValueError(f"{key} is no tensor but {type(value).__name__}")
    if not (value.is_floating_point() and value.layout == torch.strided and not value.is_meta):
        raise ValueError(f"{key} holds {value.dtype} ({value.layout}, {value.device})")
    if not value.isfinite().all():
        raise ValueError(f"{key} holds what is no finite number")
    return value


def load_convolutions(path: Path) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return the layers of the network in a weights file, and what it holds for its convolutions.

    Args:
        path: a .pth state dict or a .safetensors file, with torchvision's names or the paper's, as
            `identify` takes them.

    Returns:
        The layers' paper names in order; and the parameters, such as ``conv1_1.weight``
        (O, I, 3, 3) and ``conv1_1.bias`` (O,), of any float dtype, by paper name. What a .pth file
        holds may be anything else.

    Raises:
        UnavailableError: the file is no such thing.
    """
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            mmap = zipfile.is_zipfile(path)  # then the classifier is never read
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (OSError, RuntimeError, ValueError, EOFError, SafetensorError, UnpicklingError) as error:
        raise no_state_dict(path, error) from error
    if not isinstance(state, dict):
        raise no_state_dict(path, TypeError(f"it holds {type(state).__name__}"))
    names = [key.removesuffix(".weight") for key in map(str, state) if key.endswith(".weight")]
    try:
        layers, convolutions = identify(names)
        return layers, {
            f"{paper}.{kind}": state[f"{name}.{kind}"]
            for paper, name in convolutions.items()
            for kind in ("weight", "bias")
        }
    except (KeyError, ValueError) as error:
        raise no_network(path, error) from error
