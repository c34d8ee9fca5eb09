"""The Executor protocol, and the task that goes to one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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

    def submit(self, task: Task) -> None:
        """Take a task."""

    def poll(self, progress: Progress) -> Iterator[Outcome]:
        """Give the outcomes that are ready, waiting for one if there is none.

        Raises:
            UnavailableError: no such device or weights.
            DeviceLostError: only a new process can paint again.
        """

    def drain(self, progress: Progress) -> Iterator[Outcome]:
        """Give the outcomes of everything submitted; raises as `poll` does."""

    def machine(self) -> Machine | None:
        """Tell what it runs on; None before the first result."""

    def close(self) -> None:
        """End everything submitted, at once: nothing comes of it any more, but of later tasks."""


MakeExecutor = Callable[[Config, Weights], Executor]
