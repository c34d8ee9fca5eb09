"""Real painting by one and by two nodes of a cluster, of one core each, in turn.

All nodes are on this machine, and so is the process that gives them their tasks: it shares the
cores. Workers are there and have painted before the clock starts.
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from clusters import nodes
from PIL import Image

from nst_pipeline.config.pipeline import Config, load
from nst_pipeline.config.weights import Weights
from nst_pipeline.jobs.planning import Plan
from nst_pipeline.manifest.model import JobRecord
from nst_pipeline.runner.observer import Observer
from nst_pipeline.runner.runner import Runner
from nst_pipeline.workers.cluster import ClusterExecutor

Row = dict[str, object]


class Clock(Observer):
    """Notes when the work began, and when the last job was over."""

    def __init__(self) -> None:
        """Note nothing yet."""
        self.begun = self.ended = 0.0

    def planned(self, plan: Plan) -> None:
        """Note that it begins."""
        self.begun = time.perf_counter()

    def finished(self, record: JobRecord) -> None:
        """Note the end of a job."""
        assert record.status == "done", record.error
        self.ended = time.perf_counter()


def measure(
    rounds: int | None = None,
    sizes: list[int] | None = None,
    iterations: int = 100,
    quick: bool = False,
) -> list[Row]:
    """Paint the same pictures by one node and by two, in turn.

    Args:
        rounds: pairs.
        sizes: of the pictures.
        iterations: steps of each.
        quick: tiny and few.
    """
    count, steps = (2, 5) if quick else (12, min(iterations, 100))
    rows = []
    for size in [64] if quick else (sizes or [256]):
        pairs = []
        for _ in range(1 if quick else (rounds or 3)):
            pairs.append([_rate(number, count, size, steps) for number in (1, 2)])
        ratios = [two / one for one, two in pairs]
        one, two = (statistics.median(column) for column in zip(*pairs, strict=True))
        rows.append(
            {
                "size": size, "steps": steps, "jobs": count, "pairs": len(pairs),
                "jobs/s by one": one, "by two": two, "ratio": statistics.median(ratios),
                "lowest": min(ratios), "highest": max(ratios),
            }
        )  # fmt: skip
    return rows


def _rate(number: int, count: int, size: int, steps: int) -> float:
    """Return the jobs a second that so many nodes do."""
    with tempfile.TemporaryDirectory(prefix="nst-bench-") as folder, nodes(Path(folder)) as cluster:
        for _ in range(number):
            cluster.add()
        home = Path(folder) / "home"
        (home / "inbox").mkdir(parents=True)
        _draw(home / "style.png", 0)
        (home / "pipeline.yaml").write_text(
            f"weights: compact\nrecipe: {{size: {size}, iterations: {steps}}}\n"
            "styles: {s: style.png}\nwatch: {settle_seconds: 0}\n"
            f"limits: {{min_free_bytes: 0}}\ncluster: {{address: '{cluster.address}'}}\n"
        )
        config = load(home / "pipeline.yaml")
        executor = None

        def make(config: Config, weights: Weights) -> ClusterExecutor:
            nonlocal executor
            executor = ClusterExecutor(config, weights)
            return executor

        with Runner(config, make, clock := Clock()) as runner:
            while executor is None or len(executor.workers()) < number:
                _add(config, 2 * number)
                runner.run()
            _add(config, count)
            runner.run()
        return count / (clock.ended - clock.begun)


def _add(config: Config, count: int) -> None:
    """Add pictures to the inbox."""
    there = len(list(config.inbox.iterdir()))
    for index in range(there, there + count):
        _draw(config.inbox / f"{index:06}.png", 1 + index)


def _draw(path: Path, seed: int) -> None:
    """Save a picture of its own."""
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((320, 240)).save(path)
