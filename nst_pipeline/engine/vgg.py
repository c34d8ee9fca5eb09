"""The VGG-19 trunk (Simonyan and Zisserman 2015), its layer names and its weights."""

import hashlib
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nst_pipeline.config.recipe import LAYER_NAMES, STYLE_LAYER_NAMES, Padding, Pooling
from nst_pipeline.config.weights import IMAGENET_DIGEST, imagenet_path
from nst_pipeline.digests import file_digest
from nst_pipeline.errors import CannotCreateError, OutputError, UnavailableError
from nst_pipeline.files import ensure_folder, publish, shown

TIMEOUT_SECONDS = 10.0
"""How long a download may take to connect, and then to send anything at all."""
CHUNK_BYTES = 2**18

OnBytes = Callable[[int, int | None], None]
"""Takes the bytes that came, and those in all if the server says."""


def deepest(layers: Iterable[str]) -> str:
    """Return the deepest of the named layers."""
    return max(layers, key=STYLE_LAYER_NAMES.index)


def load_trunk(
    path: Path, last_layer: str, pooling: Pooling = "max", padding: Padding = "zeros"
) -> nn.Sequential:
    """Return the trunk up to and with ``last_layer``: frozen, in eval mode, float32, on the CPU.

    Args:
        path: a .pth state dict (torchvision's VGG-19, with or without its classifier, or one
            with the layers' paper names) or a .safetensors file.
        last_layer: a name of `LAYER_NAMES`.
        pooling: of the pool layers.
        padding: of the convolutions.

    Returns:
        The layers as named children, in order. Channel counts are those of the file.

    Raises:
        UnavailableError: the file is no such thing.
    """
    state, channels = _load_state(path), 3
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name in LAYER_NAMES[: LAYER_NAMES.index(last_layer) + 1]:
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
) -> nn.Conv2d:
    """Return a convolution of an image of so many channels."""
    try:
        weight, bias = (_parameter(state, f"{name}.{kind}") for kind in ("weight", "bias"))
        if weight.shape[1:] != (channels, 3, 3) or bias.shape != weight.shape[:1]:
            raise ValueError(f"{name} has the shape {tuple(weight.shape)}")
    except (KeyError, ValueError) as error:
        raise UnavailableError(
            f"weights: {shown(path)}: not a VGG-19 ({error}); expected keys like "
            "features.0.weight or conv1_1.weight with 3 x 3 kernels"
        ) from error
    layer = nn.Conv2d(channels, len(weight), 3, padding=1, padding_mode=padding)
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


def _load_state(path: Path) -> dict[str, Any]:
    """Return what a file holds by its keys, the convolutions' as the layers' paper names."""
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            mmap = zipfile.is_zipfile(path)  # then the classifier is never read
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (OSError, RuntimeError, ValueError, EOFError, SafetensorError, UnpicklingError) as e:
        reason = (str(e) or "it is empty").splitlines()[0]
        raise UnavailableError(f"weights: {shown(path)}: not a state dict: {reason}") from e
    if not isinstance(state, dict):
        raise UnavailableError(
            f"weights: {shown(path)}: holds {type(state).__name__}, not a state dict"
        )
    return {_paper_key(key): value for key, value in state.items() if isinstance(key, str)}


def _paper_key(key: str) -> str:
    """Turn torchvision's ``features.0.weight`` (or ``0.weight``) into ``conv1_1.weight``."""
    index, _, kind = key.removeprefix("features.").partition(".")
    if index.isdecimal() and int(index) < len(LAYER_NAMES):
        return f"{LAYER_NAMES[int(index)]}.{kind}"
    return key


def imagenet_url() -> str:
    """Return where torchvision has its ImageNet weights of VGG-19 from."""
    # Here, because it takes as long to import as torch does.
    from torchvision.models import VGG19_Weights

    return str(VGG19_Weights.IMAGENET1K_V1.url)


def fetch_imagenet(url: str | None = None, on_progress: OnBytes | None = None) -> Path:
    """Download torchvision's ImageNet weights of VGG-19 into torch hub's cache, digest checked.

    Args:
        url: where from, if not `imagenet_url`; a mirror holds the same bytes.
        on_progress: called with the progress.

    Returns:
        The file, which appears only once its digest has been checked.

    Raises:
        UnavailableError: no connection, no such file, cut short, or another file than expected.
        CannotCreateError: the cache's folder cannot be made, or is not writable.
        OutputError: the file cannot be written, such as on a full disk.
    """
    path, url = imagenet_path(), url or imagenet_url()
    if _is_imagenet(path):
        return path
    try:
        ensure_folder(path.parent)
    except (CannotCreateError, OutputError) as error:
        raise type(error)(f"{error}, or set TORCH_HOME to another folder") from error
    try:
        publish(path, _download(url, on_progress))
    except UnavailableError as error:
        raise UnavailableError(
            f"weights: {url}: {error}; nothing was kept. Try again, give the url of a mirror, or "
            f"copy the file to {shown(path)}"
        ) from error
    return path


def _is_imagenet(path: Path) -> bool:
    try:
        return file_digest(path).startswith(IMAGENET_DIGEST)
    except OSError:  # not there, or not to be read
        return False


def _download(url: str, on_progress: OnBytes | None) -> Iterator[bytes]:
    """Yield the parts of the file.

    Raises:
        UnavailableError: it does not come, or is another file.
    """
    sha256, done, total = hashlib.sha256(), 0, None
    try:
        request = Request(url, headers={"User-Agent": "torch.hub"})
        with urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() else None
            while chunk := response.read(CHUNK_BYTES):
                sha256.update(chunk)
                done += len(chunk)
                if on_progress:
                    on_progress(done, total)
                yield chunk
    except (OSError, HTTPException, ValueError) as error:  # URLError and HTTPError are OSErrors
        if isinstance(error, HTTPError):
            error.close()
        raise UnavailableError(str(getattr(error, "reason", None) or error)) from error
    if total is not None and done < total:
        raise UnavailableError(f"ends after {done:,} of {total:,} bytes")
    if not sha256.hexdigest().startswith(IMAGENET_DIGEST):
        raise UnavailableError(
            f"another file than expected (its SHA-256 starts with {sha256.hexdigest()[:8]}, not "
            f"{IMAGENET_DIGEST})"
        )
