"""What this machine can do, and the share of it that an evaluation reaches."""

import statistics
from collections.abc import Sequence

import torch
from safetensors.torch import load_file
from torch import nn

from benchmarks import pairs, workload
from nst_pipeline.config.networks import LAYER_NAMES
from nst_pipeline.engine.devices import resolve_device, resolve_precision

Row = dict[str, object]


def evaluation_flops(name: str, height: int, width: int, last: str, style: list[str]) -> float:
    """Return the operations of one loss and gradient: a product and a sum are two.

    Counted are the convolutions up to ``last`` and the Gram matrices of the layers ``style``,
    each forward and once more for the gradient into its input.
    """
    state = load_file(workload.network(name))
    flops = 0.0
    for layer in LAYER_NAMES[: LAYER_NAMES.index(last) + 1]:
        if layer.startswith("pool"):
            height, width = height // 2, width // 2
        elif layer.startswith("conv") and f"{layer}.weight" in state:
            weight = state[f"{layer}.weight"]
            flops += 2 * weight.numel() * height * width
        if layer in style:
            flops += 2 * len(weight) ** 2 * height * width
    return 2 * flops


def measure(
    rounds: int | None = None,
    sizes: Sequence[int] | None = None,
    device: str = "auto",
    quick: bool = False,
) -> list[Row]:
    """Return the throughput of products and convolutions, and the evaluations' share of it.

    Args:
        rounds: measurements of each, of which the median counts; None: 5.
        sizes: longer sides of the picture.
        device: as `StyleTransfer` takes it.
        quick: tiny, with the compact network alone.
    """
    place, rounds = resolve_device(device), rounds or 5
    rows: list[Row] = []
    for size in sizes or (workload.QUICK_SIZES if quick else (512,)):
        for precision in workload.precisions(place):
            dtype = resolve_precision(precision, place)
            best = _product(place, dtype, 256 if quick else 2048, rounds, precision, rows)
            for channels, part in ((64, 1), (128, 2), (256, 4), (512, 8)):
                shape = channels, size * 3 // 4 // part, size // part
                best = max(best, _convolution(place, dtype, shape, rounds, precision, rows))
            for name in workload.networks(quick):
                for preset in ("tutorial", "gatys"):
                    rows.append(_evaluation(name, preset, device, precision, size, rounds, best))
    return rows


def _product(
    device: torch.device, dtype: torch.dtype, n: int, rounds: int, precision: str, rows: list[Row]
) -> float:
    a, b = torch.rand(2, n, n, device=device).to(dtype)
    rate = _rate(lambda: torch.mm(a, b), 2 * n**3, rounds)
    rows.append({"what": f"product {n} x {n}", "precision": precision, "GFLOP/s": rate})
    return rate


def _convolution(
    device: torch.device,
    dtype: torch.dtype,
    shape: tuple[int, int, int],
    rounds: int,
    precision: str,
    rows: list[Row],
) -> float:
    channels, height, width = shape
    layer = nn.Conv2d(channels, channels, 3, padding=1).to(device, dtype).requires_grad_(False)
    layer = layer.to(memory_format=torch.channels_last)
    values = torch.rand(1, *shape, device=device).to(dtype, memory_format=torch.channels_last)
    rate = _rate(lambda: layer(values), 18 * channels**2 * height * width, rounds)
    what = f"convolution {channels} at {height} x {width}"
    rows.append({"what": what, "precision": precision, "GFLOP/s": rate})
    return rate


def _evaluation(
    name: str, preset: str, device: str, precision: str, size: int, rounds: int, best: float
) -> Row:
    made = workload.recipe(preset=preset)
    transfer = workload.engine(name, device, precision, made)
    content, style = workload.noise(size, 0), workload.noise(size, 1)
    layers = [*made.style_layers, *made.content_layers]
    last = max(layers, key=LAYER_NAMES.index)
    flops = evaluation_flops(name, size * 3 // 4, size, last, list(made.style_layers))
    rate = _rate(workload.engine_evaluation(transfer, content, [style]), flops, rounds)
    return {
        "what": f"evaluation, {name}, {preset}, {size} px",
        "precision": precision,
        "GFLOP": flops / 1e9,
        "GFLOP/s": rate,
        "share": rate / best,
    }


def _rate(work: workload.Evaluate, flops: float, rounds: int) -> float:
    work()
    return flops / 1e9 / statistics.median(pairs.seconds(work) for _ in range(rounds))
