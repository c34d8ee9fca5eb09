"""The orchestrator: scan, plan, paint, publish, record. A failed job never stops the others."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, Protocol

from nst_pipeline import inbox, jobs, weights
from nst_pipeline.config import Config
from nst_pipeline.errors import (
    CannotCreateError,
    ConfigError,
    ImageError,
    OutputError,
    PipelineError,
)
from nst_pipeline.executor import Executor, Failure, OnStep, Outcome, Painting, Task
from nst_pipeline.files import ensure_folder, publish, shown
from nst_pipeline.inbox import Found
from nst_pipeline.jobs import Content, Job, Style
from nst_pipeline.ledger import Ledger
from nst_pipeline.manifest import (
    DeviceRecord,
    ErrorRecord,
    FileRecord,
    JobRecord,
    LossRecord,
    Recorder,
    StyleRecord,
)
from nst_pipeline.weights import Weights

MakeExecutor = Callable[[Config, Weights, OnStep], Executor]


class Listener(Protocol):
    """Told what a run does; all calls come from the runner's thread."""

    def planned(self, plan: "Plan") -> None:
        """The jobs are known; painting begins."""

    def stepped(self, job: Job, done: int, loss: float) -> None:
        """A job did ``done`` of its iterations; ``loss`` is its best so far."""

    def finished(self, record: JobRecord) -> None:
        """A job is done or has failed, and its record is durable."""


@dataclass(frozen=True)
class Broken:
    """A file that no job can be made of."""

    found: Found
    reason: str


@dataclass(frozen=True)
class Plan:
    """What there is to do.

    Attributes:
        weights: the network's weights.
        styles: with their recipes.
        todo: jobs to paint, all styles of a content before the next.
        done: jobs whose output is there already.
        broken: files that cannot be painted.
    """

    weights: Weights
    styles: list[Style]
    todo: list[Job]
    done: list[Job]
    broken: list[Broken]


def ledger_path(config: Config) -> Path:
    """Return where a configuration's ledger stands."""
    return config.state / "ledger.sqlite"


def make_plan(
    config: Config, ledger: Ledger, paths: list[Path] | None = None, force: bool = False
) -> Plan:
    """Find the contents and decide what must be painted; imports no torch, writes no output.

    Args:
        config: the settings.
        ledger: what is done already.
        paths: files and folders to paint in place of the inbox.
        force: paint also what is done already.

    Raises:
        ConfigError: no inbox, a style that is no image, or outputs that would clash.
        UnavailableError: no weights as asked.
        UsageError: one of ``paths`` does not exist.
    """
    if paths is None and not config.inbox.is_dir():
        raise ConfigError([f"inbox: {shown(config.inbox)}: no such folder; create it"])
    network = weights.resolve(
        config.weights, lambda path: ledger.file_digest(path, weights.file_digest)
    )
    styles = _styles(config, ledger, network)
    apart = (config.outbox, config.state, *(style.path for style in styles))
    contents, broken = [], []
    for found in inbox.find(paths or [config.inbox], config.ignore, apart):
        try:
            contents.append(Content(found, _digest(found.path, config, ledger, inbox.identify)))
        except ImageError as error:
            broken.append(Broken(found, str(error)))
    planned = jobs.plan(
        contents, styles, config.outbox, config.output, network.sha256, config.precision
    )
    done = set() if force else {j.output for j in planned if ledger.is_done(j.key, j.output)}
    return Plan(
        network,
        styles,
        [job for job in planned if job.output not in done],
        [job for job in planned if job.output in done],
        broken,
    )


def run_once(
    config: Config,
    make_executor: MakeExecutor,
    listener: Listener,
    paths: list[Path] | None = None,
    force: bool = False,
) -> Recorder:
    """Paint everything that is not painted yet, and return the run's record.

    The manifest is also written to the outbox, anew after each job, unless there was nothing
    to do. A job that fails is in it with its reason.

    Raises:
        ConfigError: see `make_plan`.
        UnavailableError: no weights or device as asked.
        CannotCreateError: the outbox or the state folder cannot be written to.
        OutputError: an output could not be written, such as on a full disk.
    """
    with Ledger(ledger_path(config)) as ledger:
        plan = make_plan(config, ledger, paths, force)
        recorder = Recorder(config.outbox, plan.weights, resolved(config, plan.weights.id))
        for job in plan.done:
            recorder.add(_record(job, "skipped", sha256=ledger.output_digest(job.output)))
        if plan.todo or plan.broken:
            ensure_folder(config.outbox)
            listener.planned(plan)
            with _recording(recorder):
                _work(config, plan, ledger, recorder, make_executor, listener)
        else:
            recorder.end("finished")
        return recorder


def _work(
    config: Config,
    plan: Plan,
    ledger: Ledger,
    recorder: Recorder,
    make_executor: MakeExecutor,
    listener: Listener,
) -> None:
    def finish(record: JobRecord) -> None:
        recorder.add(record)
        recorder.save()
        listener.finished(record)

    for broken in plan.broken:
        for style in plan.styles:
            finish(_broken_record(broken, style))
    executor = make_executor(config, plan.weights, listener.stepped)
    for outcome in _paint(executor, plan.todo):
        machine = executor.machine()
        if machine:
            recorder.device = DeviceRecord(name=machine.device, precision=machine.precision)
            recorder.cache_hits, recorder.cache_misses = machine.cache_hits, machine.cache_misses
        if isinstance(outcome.outcome, Failure):
            finish(_failed_record(outcome.job, outcome.outcome))
            continue
        try:
            finish(_publish(outcome.job, outcome.outcome, ledger))
        except (CannotCreateError, OutputError) as error:
            recorder.add(_failed_record(outcome.job, Failure(str(error))))
            raise


@contextlib.contextmanager
def _recording(recorder: Recorder) -> Iterator[None]:
    """Write the manifest's end, whether the run finishes or is stopped by an error or a signal."""
    try:
        yield
    except BaseException:
        recorder.end("stopped")
        with contextlib.suppress(PipelineError):  # the first error is the one to tell
            recorder.save()
        raise
    recorder.end("finished")
    recorder.save()


def _paint(executor: Executor, todo: list[Job]) -> Iterator[Outcome]:
    for _, group in groupby(todo, key=lambda job: job.content.path):
        task_jobs = tuple(group)
        while executor.capacity == 0:
            yield from executor.poll()
        executor.submit(Task(task_jobs[0].content, task_jobs))
    yield from executor.drain()


def _publish(job: Job, painting: Painting, ledger: Ledger) -> JobRecord:
    """Write the output, then the ledger: a kill between them costs work, never an output."""
    publish(job.output, painting.data)
    sha256 = inbox.bytes_digest(painting.data)
    ledger.record_done(job.key, job.output, sha256)
    record = _record(job, "done", sha256, painting.size, painting.content_size)
    return record.model_copy(
        update={
            "iterations": painting.iterations,
            "stop_reason": painting.stop_reason,
            "losses": {
                "start": LossRecord(**painting.start),
                "end": LossRecord(**painting.end),
            },
            "seconds": painting.seconds,
        }
    )


def _record(
    job: Job,
    status: Literal["done", "failed", "skipped"],
    sha256: str | None = None,
    size: tuple[int, int] | None = None,
    content_size: tuple[int, int] | None = None,
) -> JobRecord:
    return JobRecord(
        status=status,
        content=FileRecord(
            path=shown(job.content.path), sha256=job.content.sha256, size=content_size
        ),
        style=_style_record(job.style),
        output=FileRecord(path=shown(job.output), sha256=sha256, size=size),
        key=job.key,
    )


def _failed_record(job: Job, failure: Failure) -> JobRecord:
    error = ErrorRecord(reason=failure.reason, trace=failure.trace)
    return _record(job, "failed").model_copy(update={"output": None, "error": error})


def _broken_record(broken: Broken, style: Style) -> JobRecord:
    return JobRecord(
        status="failed",
        content=FileRecord(path=shown(broken.found.path)),
        style=_style_record(style),
        error=ErrorRecord(reason=broken.reason),
    )


def _style_record(style: Style) -> StyleRecord:
    return StyleRecord(name=style.name, path=shown(style.path), sha256=style.sha256)


def resolved(config: Config, network: str) -> dict[str, Any]:
    """Return the whole configuration as plain data, each style with its complete recipe."""
    plain = config.model_dump(mode="json", exclude={"recipe"})
    for name, style in plain["styles"].items():
        style["recipe"] = config.style_recipe(name, network).model_dump(mode="json")
    return plain


def _styles(config: Config, ledger: Ledger, network: Weights) -> list[Style]:
    styles, problems = [], []
    for name, settings in config.styles.items():
        try:
            sha256 = _digest(settings.image, config, ledger, inbox.decode)
        except ImageError as error:
            problems.append(f"styles.{name}: {error}")
            continue
        recipe = config.style_recipe(name, network.id)
        styles.append(Style(name, settings.image, sha256, recipe))
    if problems:
        raise ConfigError(problems)
    return styles


def _digest(
    path: Path, config: Config, ledger: Ledger, look: Callable[[bytes, str, int], object]
) -> str:
    """Return an image file's SHA-256; ``look`` refuses, the first time, what is no image."""

    def compute(path: Path) -> str:
        data = inbox.read(path, config.limits.max_bytes)
        look(data, shown(path), config.limits.max_pixels)
        return inbox.bytes_digest(data)

    return ledger.file_digest(path, compute)
