"""A whole transfer against the tutorial's: wall time, and the float32 loss of the saved image."""

from pathlib import Path

import torch
from reference import Reference
from torch import Tensor

from benchmarks import pairs, workload
from nst_pipeline.engine import Result, StyleTransfer, images
from nst_pipeline.engine.transfer import resolve_device

PAIRS = 6
"""Pairs of pictures that bf16 is compared on."""

Row = dict[str, object]


def measure(
    rounds: int,
    device: str = "auto",
    images: Path | None = None,
    quick: bool = False,
    iterations: int = 300,
) -> list[Row]:
    """Return a row a network, size and precision; then bf16's losses against fp32's.

    The tutorial's own loop runs, with its weights frozen. It stops only after whole rounds of 20
    evaluations: only a multiple of 20 compares equal work.

    Args:
        rounds: pairs of transfers.
        device: as `StyleTransfer` takes it.
        images: folder of pictures; None: noise.
        quick: tiny, with the compact network alone.
        iterations: of each transfer.
    """
    rows: list[Row] = []
    networks, sizes = (("compact",), (64,)) if quick else (("vgg19", "compact"), (256, 512))
    for name in networks:
        for size in sizes:
            loaded = list(workload.pictures(images, size, 1 if quick else PAIRS))
            rows += _against_tutorial(name, size, *loaded[0], rounds, device, iterations)
            rows.append(_precisions(name, size, loaded, device, iterations))
    return rows


def _against_tutorial(
    name: str, size: int, content: Tensor, style: Tensor, rounds: int, device: str, iterations: int
) -> list[Row]:
    place = resolve_device(device)
    theirs = workload.reference(name, place, content, style, frozen=True)
    rows = []
    for precision in ("auto", "fp32"):
        ours = workload.engine(name, device, precision, workload.recipe(name, iterations))
        saved: dict[str, Tensor] = {}

        def tutorial(saved: dict[str, Tensor] = saved) -> None:
            saved["tutorial"] = theirs.run(content.to(place), iterations - 1)

        def engine(ours: StyleTransfer = ours, saved: dict[str, Tensor] = saved) -> None:
            saved["engine"] = _pixels(ours.run(content, [style])[0])

        timed = pairs.alternate(tutorial, engine, rounds, warm_up=0)
        facts = {"network": name, "size": size, "precision": ours.describe()[1]}
        rounded = images.to_tensor(images.to_image(saved["tutorial"]))
        ratio = _loss(theirs, saved["engine"]) / _loss(theirs, rounded)
        rows.append(pairs.row(timed, "tutorial", "engine", **facts) | {"loss ratio": ratio})
    return rows


def _precisions(
    name: str, size: int, loaded: list[tuple[Tensor, Tensor]], device: str, iterations: int
) -> Row:
    """Return the ratio of the float32 losses of the images that bf16 and fp32 give."""
    found = []
    made = workload.recipe(name, iterations)
    engines = [workload.engine(name, device, precision, made) for precision in ("bf16", "fp32")]
    for content, style in loaded:
        judge = workload.reference(name, torch.device("cpu"), content, style, frozen=True)
        bf16, fp32 = (_loss(judge, _pixels(e.run(content, [style])[0])) for e in engines)
        found.append((bf16, fp32))
    ratios = pairs.ratios(found)
    facts = {"network": name, "size": size, "precision": f"bf16 to fp32, {len(found)} pairs"}
    return facts | {
        "loss ratio": ratios["median"],
        "loss low": ratios["low"],
        "loss high": ratios["high"],
    }


def _pixels(result: Result) -> Tensor:
    return images.to_tensor(result.pastiche)


@torch.no_grad()
def _loss(reference: Reference, pixels: Tensor) -> float:
    device = reference.style_losses[0].target.device
    return float(reference.loss(pixels.to(device)))
