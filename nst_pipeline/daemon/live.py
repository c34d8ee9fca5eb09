"""What a daemon does at this moment, for who looks on from another thread."""

import itertools
import math
import threading
import time
from dataclasses import dataclass, field

from nst_pipeline.files import shown
from nst_pipeline.jobs.job import Job
from nst_pipeline.jobs.planning import Plan
from nst_pipeline.jobs.workload import Key, Workload, key_of
from nst_pipeline.manifest.model import JobRecord
from nst_pipeline.workers.protocol import Glimpse, WorkerState, are_many

GLIMPSE_SECONDS = 2.0
"""How often, at most, a glimpse is taken of what is at work."""
CURVE_POINTS = 240
"""Points of a loss curve that are kept, at most: of a longer one every second, and so on."""
PROGRESS_SECONDS = 600.0
"""How long the longest step may take before the daemon counts as stuck."""
WELL = ("", "idle", "painting", "paused", "stopping")
"""States in which a daemon does what it is there for; empty: it has only just begun."""


@dataclass
class AtWork:
    """A job that a worker has begun.

    Attributes:
        number: no other's.
        content: its file's name, for people.
        style: the style's name.
        iteration: steps done.
        iterations: steps in all.
        loss: the best so far; None: none that is finite.
        curve: iterations and losses, the finite ones.
        glimpse: the picture, as it was seen last; None: nobody looked yet.
        left_seconds: how long it still takes; None: nobody knows.
        worker: who is at it, for people; None: the only one.
    """

    number: int
    content: str
    style: str
    iteration: int = 0
    iterations: int = 1
    loss: float | None = None
    curve: list[tuple[int, float]] = field(default_factory=list)
    glimpse: Glimpse | None = None
    left_seconds: float | None = None
    worker: str | None = None


@dataclass(frozen=True)
class View:
    """What a daemon does; a copy, for any thread.

    Attributes:
        state: as `Status` has it.
        detail: why, or what.
        at_work: what workers have begun, the oldest first.
        left_seconds: how long the queue takes; None: nobody knows.
        device: what is painted on; None: nothing was, yet.
    """

    state: str
    detail: str
    at_work: list[AtWork]
    left_seconds: float | None
    device: str | None


class Live:
    """Told by the thread that works, and looked at by those that tell others of it.

    Attributes:
        viewers: how many people look at this moment, as far as anybody knows.
    """

    def __init__(self) -> None:
        """Know of nothing yet."""
        self.viewers = 0
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._state, self._detail = "", ""
        self._device: str | None = None
        self._at_work: dict[Key, AtWork] = {}
        self._work = Workload()
        self._beat, self._glimpsed = time.monotonic(), 0.0

    # Told, by the thread that works

    def beat(self) -> None:
        """Note real progress, or a sound wait."""
        self._beat = time.monotonic()

    def state(self, state: str, detail: str) -> None:
        """Note what the daemon does from now on."""
        with self._lock:
            self._state, self._detail = state, detail
            if state not in ("painting", "stopping"):
                self._at_work.clear()

    def runs_on(self, device: str) -> None:
        """Note what is painted on."""
        self._device = device

    def workers(self, workers: list[WorkerState]) -> None:
        """Note what the workers do."""
        with self._lock:
            self._work.use(len(workers))
            if not are_many(workers):
                return
            for one in workers:
                if one.job and (key := key_of(one.job)) in self._at_work:
                    where = filter(None, (one.node, one.device.partition(", ")[0]))
                    self._at_work[key].worker = shown(", ".join(where))

    def looked(self, plan: Plan) -> None:
        """Note what there is that no plan has come to yet."""
        with self._lock:
            self._work.beyond = plan.more * sum(style.cost for style in plan.styles)

    def planned(self, plan: Plan, seconds_per_pixel: float | None) -> None:
        """Note what there is to do, and how long earlier work took."""
        with self._lock:
            self._work.plan(plan.todo, seconds_per_pixel)

    def handed_over(self, job: Job) -> None:
        """Note that a worker has a job."""
        with self._lock:
            self._work.handed_over(job)

    def stepped(self, job: Job, done: int, total: int, loss: float) -> None:
        """Note how far a job is."""
        self.beat()
        with self._lock:
            one = self._known(job)
            one.iteration, one.iterations, one.loss = done, total, None
            if math.isfinite(loss):  # browsers read no other number
                one.loss = loss
                one.curve.append((done, loss))
            if len(one.curve) > CURVE_POINTS:
                del one.curve[1:-1:2]
            self._work.stepped(job, done, total)
            one.left_seconds = self._work.left_seconds(job)

    def glimpsed(self, job: Job, glimpse: Glimpse) -> None:
        """Note how a job's picture looks."""
        with self._lock:
            if (key := key_of(job)) in self._at_work:
                self._at_work[key].glimpse = glimpse

    def released(self, job: Job, is_over: bool) -> None:
        """Note that a worker has no more to do with a job, and whether it is to be done again."""
        with self._lock:
            self._at_work.pop(key_of(job), None)
            self._work.released(job, is_over)

    def finished(self, record: JobRecord) -> None:
        """Note that a job is over, also one that no worker had."""
        with self._lock:
            self._work.over((record.content.path, record.style.name))

    def wants_glimpse(self) -> bool:
        """Tell, now and then, that somebody looks."""
        now = time.monotonic()
        if not self.viewers or now - self._glimpsed < GLIMPSE_SECONDS:
            return False
        self._glimpsed = now
        return True

    # Looked at, by any thread

    def view(self) -> View:
        """Return what the daemon does."""
        with self._lock:
            at_work = [
                AtWork(**{**vars(one), "curve": list(one.curve)}) for one in self._at_work.values()
            ]
            return View(
                self._state, self._detail, at_work,
                self._work.all_left_seconds(), self._device,
            )  # fmt: skip

    def glimpse(self, number: int) -> Glimpse | None:
        """Return how the picture of a job at work looks, given its number."""
        with self._lock:
            found = (one.glimpse for one in self._at_work.values() if one.number == number)
            return next(found, None)

    def ailment(self) -> str:
        """Return why the daemon neither makes progress nor idles soundly; empty: it does."""
        silent = time.monotonic() - self._beat
        if silent > PROGRESS_SECONDS:
            return f"no sign of life for {silent:.0f} s"
        with self._lock:
            return "" if self._state in WELL else f"{self._state}: {self._detail}"

    def _known(self, job: Job) -> AtWork:
        if (key := key_of(job)) not in self._at_work:
            name = shown(job.content.path.name)
            self._at_work[key] = AtWork(next(self._numbers), name, job.style.name)
        return self._at_work[key]
