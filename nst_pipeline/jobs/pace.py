"""How long jobs take a worker, by those that were done before."""

import heapq
import itertools
import json
import time
from collections.abc import Iterable

from nst_pipeline.config.pipeline import Config
from nst_pipeline.config.recipe import Recipe, step_costs
from nst_pipeline.config.weights import Weights
from nst_pipeline.jobs.ledger import Ledger, ledger_path

TRUSTED_SECONDS = 5.0
"""How long the pace of earlier runs is believed rather than this one's."""


def note_pace(
    ledger: Ledger, config: Config, weights: Weights, seconds: float, pixels: int
) -> None:
    """Remember how long some jobs took.

    Args:
        ledger: remembers it.
        config: says what they were painted on.
        weights: the network's.
        seconds: that they took.
        pixels: that they cost.
    """
    ledger.set_fact("pace", json.dumps([*_conditions(config, weights), seconds / pixels]))


def seconds_per_pixel(ledger: Ledger, config: Config, weights: Weights) -> float | None:
    """Return what the last jobs took; None: none were done by this network on this device."""
    *conditions, pace = json.loads(ledger.fact("pace") or "[null]")
    return float(pace) if conditions == _conditions(config, weights) else None


def known_pace(config: Config, weights: Weights) -> float | None:
    """Return what `seconds_per_pixel` does, beside whoever works with the ledger."""
    ledger = Ledger.to_read(ledger_path(config.state))
    if ledger is None:
        return None
    with ledger:
        return seconds_per_pixel(ledger, config, weights)


def _conditions(config: Config, weights: Weights) -> list[str]:
    cluster = [config.cluster.address] if config.cluster.address else []
    return [config.device, config.precision, weights.sha256, *cluster]


def longest_share(costs: Iterable[int], workers: int) -> int:
    """Return what the busiest of some workers does, if each takes the next task when it is free.

    Args:
        costs: of the tasks, in their order; none is shared.
        workers: how many there are, 1 or more.
    """
    shares = [0] * workers
    for cost in costs:
        heapq.heapreplace(shares, shares[0] + cost)
    return max(shares)


class Pace:
    """How long work takes, by how long the work before it took.

    Attributes:
        workers: how many there are to do it.
    """

    def __init__(self, seconds_per_pixel: float | None, workers: int = 1) -> None:
        """Believe what a worker of earlier runs needed for a pixel of a step.

        Args:
            seconds_per_pixel: that it needed; None: nothing is known.
            workers: how many there are now.
        """
        self._known, self.workers = seconds_per_pixel, workers
        self._begun: float | None = None
        self._worked = 0.0  # seconds of all workers, until `_since`
        self._since = 0.0
        self._done = 0

    def begin(self) -> None:
        """Note that work begins, if it has not begun."""
        if self._begun is None:
            self._begun = self._since = time.monotonic()

    def use(self, workers: int) -> None:
        """Note how many workers there are from now on."""
        if workers != self.workers:
            self._worked, self._since = self._worker_seconds(), time.monotonic()
            self.workers = workers

    def advance(self, pixels: int) -> None:
        """Note that so much of it was done, by whichever worker."""
        self._done += pixels

    def left_seconds(self, pixels: int) -> float | None:
        """Return how long a worker still takes for so much work; None: nobody knows yet."""
        seconds = time.monotonic() - self._begun if self._begun else 0.0
        pace = self._known
        if self._done and (pace is None or seconds > TRUSTED_SECONDS):
            pace = self._worker_seconds() / self._done
        return None if pace is None else pixels * pace

    def all_left_seconds(self, pixels: int) -> float | None:
        """Return how long all workers together still take for so much; None: nobody knows."""
        seconds = self.left_seconds(pixels)
        return seconds / self.workers if seconds is not None and self.workers else None

    def _worker_seconds(self) -> float:
        since = time.monotonic() - self._since if self._begun is not None else 0.0
        return self._worked + self.workers * since


class StepsDone:
    """What the steps cost that were done so far of each job, by `step_costs`."""

    def __init__(self) -> None:
        """Know of none."""
        self._sums: dict[object, list[int]] = {}
        self._done: dict[object, int] = {}

    def all(self, recipe: Recipe) -> int:
        """Return what all steps of a job cost."""
        return self._summed(recipe)[-1]

    def done(self, job: object) -> int:
        """Return what is done of a job."""
        return self._done.get(job, 0)

    def move(self, job: object, recipe: Recipe, done: int, total: int) -> int:
        """Note that a job has done ``done`` of ``total`` steps; return what is new of that."""
        sums = self._summed(recipe)
        # How many steps there are may depend on the content.
        now = sums[max(1, len(sums) * min(done, total) // total) - 1]
        before, self._done[job] = self._done.get(job, 0), now
        return now - before

    def forget(self, job: object) -> None:
        """Know of a job no more."""
        self._done.pop(job, None)

    def _summed(self, recipe: Recipe) -> list[int]:
        decisive = recipe.size, recipe.scales, recipe.iterations
        if decisive not in self._sums:
            self._sums[decisive] = list(itertools.accumulate(step_costs(recipe)))
        return self._sums[decisive]
