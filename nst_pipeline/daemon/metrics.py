"""Figures for Prometheus: a textfile, and as text for whoever serves it."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    write_to_textfile,
)

from nst_pipeline.config.hooks import Event
from nst_pipeline.config.sections import MetricsSettings
from nst_pipeline.files import cause, shown
from nst_pipeline.folders import make_folder
from nst_pipeline.runner.deliverer import Outcome
from nst_pipeline.runner.pruning import Kept
from nst_pipeline.workers.protocol import WorkerState

log = logging.getLogger(__name__)

T = TypeVar("T")

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000)
WORKERS = {
    "at_work": "1 while a worker is at a job, 0 while it waits.",
    "iteration": "Steps done of a worker's job.",
    "iterations": "Steps of a worker's job.",
    "jobs_done": "Jobs that a worker has finished.",
    "memory_bytes": "Device memory that a worker uses.",
}
"""What is told of each worker."""
EVERY_SECONDS = 5.0
"""The textfile is written no more often: its reader comes by less often still."""


class Metrics:
    """The figures of one daemon."""

    def __init__(self, settings: MetricsSettings) -> None:
        """Begin at zero."""
        self._path: Path | None = settings.textfile
        self._written = 0.0
        self._registry = CollectorRegistry()
        self._jobs = self._make(Counter, "jobs", "Jobs ended, by outcome.", ["outcome"])
        self._seconds = Histogram(
            "nst_pipeline_stage_seconds", "Seconds of the stages of a job.", ["stage"],
            buckets=SECONDS, registry=self._registry,
        )  # fmt: skip
        self._queue = self._make(Gauge, "queue_jobs", "Jobs waiting or at work.")
        self._hits = self._make(Gauge, "target_cache_hits", "Style targets found in the cache.")
        self._misses = self._make(Gauge, "target_cache_misses", "Style targets computed.")
        self._cache = self._make(Gauge, "target_cache_bytes", "Style targets in memory.")
        self._success = self._make(
            Gauge, "last_success_timestamp_seconds", "When a job was last done."
        )
        self._memory = self._make(Gauge, "device_memory_bytes", "Device memory in use.")
        self._up = self._make(Gauge, "up", "1 while the daemon works, 0 while it waits for help.")
        self._files = self._make(Gauge, "kept_files", "Files that pile up, by kind.", ["kind"])
        self._bytes = self._make(Gauge, "kept_bytes", "Bytes of these files.", ["kind"])
        self._deliveries = self._make(
            Counter, "deliveries", "Attempts to tell hooks, by outcome.", ["event", "outcome"]
        )
        self._waiting = self._make(Gauge, "deliveries_waiting", "What hooks are still to be told.")
        self._workers = {
            name: self._make(Gauge, f"worker_{name}", text, ["worker", "node", "device"])
            for name, text in WORKERS.items()
        }
        for outcome in ("done", "duplicate", "failed"):
            self._jobs.labels(outcome)

    def job(self, outcome: str) -> None:
        """Count a job that ended: done, duplicate or failed."""
        self._jobs.labels(outcome).inc()
        if outcome != "failed":
            self._success.set(time.time())

    def delivery(self, event: Event, outcome: Outcome, waiting: int) -> None:
        """Count an attempt to tell a hook, and note how many deliveries wait."""
        self._deliveries.labels(event, outcome).inc()
        self._waiting.set(waiting)

    def stage(self, name: str, seconds: float) -> None:
        """Note how long a stage took."""
        self._seconds.labels(name).observe(seconds)

    def cache(self, counts: Mapping[str, int], memory_bytes: int | None) -> None:
        """Note how the caches of style targets are, and what is in use of the devices' memory."""
        self._hits.set(counts["hits"])
        self._misses.set(counts["misses"])
        self._cache.set(counts["bytes"])
        self._memory.set(memory_bytes or 0)

    def workers(self, workers: Iterable[WorkerState]) -> None:
        """Note what the workers do; those that there are no more are told of no more."""
        for gauge in self._workers.values():
            gauge.clear()
        for one in workers:
            labels = one.name, one.node, one.device
            self._workers["at_work"].labels(*labels).set(one.job is not None)
            self._workers["iteration"].labels(*labels).set(one.done)
            self._workers["iterations"].labels(*labels).set(one.total)
            self._workers["jobs_done"].labels(*labels).set(one.jobs_done)
            self._workers["memory_bytes"].labels(*labels).set(one.memory_bytes or 0)

    def queue(self, jobs: int) -> None:
        """Note the length of the queue."""
        self._queue.set(jobs)

    def kept(self, kinds: Mapping[str, Kept]) -> None:
        """Note how much is kept of what piles up."""
        for kind, kept in kinds.items():
            self._files.labels(kind).set(kept.files)
            self._bytes.labels(kind).set(kept.bytes)

    def up(self, works: bool) -> None:
        """Note whether the daemon works, or waits for room, an inbox or a person."""
        self._up.set(works)

    def write(self, now: bool = False) -> None:
        """Write the textfile, whole or not at all."""
        if self._path is None or (not now and time.monotonic() - self._written < EVERY_SECONDS):
            return
        self._written = time.monotonic()
        try:
            make_folder(self._path.parent)
            write_to_textfile(str(self._path), self._registry)
        except OSError as error:
            log.warning("metrics.textfile: %s: %s", shown(self._path), cause(self._path, error))

    def text(self) -> bytes:
        """Return them as Prometheus reads them; safe in any thread."""
        return generate_latest(self._registry)

    def _make(self, kind: Callable[..., T], name: str, text: str, *more: object) -> T:
        return kind(f"nst_pipeline_{name}", text, *more, registry=self._registry)
