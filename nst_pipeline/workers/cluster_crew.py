"""A cluster's workers, and the tasks that they have, as their driver knows them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from nst_pipeline.jobs.outcome import Failure
from nst_pipeline.workers.cluster_messages import TASKS_READY, Submit
from nst_pipeline.workers.cluster_nodes import Spot

RETRY_SECONDS = (1.0, 60.0)
"""The shortest and the longest wait after a worker that could not paint, or not any more."""
Key = tuple[str, int]
"""Of a spot."""
Ending = Literal["died", "unable", "lost device"]
"""How a worker ends before its time."""


@dataclass(eq=False)
class Held:
    """A task that the workers have not done with.

    Attributes:
        submitted: as it came.
        left: the places of its jobs that nothing came of yet.
        is_halted: whether it is to end.
        given: number of its last giving to a worker; what is told of one before counts no more.
        lost_at: where a worker lost its device while it painted it; None: nowhere.
    """

    submitted: Submit
    left: set[int]
    is_halted: bool = False
    given: int = 0
    lost_at: Key | None = None


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


def blame(worker: Worker, ending: Ending, held: Mapping[int, Held]) -> set[int]:
    """Note how a worker ended; return which of its tasks that is an attempt of.

    - It died, or did what nobody foresaw: what it was at (`Worker.at_work`).
    - It is unable to paint anything: none.
    - Its device broke while it painted (`DeviceLostError`). One time says nothing of the task: a
      device may break by itself. So the task goes on, at another spot if there is one (`giving`),
      and is to blame only if the device of the next worker breaks at it, too. A broken device thus
      costs no task an attempt while others work, and a task that breaks them all is given up after
      ``watch.max_attempts`` pairs of them.

    Whatever the end, all its other tasks go on as if nothing had been.
    """
    if ending == "unable":
        return set()
    if ending == "died":
        return worker.at_work
    painted = worker.at_work & {*worker.tasks[:1]}
    guilty = {number for number in painted if held[number].lost_at}
    for number in painted:
        held[number].lost_at = worker.spot.key
    return guilty


def giving(
    waiting: Sequence[int], ready: Sequence[Worker], held: Mapping[int, Held], most: int
) -> tuple[Worker, int] | None:
    """Return who is to be given which task next: who has the least, and fewer than ``most``."""
    for worker in sorted(ready, key=lambda one: len(one.tasks)):
        if len(worker.tasks) < most:
            for number in waiting:
                if _may_have(worker, held[number], ready):
                    return worker, number
    return None


def taking(
    idle: Worker, ready: Sequence[Worker], held: Mapping[int, Held]
) -> tuple[Worker, int] | None:
    """Return from whom an idle worker may take which task that only waits there."""
    for busy in ready:
        if len(busy.tasks) == TASKS_READY and _may_have(idle, held[busy.tasks[-1]], ready):
            return busy, busy.tasks[-1]
    return None


def _may_have(worker: Worker, task: Held, ready: Sequence[Worker]) -> bool:
    """Tell whether a worker may have a task: where a device broke at it, for want of others."""
    return task.lost_at != worker.spot.key or len(ready) == 1


class Ground:
    """Where workers can be begun, by what came of those before.

    Attributes:
        refused: reasons by node.
        unable: and by spot, until it paints.
    """

    def __init__(self) -> None:
        """Know of nothing."""
        self.refused: dict[str, str] = {}
        self.unable: dict[Key, str] = {}
        self._failures: dict[Key, int] = {}
        self._retry_at: dict[Key, float] = {}
        self._suspect: set[Key] = set()  # whose device broke, and has finished nothing since

    def is_open(self, spot: Spot, now: float) -> bool:
        """Tell whether a worker may be begun there now, of `time.monotonic`."""
        return now >= self._retry_at.get(spot.key, 0) and spot.node_id not in self.refused

    def put_off(self, key: Key, now: float, ending: Ending) -> None:
        """Have the next worker begun later, and ever later."""
        low, high = RETRY_SECONDS
        if ending == "lost device":
            self._suspect.add(key)
        self._failures[key] = count = self._failures.get(key, 0) + 1
        self._retry_at[key] = now + min(high, low * 2 ** (count - 1))

    def note_step(self, key: Key) -> None:
        """Note that a worker there paints: all is well, unless its device broke before.

        For a broken device may do steps.
        """
        self.unable.pop(key, None)
        if key not in self._suspect:
            self._failures.pop(key, None)

    def note_result(self, key: Key) -> None:
        """Note that all is well there."""
        self._suspect.discard(key)
        self._failures.pop(key, None)

    def obstacles(self, room: Sequence[Spot]) -> set[str]:
        """Return why nowhere can be painted; empty: somewhere it can, or may."""
        reasons = {self.refused.get(one.node_id) or self.unable.get(one.key) for one in room}
        return set() if None in reasons else {one for one in reasons if one}
