"""What is to be handed over: a content's bytes, and those of its jobs that are to be painted."""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

from nst_pipeline.config.pipeline import Config
from nst_pipeline.digests import bytes_digest
from nst_pipeline.errors import BeingWrittenError, DiskFullError, ImageError, UnreadableError
from nst_pipeline.files import free_bytes, shown
from nst_pipeline.inbox import reading
from nst_pipeline.inbox.patience import Patience
from nst_pipeline.inbox.scanner import is_unchanged
from nst_pipeline.jobs.job import Content, Job
from nst_pipeline.jobs.ledger import Ledger
from nst_pipeline.jobs.outcome import Failure
from nst_pipeline.jobs.planning import Plan, Policy
from nst_pipeline.jobs.state import Entry, JobState
from nst_pipeline.manifest import records
from nst_pipeline.runner.disposal import Disposal
from nst_pipeline.runner.intake import Intake, unforeseen
from nst_pipeline.runner.observer import Observer

Blame = Callable[[list[Job], Failure], None]


@dataclass(frozen=True)
class Loaded:
    """A content that is to be handed over.

    Attributes:
        content: the content.
        jobs: those to do, as the ledger holds them.
        data: its bytes.
        was_begun: whether it was begun before, and not finished.
    """

    content: Content
    jobs: list[tuple[Job, Entry]]
    data: bytes
    was_begun: bool


class Loader:
    """Reads contents; what was painted before is published, and what cannot be read waits or fails.

    Attributes:
        disposal: of the sources; None: they stay as they are.
    """

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        observer: Observer,
        policy: Policy,
        patience: Patience,
        intake: Intake,
    ) -> None:
        """Read nothing yet; the arguments are as `Dispatcher` takes them, and has them."""
        self._config, self._ledger, self._observer = config, ledger, observer
        self._policy, self._patience, self._intake = policy, patience, intake
        self.disposal: Disposal | None = None

    def load(self, plan: Plan, jobs: list[Job], force: bool, blame: Blame) -> Loaded | None:
        """Return a content with those of its jobs that are to be painted now; None: none is.

        Args:
            plan: that the jobs are of.
            jobs: of one content.
            force: paint also what was painted before, for another name.
            blame: told of what nobody foresaw; the jobs are failed for it.

        Raises:
            DiskFullError: ``limits.min_free_bytes`` would be used.
        """
        self._check_room()
        content = jobs[0].content
        with unforeseen(functools.partial(blame, jobs)):
            begun = time.monotonic()
            known = self._ledger.jobs.of_source(content.path)
            entries = [(job, known[job.style.name, job.key]) for job in jobs]
            queued = [(job, entry) for job, entry in entries if entry.state == JobState.QUEUED]
            data = plan.read_ahead.take(content.path)
            if not queued:
                return None
            try:
                data = self._read(content, data)
            except ImageError as error:
                self._not_ready(content, queued, error)
                return None
            wanted = [
                (job, entry)
                for job, entry in queued
                if force or entry.forced or not self._intake.repeat(job, entry)
            ]
            if wanted:
                self._observer.timed("read", time.monotonic() - begun)
                # Of a job that is queued anew, the plan alone knows that it was begun before.
                begun_before = was_begun(plan, jobs) or any(one.attempts for _, one in wanted)
                return Loaded(content, wanted, data, begun_before)
            if self.disposal:
                self.disposal.dispose_of(content.path)
        return None

    def _check_room(self) -> None:
        wanted = self._config.limits.min_free_bytes
        for folder in (self._config.outbox, self._config.state):
            if (free := free_bytes(folder)) < wanted:
                raise DiskFullError(
                    f"{shown(folder)}: {free:,} bytes are free, limits.min_free_bytes is "
                    f"{wanted:,}; make room"
                )

    def _read(self, content: Content, data: bytes | None) -> bytes:
        """Return a content's bytes, those that it was planned with.

        Args:
            content: the content.
            data: its bytes, if they were read for the plan.

        Raises:
            ImageError: it is another file by now, or cannot be read.
        """
        found = content.found
        if data is None:
            limit = self._config.limits.max_bytes
            data = reading.read(found.path, limit, found.identity, found.root)
            is_same = bytes_digest(data) == content.sha256
        else:
            is_same = is_unchanged(found)
        if not is_same:
            raise BeingWrittenError(f"{shown(found.path)}: {reading.BEING_WRITTEN}")
        return data

    def _not_ready(
        self, content: Content, jobs: list[tuple[Job, Entry]], error: ImageError
    ) -> None:
        wait = max(0.1, self._config.watch.settle_seconds)
        if isinstance(error, UnreadableError) and self._policy.retries:
            wait = self._patience.put_off(content.found, str(error))
        for job, entry in jobs:
            if self._policy.retries:
                self._ledger.jobs.postpone(entry.id, str(error), wait)
            else:
                self._intake.record(records.failed(job, Failure(str(error))), entry)


def was_begun(plan: Plan, jobs: list[Job]) -> bool:
    """Tell whether a content's jobs were begun before the plan was made."""
    return plan.attempts[jobs[0].content.path] > 0
