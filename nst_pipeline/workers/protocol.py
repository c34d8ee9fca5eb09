"""The Executor protocol, and the task that goes to one."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nst_pipeline.jobs.job import Content, Job
from nst_pipeline.jobs.outcome import Machine, Outcome


@dataclass(frozen=True)
class Task:
    """A content with its jobs; ``copy`` holds its bytes where nobody else changes them."""

    content: Content
    jobs: tuple[Job, ...]
    copy: Path | None = None


OnStep = Callable[[Job, int, float], None]
"""Takes a job, the steps done, and the best loss so far."""


class Executor(Protocol):
    """Paints tasks, here or elsewhere."""

    @property
    def capacity(self) -> int:
        """How many tasks it takes now."""

    def submit(self, task: Task) -> None:
        """Take a task."""

    def poll(self) -> Iterator[Outcome]:
        """Give the outcomes that are ready, waiting for one if there is none."""

    def drain(self) -> Iterator[Outcome]:
        """Give the outcomes of everything submitted."""

    def machine(self) -> Machine | None:
        """Tell what it paints on; None before the first painting."""

    def close(self) -> None:
        """End everything submitted, at once; nothing comes of it any more."""
