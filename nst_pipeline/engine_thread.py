"""The engine in a thread of its own: tasks in, results out, each as soon as it is there."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from nst_pipeline import inbox
from nst_pipeline.config import Config
from nst_pipeline.errors import DeviceLostError, ImageError, PipelineError
from nst_pipeline.jobs import Job
from nst_pipeline.recipe import Recipe, digest
from nst_pipeline.tasks import Failure, Machine, Task
from nst_pipeline.weights import Weights

if TYPE_CHECKING:
    from PIL import Image

    from nst_pipeline.engine import Result, StyleTransfer, TargetCache

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
        task: the task.
        content: decoded; None: it is no picture.
        events: from the engine, in order; `Over` is the last.
        halt: set to end the task.
        beats: steps that the engine made.
        room: for results that nobody took yet.
    """

    task: Task
    content: inbox.Decoded | None = None
    events: SimpleQueue[Step | Painted | Over] = field(default_factory=SimpleQueue)
    halt: threading.Event = field(default_factory=threading.Event)
    beats: int = 0
    room: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(RESULTS_WAITING))

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
        self, config: Config, weights: Weights, style_image: Callable[[Path, str], Image.Image]
    ) -> None:
        """Begin nothing yet."""
        self._config, self._weights, self._style_image = config, weights, style_image
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
        for job in work.task.jobs:
            groups.setdefault(recipe_digest(job.style.recipe), []).append(job)
        left = {job.output: job for job in work.task.jobs}
        try:
            for same in groups.values():
                work.beat()
                transfer = self._transfer(same[0].style.recipe)
                for first in range(0, len(same), transfer.batch):
                    for job, result in self._paint(
                        transfer, work, same[first : first + transfer.batch]
                    ):
                        work.deliver(job, result)
                        del left[job.output]
        except Halted:
            for job in left.values():
                work.events.put(Painted(job, None))

    def _paint(
        self, transfer: StyleTransfer, work: Work, jobs: list[Job]
    ) -> Iterator[tuple[Job, Result | Failure]]:
        """Paint jobs together; whatever goes wrong fails these jobs alone."""
        assert work.content
        images: list[Image.Image] = []
        fine: list[Job] = []
        for job in jobs:
            try:
                images.append(self._style_image(job.style.path, job.style.sha256))
                fine.append(job)
            except ImageError as error:
                yield job, failure(error)
        done = 0
        try:
            for result in transfer.run(
                work.content.image,
                images,
                on_step=lambda i, steps, loss: work.events.put(Step(fine[i], steps, loss)),
                check=work.beat,
            ):
                self.machine = _machine(transfer)
                yield fine[done], result
                done += 1
        except DeviceLostError:
            raise
        except Exception as error:  # noqa: BLE001 - one bad job must not stop the others
            yield from ((job, failure(error)) for job in fine[done:])

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
            )
        return self._transfers[key]


def _machine(transfer: StyleTransfer) -> Machine:
    targets, memory = transfer.targets, transfer.memory_bytes()
    return Machine(*transfer.describe(), targets.hits, targets.misses, targets.bytes, memory)


def failure(error: Exception) -> Failure:
    """Return what an error means for a job; only what we did not foresee has a trace."""
    if isinstance(error, PipelineError):
        return Failure(str(error), kind="job")
    return Failure(f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error)))


def recipe_digest(recipe: Recipe) -> str:
    """Return the digest of what in a recipe can change a pixel."""
    return digest(recipe.pixels())
