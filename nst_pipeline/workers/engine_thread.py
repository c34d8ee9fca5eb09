"""The engine in a thread of its own: tasks in, results out, each as soon as it is there."""

from __future__ import annotations

import functools
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from nst_pipeline.config.pipeline import Config
from nst_pipeline.config.recipe import Recipe, recipe_digest
from nst_pipeline.config.weights import Weights
from nst_pipeline.errors import ImageError, OutOfMemoryError, PipelineError
from nst_pipeline.images.animation import Frames
from nst_pipeline.images.decoding import Decoded, Pixels
from nst_pipeline.jobs.job import Job, Source, Style
from nst_pipeline.jobs.outcome import Failure, Machine

if TYPE_CHECKING:
    from nst_pipeline import engine
    from nst_pipeline.engine import Result, StyleTransfer, TargetCache

    EngineStyle = engine.Style | dict[str, engine.Style]

BLENDS_KEPT = 1024
"""Styles that the engine knows again."""
RESULTS_WAITING = 4
"""Results of a task that may wait for their encoding before the engine does."""
LOOK_SECONDS = 0.1
"""How often, without any news, one thread looks after the other."""


class Halted(BaseException):  # noqa: N818 - no error, so that no handler of errors takes it
    """Raised in the engine's thread to end a task."""


@dataclass(frozen=True)
class Step:
    """A job came so far."""

    job: Job
    done: int
    loss: float


@dataclass(frozen=True)
class Painted:
    """What the engine made of a job; None: it was halted."""

    job: Job
    result: Result | Failure | None


@dataclass(frozen=True)
class Over:
    """The engine is done with a task; ``error`` ended it, and the thread."""

    error: BaseException | None = None


@dataclass(eq=False)
class Work:
    """A task on its way: what the two threads say to each other of it.

    Attributes:
        jobs: what to paint.
        content: decoded; None: it is no picture, and there are no jobs.
        extras: what else the engine takes of the content: ``masks``, ``init``.
        frames: snapshots of the jobs, by output.
        events: from the engine, in order; `Over` is the last.
        halt: set to end the task.
        beats: steps that the engine made.
        room: for results that nobody took yet.
    """

    jobs: list[Job] = field(default_factory=list)
    content: Decoded | None = None
    extras: dict[str, Any] = field(default_factory=dict)
    frames: dict[Path, Frames] = field(default_factory=dict)
    events: SimpleQueue[Step | Painted | Over] = field(default_factory=SimpleQueue)
    halt: threading.Event = field(default_factory=threading.Event)
    beats: int = 0
    room: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(RESULTS_WAITING))

    def stepped(self, job: Job, done: int, loss: float) -> None:
        """Tell, from the engine's thread, how far a job is."""
        self.events.put(Step(job, done, loss))

    def beat(self) -> None:
        """Note, in the engine's thread, that it goes on; end it if it is to end."""
        self.beats += 1
        if self.halt.is_set():
            raise Halted

    def deliver(self, job: Job, result: Result | Failure) -> None:
        """Hand a result over, once there is room."""
        while not self.room.acquire(timeout=LOOK_SECONDS):
            self.beat()
        self.events.put(Painted(job, result))


class EngineThread:
    """The thread that the engine runs in, and nothing else does.

    Attributes:
        machine: what it paints on; None before the first painting.
    """

    def __init__(
        self, config: Config, weights: Weights, style_image: Callable[[Path, str], Pixels]
    ) -> None:
        """Begin nothing yet; ``style_image`` decodes a file of a SHA-256."""
        self._config, self._weights, self._style_image = config, weights, style_image
        # The engine prepares a style once, and knows it again as the same object.
        self._blend = functools.lru_cache(maxsize=BLENDS_KEPT)(self._make_blend)
        self._transfers: dict[str, StyleTransfer] = {}
        self._targets: TargetCache | None = None
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        # As a daemon, for a process that is ended twice does not wait for it.
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self.machine: Machine | None = None

    def begin(self, work: Work) -> None:
        """Paint ``work`` after what was begun before."""
        self._queue.put(work)
        if not self._thread.is_alive():
            self._thread.start()

    def close(self) -> None:
        """End the thread, as soon as what it was given is over or halted."""
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join()

    # In the thread

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            error = None
            try:
                self._paint_all(work)
            except BaseException as caught:  # noqa: BLE001 - raised again where it is of use
                error = caught
            work.events.put(Over(error))
            if error:
                return

    def _paint_all(self, work: Work) -> None:
        """Paint a task, the jobs of one recipe together.

        Raises:
            UnavailableError: no such device or weights.
            DeviceLostError: nothing further can be painted in this process.
        """
        groups: dict[str, list[Job]] = {}
        for job in work.jobs:
            groups.setdefault(recipe_digest(job.style.recipe), []).append(job)
        left = {job.output: job for job in work.jobs}
        try:
            for same in groups.values():
                work.beat()
                for job, result in self._paint(self._transfer(same[0].style.recipe), work, same):
                    work.deliver(job, result)
                    del left[job.output]
        except Halted:
            for job in left.values():
                work.events.put(Painted(job, None))

    def _paint(
        self, transfer: StyleTransfer, work: Work, jobs: list[Job]
    ) -> Iterator[tuple[Job, Result | Failure]]:
        """Paint jobs of one recipe; whatever goes wrong fails what was painted together alone."""
        from nst_pipeline.workers.callbacks import JobCallbacks

        assert work.content
        given: list[tuple[Job, EngineStyle]] = []
        for job in jobs:
            try:
                given.append((job, self._style(job.style)))
            except ImageError as error:
                yield job, failure(error)
        if not given:
            return
        jobs, styles = (list(part) for part in zip(*given, strict=True))
        callbacks = JobCallbacks(self._config, jobs, work.frames, work.stepped, work.beat)
        for indices, outcome in transfer.paint(
            work.content.pixels, styles, callbacks, **work.extras
        ):
            results: list[Result | Failure] = []
            if isinstance(outcome, Exception):
                results += [failure(outcome)] * len(indices)
            else:
                self.machine = _machine(transfer)
                results += outcome
            yield from zip((jobs[index] for index in indices), results, strict=True)

    def _style(self, style: Style) -> EngineStyle:
        """Return what the engine takes as a style.

        Raises:
            ImageError: one of its files is no picture any more.
        """
        regions = {name: self._blend(sources) for name, sources in style.sources.items()}
        return regions[""] if list(regions) == [""] else regions

    def _make_blend(self, sources: tuple[Source, ...]) -> engine.Style:
        from nst_pipeline import engine

        for path, sha256, _ in sources:
            self._style_image(path, sha256)  # tells what is wrong with it
        images = (functools.partial(self._style_image, path, sha256) for path, sha256, _ in sources)
        return engine.Style(tuple(images), tuple(share for _, _, share in sources))

    def _transfer(self, recipe: Recipe) -> StyleTransfer:
        # Here, because a run with nothing to paint must not pay for importing torch.
        from nst_pipeline.engine import StyleTransfer, TargetCache

        if self._targets is None:
            folder = self._config.state / "targets"
            self._targets = TargetCache(folder, self._config.limits.cache_bytes)
        key = recipe_digest(recipe)
        if key not in self._transfers:
            batch = self._config.limits.batch
            self._transfers[key] = StyleTransfer(
                recipe,
                self._config.device,
                self._config.precision,
                self._weights,
                self._targets,
                None if batch == "auto" else batch,
                self._config.output.bit_depth,
                self._config.tile,
            )
        return self._transfers[key]


def _machine(transfer: StyleTransfer) -> Machine:
    targets, memory = transfer.targets, transfer.memory_bytes()
    return Machine(*transfer.describe(), targets.hits, targets.misses, targets.bytes, memory)


def failure(error: Exception) -> Failure:
    """Return what an error means for a job; only what we did not foresee has a trace."""
    if isinstance(error, OutOfMemoryError):
        return Failure(str(error))
    if isinstance(error, PipelineError):
        return Failure(str(error), kind="job")
    return Failure(f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error)))
