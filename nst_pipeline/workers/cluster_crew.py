"""A cluster's workers, and the tasks that they have, as their driver knows them."""

from dataclasses import dataclass, field
from typing import Any

from nst_pipeline.jobs.outcome import Failure
from nst_pipeline.workers.cluster_messages import Submit
from nst_pipeline.workers.cluster_nodes import Spot


@dataclass(eq=False)
class Held:
    """A task that the workers have not done with.

    Attributes:
        submitted: as it came.
        left: the places of its jobs that nothing came of yet.
        is_halted: whether it is to end.
        given: number of its last giving to a worker; what is told of one before counts no more.
    """

    submitted: Submit
    left: set[int]
    is_halted: bool = False
    given: int = 0


@dataclass(eq=False)
class Worker:
    """An actor.

    Attributes:
        spot: where it is.
        actor: Ray's handle.
        begun: when it was asked for, of `time.monotonic`.
        is_ready: whether it takes tasks.
        is_slow: whether it was told that it takes long to be ready.
        tasks: what it was given, the oldest first.
        opened: those of them that it began to read.
        read: those of them that it has read.
    """

    spot: Spot
    actor: Any
    begun: float
    is_ready: bool = False
    is_slow: bool = False
    tasks: list[int] = field(default_factory=list)
    opened: set[int] = field(default_factory=set)
    read: set[int] = field(default_factory=set)

    @property
    def at_work(self) -> set[int]:
        """What it may have died of: the task that it paints, and the one that it reads."""
        return self.opened & {*self.tasks[:1], *(self.opened - self.read)}

    def forget(self, number: int) -> None:
        """Have a task no more."""
        self.tasks.remove(number)
        self.opened.discard(number)
        self.read.discard(number)


@dataclass(frozen=True)
class Verdict:
    """What becomes of the task that a worker died at, unless all of the cluster ends."""

    since: float
    worker: str
    task: int
    failure: Failure
