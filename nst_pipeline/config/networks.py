"""The networks that features come from, VGG-19 and VGG-16: their layers, and which a file holds."""

import contextlib
import pickletools
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from nst_pipeline.errors import UnavailableError
from nst_pipeline.files import shown


def _layers(convolutions: tuple[int, ...]) -> tuple[str, ...]:
    """Return a network's layers in order, given how many convolutions each block has."""
    return tuple(
        name
        for block, count in enumerate(convolutions, 1)
        for name in (
            *(f"{kind}{block}_{i}" for i in range(1, count + 1) for kind in ("conv", "relu")),
            f"pool{block}",
        )
    )


VGG19_CONVOLUTIONS = (2, 2, 4, 4, 4)
"""Convolutions in each block of VGG-19 (Simonyan and Zisserman 2015, column E)."""
VGG19 = _layers(VGG19_CONVOLUTIONS)
"""Names of VGG-19's layers in order: conv1_1, relu1_1, ..., conv5_4, relu5_4, pool5."""
VGG16 = _layers((2, 2, 3, 3, 3))
"""Names of VGG-16's layers in order (column D)."""
LAYER_NAMES = VGG19
"""Every layer that a network may have, in order: VGG-16 has no others than VGG-19."""

TRUNK = re.compile(r"\d+|(conv|relu|pool)\d.*")
"""Layers of a state dict that are no classifier's."""
LEGACY_PICKLES = 4
"""What a .pth of before torch 1.6 begins with: a mark, a version, the machine, the state dict."""


def identify(names: Iterable[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return which layers a state dict's network has, and its own names of the convolutions.

    Args:
        names: of its layers that have weights: torchvision's (``features.0`` or ``0``) or the
            paper's (``conv1_1``), with those of a classifier or without; all of a VGG-19's or a
            VGG-16's convolutions, or the first of them.

    Returns:
        The layers' paper names in order, and the given names by paper name.

    Raises:
        ValueError: they are of another network.
    """
    names = list(names)
    for layers in (VGG19, VGG16):
        by_paper = {_paper_name(name, layers): name for name in names}
        trunk = {paper: name for paper, name in by_paper.items() if TRUNK.fullmatch(paper)}
        convolutions = [layer for layer in layers if layer.startswith("conv")]
        if trunk and trunk.keys() == set(convolutions[: len(trunk)]):
            rest = convolutions[len(trunk) :]
            return layers[: layers.index(rest[0])] if rest else layers, trunk
    raise ValueError("neither a VGG-19 nor a VGG-16, nor the first layers of one")


def _paper_name(name: str, layers: tuple[str, ...]) -> str:
    """Turn torchvision's ``features.0`` (or ``0``) into ``conv1_1``."""
    index = name.removeprefix("features.")
    return layers[int(index)] if index.isdecimal() and int(index) < len(layers) else index


def file_layers(path: Path) -> tuple[str, ...]:
    """Return the layers of the network in a weights file, of which no weights are read.

    Args:
        path: a .pth or .safetensors file, as `identify` takes its names.

    Raises:
        UnavailableError: it is no such thing.
        OSError: it cannot be read.
    """
    try:
        names = _safetensors_names(path) if path.suffix == ".safetensors" else _pickled_names(path)
    except (ValueError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise no_state_dict(path, error) from error
    try:
        return identify(name.removesuffix(".weight") for name in names if name.endswith(".weight"))[
            0
        ]
    except ValueError as error:
        raise no_network(path, error) from error


def _safetensors_names(path: Path) -> list[str]:
    with _safetensors(path) as file:
        return list(file.keys())


def file_metadata(path: Path) -> dict[str, str]:
    """Return what else a .safetensors file says.

    Raises:
        UnavailableError: it is none.
        OSError: it cannot be read.
    """
    try:
        with _safetensors(path) as file:
            return dict(file.metadata() or {})
    except ValueError as error:
        raise no_state_dict(path, error) from error


@contextlib.contextmanager
def _safetensors(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(error) from error


def _pickled_names(path: Path) -> list[str]:
    """Return the texts in a .pth file, its state dict's keys among them; runs nothing of it."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            return [text for _ in range(LEGACY_PICKLES) for text in _texts(file)]
    with zipfile.ZipFile(path) as archive:
        found = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if not found:
            raise ValueError("it is a zip archive of something else")
        with archive.open(found[0]) as member:
            return _texts(member)


def _texts(pickle: IO[bytes]) -> list[str]:
    return [text for _, text, _ in pickletools.genops(pickle) if isinstance(text, str)]


def no_state_dict(path: Path, error: Exception) -> UnavailableError:
    """Return the error to raise for a weights file that cannot be read."""
    reason = (str(error) or "it is empty").splitlines()[0]
    return UnavailableError(f"weights: {shown(path)}: not a state dict: {reason}")


def no_network(path: Path, error: Exception) -> UnavailableError:
    """Return the error to raise for a weights file of another network."""
    return UnavailableError(
        f"weights: {shown(path)}: {error}; expected keys like features.0.weight or "
        "conv1_1.weight with 3 x 3 kernels"
    )
