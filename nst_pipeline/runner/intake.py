"""The intake: what becomes of jobs whose worker is done with them, or that need none."""

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from nst_pipeline.config.pipeline import Config
from nst_pipeline.config.settings import OutputSettings
from nst_pipeline.errors import (
    CannotCreateError,
    DiskFullError,
    ImageError,
    OutputError,
    PipelineError,
)
from nst_pipeline.files import as_text, ensure_folder, publish, shown
from nst_pipeline.folders import Folders
from nst_pipeline.images.animation import extra_path
from nst_pipeline.inbox.patience import Patience
from nst_pipeline.inbox.scanner import Scanner
from nst_pipeline.jobs.job import Job
from nst_pipeline.jobs.ledger import DatabaseError, Ledger
from nst_pipeline.jobs.outcome import EncodedResult, Failure, Outcome, failure
from nst_pipeline.jobs.planning import Policy
from nst_pipeline.jobs.state import AT_WORK, Entry, JobState
from nst_pipeline.manifest import records
from nst_pipeline.manifest.model import FileRecord, JobRecord
from nst_pipeline.manifest.recorder import Recorder
from nst_pipeline.runner.hooks import Notes
from nst_pipeline.runner.in_flight import InFlight
from nst_pipeline.runner.observer import Observer
from nst_pipeline.runner.publishing import ConflictError, publish_duplicate, publish_results
from nst_pipeline.workers import checkpoints

log = logging.getLogger(__name__)


Taken = tuple[InFlight, Outcome]


class Intake:
    """Publishes results, records what became of jobs, and has tried again what may pass.

    Attributes:
        recorder: of the run; None only if there is nothing to do.
        is_outdated: whether a new plan is to be made before any other job is begun.
        are_apart: whether workers die alone; then a run tries again at once what may pass.
        again: jobs that are queued once more, and that a run is to begin again.
        seconds: that was painted, since somebody set it to 0.
        pixels: that this cost, likewise.
    """

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
        """Take nothing in yet; the arguments are as `Dispatcher` takes them."""
        self._config, self._ledger, self._observer = config, ledger, observer
        self._policy, self._scanner, self._folders = policy, scanner, folders
        self._patience, self._notes = patience, notes
        self.recorder: Recorder | None = None
        self.is_outdated = self.are_apart = False
        self.again: list[Job] = []
        self.seconds, self.pixels = 0.0, 0

    def take_in(self, taken: list[Taken]) -> None:
        """Take in what came of jobs; results are published together.

        Raises:
            CannotCreateError, OutputError: nothing can be published.
        """
        results = []
        for one, told in taken:
            with unforeseen(functools.partial(self.blame, [(one.job, one.entry)])):
                if self._ledger.jobs.state(one.entry.id) == JobState.CANCELLED:
                    continue
                if told.outcome is None:
                    if self._ledger.jobs.requeue(one.entry.id, is_attempt=False):
                        self.again.append(one.job)
                elif isinstance(told.outcome, Failure):
                    self._failed(one.job, one.entry, told.outcome)
                else:
                    planned = FileRecord.of(one.job.output, size=told.outcome.size)
                    record = records.done(one.job, told.outcome, planned, [], told.machine)
                    self._notes.prepare(one.entry.id, record)
                    results.append((one, told))
        if results:
            self._publish(results)

    def _publish(self, taken: list[Taken]) -> None:
        begun = time.monotonic()
        results = [
            (one.entry, told.outcome.data)
            for one, told in taken
            if isinstance(told.outcome, EncodedResult)
        ]
        finals = publish_results(
            self._ledger.jobs, self._folders, results, self._config.conflict_policy
        )
        seconds = (time.monotonic() - begun) / len(taken)
        done = []
        for (one, told), final in zip(taken, finals, strict=True):
            if isinstance(final, Path):
                with unforeseen(functools.partial(self.blame, [(one.job, one.entry)])):
                    self._observer.timed("publish", seconds)
                    done.append((self._published(one, told, final), one.entry))
        self._record(done)
        trouble: Exception | None = None
        for (one, _), final in zip(taken, finals, strict=True):
            if isinstance(final, Exception):
                try:
                    with unforeseen(functools.partial(self.blame, [(one.job, one.entry)])):
                        self._not_done(one, final)
                except (CannotCreateError, OutputError) as error:
                    trouble = trouble or error
        if trouble:
            raise trouble  # once it is told of all

    def _published(self, one: InFlight, told: Outcome, final: Path) -> JobRecord:
        result, job = told.outcome, one.job
        assert isinstance(result, EncodedResult)
        self._patience.forget(job.content.path)
        self.seconds += result.seconds
        self.pixels += job.style.cost
        self._observer.timed("paint", result.seconds)
        checkpoints.forget(self._config.state, job.key)
        sha256 = self._ledger.jobs.get(one.entry.id).sha256
        output = FileRecord.of(final, sha256=sha256, size=result.size)
        extras = self._publish_extras(final, result.extras)
        return records.done(job, result, output, extras, told.machine)

    def _not_done(self, one: InFlight, error: Exception) -> None:
        if isinstance(error, ImageError):
            self._failed(one.job, one.entry, Failure(str(error)))
        elif isinstance(error, CannotCreateError | OutputError):
            self._not_published(one.job, one.entry, error)
        else:
            raise error

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
            if self.recorder and not is_cancelled:
                self.recorder.add(records.failed(job, Failure(str(error))))
            raise
        is_final = isinstance(error, ConflictError)
        self._failed(job, entry, Failure(str(error), kind="job" if is_final else "passing"))

    def repeat(self, job: Job, entry: Entry) -> bool:
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
        self.record(records.duplicate(job, original, output, made), entry)
        return True

    def record(self, record: JobRecord, entry: Entry) -> None:
        """Record what became of a job, and have it told."""
        self._record([(record, entry)])

    def _record(self, records: list[tuple[JobRecord, Entry]]) -> None:
        if not records:
            return
        assert self.recorder
        self.recorder.finish(*(record for record, _ in records))
        for record, entry in records:
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
            self.put_off(job, entry, why)
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
            is_over = went and not (may_pass and (self._policy.retries or self.are_apart))
            if is_over:
                self._notes.prepare(entry.id, record)
        if is_over:
            self.record(record, entry)
        elif went and not self._policy.retries:
            log.warning("%s; tried again", shown(why.reason))
            self.again.append(job)

    def blame(self, jobs: list[tuple[Job, Entry]], why: Failure) -> None:
        """Fail jobs of one content that something unforeseen happened to."""
        log.error("%s: %s", shown(jobs[0][0].content.path), shown(why.reason))
        for job, entry in jobs:
            self._ledger.jobs.start(entry.id)  # an attempt, if it is not noted as one yet
            if self._ledger.jobs.state(entry.id) in AT_WORK:
                self._failed(job, entry, why)

    def give_up(self, job: Job, entry: Entry, reason: str) -> None:
        """Fail a job that broke the device; only `run` has it in a manifest, that of the next."""
        with self._ledger.transaction():
            self._ledger.jobs.fail(entry.id, reason, poison=True)
            if self._policy.retries:
                self._notes.release(entry.id, records.failed(job, Failure(reason)))

    def put_off(self, job: Job, entry: Entry, why: Failure) -> None:
        """Put a job back that is not to blame, and have a new plan made before any other is begun.

        The files of a job may be others by now: that plan has another job in its place.
        """
        wait, path = self._config.watch.settle_seconds, job.content.path
        reason = f"{shown(path)}: {why.reason}" if why.trace else why.reason
        if self._policy.retries and why.kind == "system":
            wait = self._patience.put_off(job.content.found, reason)
        self.is_outdated = self._policy.retries
        went = self._ledger.jobs.requeue(entry.id, reason, why.trace, wait, is_attempt=False)
        if went and not self._policy.retries:
            self.record(records.failed(job, why), entry)

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
def unforeseen(blame: Callable[[Failure], None]) -> Iterator[None]:
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
