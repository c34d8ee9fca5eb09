"""How the caller of a run follows it, and takes part in it."""

import time
from collections.abc import Mapping

from nst_pipeline.config.hooks import Event
from nst_pipeline.files import shown
from nst_pipeline.inbox.patience import Waiting
from nst_pipeline.jobs.job import Job
from nst_pipeline.jobs.outcome import Machine
from nst_pipeline.jobs.planning import Plan
from nst_pipeline.manifest.model import JobRecord
from nst_pipeline.runner.deliverer import Outcome
from nst_pipeline.runner.pruning import Kept
from nst_pipeline.workers.protocol import Glimpse, WorkerState


class Observer:
    """Told what a run does, and asked what it shall do; this one does nothing and wants nothing.

    All calls come from the thread that runs the runner, but those of `delivered`.
    """

    # Told

    def looks(self) -> None:
        """A file that is new is about to be looked at."""

    def looked(self, plan: Plan) -> None:
        """A look at the files is over; the plan may hold nothing to do."""

    def queued(self, jobs: int) -> None:
        """So many jobs are still to be done, those of the plan and those of others."""

    def planned(self, plan: Plan) -> None:
        """There is something to do, and it begins."""

    def stepped(self, job: Job, done: int, total: int, loss: float) -> None:
        """A job did ``done`` of ``total`` steps; ``loss`` is its best so far."""

    def glimpsed(self, job: Job, glimpse: Glimpse) -> None:
        """A job's picture as it grows, as `wants_glimpse` asked for."""

    def handed_over(self, job: Job) -> None:
        """A job was handed over to a worker, which may begin it much later."""

    def released(self, job: Job, is_over: bool) -> None:
        """A worker has no more to do with a job; it is over, or will be begun anew."""

    def finished(self, record: JobRecord) -> None:
        """A job is done or has failed, and its record is durable."""

    def timed(self, stage: str, seconds: float) -> None:
        """A stage of a job took so long: ``read``, ``paint`` or ``publish``."""

    def noted(self, machine: Machine) -> None:
        """A worker told what it runs on."""

    def workers(self, workers: list[WorkerState]) -> None:
        """What the workers do, now and then; where there are none, one is waited for."""

    def closed(self) -> None:
        """The executor is closed, and its workers are no more."""

    def kept(self, kinds: Mapping[str, Kept]) -> None:
        """What piled up was pruned; so much is kept of each kind."""

    def due(self, seconds: float) -> None:
        """Something that waits now is to be looked at in so many seconds."""

    def waits(self, files: list[Waiting]) -> None:
        """All that can be done is done; these files wait for something, no others do."""

    def delivered(self, event: Event, outcome: Outcome, waiting: int) -> None:
        """A hook was told of a job, or could not be; so many deliveries wait.

        Comes from a thread of its own.
        """

    def delivers(self, waiting: int) -> None:
        """A run has nothing left to do but to wait for so many deliveries."""

    def undelivered(self, waiting: int) -> None:
        """A run is over, and so many deliveries wait for the next."""

    # Asked

    def should_stop(self) -> bool:
        """Tell whether no further job is to be begun; asked before each."""
        return False

    def should_look(self) -> bool:
        """Tell whether to look for new files before the next content."""
        return False

    def wants_glimpse(self) -> bool:
        """Tell whether a glimpse of each job at work is wanted."""
        return False

    def check(self) -> None:
        """Raise `Abandoned` to end the job at work; called at the steps of the optimiser."""

    def wait(self, seconds: float) -> None:
        """Wait for files to become stable."""
        time.sleep(seconds)


def failure(record: JobRecord) -> str:
    """Return what failed and why, on one line; the reason may name the content itself."""
    assert record.error
    name, reason = shown(record.content.path), shown(record.error.reason)
    return reason if reason.startswith((f"{name}: ", f"{name} in ")) else f"{name}: {reason}"
