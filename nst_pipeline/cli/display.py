"""What people see of a run: a progress display on a terminal, plain lines anywhere else."""

from collections.abc import Callable
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from nst_pipeline.files import shown
from nst_pipeline.inbox.reading import BEING_WRITTEN
from nst_pipeline.inbox.scanner import some_of
from nst_pipeline.jobs.job import Job
from nst_pipeline.jobs.planning import Plan
from nst_pipeline.jobs.state import JobState
from nst_pipeline.manifest.model import JobRecord
from nst_pipeline.runner.observer import Observer, failure


class Bars:
    """Progress on a console, and lines between; use it as a context manager."""

    def __init__(self, console: Console) -> None:
        """Write to ``console``: bars if it is a terminal, and lines in any case."""
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}", markup=False),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._everything = self._progress.add_task("", total=None, visible=False, loss="")

    def __enter__(self) -> Self:
        """Start the display."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it, leaving only the lines."""
        self._progress.stop()

    def begin(self, steps: int, description: str = "") -> None:
        """Show how many steps there are in all."""
        self._progress.reset(self._everything, total=steps, visible=True, description=description)

    def advance(self, steps: int) -> None:
        """Show that so many more of them are done."""
        self._progress.advance(self._everything, steps)

    def line(self, text: str, style: str = "") -> None:
        """Write one line, never folded."""
        self._console.print(Text(shown(text), style=style), soft_wrap=True, highlight=False)


class Display(Bars, Observer):
    """An observer of a run that writes to a console: bars, and a line a job.

    Attributes:
        cancelled: jobs of the plan that a person took out of the queue.
    """

    def __init__(self, console: Console, check: Callable[[], None]) -> None:
        """Write to ``console``; ``check`` is called at every step."""
        super().__init__(console)
        self._check = check
        self._current = self._progress.add_task("", total=None, visible=False, loss="")
        self._jobs = self._ended = self._total = self.cancelled = 0
        self._steps: dict[Path, int] = {}
        self._reported: set[tuple[str, str]] = set()
        self._noted: set[str] = set()

    def looked(self, plan: Plan) -> None:
        """Say what was passed over, and count the jobs that a person took out of the queue."""
        if passed_over := str(plan.passed_over):
            self.line(f"passed   {passed_over}")
        written = [f"{shown(path)}: {BEING_WRITTEN}" for path in plan.palette.arriving]
        for note in some_of([*plan.palette.notes, *written]):
            self.line(f"style    {note}")
        self.cancelled = sum(held.entry.state == JobState.CANCELLED for held in plan.held)

    def planned(self, plan: Plan) -> None:
        """Say which weights are used, and how much there is to do."""
        self.line(f"weights  {shown(plan.weights.id)}: {plan.weights.note}")
        self._jobs = len(plan.todo)
        steps = sum(job.style.recipe.steps for job in plan.todo)
        self._total = steps
        self.begin(steps)
        self._count()

    def stepped(self, job: Job, done: int, total: int, loss: float) -> None:
        """Move the bars."""
        if job.output not in self._steps:
            self._total += total - job.style.recipe.steps  # which may be the most, not the true one
            self._progress.update(self._everything, total=self._total)
            title = f"{shown(job.content.path.name)} in {job.style.name}"
            self._progress.reset(
                self._current, total=total, visible=True, description=title, loss=""
            )
        self.advance(done - self._steps.get(job.output, 0))
        self._steps[job.output] = done
        self._progress.update(self._current, completed=done, loss=f"loss {loss:.4g}")

    def finished(self, record: JobRecord) -> None:
        """Write the job's line; a file that fails for all styles alike gets one."""
        self._ended += record.key is not None
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

    def check(self) -> None:
        """End the work if somebody asked for it."""
        self._check()

    def _count(self) -> None:
        description = f"{self._ended} of {self._jobs} jobs"
        self._progress.update(self._everything, description=description)


def _known(record: JobRecord) -> str:
    """Say where a result that was not painted is from."""
    assert record.output and record.duplicate_of
    if record.duplicate_of == record.output.path:
        return "there already"
    return f"same as {_short(record.duplicate_of)}"


def _short(path: str) -> str:
    """Return a path for people, relative to the working folder where that is shorter."""
    return shown(path.removeprefix(f"{Path.cwd()}/"))
