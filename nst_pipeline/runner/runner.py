"""The runner: look, plan, queue, dispatch, dispose, record, once or as long as a daemon lives.

Whatever happens to the process, the ledger says how far each job came, and the next run goes on
from there: `publishing` and `moves` hold the two protocols.
"""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from nst_pipeline.config.pipeline import Config
from nst_pipeline.config.weights import Weights
from nst_pipeline.errors import DeviceLostError, PipelineError, UnavailableError
from nst_pipeline.files import ensure_folder, shown
from nst_pipeline.folders import Folders
from nst_pipeline.inbox.patience import LOOKS_NAME, STYLE_LOOKS_NAME, Patience
from nst_pipeline.inbox.reading import BEING_WRITTEN
from nst_pipeline.inbox.scanner import Scan, Scanner
from nst_pipeline.inbox.style_folders import StyleFolders
from nst_pipeline.jobs.ledger import DatabaseError, Ledger, ledger_path
from nst_pipeline.jobs.outcome import Failure, Machine, Place
from nst_pipeline.jobs.planning import (
    RUN,
    WATCH,
    Broken,
    Plan,
    Policy,
    make_plan,
    make_scanner,
)
from nst_pipeline.jobs.state import IN_QUEUE, Entry, JobState
from nst_pipeline.manifest import records
from nst_pipeline.manifest.model import JobRecord
from nst_pipeline.manifest.recorder import Ending, Recorder, rebuild
from nst_pipeline.runner import moves, publishing
from nst_pipeline.runner.deliverer import Deliverer
from nst_pipeline.runner.dispatcher import Dispatcher
from nst_pipeline.runner.disposal import Disposal
from nst_pipeline.runner.hooks import Notes, settle
from nst_pipeline.runner.observer import Observer
from nst_pipeline.runner.pruning import prune
from nst_pipeline.workers.protocol import Executor, MakeExecutor

if TYPE_CHECKING:
    from nst_pipeline.gallery.keeper import Keeper

log = logging.getLogger(__name__)

PATIENCE = 5
"""How many times ``settle_seconds`` a run waits for files that still change."""
BATCH_JOBS = 1000
"""After so many jobs the manifest of a daemon's run is closed, and the next begun."""
DELIVERY_SECONDS = 60.0
"""How long `Runner.run` waits at its end for hooks to be told."""
PROMPT_SECONDS = 2.0
"""How long it does so before anybody is told that it waits."""


class Runner:
    """Carries out what there is to do, by one executor that lives as long; a context manager.

    Attributes:
        machines: what the executor's workers told last of what they run on.
        outlives_workers: whether its last executor does; then it is made anew once it is lost.
    """

    def __init__(self, config: Config, make_executor: MakeExecutor, observer: Observer) -> None:
        """Begin nothing.

        Args:
            config: the settings.
            make_executor: makes what paints, for the first content to paint.
            observer: told of the progress, and asked whether to go on.
        """
        self._config, self._make_executor, self._observer = config, make_executor, observer
        self._executor: tuple[Weights, Executor] | None = None
        self.machines: dict[Place, Machine] = {}
        self.outlives_workers = False
        self._patience = Patience(
            config.watch.retry_seconds, config.state / LOOKS_NAME, observer.looks
        )
        self._deliverer = Deliverer(config, observer.delivered)
        self._style_folders = StyleFolders(
            config,
            patience=Patience(
                config.watch.retry_seconds, config.state / STYLE_LOOKS_NAME, observer.looks
            ),
        )
        self._gallery = _keeper(config)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        """End whatever the executor and the hooks do."""
        self.close()

    def close(self) -> None:
        """End whatever the executor and the hooks do."""
        self._close_executor()
        self._deliverer.close()
        if self._gallery:
            self._gallery.close()

    def _close_executor(self) -> None:
        if self._executor:
            self._executor[1].close()
            self._observer.closed()
        self._executor = None
        self.machines.clear()

    def run(self, paths: list[Path] | None = None, force: bool = False) -> Recorder:
        """Paint everything that is not painted yet, and return the run's record.

        The manifest is also written to the outbox, anew after each job, unless there was nothing
        to do. A job that fails is in it with its reason. Only one process at a time may do this
        with a state folder (see `lock`).

        Args:
            paths: files and folders to paint in place of the inbox.
            force: paint also what is done already.

        Raises:
            InboxGoneError, ConfigError, UnreadableError, UsageError: see `make_plan`.
            UnavailableError: no weights or device as asked.
            CannotCreateError: the outbox or the state folder cannot be written to.
            OutputError: the outbox or the ledger cannot be written to.
            DiskFullError: for want of space, be it that ``limits.min_free_bytes`` would be used.
            DeviceLostError: the device broke; only a new process can paint again.
        """
        scanner = make_scanner(self._config, paths)
        with self._begun(scanner, RUN) as run:
            recorder = run.do_all(force, are_sources_ours=not paths)
        if self._config.hooks:
            self._finish_deliveries()
        if self._gallery:
            self._gallery.finish(self._observer.check)
        return recorder

    def _finish_deliveries(self) -> None:
        with Ledger(ledger_path(self._config.state), is_relaxed=True) as ledger:
            check = self._observer.check
            if left := self._deliverer.wait(ledger, PROMPT_SECONDS, check):
                self._observer.delivers(left)
                self._deliverer.wait(ledger, DELIVERY_SECONDS, check)
            # What is at work has its own limit: ended by ours, it might never come to its end.
            self._deliverer.finish(lambda: math.inf)
            self._deliverer.close()
            self._observer.undelivered(ledger.deliveries.waiting())

    def run_standing(self, scanner: Scanner) -> None:
        """Do as `run` does, for a daemon: until the inbox has nothing left to do.

        What may pass is tried again later (``observer.due`` is told when); what is given up is
        moved to the failed folder.

        Args:
            scanner: made by `planning.make_scanner`, and kept from call to call.

        Raises:
            PipelineError: as `run`.
        """
        with self._begun(scanner, WATCH) as run:
            while run.go_on():
                pass

    def deliver(self) -> None:
        """Begin to tell hooks what they are still to be told; nothing happens the second time.

        Raises:
            CannotCreateError: the ledger cannot be opened.
        """
        if not self._deliverer.has_begun:
            with Ledger(ledger_path(self._config.state), is_relaxed=True) as ledger:
                self._deliverer.begin(ledger)

    def is_delivering(self) -> bool:
        """Tell whether a hook is told something at this moment."""
        return self._deliverer.is_at_work()

    def end_deliveries(self, grace_seconds: Callable[[], float]) -> None:
        """Begin to tell no hook any more, and let those at work end while there is grace."""
        self._deliverer.finish(grace_seconds)

    @contextlib.contextmanager
    def _begun(self, scanner: Scanner, policy: Policy) -> Iterator["_Run"]:
        """Put in order what a killed process left; leave nothing in flight, whatever happens."""
        with Ledger(ledger_path(self._config.state), is_relaxed=True) as ledger:
            notes = Notes(self._config, ledger, self._deliverer.wake)
            recover(self._config, ledger, notes if policy.retries else None)
            settle(ledger)
            self._deliverer.begin(ledger)
            self._deliverer.wake()
            run = _Run(
                self, ledger, self._config, self._observer, scanner, policy, self._patience,
                self._style_folders, notes, self._gallery.note if self._gallery else _nothing,
            )  # fmt: skip
            try:
                yield run
                run.finish()
            except BaseException as error:
                # An executor that is out of reach is made anew by the next run.
                has_work = run.has_jobs_in_flight() or isinstance(error, UnavailableError)
                run.stop(error)  # first, for a second signal may end the wait for the executor
                if has_work:
                    self._close_executor()  # nobody waits any more for what it still does
                raise
            run.end("finished")
            self.tidy(ledger)

    def tidy(self, ledger: Ledger) -> None:
        """Do what is done now and then, after some jobs: the gallery, and what piled up."""
        if self._gallery:
            self._gallery.look()
        self._observer.kept(prune(self._config, ledger.jobs.keys(*IN_QUEUE)))

    def executor_for(self, weights: Weights) -> Executor:
        """Return the executor; a new one for other weights than before."""
        if self._executor and self._executor[0] != weights:
            self._close_executor()
        if self._executor is None:
            self._executor = weights, self._make_executor(self._config, weights)
            self.outlives_workers = self._executor[1].outlives_workers
        return self._executor[1]


class _Run:
    """One run at work."""

    def __init__(
        self,
        runner: Runner,
        ledger: Ledger,
        config: Config,
        observer: Observer,
        scanner: Scanner,
        policy: Policy,
        patience: Patience,
        style_folders: StyleFolders,
        notes: Notes,
        on_record: Callable[[JobRecord], None],
    ) -> None:
        self._on_record = on_record
        self._runner, self._ledger, self._config = runner, ledger, config
        self._style_folders = style_folders
        self._observer, self._scanner, self._policy = observer, scanner, policy
        self._folders, self._patience = folders_of(config, ledger), patience
        self._notes = notes
        self._dispatcher = Dispatcher(
            config, ledger, self._folders, observer, policy, scanner, patience, notes
        )
        self._recorder: Recorder | None = None
        self._recorded = ""

    def do_all(self, force: bool, are_sources_ours: bool) -> Recorder:
        """Do everything there is to do now; return the record of it."""
        plan = self._plan(force, self._await_stable())
        recorder = self._recorder_of(plan)
        skipped = (records.skipped(job, self._ledger.jobs.get(job.entry)) for job in plan.done)
        recorder.skip(skipped, len(plan.done))
        unstable = [Broken(f, f"{shown(f.path)}: {BEING_WRITTEN}") for f in plan.arriving]
        poisonous = [held for held in plan.held if held.entry.state == JobState.FAILED]
        if plan.todo or plan.broken or unstable or poisonous:
            self._begin(plan)
        for broken in (*plan.broken, *unstable):
            self._record_broken(broken, plan)
        for held in poisonous:
            config, name = self._config, held.job.content.path
            retry = f"`{config.command('retry', name)}`" if config.has_file else "--force"
            reason = f"{held.reason}; {retry} has it tried again"
            self._record(records.failed(held.job, Failure(reason)), held.entry.id)
        disposal = self._disposal(plan) if are_sources_ours else None
        if disposal:
            disposal.leave_broken()
        self._dispatcher.carry_out(plan, self._runner.executor_for, recorder, disposal, force)
        return recorder

    def go_on(self) -> bool:
        """Look once, do what there is to do; return whether to look again at once."""
        try:
            plan = self._plan()
        except PipelineError:
            self.finish()  # it is no reason to lose what is at work
            raise
        disposal = self._disposal(plan)
        given_up = disposal.broken_for_good()
        told = [b for b in given_up if not self._patience.tries(b.found, "disposal")]
        is_recorded = self._recorder is not None and self._recorder.is_open
        if plan.todo or told or (self.has_jobs_in_flight() and not is_recorded):
            self._begin(plan)
        for broken in given_up:
            if broken in told:
                self._record_broken(broken, plan)
            disposal.give_up_broken(broken)
        self._dispatcher.carry_out(plan, self._runner.executor_for, self._recorder, disposal)
        self._observer.waits(self._patience.waiting())
        if self._observer.should_stop():
            return False
        is_batch = self._recorder is not None and self._recorder.count >= BATCH_JOBS
        if self.has_jobs_in_flight():
            if is_batch:
                self._end_batch()
            return True
        if is_batch:
            self._observer.due(0)
            return False
        if not (plan.todo or plan.more) and (wait := disposal.next_due()) is not None:
            self._observer.due(wait)
        return bool(plan.todo or plan.more)

    def has_jobs_in_flight(self) -> bool:
        """Tell whether a worker has something to do for this run."""
        return self._dispatcher.has_jobs_in_flight()

    def stop(self, error: BaseException) -> None:
        """Put everything in flight back, and write the manifest's end."""
        # The first error is the one to tell.
        with contextlib.suppress(PipelineError, OSError, DatabaseError):
            self._dispatcher.put_back(str(error) if isinstance(error, DeviceLostError) else "")
            if not self._ledger.jobs.in_state(JobState.COMMITTING):
                if self._recorder and isinstance(error, UnavailableError):
                    self._recorder.drop_empty()  # or each try would leave a manifest
                self.end("stopped")
            # Otherwise the next start looks at what became of it.

    def _end_batch(self) -> None:
        """Close the manifest while workers go on: the next takes in what they make."""
        assert self._recorder
        self._recorder.end("finished")
        self._recorder = None
        self._runner.tidy(self._ledger)

    def finish(self) -> None:
        """Wait for what is at work."""
        self._dispatcher.finish()

    def end(self, status: Ending) -> None:
        """Record the run's end, with everything in order."""
        if self._recorder:
            self._recorder.end(status)
        self._ledger.set_fact("clean", "yes")

    def _await_stable(self) -> Scan:
        """Wait, for some time, until no file changes any more, nor any image of a style."""
        deadline = time.monotonic() + PATIENCE * self._config.watch.settle_seconds
        while True:
            styles, scan = self._style_folders.find(), self._scanner.scan()
            waits = [one.wait_seconds for one in (styles, scan) if one.wait_seconds is not None]
            if not waits or time.monotonic() + max(waits) > deadline:
                return scan
            self._observer.wait(max(waits) + 0.01)

    def _plan(self, force: bool = False, scan: Scan | None = None) -> Plan:
        """Make a plan, and queue its jobs."""
        plan = make_plan(
            self._config, self._ledger, self._scanner, self._policy, force, scan, self._patience,
            self._style_folders,
        )  # fmt: skip
        self._ledger.jobs.drop(plan.stale)
        self._ledger.jobs.add(plan.todo, force)
        self._observer.looked(plan)
        self._observer.queued(self._ledger.jobs.queue_length())
        return plan

    def _disposal(self, plan: Plan) -> Disposal:
        return Disposal(
            self._config, self._ledger, self._folders, plan, self._scanner, self._policy,
            self._patience,
        )  # fmt: skip

    def _recorder_of(self, plan: Plan) -> Recorder:
        if self._recorder and plan.digest != self._recorded:  # there may be other styles by now
            self._recorder.add_styles(records.resolved(plan.palette.config)["styles"])
        if self._recorder is None:
            settings = records.resolved(plan.palette.config)
            self._recorder = Recorder(
                self._config.outbox,
                plan.weights,
                settings,
                self._ledger.runs,
                self._folders,
                self._runner.machines,
                self._on_record,
            )
            self._notes.manifest = self._recorder.path
        self._recorded = plan.digest
        return self._recorder

    def _begin(self, plan: Plan) -> None:
        """Note that from now on there is something to put in order if we are killed.

        Raises:
            CannotCreateError, OutputError: the outbox cannot be written to.
        """
        recorder = self._recorder_of(plan)
        if not recorder.is_open:
            ensure_folder(self._config.outbox)
            self._ledger.set_fact("clean", "no")
            recorder.begin()
        self._observer.planned(plan)

    def _record_broken(self, broken: Broken, plan: Plan) -> None:
        for style in plan.palette.of(broken.found):
            self._record(records.broken(broken, style))

    def _record(self, record: JobRecord, job: int | None = None) -> None:
        assert self._recorder
        self._recorder.finish(record)
        self._notes.release(job, record)
        self._observer.finished(record)


def _nothing(_: JobRecord) -> None:
    """Tell nobody of a job."""


def _keeper(config: Config) -> "Keeper | None":
    if not config.output.gallery:
        return None
    # Here, because nobody else needs the library.
    from nst_pipeline.gallery.keeper import Keeper

    return Keeper(config)


def folders_of(config: Config, ledger: Ledger) -> Folders:
    """Return the pipeline's folders."""
    return Folders(config.roots, ledger.owner())


def recover(config: Config, ledger: Ledger, notes: Notes | None) -> None:
    """Bring to order what a killed process left; costs nothing where the last one ended well.

    Args:
        config: the settings.
        ledger: the ledger.
        notes: told of the jobs that are given up for it; None: the run to come tells of them.

    Raises:
        CannotCreateError, OutputError: the outbox or the state folder cannot be written to.
    """
    # A ledger whose last write failed may have kept it after all: then a job is at work for nobody.
    interrupted = ledger.jobs.in_state(JobState.RUNNING, JobState.COMMITTING)
    if ledger.fact("clean") != "no" and not interrupted and not ledger.files.intended():
        return
    folders = folders_of(config, ledger)
    limit = None if ledger.fact("workers") == "apart" else config.watch.max_attempts

    def note(entry: Entry, reason: str) -> None:
        if notes:
            notes.prepare(entry.id, records.lost(entry, reason))

    publishing.recover(ledger.jobs, folders, config.conflict_policy, limit, log.warning, note)
    moves.recover(ledger, folders)
    private = Folders((config.state,))
    shared = [(folders, place) for place in (config.outbox, config.processed, config.failed)]
    for own, folder in ((private, config.state), *shared):
        if removed := own.remove_temporaries(folder):
            log.warning("%s: removed %d unfinished files", shown(folder), removed)
    for path in rebuild(ledger.runs, folders):
        log.warning("%s: completed from the ledger", shown(path))
    ledger.set_fact("clean", "yes")
