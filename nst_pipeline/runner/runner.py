"""The orchestrator: scan, plan, paint, publish, record. A failed job never stops the others.

Whatever happens to the process, the ledger says how far each job came, and the next run goes on
from there: `commit` and `disposal` hold the two protocols, `recovery` is the way back in.
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from nst_pipeline.config.pipeline import Config
from nst_pipeline.errors import (
    DeviceLostError,
    PipelineError,
)
from nst_pipeline.files import shown
from nst_pipeline.inbox import reading
from nst_pipeline.inbox.scanner import Scan, Scanner
from nst_pipeline.jobs.ledger import Ledger
from nst_pipeline.jobs.outcome import Failure
from nst_pipeline.jobs.planning import Broken, Plan, ledger_path, make_plan, make_scanner
from nst_pipeline.manifest import records
from nst_pipeline.manifest.model import LISTED_SKIPPED, Recorder
from nst_pipeline.manifest.records import resolved
from nst_pipeline.runner.dispatcher import Dispatcher, MakeExecutor
from nst_pipeline.runner.disposal import Settler
from nst_pipeline.runner.journal import Journal
from nst_pipeline.runner.observer import Hooks, Listener
from nst_pipeline.runner.recovery import recover

__all__ = [
    "Hooks", "Listener", "MakeExecutor", "Plan", "ledger_path", "make_plan", "resolved",
    "run_once", "run_standing",
]  # fmt: skip

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
        self._config, self._ledger, self._hooks = config, ledger, hooks
        self._dispatcher = Dispatcher(
            config, ledger, make_executor, self._journal, listener, hooks, scanner
        )

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
            with contextlib.closing(self._dispatcher):
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
        unsettled = [Broken(f, f"{shown(f.path)}: {reading.BEING_WRITTEN}") for f in plan.waiting]
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
        settler = None if paths else Settler(self._config, self._ledger, plan)
        self._dispatcher.paint(plan, settler, force)
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
        settler = Settler(self._config, self._ledger, plan, scanner)
        hopeless = settler.hopeless()
        if plan.todo or hopeless:
            self._journal.begin(plan)
        for broken in hopeless:
            settler.give_up_broken(broken)
            for style in plan.styles:
                self._journal.finish(records.broken(broken, style))
        self._dispatcher.paint(plan, settler)
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
            self._dispatcher.put_back(str(error) if isinstance(error, DeviceLostError) else "")
            if not self._ledger.entries("state = 'committing'"):
                self._journal.close("stopped")
            # Otherwise the next start looks at what became of it.
