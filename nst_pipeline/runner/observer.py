"""How the caller of a run follows it, and takes part in it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from nst_pipeline.jobs.job import Job
from nst_pipeline.jobs.outcome import Machine
from nst_pipeline.jobs.planning import Plan
from nst_pipeline.manifest.model import JobRecord


class Listener(Protocol):
    """Told what a run does; all calls come from the runner's thread."""

    def planned(self, plan: Plan) -> None:
        """The jobs are known; painting begins."""

    def stepped(self, job: Job, done: int, loss: float) -> None:
        """A job did ``done`` of its iterations; ``loss`` is its best so far."""

    def finished(self, record: JobRecord) -> None:
        """A job is done or has failed, and its record is durable."""


def _never() -> bool:
    return False


def _ignored(*_: object) -> None:
    pass


@dataclass(frozen=True)
class Hooks:
    """What the caller of a run wants to decide or to know while it goes on.

    Attributes:
        should_stop: asked before each job; if so, no further one is begun.
        rung: asked before each content; if so, a standing run looks at the inbox first.
        check: called at the steps of the optimiser; may raise `Abandoned`.
        wait: waits a number of seconds for files to settle.
        again: told in how many seconds something that waits now will be due.
        looked: told of every plan, also of those that hold nothing to do.
        timed: told the seconds of a stage of a job: read, paint or publish.
        machine: told what the executor says of itself.
    """

    should_stop: Callable[[], bool] = _never
    rung: Callable[[], bool] = _never
    check: Callable[[], None] = _ignored
    wait: Callable[[float], None] = time.sleep
    again: Callable[[float], None] = _ignored
    looked: Callable[[Plan], None] = _ignored
    timed: Callable[[str, float], None] = _ignored
    machine: Callable[[Machine], None] = _ignored
