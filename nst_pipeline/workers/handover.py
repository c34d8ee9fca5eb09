"""What the caller's thread and the engine's thread hand each other of a task."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from nst_pipeline.images.animation import Frames
from nst_pipeline.images.decoding import Decoded
from nst_pipeline.jobs.job import Job
from nst_pipeline.jobs.outcome import Failure
from nst_pipeline.workers.protocol import Glimpse

if TYPE_CHECKING:
    from nst_pipeline.engine import Result

RESULTS_WAITING = 4
"""Results of a task that may wait for their encoding before the engine does."""
LOOK_SECONDS = 0.1
"""How often, without any news, one thread looks after the other."""


class Halted(BaseException):  # noqa: N818 - no error, so that no handler of errors takes it
    """Raised in the engine's thread to end a task."""


@dataclass(frozen=True)
class JobStep:
    """The progress of a job."""

    job: Job
    done: int
    total: int
    loss: float


@dataclass(frozen=True)
class JobGlimpse:
    """A job's picture as it grows."""

    job: Job
    glimpse: Glimpse


@dataclass(frozen=True)
class JobDone:
    """What the engine made of a job; None: it was halted."""

    job: Job
    result: Result | Failure | None


@dataclass(frozen=True)
class TaskDone:
    """The engine is done with a task; ``error`` ended it, and the thread."""

    error: BaseException | None = None


Event = JobStep | JobGlimpse | JobDone | TaskDone


@dataclass(eq=False)
class TaskInWork:
    """A task on its way: what the two threads say to each other of it.

    Attributes:
        jobs: what to paint.
        content: decoded; None: it is no picture, and there are no jobs.
        arguments: what else the engine takes of the content: ``masks``, ``init``.
        frames: snapshots of the jobs, by output.
        notes: what else is in the files that were read, by file.
        events: from the engine, in order; `TaskDone` is the last.
        glimpse: set to have a glimpse taken of each job at work.
        halt: set to end the task.
        beats: steps that the engine made.
        room: for results that nobody took yet.
    """

    jobs: list[Job] = field(default_factory=list)
    content: Decoded | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    frames: dict[Path, Frames] = field(default_factory=dict)
    notes: dict[Path, str] = field(default_factory=dict)
    events: SimpleQueue[Event] = field(default_factory=SimpleQueue)
    glimpse: threading.Event = field(default_factory=threading.Event)
    halt: threading.Event = field(default_factory=threading.Event)
    beats: int = 0
    room: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(RESULTS_WAITING))

    def beat(self) -> None:
        """Note, in the engine's thread, that it goes on; end the task if it is to end."""
        self.beats += 1
        if self.halt.is_set():
            raise Halted

    def deliver(self, job: Job, result: Result | Failure) -> None:
        """Hand a result over, once there is room."""
        while not self.room.acquire(timeout=LOOK_SECONDS):
            self.beat()
        self.events.put(JobDone(job, result))
