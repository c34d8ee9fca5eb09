"""What people see of a run: a progress display on a terminal, plain lines anywhere else."""

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from nst_pipeline.cli.echo import duration
from nst_pipeline.config.pipeline import Config
from nst_pipeline.files import counted, shown
from nst_pipeline.inbox.reading import BEING_WRITTEN
from nst_pipeline.inbox.scanner import some_of
from nst_pipeline.jobs.job import Job
from nst_pipeline.jobs.pace import Pace, known_pace
from nst_pipeline.jobs.planning import Plan
from nst_pipeline.jobs.workload import Workload
from nst_pipeline.manifest.model import JobRecord
from nst_pipeline.runner.observer import Observer, failure
from nst_pipeline.workers.protocol import WorkerState, are_many

LINE_SECONDS = 30.0
"""How often the progress is told where there is no terminal to show it on."""
BARS = 8
"""Workers that have a bar of their own, at most: a terminal has not many lines."""
CANCELLED = 10
"""How many cancelled files are named."""


class Bars:
    """Progress on a console, and lines between; use it as a context manager."""

    def __init__(self, console: Console) -> None:
        """Write to ``console``: bars if it is a terminal, and lines in any case."""
        self._console, self._pace = console, Pace(None)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[loss]}", markup=False),
            TextColumn("{task.fields[left]}", markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._everything = self._progress.add_task("", total=None, visible=False, loss="", left="")
        self._total = self._done = 0
        self._told = time.monotonic()

    def __enter__(self) -> Self:
        """Start the display."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it, leaving only the lines."""
        self._progress.stop()

    def begin(self, total: int, description: str = "") -> None:
        """Show how much there is to do in all, in `step_costs`."""
        self._total, self._done = total, 0
        self._progress.reset(self._everything, total=total, visible=True, description=description)

    def advance(self, done: int) -> None:
        """Show that so much more of it is done; without a terminal, now and then."""
        self._pace.begin()
        self._pace.advance(done)
        self._show(self._done + done, self._pace.all_left_seconds(self._total - self._done - done))

    def _show(self, done: int, seconds: float | None) -> None:
        """Show how much is done, and how long the rest takes."""
        self._done, left = done, _about(seconds)
        self._progress.update(self._everything, completed=done, left=left)
        if not self._console.is_terminal and time.monotonic() - self._told >= LINE_SECONDS:
            self.line(f"working  {self.state()}{left and f'; {left}'}")

    def state(self) -> str:
        """Return how far everything is, for people."""
        return f"{self._done / max(1, self._total):.0%}"

    def line(self, text: str, style: str = "") -> None:
        """Write one line, never folded."""
        self._told = time.monotonic()
        self._console.print(Text(shown(text), style=style), soft_wrap=True, highlight=False)


class Display(Bars, Observer):
    """An observer of a run that writes to a console: bars, and a line a job.

    Attributes:
        jobs: how many there are to do.
        ended: how many of them are over.
        done: jobs that are done.
        failed: jobs that failed, also those of files that are no pictures.
        cancelled: jobs of the plan that a person took out of the queue.
    """

    def __init__(self, console: Console, config: Config, check: Callable[[], None]) -> None:
        """Write to ``console``; ``check`` is called at every step."""
        super().__init__(console)
        self._config, self._check = config, check
        self._current = self._progress.add_task("", total=None, visible=False, loss="", left="")
        self._workers: list[WorkerState] | None = None
        self._bars: list[TaskID] = []
        self._work, self._name = Workload(), ""
        self.jobs = self.done = self.failed = self.cancelled = self.ended = 0
        self._reported: set[tuple[str, str]] = set()
        self._noted: set[str] = set()

    def looked(self, plan: Plan) -> None:
        """Say what was passed over, and what a person took out of the queue."""
        if passed_over := str(plan.passed_over):
            self.line(f"passed   {passed_over}")
        written = [f"{shown(path)}: {BEING_WRITTEN}" for path in plan.palette.arriving]
        for note in some_of([*plan.palette.notes, *written]):
            self.line(f"style    {note}")
        cancelled: dict[Path, list[str]] = {}
        for held in plan.held:
            if held.is_cancelled:
                cancelled.setdefault(held.job.content.path, []).append(held.job.style.name)
        self.cancelled = sum(map(len, cancelled.values()))
        for path, styles in itertools.islice(cancelled.items(), CANCELLED):
            retry = self._config.command("retry", path)
            self.line(
                f"held     {_short(path)} in {', '.join(styles)}: cancelled; `{retry}` puts it back"
            )
        if (more := len(cancelled) - CANCELLED) > 0:
            self.line(f"held     {counted(more, 'more file')}, cancelled likewise")

    def planned(self, plan: Plan) -> None:
        """Say which weights are used, and how much there is to do."""
        self.jobs = len(plan.todo)
        self.line(f"weights  {shown(plan.weights.id)}: {plan.weights.note}")
        self._work.plan(plan.todo, known_pace(self._config, plan.weights))
        self.begin(self._work.left)
        self._count()

    def stepped(self, job: Job, done: int, total: int, loss: float) -> None:
        """Move the bars."""
        self._work.stepped(job, done, total)
        self._show_work()
        if self._workers is not None and are_many(self._workers):
            return
        whole = self._work.cost(job)
        if (name := _name(job)) != self._name:
            self._name = name
            self._progress.reset(self._current, total=whole, visible=True, description=name)
        self._progress.update(
            self._current, completed=self._work.done(job), loss=f"loss {loss:.4g}",
            left=_about(self._work.left_seconds(job)),
        )  # fmt: skip

    def handed_over(self, job: Job) -> None:
        """Note that a worker has a job."""
        self._work.handed_over(job)

    def released(self, job: Job, is_over: bool) -> None:
        """Show how much is left without what a worker was at."""
        self._work.released(job, is_over)
        self._show_work()

    def _show_work(self) -> None:
        self._show(self._total - self._work.left, self._work.all_left_seconds())

    def workers(self, workers: list[WorkerState]) -> None:
        """Show a bar for each worker that is at a job, of many only the first; say if none is."""
        before, self._workers = self._workers, workers
        self._work.use(len(workers))
        if not workers and before is None:
            self.line("waits    for a worker: they are being started")
        elif not workers and before:
            self.line("waits    for a worker: there is none now", "yellow")
        if not are_many(workers):
            return
        self._progress.update(self._current, visible=False)
        at_work = [one for one in workers if one.job]
        while len(self._bars) < min(BARS, len(at_work)):
            self._bars.append(self._progress.add_task("", total=1, loss="", left=""))
        for number, bar in enumerate(self._bars):
            if number >= len(at_work):
                self._progress.update(bar, visible=False)
                continue
            one = at_work[number]
            assert one.job
            where = shown(one.node or one.name)
            self._progress.update(
                bar, description=f"{where}: {_name(one.job)}", visible=True,
                completed=one.done, total=max(1, one.total),
            )  # fmt: skip
        self._count()

    def state(self) -> str:
        """Return how far everything is, for people."""
        who = self._name
        if self._workers is not None and are_many(self._workers):
            who = counted(len(self._workers), "worker")
        return f"{who}: {super().state()} of {counted(self.jobs, 'job')}"

    def finished(self, record: JobRecord) -> None:
        """Write the job's line; a file that fails for all styles alike gets one."""
        self.done += record.error is None
        self.failed += record.error is not None
        key = record.content.path, record.style.name
        self.ended += key in self._work
        self._work.over(key)
        self._show_work()
        self._count()
        for note in record.notes:
            if note not in self._noted:
                self.line(f"note     {note}")
            self._noted.add(note)
        if record.error:
            reported = (record.content.place, record.error.reason)
            if reported not in self._reported:
                self.line(f"failed   {failure(record)}", "red")
            self._reported.add(reported)
        elif record.output and record.duplicate_of:
            self.line(
                f"done     {_short(record.content.path)} in {record.style.name} -> "
                f"{_short(record.output.path)}  {_known(record)}"
            )
        elif record.output and record.losses:
            start, end = record.losses["start"].total, record.losses["end"].total
            self.line(
                f"done     {_short(record.content.path)} in {record.style.name} -> "
                f"{_short(record.output.path)}  {record.seconds:.1f} s, "
                f"loss {start:.4g} -> {end:.4g}"
            )

    def delivers(self, waiting: int) -> None:
        """Say what is waited for."""
        left = counted(waiting, "delivery")
        self.line(f"hooks    waiting for {left}; Ctrl-C leaves that to the next run")

    def undelivered(self, waiting: int) -> None:
        """Say what hooks are still to be told."""
        if waiting:
            left = counted(waiting, "delivery")
            why = f"`{self._config.command('status')}` says why"
            self.line(f"hooks    {left} left to the next run; {why}", "yellow")

    def check(self) -> None:
        """End the work if somebody asked for it."""
        self._check()

    def _count(self) -> None:
        description = f"{self.ended} of {counted(self.jobs, 'job')}"
        if self._workers is not None and are_many(self._workers):
            at_work = sum(one.job is not None for one in self._workers)
            description += f", {at_work} of {counted(len(self._workers), 'worker')} at work"
        self._progress.update(self._everything, description=description)


def _name(job: Job) -> str:
    return f"{shown(job.content.path.name)} in {job.style.name}"


def _about(seconds: float | None) -> str:
    """Return how long something still takes, for people; empty: nobody knows."""
    return "" if seconds is None else f"about {duration(seconds)} left"


def _known(record: JobRecord) -> str:
    """Say where a result that was not painted is from."""
    assert record.output and record.duplicate_of
    if record.duplicate_of == record.output.path:
        return "there already"
    return f"same as {_short(record.duplicate_of)}"


def _short(path: object) -> str:
    """Return a path for people, relative to the working folder where that is shorter."""
    return shown(str(path).removeprefix(f"{Path.cwd()}/"))
