"""Tells everybody what a daemon does: the log, `status`, systemd, Prometheus, the live page."""

import logging
import time
from collections.abc import Mapping
from typing import Any, Literal

from nst_pipeline.config.hooks import Event
from nst_pipeline.config.pipeline import Config
from nst_pipeline.daemon.live import Live
from nst_pipeline.daemon.logs import about
from nst_pipeline.daemon.metrics import Metrics
from nst_pipeline.daemon.notifier import Notifier
from nst_pipeline.daemon.status import StatusFile
from nst_pipeline.files import as_text, counted, shown
from nst_pipeline.inbox.patience import Waiting
from nst_pipeline.inbox.scanner import some_of
from nst_pipeline.jobs.job import Job
from nst_pipeline.jobs.outcome import Machine, Place
from nst_pipeline.jobs.pace import known_pace
from nst_pipeline.jobs.palette import Palette
from nst_pipeline.jobs.planning import Plan
from nst_pipeline.manifest.model import JobRecord
from nst_pipeline.runner.deliverer import Outcome
from nst_pipeline.runner.observer import Observer, failure
from nst_pipeline.runner.pruning import Kept
from nst_pipeline.workers.protocol import Glimpse, WorkerState, are_many

log = logging.getLogger(__name__)


class Reporter(Observer):
    """An observer of runs that reports without a terminal.

    Attributes:
        config: the settings, as they were read last.
        is_ready: whether the service manager was told that the daemon works.
        metrics: the figures for Prometheus.
        live: what the live page shows.
    """

    def __init__(self, config: Config, notifier: Notifier) -> None:
        """Report nothing yet."""
        self.config, self._notifier = config, notifier
        self._file = StatusFile(config.state)
        self.metrics, self.live = Metrics(config.metrics), Live()
        self._queue = self._backlog = self._arriving = 0
        self._passed_over: dict[str, int] = {}
        self._state, self._is_stopping, self._error_kind = "", False, "job"
        self._trouble = ""
        self._told: set[str] = set()
        self._reported: set[tuple[str, str]] = set()
        self._noted: set[str] = set()
        self._left_out: list[str] = []
        self._workers: list[WorkerState] | None = None
        self._had_workers = False
        self._machines: dict[Place, Machine] = {}
        self.is_ready = False

    # What the daemon does

    def ready(self) -> None:
        """Report, once, that the daemon has begun to work."""
        if not self.is_ready:
            self.is_ready = True
            self._notifier.tell(READY=1)

    def alive(self) -> None:
        """Report real progress."""
        self._notifier.alive()
        self.live.beat()

    def looks(self) -> None:
        """Report progress: reading many files that are new may take long."""
        self._notifier.alive()
        self.live.beat()

    def state(self, state: str, detail: str = "", level: int = logging.INFO) -> None:
        """Report what the daemon does from now on: idle, painting, paused, waiting or stopping."""
        text = f"{state}: {detail}" if detail else state
        if text == self._state:
            return
        self._state = text
        self.live.state(state, detail)
        if state in ("paused", "waiting", "stopping"):
            log.log(level, "%s", text)
        queue = f", {counted(self._queue, 'job')} in the queue" if state == "painting" else ""
        self._notifier.status(text + queue)
        self._file.set(state=state, detail=detail, current=None, since=time.time())
        self.metrics.up(state not in ("paused", "waiting"))
        self.metrics.write(now=True)

    def ends(self, seconds: Mapping[str, Any]) -> None:
        """Report how long it may take until the daemon ends once it is told to."""
        self._file.set(**seconds)

    def stopping(self, seconds: float) -> None:
        """Report that what is at work is the last that is."""
        if not self._is_stopping:
            what = "what is at work" if self._has_many() else "the job at work"
            self.state("stopping", f"{what} may go on for {seconds:.0f} s")
            self._is_stopping = True
        self._notifier.extend()

    def error(self, reason: str, kind: Literal["settings", "trouble"]) -> None:
        """Report what is no job's fault: wrong settings, or trouble that the daemon waits out.

        Trouble that lasts is logged once.
        """
        if (kind, reason) != ("trouble", self._trouble):
            log.error("%s", reason)
        self._trouble = reason if kind == "trouble" else self._trouble
        self._last_error(reason, kind)

    def mended(self, kind: Literal["settings", "trouble"]) -> None:
        """Report that such an error is one no more, if it was the last."""
        self._trouble = "" if kind == "trouble" else self._trouble
        if self._error_kind == kind:
            self._error_kind = "job"
            self._file.set(last_error=None)

    def _last_error(self, reason: str, kind: str) -> None:
        self._error_kind = kind
        self._file.set(last_error={"reason": reason, "time": time.time()})

    def looked(self, plan: Plan) -> None:
        """Report a finished scan."""
        self.alive()
        self._arriving = len(plan.arriving) + len(plan.palette.arriving)
        self._styles(plan.palette)
        self._backlog = plan.more * len(plan.styles)
        self.live.looked(plan)
        counts = plan.passed_over.counts()
        self._file.set(now=counts != self._passed_over, passed_over=counts)
        self._passed_over = counts
        self._count()
        if plan.todo or plan.arriving or not self._state:
            self._file.write()

    def _styles(self, palette: Palette) -> None:
        """Report which styles there are, and why others are not."""
        before = set(self._left_out)
        for note in some_of([note for note in palette.notes if note not in before]):
            log.warning("%s", note)
        is_new = palette.notes != self._left_out
        self._left_out = palette.notes
        self._file.set(now=is_new, styles=len(palette.styles), left_out=palette.notes)

    def queued(self, jobs: int) -> None:
        """Report the length of the queue, with what no plan has come to yet."""
        self._queue = jobs + self._backlog
        self._count()

    def waits(self, files: list[Waiting]) -> None:
        """Report what waits, and what for."""
        for one in files:
            if one.kind != "refused" and one.reason not in self._told:
                log.warning("%s; tried again in %.0f s", shown(one.reason), one.seconds)
        self._told = {one.reason for one in files}
        now = time.time()
        waiting = [
            {"path": as_text(one.path), "reason": one.reason, "next_try": now + one.seconds}
            for one in files
        ]
        self._file.set(waiting=waiting)

    def noted(self, machine: Machine) -> None:
        """Report what is painted on."""
        self._machines[machine.place] = machine
        known = self._machines.values()
        cache = {
            "hits": sum(one.cache_hits for one in known),
            "misses": sum(one.cache_misses for one in known),
            "bytes": sum(one.cache_bytes for one in known),
        }
        memory = [one.memory_bytes for one in known if one.memory_bytes is not None]
        device = ", ".join(dict.fromkeys(one.device for one in known))
        memory_bytes = sum(memory) if memory else None
        self._file.set(now=False, device=device, memory_bytes=memory_bytes, cache=cache)
        self.live.runs_on(device)
        self.metrics.cache(cache, memory_bytes)

    def workers(self, workers: list[WorkerState]) -> None:
        """Report what the workers do, and that there are none."""
        had_none = self._workers == []
        self._had_workers |= bool(workers)
        names = {one.name for one in workers}
        self._machines = {
            p: one for p, one in self._machines.items() if not one.worker or one.worker in names
        }
        self._workers = workers
        self._file.set(now=bool(workers) == had_none, workers=[_plain(one) for one in workers])
        self.live.workers(workers)
        self.metrics.workers(workers)
        if not workers and not self._is_stopping:
            if self._had_workers:
                self.state("waiting", "for a worker: there is none now", logging.WARNING)
            else:
                self.state("waiting", "for a worker: they are being started")

    def closed(self) -> None:
        """Report no workers any more."""
        self._workers, self._had_workers = None, False
        self._machines.clear()
        self._file.set(workers=[])
        self.metrics.workers([])

    def _has_many(self) -> bool:
        return self._workers is not None and are_many(self._workers)

    def kept(self, kinds: Mapping[str, Kept]) -> None:
        """Report how much is kept of what piles up."""
        self.metrics.kept(kinds)

    def timed(self, stage: str, seconds: float) -> None:
        """Report how long a stage took."""
        self.metrics.stage(stage, seconds)

    def delivered(self, event: Event, outcome: Outcome, waiting: int) -> None:
        """Count an attempt to tell a hook; the couriers log what went wrong themselves."""
        self.metrics.delivery(event, outcome, waiting)
        self.metrics.write(now=True)

    def close(self, is_ours: bool = True) -> None:
        """Report the end; unless the state folder is still ours, another may report in it."""
        if is_ours:
            self._file.remove()
        self.metrics.up(False)
        self.metrics.write(now=True)

    # What a run does

    def planned(self, plan: Plan) -> None:
        """Report how much there is to do."""
        if plan.todo:
            jobs = counted(len(plan.todo), "job")
            log.info("%s to do with weights %s", jobs, shown(plan.weights.id))
        self._reported.clear()
        self.live.planned(plan, known_pace(self.config, plan.weights))

    def wants_glimpse(self) -> bool:
        """Ask for a glimpse now and then, while somebody looks at the live page."""
        return self.live.wants_glimpse()

    def glimpsed(self, job: Job, glimpse: Glimpse) -> None:
        """Show a glimpse."""
        self.live.glimpsed(job, glimpse)

    def handed_over(self, job: Job) -> None:
        """Show how long the queue takes, with a job that a worker has ready."""
        self.live.handed_over(job)

    def released(self, job: Job, is_over: bool) -> None:
        """Show that nobody works at a job any more."""
        self.live.released(job, is_over)

    def stepped(self, job: Job, done: int, total: int, loss: float) -> None:
        """Report the progress of a job."""
        self._notifier.alive()
        name = f"{shown(job.content.path.name)} in {job.style.name}"
        if done == 1:
            log.debug("begun %s", name, extra=about(job))
        has_many = self._has_many()
        if not self._is_stopping:
            count = len(self._workers or ())
            self.state("painting", f"with {counted(count, 'worker')}" if has_many else name)
        current = about(job) | {"iteration": done, "iterations": total, "loss": loss}
        self._file.set(now=done == 1 and not has_many, current=current)
        self.live.stepped(job, done, total, loss)

    def finished(self, record: JobRecord) -> None:
        """Report the end of a job."""
        extra = {
            "job": (record.key or "")[:12], "content": record.content.path,
            "style": record.style.name,
        }  # fmt: skip
        name = f"{shown(record.content.path)} in {record.style.name}"
        if record.error:
            self._failed(record, extra)
        elif record.output and record.duplicate_of:
            is_it = record.duplicate_of == record.output.path
            known = "there already" if is_it else f"as {shown(record.duplicate_of)}"
            log.info("done %s -> %s, %s", name, shown(record.output.path), known, extra=extra)
        elif record.output and record.losses:
            start, end = record.losses["start"].total, record.losses["end"].total
            log.info(
                "done %s -> %s in %.1f s, loss %.4g -> %.4g",
                name, shown(record.output.path), record.seconds, start, end, extra=extra,
            )  # fmt: skip
        for note in record.notes:
            if note not in self._noted:
                log.warning("%s", note, extra=extra)
            self._noted.add(note)
        self.live.finished(record)
        done = "duplicate" if record.duplicate_of else "done"
        self.metrics.job("failed" if record.error else done)
        self.metrics.write()

    def _failed(self, record: JobRecord, extra: dict[str, str]) -> None:
        assert record.error
        # A file that fails for all styles alike is told once.
        reported = (record.content.place, record.error.reason)
        if reported not in self._reported:
            log.error("failed %s", failure(record), extra=extra)
            if record.error.trace:
                log.debug("%s", record.error.trace, extra=extra)
        self._reported.add(reported)
        self._last_error(record.error.reason, "job")

    def _count(self) -> None:
        self._file.set(now=False, backlog=self._backlog, arriving=self._arriving)
        self.metrics.queue(self._queue)
        self.metrics.write()


def _plain(worker: WorkerState) -> dict[str, Any]:
    """Return a worker as plain data."""
    fields = {k: v for k, v in vars(worker).items() if k not in ("job", "done", "total")}
    job = worker.job and about(worker.job)
    return fields | {"job": job, "iteration": worker.done, "iterations": worker.total}
