"""The Executor protocol, and the task that goes to one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from nst_pipeline.config.pipeline import Config
from nst_pipeline.config.weights import Weights
from nst_pipeline.jobs.job import Content, Job
from nst_pipeline.jobs.outcome import Machine, Outcome

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, eq=False)
class Task:
    """A content with its jobs.

    Attributes:
        content: the content.
        jobs: its jobs.
        data: its bytes.
        is_suspect: whether it was begun before, and may have ended the process.
    """

    content: Content
    jobs: tuple[Job, ...]
    data: bytes
    is_suspect: bool = False


@dataclass(frozen=True, eq=False)
class Glimpse:
    """A copy of an unfinished picture as it was after ``done`` steps, for who looks on."""

    done: int
    picture: Image.Image


@dataclass(frozen=True)
class WorkerState:
    """A worker, as who gives it its tasks knows it.

    Attributes:
        name: tells it from the others of its executor.
        node: the name of the computer that it runs on; empty: this one.
        device: as torch names it, with the card's name; empty: not known yet.
        memory_bytes: what it holds of the device's memory; None for a CPU, or not known yet.
        job: what it is at; None: it waits.
        done: steps of that job that are done.
        total: steps of that job.
        jobs_done: jobs that it has finished.
    """

    name: str
    node: str = ""
    device: str = ""
    memory_bytes: int | None = None
    job: Job | None = None
    done: int = 0
    total: int = 0
    jobs_done: int = 0


def are_many(workers: Sequence[WorkerState]) -> bool:
    """Tell whether workers are others than this process alone."""
    return len(workers) != 1 or bool(workers[0].node)


class Progress(Protocol):
    """Told, inside `Executor.poll`, how far the tasks are; ends one by raising `Abandoned`."""

    def stepped(self, job: Job, done: int, total: int, loss: float) -> None:
        """A job did ``done`` of ``total`` steps; ``loss`` is its best so far."""

    def check(self) -> None:
        """Something goes on; called every now and then."""

    def wants_glimpse(self) -> bool:
        """Tell whether a glimpse of what is at work is wanted; an executor may give none."""

    def glimpsed(self, job: Job, glimpse: Glimpse) -> None:
        """A glimpse of a job that is at work."""


class Executor(Protocol):
    """Has tasks carried out by a worker, here or elsewhere. It lives as long as its caller."""

    @property
    def capacity(self) -> int:
        """How many tasks it takes now."""

    @property
    def outlives_workers(self) -> bool:
        """Whether a worker's death ends nothing but what it was at, which is told as a failure.

        Where it does not, the death of the worker is the death of the caller.
        """

    def submit(self, task: Task) -> None:
        """Take a task."""

    def poll(self, progress: Progress) -> Iterator[Outcome]:
        """Give outcomes as they come, in any order, until it takes another task.

        One that outlives its workers gives all that there are together, and waits for no more; if
        it takes another task already, it waits for them no longer than a moment.

        Raises:
            UnavailableError: no such device or weights, or no workers within reach.
            DeviceLostError: only a new process can paint again.
        """

    def drain(self, progress: Progress) -> Iterator[Outcome]:
        """Give the outcomes of everything submitted; raises as `poll` does."""

    def machine(self) -> Machine | None:
        """Tell what it runs on; None before the first result, or where each outcome tells it."""

    def workers(self) -> list[WorkerState]:
        """Tell what its workers do."""

    def close(self) -> None:
        """End everything submitted, at once: nothing comes of it any more, but of later tasks."""


MakeExecutor = Callable[[Config, Weights], Executor]
