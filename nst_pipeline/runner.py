"""The orchestrator: scan, plan, paint, publish, record. A failed job never stops the others.

Whatever happens to the process, the ledger says how far each job came, and the next run goes on
from there: `commit` and `disposal` hold the two protocols, `recovery` is the way back in.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path

from nst_pipeline import commit, inbox, records
from nst_pipeline.config import Config
from nst_pipeline.entries import Entry
from nst_pipeline.errors import (
    Abandoned,
    BeingWrittenError,
    CannotCreateError,
    DeviceLostError,
    DiskFullError,
    ImageError,
    OutputError,
    PipelineError,
)
from nst_pipeline.executor import Executor, Failure, OnStep, Outcome, Painting, Task
from nst_pipeline.files import ensure_folder, free_bytes, shown, write_temporary
from nst_pipeline.hooks import Hooks, Listener
from nst_pipeline.jobs import Job
from nst_pipeline.journal import Journal
from nst_pipeline.ledger import Ledger
from nst_pipeline.manifest import LISTED_SKIPPED, FileRecord, Recorder
from nst_pipeline.planning import Broken, Plan, ledger_path, make_plan, make_scanner
from nst_pipeline.records import resolved
from nst_pipeline.recovery import recover
from nst_pipeline.scanner import Scan, Scanner
from nst_pipeline.settling import Settler
from nst_pipeline.weights import Weights

__all__ = [
    "Hooks", "Listener", "MakeExecutor", "Plan", "ledger_path", "make_plan", "resolved",
    "run_once", "run_standing",
]  # fmt: skip

MakeExecutor = Callable[[Config, Weights, OnStep], Executor]

PATIENCE = 5
"""How many times ``settle_seconds`` a run waits for files that still change."""
BATCH_JOBS = 1000
"""After so many jobs a standing run's manifest is closed, and the next begun."""


def run_once(
    config: Config,
    make_executor: MakeExecutor,
    listener: Listener,
    paths: list[Path] | None = None,
    force: bool = False,
    hooks: Hooks | None = None,
) -> Recorder:
    """Paint everything that is not painted yet, and return the run's record.

    The manifest is also written to the outbox, anew after each job, unless there was nothing
    to do. A job that fails is in it with its reason. Only one process at a time may do this
    with a state folder (see `lock`).

    Args:
        config: the settings.
        make_executor: makes what paints.
        listener: told of the progress.
        paths: files and folders to paint in place of the inbox.
        force: paint also what is done already.
        hooks: for the caller to take part.

    Raises:
        InboxGoneError, ConfigError: see `make_plan`.
        UnavailableError: no weights or device as asked.
        CannotCreateError: the outbox or the state folder cannot be written to.
        OutputError: an output could not be written.
        DiskFullError: for want of space, be it that ``limits.min_free_bytes`` would be used.
        DeviceLostError: the device broke; only a new process can paint again.
    """
    with Ledger(ledger_path(config)) as ledger:
        recover(config, ledger)
        batch = _Batch(config, ledger, make_executor, listener, hooks or Hooks())
        return batch.run_all(paths or None, force)


def run_standing(
    config: Config,
    make_executor: MakeExecutor,
    listener: Listener,
    hooks: Hooks,
    scanner: Scanner,
) -> None:
    """Do as `run_once` does, for a daemon: until the inbox has nothing left to do.

    What may pass is tried again later (``hooks.again`` is told when); what is given up is moved
    to the failed folder.

    Args:
        config: the settings.
        make_executor: makes what paints.
        listener: told of the progress.
        hooks: for the caller to take part.
        scanner: made by `planning.make_scanner`, and kept from call to call.

    Raises:
        PipelineError: as `run_once`; `OutputError` only if the whole outbox is concerned.
    """
    with Ledger(ledger_path(config)) as ledger:
        recover(config, ledger)
        _Batch(config, ledger, make_executor, listener, hooks, scanner).run_standing(scanner)


class _Batch:
    """One run at work; with a scanner, a standing one."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        make_executor: MakeExecutor,
        listener: Listener,
        hooks: Hooks,
        scanner: Scanner | None = None,
    ) -> None:
        self._journal = Journal(config, ledger, listener)
        self._config, self._ledger, self._make_executor = config, ledger, make_executor
        self._listener, self._hooks, self._scanner = listener, hooks, scanner
        self._executor: Executor | None = None
        self._settler: Settler | None = None
        self._stepped: set[Path] = set()
        self._at_work: dict[Path, Entry] = {}
        self._copies: dict[Path, tuple[Path, set[Path]]] = {}

    def run_standing(self, scanner: Scanner) -> None:
        """Do everything that there is to do and that comes meanwhile."""
        with self._in_order():
            while self._go_on(scanner):
                pass

    def run_all(self, paths: list[Path] | None, force: bool) -> Recorder:
        """Do everything there is to do now; return the record of it."""
        with self._in_order():
            return self._run_all(paths, force)

    @contextlib.contextmanager
    def _in_order(self) -> Iterator[None]:
        """Whatever ends the block, leave nothing at work, and the manifest with an end."""
        try:
            yield
        except BaseException as error:
            self._stop(error)
            raise
        self._journal.close("finished")

    def _run_all(self, paths: list[Path] | None, force: bool) -> Recorder:
        scanner = make_scanner(self._config, paths)
        scan = self._await_settled(scanner, paths)
        plan = make_plan(self._config, self._ledger, paths, force, scan)
        self._hooks.looked(plan)
        recorder = self._journal.recorder(plan)
        if len(plan.done) > LISTED_SKIPPED:
            recorder.skip(len(plan.done))
        else:
            for done in plan.done:
                recorder.add(records.skipped(done, self._ledger.entry(done.entry)))
        unsettled = [Broken(f, f"{shown(f.path)}: {inbox.BEING_WRITTEN}") for f in plan.waiting]
        poisonous = [held for held in plan.held if held.entry.state == "failed"]
        if plan.todo or plan.broken or unsettled or poisonous:
            self._journal.begin(plan)
        for broken in (*plan.broken, *unsettled):
            for style in plan.styles:
                self._journal.finish(records.broken(broken, style))
        for held in poisonous:
            reason = f"{held.reason}; `nst-pipeline retry` has it tried again"
            self._journal.finish(records.failed(held.job, Failure(reason)))
        # Only the inbox is ours to clear.
        self._settler = None if paths else Settler(self._config, self._ledger, plan)
        self._paint(plan, force)
        return recorder

    def _await_settled(self, scanner: Scanner, paths: list[Path] | None) -> Scan | None:
        deadline = time.monotonic() + PATIENCE * self._config.watch.settle_seconds
        if paths is None and not self._config.inbox.is_dir():
            return None  # the plan tells
        while (wait := (scan := scanner.scan()).wait_seconds) is not None:
            if time.monotonic() + wait > deadline:
                return scan
            self._hooks.wait(wait + 0.01)
        return scan

    def _go_on(self, scanner: Scanner) -> bool:
        """Look once, do what there is to do; return whether to look again at once."""
        plan = make_plan(self._config, self._ledger, scanner=scanner)
        self._hooks.looked(plan)
        self._ledger.mark("gone", plan.stale)
        settler = self._settler = Settler(self._config, self._ledger, plan, scanner)
        hopeless = settler.hopeless()
        if plan.todo or hopeless:
            self._journal.begin(plan)
        for broken in hopeless:
            settler.give_up_broken(broken)
            for style in plan.styles:
                self._journal.finish(records.broken(broken, style))
        self._paint(plan, force=False)
        if self._hooks.should_stop():
            return False
        if self._journal.count >= BATCH_JOBS:
            self._hooks.again(0)
            return False
        if not (plan.todo or plan.more) and (wait := settler.next_due()) is not None:
            self._hooks.again(wait)
        return bool(plan.todo or plan.more)

    def _stop(self, error: BaseException) -> None:
        """Put everything at work back, and write the manifest's end."""
        with contextlib.suppress(PipelineError, OSError):  # the first error is the one to tell
            self._put_back(str(error) if isinstance(error, DeviceLostError) else "")
            if not self._ledger.entries("state = 'committing'"):
                self._journal.close("stopped")
            # Otherwise the next start looks at what became of it.

    # Painting

    def _paint(self, plan: Plan, force: bool) -> None:
        if self._settler:
            self._settler.settle_done()
        for _, group in groupby(plan.todo, key=lambda job: job.content.path):
            if self._hooks.should_stop() or (self._scanner and self._hooks.rung()):
                break
            self._check_room()
            task = self._prepare(list(group), force)
            if task is None:
                continue
            executor = self._executor or self._make_executor(self._config, plan.weights, self._step)
            self._executor = executor
            executor.submit(task)
            while executor.capacity == 0:
                self._take_in(executor, executor.poll)
        if self._executor is not None:
            self._take_in(self._executor, self._executor.drain)
        if self._settler:
            self._settler.settle_all()

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
            data = inbox.read(content.path, self._config.limits.max_bytes, content.found.facts)
            if inbox.bytes_digest(data) != content.sha256:
                raise BeingWrittenError(f"{shown(content.path)}: {inbox.BEING_WRITTEN}")
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
            twin = commit.commit_twin(
                self._ledger, entry, self._ledger.twins(job.key), self._config.conflict_policy
            )
        except commit.ConflictError as error:
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
        if job.output not in self._stepped and self._hooks.should_stop():
            raise Abandoned
        self._stepped.add(job.output)
        self._hooks.check()
        entry = self._at_work.get(job.output)
        if entry and self._ledger.entry(entry.id).state == "cancelled":
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
                if self._ledger.entry(entry.id).state == "cancelled":
                    pass
                elif isinstance(outcome.outcome, Failure):
                    self._failed(outcome.job, entry, outcome.outcome)
                else:
                    self._publish(outcome.job, entry, outcome.outcome)
                self._release(outcome.job)
                if self._settler:
                    self._settler.settle(outcome.job.content.path)
        except Abandoned:
            self._put_back()

    def _put_back(self, reason: str = "") -> None:
        """Queue again what is at work, as if it had not been begun unless there is a reason."""
        for entry in self._at_work.values():
            if self._ledger.entry(entry.id).state == "running":
                self._ledger.requeue(entry.id, reason)
        self._at_work.clear()
        self._stepped.clear()
        for copy, _ in self._copies.values():
            copy.unlink(missing_ok=True)
        self._copies.clear()

    def _release(self, job: Job) -> None:
        copy, open_jobs = self._copies[job.content.path]
        open_jobs.discard(job.output)
        if not open_jobs:
            copy.unlink(missing_ok=True)
            del self._copies[job.content.path]

    def _publish(self, job: Job, entry: Entry, painting: Painting) -> None:
        begun = time.monotonic()
        try:
            final, sha256 = commit.commit(
                self._ledger, entry, painting.data, self._config.conflict_policy
            )
        except commit.ConflictError as error:
            self._failed(job, entry, Failure(str(error), kind="job"))
        except ImageError as error:
            self._failed(job, entry, Failure(str(error)))
        except (CannotCreateError, OutputError) as error:
            self._unpublished(job, entry, error)
        else:
            self._hooks.timed("paint", painting.seconds)
            self._hooks.timed("publish", time.monotonic() - begun)
            output = FileRecord(path=shown(final), sha256=sha256, size=painting.size)
            self._journal.finish(records.painted(job, painting, output))

    def _unpublished(self, job: Job, entry: Entry, error: CannotCreateError | OutputError) -> None:
        """Stop the run, unless it is a daemon's and the trouble is this one job's."""
        if self._ledger.entry(entry.id).state == "running":
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
