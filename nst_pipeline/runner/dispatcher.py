"""The dispatcher: hands contents to the executor, and takes in what comes back."""

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from nst_pipeline.config.pipeline import Config
from nst_pipeline.config.settings import OutputSettings
from nst_pipeline.config.weights import Weights
from nst_pipeline.digests import bytes_digest
from nst_pipeline.errors import (
    Abandoned,
    BeingWrittenError,
    CannotCreateError,
    DiskFullError,
    ImageError,
    OutputError,
    PipelineError,
    UnreadableError,
)
from nst_pipeline.files import as_text, ensure_folder, free_bytes, publish, shown
from nst_pipeline.folders import Folders
from nst_pipeline.images.animation import extra_path
from nst_pipeline.inbox import reading
from nst_pipeline.inbox.patience import Patience
from nst_pipeline.inbox.scanner import Scanner, is_unchanged
from nst_pipeline.jobs.job import Content, Job
from nst_pipeline.jobs.ledger import DatabaseError, Ledger
from nst_pipeline.jobs.outcome import EncodedResult, Failure, Outcome, failure
from nst_pipeline.jobs.pace import note_pace
from nst_pipeline.jobs.planning import Plan, Policy
from nst_pipeline.jobs.state import AT_WORK, Entry, JobState
from nst_pipeline.manifest import records
from nst_pipeline.manifest.model import FileRecord, JobRecord
from nst_pipeline.manifest.recorder import Recorder
from nst_pipeline.runner.disposal import Disposal
from nst_pipeline.runner.hooks import Notes
from nst_pipeline.runner.observer import Observer
from nst_pipeline.runner.publishing import ConflictError, publish_duplicate, publish_result
from nst_pipeline.workers import checkpoints
from nst_pipeline.workers.protocol import Executor, Glimpse, Progress, Task

log = logging.getLogger(__name__)


@dataclass(eq=False)
class InFlight:
    """A job that a worker has.

    Attributes:
        job: the job.
        entry: what the ledger held of it before it was handed over.
        is_ahead: whether its content was handed over while another was at work.
        has_begun: whether it made a step.
    """

    job: Job
    entry: Entry
    is_ahead: bool
    has_begun: bool = False


class Dispatcher:
    """Carries out plans with one executor; it is the `Progress` that the executor tells."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        folders: Folders,
        observer: Observer,
        policy: Policy,
        scanner: Scanner,
        patience: Patience,
        notes: Notes,
    ) -> None:
        """Have nothing in flight.

        Args:
            config: the settings.
            ledger: holds the jobs.
            folders: to reach the results in.
            observer: told of the progress.
            policy: of `run` or `watch`.
            scanner: knows the age of files.
            patience: has files wait for what is not their fault.
            notes: of what hooks are to be told.
        """
        self._config, self._ledger, self._observer = config, ledger, observer
        self._policy, self._scanner, self._folders = policy, scanner, folders
        self._patience, self._notes = patience, notes
        self._executor: Executor | None = None
        self._disposal: Disposal | None = None
        self._recorder: Recorder | None = None
        self._in_flight: dict[Path, InFlight] = {}
        self._look_is_due = self._is_outdated = False
        self._seconds, self._pixels = 0.0, 0  # of what was painted

    def carry_out(
        self,
        plan: Plan,
        executor_for: Callable[[Weights], Executor],
        recorder: Recorder | None,
        disposal: Disposal | None,
        force: bool = False,
    ) -> None:
        """Do what a plan has to do.

        While one content is painted, the next is read. What was begun before and not finished
        is painted alone, so that no other content is blamed should it end the process.

        Args:
            plan: what to do; its jobs are in the ledger.
            executor_for: gives the executor, once there is something to paint.
            recorder: of the run; None only if there is nothing to do.
            disposal: of the sources; None: they stay as they are.
            force: paint also what was painted before, for another name.
        """
        self._disposal, self._recorder = disposal, recorder
        self._look_is_due = self._is_outdated = False
        self._seconds, self._pixels = 0.0, 0
        if disposal:
            disposal.dispose_of_done()
        for content, group in groupby(plan.todo, key=lambda job: job.content):
            jobs = list(group)
            is_suspect = self._config.watch.max_attempts == 1 or plan.attempts[content.path] > 0
            if is_suspect or self._is_repeated(jobs):
                self._drain()
            if self._observer.should_stop() or self._is_look_wanted() or self._is_outdated:
                break
            self._check_room()
            with _unforeseen(functools.partial(self._fail_all, jobs)):
                data = plan.read_ahead.take(content.path)
                was_begun = plan.attempts[content.path] > 0
                task = self._prepare(content, jobs, data, force, was_begun)
                if task is None:
                    continue
                self._executor = executor_for(plan.weights)
                self._executor.submit(task)
            while self._executor and self._executor.capacity == 0:
                self._take_in(self._executor.poll)
            if is_suspect:
                self._drain()
        self._drain()
        if self._pixels:
            note_pace(self._ledger, self._config, plan.weights, self._seconds, self._pixels)
        if disposal:
            disposal.dispose_of_all()

    def has_jobs_in_flight(self) -> bool:
        """Tell whether a worker has something to do."""
        return bool(self._in_flight)

    def put_back(self, reason: str = "") -> None:
        """Queue again what is in flight, as if it had not been begun.

        Args:
            reason: what a job did to the device, if it did; that is an attempt of those at work,
                and they are given up when it was the last.
        """
        guilty = self._at_work()
        for one in self._in_flight.values():
            if self._ledger.jobs.state(one.entry.id) != JobState.RUNNING:
                continue
            if not reason or one.job.content != guilty:
                self._ledger.jobs.requeue(one.entry.id, is_attempt=False)
            elif one.entry.attempts + 1 < self._config.watch.max_attempts:
                self._ledger.jobs.requeue(one.entry.id, reason)
            else:
                self._give_up_guilty(one, reason)
        self._in_flight.clear()

    def _give_up_guilty(self, one: InFlight, reason: str) -> None:
        """Fail a job that broke the device; only `run` has it in a manifest, that of the next."""
        with self._ledger.transaction():
            self._ledger.jobs.fail(one.entry.id, reason, poison=True)
            if self._policy.retries:
                self._notes.release(one.entry.id, records.failed(one.job, Failure(reason)))

    def _at_work(self) -> Content | None:
        """Return the content that is painted, as far as anybody knows."""
        flying = self._in_flight.values()
        begun = (one.job.content for one in flying if one.has_begun)
        return next(begun, None) or next((one.job.content for one in flying), None)

    # What the executor tells

    def stepped(self, job: Job, done: int, total: int, loss: float) -> None:
        """Pass a step on.

        Raises:
            Abandoned: the job is not to be begun, or not to be finished.
        """
        one = self._in_flight[job.output]
        if not one.has_begun:
            if self._observer.should_stop() or (one.is_ahead and self._is_look_wanted()):
                raise Abandoned
            for other in self._in_flight.values():
                if other.job.content == job.content:
                    other.is_ahead = False
        one.has_begun = True
        self._observer.check()
        if self._ledger.jobs.state(one.entry.id) == JobState.CANCELLED:
            raise Abandoned
        self._observer.stepped(job, done, total, loss)

    def check(self) -> None:
        """Pass a sign of life on.

        Raises:
            Abandoned: the work is to end.
        """
        self._observer.check()

    def wants_glimpse(self) -> bool:
        """Tell whether somebody looks on."""
        return self._observer.wants_glimpse()

    def glimpsed(self, job: Job, glimpse: Glimpse) -> None:
        """Pass a glimpse on."""
        self._observer.glimpsed(job, glimpse)

    # Handing over

    def _is_repeated(self, jobs: list[Job]) -> bool:
        """Tell whether one of the jobs is in flight already, for another name."""
        keys = {one.job.key for one in self._in_flight.values()}
        return any(job.key in keys for job in jobs)

    def _is_look_wanted(self) -> bool:
        """Tell whether to look for new files before the next content."""
        self._look_is_due |= self._policy.looks and self._observer.should_look()
        return self._look_is_due

    def _check_room(self) -> None:
        wanted = self._config.limits.min_free_bytes
        for folder in (self._config.outbox, self._config.state):
            if (free := free_bytes(folder)) < wanted:
                raise DiskFullError(
                    f"{shown(folder)}: {free:,} bytes are free, limits.min_free_bytes is "
                    f"{wanted:,}; make room"
                )

    def _prepare(
        self, content: Content, jobs: list[Job], data: bytes | None, force: bool, was_begun: bool
    ) -> Task | None:
        """Return a content's task; None: none of its jobs is to be painted now."""
        begun = time.monotonic()
        known = self._ledger.jobs.of_source(content.path)
        entries = [(job, known[job.style.name, job.key]) for job in jobs]
        queued = [(job, entry) for job, entry in entries if entry.state == JobState.QUEUED]
        if not queued:
            return None
        try:
            data = self._read(content, data)
        except ImageError as error:
            self._not_ready(content, queued, error)
            return None
        is_ahead = bool(self._in_flight)
        started = []
        for job, entry in queued:
            if not (force or entry.forced) and self._repeat(job, entry):
                continue
            # Before it is started, so that whatever ends us puts it back.
            self._in_flight[job.output] = InFlight(job, entry, is_ahead)
            if self._ledger.jobs.start(entry.id):
                started.append(job)
            else:
                del self._in_flight[job.output]
        if not started:
            if self._disposal:
                self._disposal.dispose_of(content.path)
            return None
        self._observer.timed("read", time.monotonic() - begun)
        return Task(content, tuple(started), data, was_begun)

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
                self._record(records.failed(job, Failure(str(error))), entry)

    def _repeat(self, job: Job, entry: Entry) -> bool:
        """Publish what was painted before, for another place; return whether the job is over."""
        try:
            original = publish_duplicate(
                self._ledger.jobs, self._folders, entry, self._config.conflict_policy,
                lambda found: self._notes.prepare(
                    entry.id, records.duplicate(job, found, FileRecord.of(job.output), [])
                ),
            )  # fmt: skip
        except (CannotCreateError, OutputError) as error:
            self._ledger.jobs.start(entry.id)  # an attempt, if it is not noted as one yet
            self._not_published(job, entry, error)
            return True
        if original is None:
            return self._ledger.jobs.state(entry.id) == JobState.CANCELLED
        done = self._ledger.jobs.get(entry.id)
        assert done.final and original.final
        output = FileRecord.of(done.final, sha256=done.sha256)
        extras = self._extras_of(original.final, job.encoding)
        made = self._publish_extras(done.final, extras, _mode(self._folders, original.final))
        self._record(records.duplicate(job, original, output, made), entry)
        return True

    # Taking in

    def _drain(self) -> None:
        if self._executor is not None:
            self._take_in(self._executor.drain)

    def _take_in(self, outcomes: Callable[[Progress], Iterator[Outcome]]) -> None:
        with _unforeseen(self._break):
            for outcome in outcomes(self):
                one = self._in_flight[outcome.job.output]
                with _unforeseen(functools.partial(self._fail_all, [one.job])):
                    self._note_machine()
                    self._take_in_one(one, outcome.outcome)
                self._in_flight.pop(outcome.job.output, None)
                self._observer.released(one.job)
                self._observer.queued(self._ledger.jobs.queue_length())
                if self._disposal:
                    self._disposal.dispose_of(one.job.content.path)

    def _note_machine(self) -> None:
        if self._executor and (machine := self._executor.machine()):
            self._observer.noted(machine)
            if self._recorder:
                self._recorder.note(machine)

    def _take_in_one(self, one: InFlight, outcome: EncodedResult | Failure | None) -> None:
        if self._ledger.jobs.state(one.entry.id) == JobState.CANCELLED:
            return
        if outcome is None:
            self._ledger.jobs.requeue(one.entry.id, is_attempt=False)
        elif isinstance(outcome, Failure):
            self._failed(one.job, one.entry, outcome)
        else:
            self._publish(one.job, one.entry, outcome)

    def _publish(self, job: Job, entry: Entry, result: EncodedResult) -> None:
        begun = time.monotonic()
        planned = FileRecord.of(job.output, size=result.size)
        self._notes.prepare(entry.id, records.done(job, result, planned, []))
        try:
            final = publish_result(
                self._ledger.jobs, self._folders, entry, result.data, self._config.conflict_policy
            )
        except ImageError as error:
            self._failed(job, entry, Failure(str(error)))
            return
        except (CannotCreateError, OutputError) as error:
            self._not_published(job, entry, error)
            return
        if final is None:
            return
        self._patience.forget(job.content.path)
        self._seconds += result.seconds
        self._pixels += job.style.cost
        self._observer.timed("paint", result.seconds)
        self._observer.timed("publish", time.monotonic() - begun)
        checkpoints.forget(self._config.state, job.key)
        sha256 = self._ledger.jobs.get(entry.id).sha256
        output = FileRecord.of(final, sha256=sha256, size=result.size)
        extras = self._publish_extras(final, result.extras)
        self._record(records.done(job, result, output, extras), entry)

    def _not_published(
        self, job: Job, entry: Entry, error: CannotCreateError | OutputError
    ) -> None:
        """Fail a job whose result cannot be published.

        Raises:
            CannotCreateError, OutputError: none can: the outbox is full, gone or read-only.
        """
        try:
            if isinstance(error, DiskFullError):
                raise error
            ensure_folder(self._config.outbox)
        except (CannotCreateError, OutputError):
            if self._ledger.jobs.state(entry.id) == JobState.RUNNING:
                self._ledger.jobs.requeue(entry.id, is_attempt=False)
            is_cancelled = self._ledger.jobs.state(entry.id) == JobState.CANCELLED
            if self._recorder and not is_cancelled:
                self._recorder.add(records.failed(job, Failure(str(error))))
            raise
        is_final = isinstance(error, ConflictError)
        self._failed(job, entry, Failure(str(error), kind="job" if is_final else "passing"))

    def _record(self, record: JobRecord, entry: Entry) -> None:
        assert self._recorder
        self._recorder.finish(record)
        self._notes.release(entry.id, record)
        self._observer.finished(record)

    # What goes wrong

    def _failed(self, job: Job, entry: Entry, why: Failure) -> None:
        """Give a job up, or have it tried again later if what went wrong may pass.

        Args:
            job: the job.
            entry: what the ledger held of it before this attempt.
            why: what went wrong.
        """
        if why.kind in ("changed", "system"):
            self._put_off(job, entry, why)
            return
        attempts = entry.attempts + 1
        watch = self._config.watch
        wait = watch.retry_seconds * 2 ** min(attempts - 1, 10)
        may_pass = why.kind == "passing" and attempts < watch.max_attempts
        if why.kind == "input" and self._policy.retries:
            left = watch.grace_seconds - self._scanner.age_seconds(job.content.found)
            # Twice, for what was read the first time need not be what the disk holds.
            is_certain = why.reason == entry.reason or attempts >= max(2, watch.max_attempts)
            may_pass = left > 0 or not is_certain
            wait = left if left > 0 else watch.retry_seconds
        record = records.failed(job, why)
        with self._ledger.transaction():
            if may_pass:
                went = self._ledger.jobs.requeue(entry.id, why.reason, why.trace, wait)
            else:
                went = self._ledger.jobs.fail(entry.id, why.reason, why.trace)
            if is_over := went and not (may_pass and self._policy.retries):
                self._notes.prepare(entry.id, record)
        if is_over:
            self._record(record, entry)

    def _fail_all(self, jobs: list[Job], why: Failure) -> None:
        """Fail jobs of one content that something unforeseen happened to."""
        log.error("%s: %s", shown(jobs[0].content.path), shown(why.reason))
        known = self._ledger.jobs.of_source(jobs[0].content.path)
        for job in jobs:
            one = self._in_flight.pop(job.output, None)
            entry = one.entry if one else known[job.style.name, job.key]
            self._ledger.jobs.start(entry.id)  # an attempt, if it is not noted as one yet
            if self._ledger.jobs.state(entry.id) in AT_WORK:
                self._failed(job, entry, why)

    def _break(self, why: Failure) -> None:
        """Have done with an executor that broke: what it was at fails, what waited waits again."""
        assert self._executor
        self._executor.close()
        guilty = self._at_work()
        flying, self._in_flight = self._in_flight, {}
        for one in flying.values():
            if one.job.content == guilty:
                self._in_flight[one.job.output] = one
                self._fail_all([one.job], why)
            else:
                self._put_off(one.job, one.entry, replace(why, kind="changed"))
        if self._disposal and guilty:
            self._disposal.dispose_of(guilty.path)

    def _put_off(self, job: Job, entry: Entry, why: Failure) -> None:
        """Put a job back that is not to blame, and have a new plan made before any other is begun.

        The files of a job may be others by now: that plan has another job in its place.
        """
        wait, path = self._config.watch.settle_seconds, job.content.path
        reason = f"{shown(path)}: {why.reason}" if why.trace else why.reason
        if self._policy.retries and why.kind == "system":
            wait = self._patience.put_off(job.content.found, reason)
        self._is_outdated = self._policy.retries
        went = self._ledger.jobs.requeue(entry.id, reason, why.trace, wait, is_attempt=False)
        if went and not self._policy.retries:
            self._record(records.failed(job, why), entry)

    # What goes with a result

    def _extras_of(self, final: Path, encoding: OutputSettings) -> dict[str, bytes]:
        """Return what goes with a result that was made before, as far as it is there and wanted."""
        # It may be of an earlier outbox.
        folders = replace(self._folders, roots=(*self._folders.roots, final.parent))
        suffixes = [] if encoding.making == "none" else [f".{encoding.making}"]
        if encoding.snapshots:
            steps = extra_path(final, ".steps")
            with contextlib.suppress(OSError):
                suffixes += [f"{steps.suffix}/{name}" for name in folders.names(steps)]
        found = {}
        for suffix in suffixes:
            path = extra_path(final, suffix)
            with contextlib.suppress(OSError), folders.reader(path) as file:
                found[suffix] = file.read()
        return found

    def _publish_extras(
        self, final: Path, extras: Mapping[str, bytes], mode: int = 0o666
    ) -> list[str]:
        """Publish what goes with a result; what cannot be is logged, for the result is there."""
        done = []
        for suffix, data in extras.items():
            path = extra_path(final, suffix)
            try:
                publish(path, data, self._folders, mode)
                done.append(as_text(path))
            except (CannotCreateError, OutputError) as error:
                log.warning("%s; the result itself is there", error)
        return done


@contextlib.contextmanager
def _unforeseen(blame: Callable[[Failure], None]) -> Iterator[None]:
    """Hand an error that nobody foresaw to ``blame``: one bad job must not stop the others."""
    try:
        yield
    except (PipelineError, DatabaseError):
        raise
    except Exception as error:  # noqa: BLE001 - inputs bring about anything
        blame(failure(error))


def _mode(folders: Folders, original: Path) -> int:
    """Return the most permissions of a copy of what goes with a result."""
    with contextlib.suppress(OSError):
        return folders.status(original).st_mode & 0o666
    return 0o600
