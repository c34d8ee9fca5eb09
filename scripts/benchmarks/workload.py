"""The work that is timed: pictures, networks, and both implementations of the same losses.

The reference is tests/reference.py, the PyTorch tutorial's own code. Its layers are the recipe
``tutorial``'s, so that both compute the same loss.
"""

import functools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from reference import Reference, load_vgg
from safetensors.torch import save_file
from torch import Tensor, nn

from nst_pipeline.config.networks import VGG19_CONVOLUTIONS
from nst_pipeline.config.recipe import RecipeChanges
from nst_pipeline.config.weights import COMPACT_PATH
from nst_pipeline.engine import Recipe, StyleTransfer, images, make_recipe
from nst_pipeline.engine import batch as batch_module
from nst_pipeline.engine.batch import Objective
from nst_pipeline.engine.devices import (
    Precision,
    describe_precision,
    deterministic,
    resolve_precision,
)
from nst_pipeline.engine.graphs import WARM_UP, captured
from nst_pipeline.engine.optimiser import Optimiser

SIZES = 256, 512
"""Longer sides that are measured by default."""

QUICK_SIZES = (64,)

VGG19_WIDTHS = (64, 128, 256, 512, 512)
"""Channels in each of the five blocks."""

Evaluate = Callable[[], object]


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="bench-")


@functools.cache
def network(name: str) -> Path:
    """Return the weights' file: ``compact``, or ``vgg19``: its topology, He's random weights."""
    if name == "compact":
        return COMPACT_PATH
    path = Path(_folder().name) / "vgg19.safetensors"
    generator, state, channels = torch.Generator().manual_seed(0), {}, 3
    for block, (count, width) in enumerate(zip(VGG19_CONVOLUTIONS, VGG19_WIDTHS, strict=True), 1):
        for i in range(1, count + 1):
            kernel = torch.randn(width, channels, 3, 3, generator=generator)
            state[f"conv{block}_{i}.weight"] = kernel * (2 / (9 * channels)) ** 0.5
            state[f"conv{block}_{i}.bias"] = torch.zeros(width)
            channels = width
    save_file(state, path)
    return path


def networks(quick: bool) -> tuple[str, ...]:
    """Return the networks that are measured by default."""
    return ("compact",) if quick else ("vgg19", "compact")


def precisions(device: torch.device) -> tuple[Precision, ...]:
    """Return fp32, and bf16 where ``precision: auto`` takes it: elsewhere it may take 20 times."""
    auto = describe_precision(resolve_precision("auto", device))
    return tuple(dict.fromkeys(("fp32", auto)))


def noise(size: int, seed: int) -> Tensor:
    """Return a seeded picture (1, 3, size * 3 / 4, size) in [0, 1], rough and smooth."""
    generator, height = torch.Generator().manual_seed(seed), size * 3 // 4
    picture = torch.zeros(1, 3, height, size)
    for octave in (2, 8, 32, 128):
        grain = torch.rand(1, 3, octave, octave, generator=generator)
        picture += nn.functional.interpolate(grain, (height, size), mode="bilinear") / 4
    return picture


def pictures(folder: Path | None, size: int, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield contents and styles: of a folder's content/ and style/, or noise.

    A style is stretched to its content's size: the tutorial's code takes no other.
    """
    if folder is None:
        yield from ((noise(size, seed), noise(size, seed + 1000)) for seed in range(count))
        return
    contents, styles = (sorted((folder / kind).iterdir()) for kind in ("content", "style"))
    for i in range(count):
        paths = contents[i % len(contents)], styles[i % len(styles)]
        content, style = map(_open, paths)
        height, width = content.shape[-2:]
        fitted = images.fit((height, width), size)
        yield images.resize(content, fitted), images.resize(style, fitted)


def _open(path: Path) -> Tensor:
    with images.Image.open(path) as image:
        return images.to_tensor(image)


def recipe(iterations: int = 1, preset: str = "tutorial", **changes: object) -> Recipe:
    """Return a recipe; without ``changes`` it paints at the pictures' own size."""
    fields = {
        "name": preset,
        "size": "original",
        "scales": 1,
        "iterations": iterations,
        **changes,
    }
    return make_recipe(RecipeChanges.model_validate(fields))


def engine(name: str, device: str, precision: str, made: Recipe, **options: Any) -> StyleTransfer:
    """Return the engine with a network."""
    path = "compact" if name == "compact" else str(network(name))
    return StyleTransfer(made, device=device, precision=precision, weights=path, **options)


class _Captured(Exception):
    pass


def objective(transfer: StyleTransfer, content: Tensor, styles: list[Tensor]) -> Objective:
    """Return what the engine would minimise at the first scale."""
    return _optimiser(transfer, content, styles).objective


def engine_evaluation(transfer: StyleTransfer, content: Tensor, styles: list[Tensor]) -> Evaluate:
    """Return one loss and gradient of what the engine would minimise, at its start.

    On CUDA a graph of it is replayed, as in a transfer.
    """
    optimiser = _optimiser(transfer, content, styles)
    evaluate = captured(lambda: optimiser.objective(optimiser.point), transfer.device)
    if transfer.device.type == "cuda":
        with deterministic(transfer.device):
            for _ in range(WARM_UP + 1):
                evaluate()
    return evaluate


def _optimiser(transfer: StyleTransfer, content: Tensor, styles: list[Tensor]) -> Any:
    found: list[Optimiser] = []

    def minimise(optimiser: Optimiser, *_: object, **__: object):  # type: ignore[no-untyped-def]  # noqa: ANN202
        found.append(optimiser)
        raise _Captured

    with patch.object(batch_module, "minimise", minimise):
        try:
            transfer.run(content, styles)
        except _Captured:
            return found[0]
    raise AssertionError("the engine minimised nothing")


def reference(name: str, device: torch.device, content: Tensor, style: Tensor) -> Reference:
    """Return the tutorial's losses; as in the tutorial, the weights require gradients."""
    cnn = load_vgg(network(name), lambda: nn.MaxPool2d(2)).to(device)
    with torch.device(device):
        return Reference(cnn, content.to(device), style.to(device))


def reference_evaluation(losses: Reference, content: Tensor) -> Evaluate:
    """Return one loss and gradient of the tutorial's, at the content."""

    def evaluate() -> Tensor | None:
        image = content.clone().requires_grad_()
        losses.loss(image).backward()
        return image.grad

    return evaluate
