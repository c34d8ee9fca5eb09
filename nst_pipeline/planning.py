"""What there is to do: the inbox x the styles, minus what the ledger knows as settled."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

from nst_pipeline import inbox, jobs, weights
from nst_pipeline.companions import role
from nst_pipeline.config import Config
from nst_pipeline.decoding import decode, identify
from nst_pipeline.errors import (
    BeingWrittenError,
    ConfigError,
    ImageError,
    InboxGoneError,
    NotReadyError,
)
from nst_pipeline.files import shown
from nst_pipeline.inbox import Found
from nst_pipeline.jobs import Content, Job, Style
from nst_pipeline.ledger import Entry, Ledger
from nst_pipeline.recipe import digest
from nst_pipeline.scanner import Scan, Scanner
from nst_pipeline.weights import Weights

CHUNK = 256
"""New contents that a standing plan takes up at a time, so that painting begins soon."""


@dataclass(frozen=True)
class Broken:
    """A file that no job can be made of; ``passing``: it may become one by itself."""

    found: Found
    reason: str
    passing: bool = False


@dataclass(frozen=True)
class Held:
    """A job that is not to be done now, and why."""

    job: Job
    entry: Entry

    @property
    def reason(self) -> str:
        """Why, for people."""
        if self.entry.state == "queued":
            wait = max(0.0, self.entry.next_try - time.time())
            return f"tried again in {wait:.0f} s: {self.entry.reason}"
        if self.entry.state == "cancelled":
            return "cancelled; `nst-pipeline retry` puts it back"
        return self.entry.reason


@dataclass(frozen=True)
class Plan:
    """What there is to do.

    Attributes:
        weights: the network's weights.
        styles: with their recipes.
        todo: jobs to paint, all styles of a content before the next.
        done: jobs whose output is there already.
        broken: files that cannot be painted.
        held: jobs that wait for another attempt, were cancelled or have failed for good.
        waiting: files that are not settled, or that somebody writes to.
        digest: of all that decides the outputs but the contents.
        more: how many settled files there are beyond those of the plan.
        entries: what the ledger holds of the jobs, by output.
        seconds: what it took to find out.
        stale: queued jobs of the same sources that are none any more, such as of older bytes.
    """

    weights: Weights
    styles: list[Style]
    todo: list[Job]
    done: list[Job]
    broken: list[Broken]
    held: list[Held] = field(default_factory=list)
    waiting: list[Found] = field(default_factory=list)
    digest: str = ""
    more: int = 0
    entries: dict[Path, Entry] = field(default_factory=dict)
    stale: list[int] = field(default_factory=list)
    seconds: float = 0.0


def ledger_path(config: Config) -> Path:
    """Return where a configuration's ledger stands."""
    return config.state / "ledger.sqlite"


def make_scanner(config: Config, paths: list[Path] | None = None) -> Scanner:
    """Return a scanner of the inbox, or of ``paths``."""
    styles = (path for style in config.styles.values() for path in style.paths())
    return Scanner(
        paths or [config.inbox],
        config.ignore,
        (*config.apart, *styles),
        config.watch.settle_seconds,
        "" if paths else config.watch.urgent,
    )


def make_plan(
    config: Config,
    ledger: Ledger,
    paths: list[Path] | None = None,
    force: bool = False,
    scanner: Scanner | None = None,
    standing: bool = False,
) -> Plan:
    """Find the contents and decide what must be painted; imports no torch, writes no output.

    Args:
        config: the settings.
        ledger: what is done already.
        paths: files and folders to paint in place of the inbox.
        force: paint also what is done already.
        scanner: says which files are settled; without one, all are.
        standing: the plan of a daemon. It leaves out what is finished, takes up `CHUNK` contents
            at a time, leaves failed jobs until somebody asks for them, and does not miss
            outputs that were taken away.

    Raises:
        InboxGoneError: there is no inbox.
        ConfigError: a style that is no image, or outputs that would clash.
        UnavailableError: no weights as asked.
        UsageError: one of ``paths`` does not exist.
    """
    begun = time.monotonic()
    if not paths and not config.inbox.is_dir():
        raise InboxGoneError([f"inbox: {shown(config.inbox)}: no such folder; create it"])
    network = weights.resolve(
        config.weights, lambda path: ledger.file_digest(path, weights.file_digest)
    )
    styles = _styles(config, ledger, network)
    plan_digest = _digest_of_plan(config, styles, network)
    if scanner is None:
        scan = make_scanner(config, paths).scan()
        scan = replace(scan, settled=scan.settled + scan.waiting)
    else:
        if standing:
            _recall(ledger, scanner, plan_digest)
        scan = scanner.scan()
    contents, broken, more = _contents(config, ledger, scan, standing)
    planned = jobs.plan(
        contents, styles, config.outbox, config.output, network, config.precision,
        scan.finished,
    )  # fmt: skip
    plan = Plan(
        network, styles, [], [], broken, waiting=scan.waiting, digest=plan_digest, more=more
    )
    for _, group in groupby(planned, key=lambda job: job.content.path):
        _sort(list(group), ledger, plan, force, standing)
    if standing:
        # What was tried before comes after all that was not: it may end the process again.
        tried = Counter(
            {j.content.path: plan.entries[j.output].attempts for j in plan.todo
             if j.output in plan.entries}
        )  # fmt: skip
        plan.todo.sort(key=lambda job: tried[job.content.path])
    return replace(plan, seconds=time.monotonic() - begun)


def _recall(ledger: Ledger, scanner: Scanner, plan_digest: str) -> None:
    """Tell the scanner what is finished, where it cannot know: at first, and after a change."""
    known = f"{plan_digest} {ledger.fact('told') or ''}"
    if scanner.knows != known:
        scanner.forget(ledger.settled(plan_digest))
        scanner.knows = known


def _contents(
    config: Config, ledger: Ledger, scan: Scan, standing: bool
) -> tuple[list[Content], list[Broken], int]:
    contents: list[Content] = []
    broken: list[Broken] = []
    room = CHUNK
    for number, found in enumerate(scan.settled):
        if standing and found.facts is None:
            continue  # a link to nowhere, or gone by now
        if standing and not room:
            return contents, broken, len(scan.settled) - number
        room -= not (standing and ledger.is_put_off(found.path))
        try:
            contents.append(_content(found, config, ledger))
        except BeingWrittenError as error:
            if standing:
                scan.waiting.append(found)
            else:
                broken.append(Broken(found, str(error)))
        except NotReadyError as error:
            broken.append(Broken(found, str(error), passing=True))
        except ImageError as error:
            broken.append(Broken(found, str(error)))
    return contents, broken, 0


def _content(found: Found, config: Config, ledger: Ledger) -> Content:
    """Return a file as a content, with its companions.

    Raises:
        ImageError: it is none, or a companion is none, or has no picture.
    """
    path = found.path
    if (known := role(path.name)) is not None:
        raise ImageError(
            f"{shown(path)}: is the {known[1]} of a picture {shown(known[0])} that is not there; "
            "put that beside it, or rename this file to have it painted"
        )
    sha256 = _digest(path, config, ledger, identify, found.facts)
    companions: dict[str, tuple[Path, str]] = {}
    for one in found.companions:
        if one.kind in companions:
            raise ImageError(
                f"{shown(one.path)}: a second {one.kind} of {shown(path.name)}, beside "
                f"{shown(companions[one.kind][0].name)}; take one away"
            )
        companions[one.kind] = one.path, _digest(one.path, config, ledger, identify, one.facts)
    return Content(found, sha256, companions)


def _sort(jobs: list[Job], ledger: Ledger, plan: Plan, force: bool, standing: bool) -> None:
    """Sort a content's jobs into those to do, those done, and those to leave."""
    known = {(e.style, e.key): e for e in ledger.of_source(jobs[0].content.path)}
    wanted = {(job.style.name, job.key) for job in jobs}
    plan.stale.extend(
        e.id for name, e in known.items() if e.state == "queued" and name not in wanted
    )
    for job in jobs:
        entry = known.get((job.style.name, job.key)) or ledger.done_by_older(job)
        if entry is not None:
            plan.entries[job.output] = entry
        if entry is None or force:
            plan.todo.append(job)
        elif entry.is_done and (standing or (entry.final is not None and entry.final.is_file())):
            plan.done.append(job)
        elif _is_held(entry, standing):
            plan.held.append(Held(job, entry))
        else:
            plan.todo.append(job)


def _is_held(entry: Entry, standing: bool) -> bool:
    if entry.state == "failed":
        return standing or entry.poison
    if entry.state == "queued":
        return standing and entry.next_try > time.time()
    return entry.state == "cancelled"


def _digest_of_plan(config: Config, styles: list[Style], network: Weights) -> str:
    return digest(
        [
            [[style.name, style.sha256, style.pixels] for style in styles],
            network.sha256,
            config.precision,
            config.output.model_dump(mode="json"),
            str(config.outbox),
            config.on_success,
            config.on_failure,
        ]
    )


def _styles(config: Config, ledger: Ledger, network: Weights) -> list[Style]:
    styles, problems = [], []
    for name, settings in config.styles.items():
        digests: dict[Path, str] = {}
        for path in settings.paths():
            try:
                digests[path] = _digest(path, config, ledger, decode)
            except ImageError as error:
                problems.append(f"styles.{name}: {error}")
        if problems:
            continue
        sources = {
            region: tuple((path, digests[path], share) for path, share in images)
            for region, images in settings.sources().items()
        }
        styles.append(Style(name, sources, config.style_recipe(name, network.id)))
    if problems:
        raise ConfigError(problems)
    return styles


def _digest(
    path: Path,
    config: Config,
    ledger: Ledger,
    look: Callable[[bytes, str, int], object],
    known: str | None = None,
) -> str:
    """Return an image file's SHA-256; ``look`` refuses, the first time, what is no image."""

    def compute(path: Path) -> str:
        data = inbox.read(path, config.limits.max_bytes, known)
        look(data, shown(path), config.limits.max_pixels)
        return inbox.bytes_digest(data)

    return ledger.file_digest(path, compute)
