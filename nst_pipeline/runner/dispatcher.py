"""What a run has at work: contents handed to the executor, results published as they come."""

import logging
import time
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path

from nst_pipeline.config.pipeline import Config
from nst_pipeline.config.weights import Weights
from nst_pipeline.digests import bytes_digest
from nst_pipeline.errors import (
    Abandoned,
    BeingWrittenError,
    CannotCreateError,
    DiskFullError,
    ImageError,
    OutputError,
)
from nst_pipeline.files import ensure_folder, free_bytes, publish, shown, write_temporary
from nst_pipeline.images.animation import extra_path
from nst_pipeline.inbox import reading
from nst_pipeline.inbox.scanner import Scanner
from nst_pipeline.jobs.job import Job
from nst_pipeline.jobs.ledger import Ledger
from nst_pipeline.jobs.outcome import EncodedResult, Failure, Outcome
from nst_pipeline.jobs.planning import Plan
from nst_pipeline.jobs.states import Entry
from nst_pipeline.manifest import records
from nst_pipeline.manifest.model import FileRecord
from nst_pipeline.runner import publishing
from nst_pipeline.runner.disposal import Settler
from nst_pipeline.runner.journal import Journal
from nst_pipeline.runner.observer import Hooks, Listener
from nst_pipeline.workers import checkpoints
from nst_pipeline.workers.protocol import Executor, OnStep, Task

log = logging.getLogger(__name__)

MakeExecutor = Callable[[Config, Weights, OnStep], Executor]


class Dispatcher:
    """Paints plans, by one executor that is made for the first content to paint."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        make_executor: MakeExecutor,
        journal: Journal,
        listener: Listener,
        hooks: Hooks,
        scanner: Scanner | None,
    ) -> None:
        """Have nothing at work; with a scanner, paint as a daemon does."""
        self._config, self._ledger, self._make_executor = config, ledger, make_executor
        self._journal, self._listener, self._hooks = journal, listener, hooks
        self._scanner = scanner
        self._executor: Executor | None = None
        self._settler: Settler | None = None
        self._stepped: set[Path] = set()
        self._at_work: dict[Path, Entry] = {}
        self._copies: dict[Path, tuple[Path, set[Path]]] = {}
        self._ahead: set[Path] = set()
        self._is_called = False

    def close(self) -> None:
        """End whatever the executor does."""
        if self._executor is not None:
            self._executor.close()
            self._executor = None

    def paint(self, plan: Plan, settler: Settler | None, force: bool = False) -> None:
        """Paint what a plan has to do, and publish it.

        While one content is painted, the next is read. What was begun before and not finished
        is painted alone, so that no other content is blamed should it end the process.
        """
        self._settler, self._is_called = settler, False
        if settler:
            settler.settle_done()
        for _, group in groupby(plan.todo, key=lambda job: job.content.path):
            jobs = list(group)
            is_suspect = self._is_suspect(jobs, plan)
            if is_suspect or self._is_repeated(jobs):
                self._drain()
            if self._hooks.should_stop() or self._is_wanted():
                break
            self._check_room()
            task = self._prepare(jobs, force)
            if task is None:
                continue
            executor = self._executor or self._make_executor(self._config, plan.weights, self._step)
            self._executor = executor
            executor.submit(task)
            while executor.capacity == 0:
                self._take_in(executor, executor.poll)
            if is_suspect:
                self._drain()
        self._drain()
        if settler:
            settler.settle_all()

    def _drain(self) -> None:
        if self._executor is not None:
            self._take_in(self._executor, self._executor.drain)

    def _is_suspect(self, jobs: list[Job], plan: Plan) -> bool:
        entries = [plan.entries[job.output] for job in jobs if job.output in plan.entries]
        return self._config.watch.max_attempts == 1 or any(e.attempts for e in entries)

    def _is_repeated(self, jobs: list[Job]) -> bool:
        """Tell whether one of the jobs is at work already, for another name."""
        keys = {entry.key for entry in self._at_work.values()}
        return any(job.key in keys for job in jobs)

    def _is_wanted(self) -> bool:
        """Tell whether to look at the inbox before the next content."""
        self._is_called = self._is_called or (bool(self._scanner) and self._hooks.rung())
        return self._is_called

    def _check_room(self) -> None:
        wanted = self._config.limits.min_free_bytes
        for folder in (self._config.outbox, self._config.state):
            if (free := free_bytes(folder)) < wanted:
                raise DiskFullError(
                    f"{shown(folder)}: {free:,} bytes are free, limits.min_free_bytes is "
                    f"{wanted:,}; make room"
                )

    def _prepare(self, jobs: list[Job], force: bool) -> Task | None:
        """Queue a content's jobs, copy its bytes, and start what nobody has painted before."""
        begun = time.monotonic()
        content = jobs[0].content
        entries = self._ledger.enqueue(jobs, force)
        pairs = [(j, e) for j, e in zip(jobs, entries, strict=True) if e.state == "queued"]
        try:
            data = reading.read(
                content.path, self._config.limits.max_bytes, content.found.signature
            )
            if bytes_digest(data) != content.sha256:
                raise BeingWrittenError(f"{shown(content.path)}: {reading.BEING_WRITTEN}")
        except ImageError as error:
            self._not_ready(pairs, error)
            return None
        if not force:
            pairs = [pair for pair in pairs if not self._repeat(*pair)]
        if not pairs:
            if self._settler:
                self._settler.settle(content.path)
            return None
        copy = write_temporary(self._config.state / "work" / str(pairs[0][1].id), data)
        self._copies[content.path] = copy, {job.output for job, _ in pairs}
        if self._at_work:
            self._ahead.add(content.path)
        self._ledger.start(entry.id for _, entry in pairs)
        self._at_work |= {job.output: entry for job, entry in pairs}
        self._hooks.timed("read", time.monotonic() - begun)
        return Task(content, tuple(job for job, _ in pairs), copy)

    def _not_ready(self, pairs: list[tuple[Job, Entry]], error: ImageError) -> None:
        for job, entry in pairs:
            if self._scanner:
                wait = max(0.1, self._config.watch.settle_seconds)
                self._ledger.put_off(entry.id, str(error), wait)
            else:
                self._journal.finish(records.failed(job, Failure(str(error))))

    def _repeat(self, job: Job, entry: Entry) -> bool:
        """Publish what was painted before for another name; return whether there was such."""
        try:
            twin = publishing.commit_twin(
                self._ledger, entry, self._ledger.twins(job.key), self._config.conflict_policy
            )
        except publishing.ConflictError as error:
            self._failed(job, entry, Failure(str(error), kind="job"))
            return True
        if twin is None:
            return False
        done = self._ledger.entry(entry.id)
        self._journal.finish(
            records.repeated(job, twin, FileRecord(path=shown(done.final), sha256=done.sha256))
        )
        return True

    def _step(self, job: Job, done: int, loss: float) -> None:
        if job.output not in self._stepped:
            is_ahead = job.content.path in self._ahead
            self._ahead.discard(job.content.path)
            if self._hooks.should_stop() or (is_ahead and self._is_wanted()):
                raise Abandoned
        self._stepped.add(job.output)
        self._hooks.check()
        entry = self._at_work.get(job.output)
        if entry and self._ledger.state(entry.id) == "cancelled":
            raise Abandoned
        self._listener.stepped(job, done, loss)

    def _take_in(self, executor: Executor, ask: Callable[[], Iterable[Outcome]]) -> None:
        try:
            for outcome in ask():
                if machine := executor.machine():
                    self._journal.note(machine)
                    self._hooks.machine(machine)
                self._stepped.discard(outcome.job.output)
                entry = self._at_work.pop(outcome.job.output)
                if self._ledger.state(entry.id) == "cancelled":
                    pass
                elif outcome.outcome is None:
                    self._ledger.requeue(entry.id)
                elif isinstance(outcome.outcome, Failure):
                    self._failed(outcome.job, entry, outcome.outcome)
                else:
                    self._publish(outcome.job, entry, outcome.outcome)
                self._release(outcome.job)
                if self._settler:
                    self._settler.settle(outcome.job.content.path)
        except Abandoned:
            self.put_back()

    def put_back(self, reason: str = "") -> None:
        """Queue again what is at work, as if it had not been begun unless there is a reason."""
        for entry in self._at_work.values():
            if self._ledger.state(entry.id) == "running":
                self._ledger.requeue(entry.id, reason)
        self.close()
        self._at_work.clear()
        self._stepped.clear()
        self._ahead.clear()
        for copy, _ in self._copies.values():
            copy.unlink(missing_ok=True)
        self._copies.clear()

    def _release(self, job: Job) -> None:
        copy, open_jobs = self._copies[job.content.path]
        open_jobs.discard(job.output)
        if not open_jobs:
            copy.unlink(missing_ok=True)
            del self._copies[job.content.path]

    def _publish(self, job: Job, entry: Entry, painting: EncodedResult) -> None:
        begun = time.monotonic()
        try:
            final, sha256 = publishing.commit(
                self._ledger, entry, painting.data, self._config.conflict_policy
            )
        except publishing.ConflictError as error:
            self._failed(job, entry, Failure(str(error), kind="job"))
        except ImageError as error:
            self._failed(job, entry, Failure(str(error)))
        except (CannotCreateError, OutputError) as error:
            self._unpublished(job, entry, error)
        else:
            self._hooks.timed("paint", painting.seconds)
            self._hooks.timed("publish", time.monotonic() - begun)
            checkpoints.forget(self._config.state, job.key)
            output = FileRecord(path=shown(final), sha256=sha256, size=painting.size)
            extras = _publish_extras(final, painting)
            self._journal.finish(records.painted(job, painting, output, extras))

    def _unpublished(self, job: Job, entry: Entry, error: CannotCreateError | OutputError) -> None:
        """Stop the run, unless it is a daemon's and the trouble is this one job's."""
        if self._ledger.state(entry.id) == "running":
            self._ledger.requeue(entry.id)
        if self._scanner and not isinstance(error, DiskFullError):
            ensure_folder(self._config.outbox)
            self._failed(job, entry, Failure(str(error)))
            return
        self._journal.add(records.failed(job, Failure(str(error))))
        raise error

    def _failed(self, job: Job, entry: Entry, failure: Failure) -> None:
        """Give a job up, or have it tried again later if what went wrong may pass."""
        attempts = entry.attempts + 1
        watch = self._config.watch
        wait = watch.retry_seconds * 2 ** min(attempts - 1, 10)
        may_pass = failure.kind == "passing" and attempts < watch.max_attempts
        if failure.kind == "input" and self._scanner:
            wait = watch.grace_seconds - self._scanner.age_seconds(job.content.found)
            may_pass = wait > 0
        if may_pass:
            self._ledger.requeue(entry.id, failure.reason, failure.trace, wait)
        else:
            self._ledger.fail(entry.id, failure.reason, failure.trace)
        if not (may_pass and self._scanner):
            self._journal.finish(records.failed(job, failure))


def _publish_extras(final: Path, painting: EncodedResult) -> list[str]:
    """Publish what goes beside a result; what cannot be is told, for the result is there."""
    done = []
    for suffix, data in painting.extras.items():
        path = extra_path(final, suffix)
        try:
            ensure_folder(path.parent)
            publish(path, data)
            done.append(shown(path))
        except (CannotCreateError, OutputError) as error:
            log.warning("%s; the result itself is there", error)
    return done
