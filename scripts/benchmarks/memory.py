"""Peak memory of a transfer against the estimate, each in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from benchmarks import workload
from nst_pipeline.engine.devices import resolve_device
from nst_pipeline.engine.memory import HEAP_BLOCK, estimate

Row = dict[str, object]


SIZES = 256, 512, 1024
STEPS = 3
"""Of L-BFGS, which takes the memory for its whole history before the first."""


def measure(
    sizes: Sequence[int] | None = None, device: str = "auto", quick: bool = False
) -> list[Row]:
    """Return a row a network, size, precision, batch and history.

    The baseline is what the process takes once the network is loaded and has painted a picture of
    64 pixels.

    Args:
        sizes: longer sides of the picture.
        device: as `StyleTransfer` takes it.
        quick: one row, tiny.
    """
    if quick:
        return [_row("compact", 128, "fp32", 1, 2, device)]
    rows = []
    for name in workload.networks(quick):
        for size in sizes or SIZES:
            for precision in ("fp32", "bf16"):
                for batch, history in ((1, 3), (1, 10), (2, 10)):
                    rows.append(_row(name, size, precision, batch, history, device))
            rows.append(_row(name, size, "bf16", 1, 100, device))
    return rows


def _row(name: str, size: int, precision: str, batch: int, history: int, device: str) -> Row:
    facts = {
        "network": name,
        "size": size,
        "precision": precision,
        "batch": batch,
        "history": history,
    }
    command = [sys.executable, "-m", "benchmarks.memory", json.dumps(facts), device]
    command.append(str(workload.network(name)))
    folder = Path(__file__).resolve().parents[1]
    path = ":".join(map(str, (folder.parent, folder, folder.parent / "tests")))
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, check=True
    )
    peak = int(done.stdout)
    made = workload.recipe(preset="gatys")
    state = load_file(workload.network(name))
    is_gpu = resolve_device(device).type != "cpu"
    need = estimate(
        {key.removesuffix(".bias"): len(value) for key, value in state.items() if "bias" in key},
        made.content_layers,
        made.style_layers,
        (size * 3 // 4, size),
        batch,
        history,
        2 if precision == "bf16" else 4,
        made.pooling,
        heap_block=0 if is_gpu else HEAP_BLOCK,
        padding=made.padding,
    )
    return facts | {
        "peak MB": peak / 1e6,
        "estimate MB": need.total / 1e6,
        "ratio": need.total / peak,
    }


def _paint(facts: dict[str, object], device: str, path: str) -> int:
    """Return the bytes of a transfer's peak above the baseline."""
    name, size, batch = str(facts["network"]), int(str(facts["size"])), int(str(facts["batch"]))
    workload.network = lambda _: Path(path)  # type: ignore[assignment]
    history = int(str(facts["history"]))
    made = workload.recipe(STEPS, preset="gatys", history_size=history)
    transfer = workload.engine(name, device, str(facts["precision"]), made, batch=batch)
    place = resolve_device(device)
    transfer.run(workload.noise(64, 0), [workload.noise(64, 1)])
    contents = workload.noise(size, 0)
    styles = [workload.noise(size, 1 + i) for i in range(batch)]
    before = _reset(place)
    transfer.run(contents, styles)
    return _peak(place) - before


def _reset(device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
    return _status("VmRSS")


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _status("VmHWM")


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


if __name__ == "__main__":
    print(_paint(json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]))  # noqa: T201
