"""Large pictures in tiles: peak memory and seconds an evaluation, each in a process of its own."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import torch

from benchmarks import workload
from benchmarks.memory import _peak
from benchmarks.pairs import seconds
from nst_pipeline.engine import batch as batch_module
from nst_pipeline.engine import make_recipe
from nst_pipeline.engine.devices import resolve_device

Row = dict[str, object]


def measure(device: str = "auto", quick: bool = False) -> list[Row]:
    """Return a row a size and mode, of the compact network with its default recipe.

    The peak is all that the process takes: of a CPU's memory with Python and its libraries.

    Args:
        device: as `StyleTransfer` takes it.
        quick: tiny sizes.
    """
    small, large = (96, 192) if quick else (1536, 6000)
    cases = ((small, "off"), (small, "on"), (large, "on"))
    return [_row({"width": width, "tile": tile}, quick, device) for width, tile in cases]


def _row(facts: dict[str, object], quick: bool, device: str) -> Row:
    facts = {**facts, "tile_size": 64 if quick else 1024, "history": 2}
    command = [sys.executable, "-m", "benchmarks.tiles", json.dumps(facts), device]
    folder = Path(__file__).resolve().parents[1]
    path = ":".join(map(str, (folder.parent, folder, folder.parent / "tests")))
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, check=True
    )
    return facts | json.loads(done.stdout)


def _paint(facts: dict[str, int], device: str) -> Row:
    """Paint a picture of two to three, with as few steps as fill the history."""
    width = facts["width"]
    picture, style = (
        torch.nn.functional.interpolate(workload.noise(512, seed), (width * 2 // 3, width))
        for seed in (0, 1)
    )
    made = make_recipe(
        size="original", scales=1, history_size=facts["history"],
        iterations=facts["history"] + 1,
    )  # fmt: skip
    transfer = workload.engine(
        "compact", device, "auto", made, tile=facts["tile"], tile_size=facts["tile_size"]
    )
    times: list[float] = []
    evaluate = batch_module.Objective.__call__

    def timed(objective: batch_module.Objective, pixels: torch.Tensor) -> object:
        found: list[object] = []
        times.append(seconds(lambda: found.append(evaluate(objective, pixels))))
        return found[0]

    with patch.object(batch_module.Objective, "__call__", timed):
        (result,) = transfer.run(picture, [style])
    assert result.history_size == facts["history"], "memory did not suffice"
    return {
        "precision": transfer.describe()[1],
        "threads": torch.get_num_threads(),
        "peak GB": _peak(resolve_device(device)) / 1e9,
        "evaluation s": statistics.median(times),
        "start": result.start.total,
        "end": result.end.total,
    }


if __name__ == "__main__":
    print(json.dumps(_paint(json.loads(sys.argv[1]), sys.argv[2])))  # noqa: T201
