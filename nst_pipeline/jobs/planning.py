"""What there is to do: the inbox x the styles, minus what the ledger knows as settled."""

import itertools
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from nst_pipeline.config import weights
from nst_pipeline.config.pipeline import Config
from nst_pipeline.config.weights import Weights
from nst_pipeline.digests import bytes_digest, digest, file_digest
from nst_pipeline.errors import (
    BeingWrittenError,
    ConfigError,
    ImageError,
    InboxGoneError,
    NotReadyError,
)
from nst_pipeline.files import shown
from nst_pipeline.images.decoding import decode, identify
from nst_pipeline.inbox import reading
from nst_pipeline.inbox.companions import by_kind
from nst_pipeline.inbox.scanner import Scan, Scanner, SourceFile, uncollected
from nst_pipeline.jobs import job
from nst_pipeline.jobs.job import Content, Job, Planned, Style
from nst_pipeline.jobs.ledger import Digests, Ledger
from nst_pipeline.jobs.states import DONE_STATES, Brief, Entry

CHUNK = 256
"""New contents that a standing plan takes up at a time, so that painting begins soon."""


@dataclass(frozen=True)
class Broken:
    """A file that no job can be made of; ``passing``: it may become one by itself."""

    found: SourceFile
    reason: str
    passing: bool = False


class Done(NamedTuple):
    """A job whose output is there already, small, for there may be very many.

    ``entry`` is its number in the ledger.
    """

    content: Content
    style: Style
    entry: int


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
        done: those whose output is there already, in the same order.
        broken: files that cannot be painted.
        held: jobs that wait for another attempt, were cancelled or have failed for good.
        waiting: files that are not settled, or that somebody writes to.
        digest: of all that decides the outputs but the contents.
        more: how many settled files there are beyond those of the plan.
        entries: what the ledger holds of the jobs that are not done, by output.
        seconds: what it took to find out.
        stale: queued jobs of the same sources that are none any more, such as of older bytes.
    """

    weights: Weights
    styles: list[Style]
    todo: list[Job]
    done: list[Done]
    broken: list[Broken]
    held: list[Held] = field(default_factory=list)
    waiting: list[SourceFile] = field(default_factory=list)
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
        (*config.excluded, *styles),
        config.watch.settle_seconds,
        "" if paths else config.watch.urgent,
        is_inbox=not paths,
    )


@uncollected()
def make_plan(
    config: Config,
    ledger: Ledger,
    paths: list[Path] | None = None,
    force: bool = False,
    scan: Scan | None = None,
    scanner: Scanner | None = None,
) -> Plan:
    """Find the contents and decide what must be painted; imports no torch, writes no output.

    Args:
        config: the settings.
        ledger: what is done already.
        paths: files and folders to paint in place of the inbox.
        force: paint also what is done already.
        scan: says which files are settled; without one, all are.
        scanner: a daemon's, in place of ``scan``. Its plan leaves out what is finished, takes up
            `CHUNK` contents at a time, leaves failed jobs until somebody asks for them, and does
            not miss outputs that were taken away.

    Raises:
        InboxGoneError: there is no inbox.
        ConfigError: a style that is no image, or outputs that would clash.
        UnavailableError: no weights as asked.
        UsageError: one of ``paths`` does not exist.
    """
    begun = time.monotonic()
    if not paths and not config.inbox.is_dir():
        raise InboxGoneError([f"inbox: {shown(config.inbox)}: no such folder; create it"])
    network = weights.resolve(config.weights, lambda path: ledger.file_digest(path, file_digest))
    styles = _styles(config, ledger, network)
    plan_digest = _digest_of_plan(config, styles, network)
    if scanner is not None:
        _recall(ledger, scanner, plan_digest)
        scan = scanner.scan()
    elif scan is None:
        scan = make_scanner(config, paths).scan()
        scan = replace(scan, stable=scan.stable + scan.unstable)
    standing = scanner is not None
    contents, broken, more = _contents(config, ledger, scan, standing)
    planned = job.plan(
        contents, styles, config.outbox, config.output, network, config.precision,
        scan.finished,
    )  # fmt: skip
    plan = Plan(
        network, styles, [], [], broken, waiting=scan.unstable, digest=plan_digest, more=more
    )
    for first in range(0, len(contents), CHUNK):
        some = contents[first : first + CHUNK]
        known = ledger.briefs([content.path for content in some])
        for content in some:
            items = list(itertools.islice(planned, len(styles)))
            _sort(items, known[os.fsencode(content.path)], ledger, plan, force, standing)
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
    if scanner.known_as != known:
        scanner.set_finished(ledger.settled(plan_digest), known)


def _contents(
    config: Config, ledger: Ledger, scan: Scan, standing: bool
) -> tuple[list[Content], list[Broken], int]:
    contents: list[Content] = []
    broken: list[Broken] = []
    room = CHUNK
    digests: Digests = {}
    for number, found in enumerate(scan.stable):
        if number % CHUNK == 0:
            digests = ledger.digests([shown(f.path) for f in scan.stable[number : number + CHUNK]])
        if standing and found.signature is None:
            continue  # a link to nowhere, or gone by now
        if standing and not room:
            return contents, broken, len(scan.stable) - number
        room -= not (standing and ledger.is_put_off(found.path))
        try:
            contents.append(_content(found, config, ledger, digests))
        except BeingWrittenError as error:
            if standing:
                scan.unstable.append(found)
            else:
                broken.append(Broken(found, str(error)))
        except NotReadyError as error:
            broken.append(Broken(found, str(error), passing=True))
        except ImageError as error:
            broken.append(Broken(found, str(error)))
    return contents, broken, 0


def _content(found: SourceFile, config: Config, ledger: Ledger, digests: Digests) -> Content:
    """Return a file as a content, with its companions.

    Raises:
        ImageError: it is none, or a companion is none, or has no picture.
    """
    beside = by_kind(found.path, found.companions)
    sha256 = _digest(found.path, config, ledger, identify, found.signature, digests)
    if not beside:
        return Content(found, sha256)
    companions = {
        kind: (one.path, _digest(one.path, config, ledger, identify, one.signature))
        for kind, one in beside.items()
    }
    return Content(found, sha256, companions)


def _sort(
    planned: list[Planned],
    known: dict[tuple[str, str], Brief],
    ledger: Ledger,
    plan: Plan,
    force: bool,
    standing: bool,
) -> None:
    """Sort a content's jobs into those to do, those done, and those to leave."""
    for item in planned:
        style = item.template.style
        brief = known.pop((style.name, item.key), None)
        brief = brief or ledger.done_by_older(item.output, item.key)
        if brief and not force and _is_done(brief, standing):
            plan.done.append(Done(item.content, style, brief.id))
            continue
        job = item.job()
        if brief is None:
            plan.todo.append(job)
            continue
        entry = plan.entries[job.output] = ledger.entry(brief.id)
        if not force and _is_held(entry, standing):
            plan.held.append(Held(job, entry))
        else:
            plan.todo.append(job)
    plan.stale.extend(brief.id for brief in known.values() if brief.state == "queued")


def _is_done(brief: Brief, standing: bool) -> bool:
    if brief.state not in DONE_STATES:
        return False
    return standing or (brief.final is not None and os.path.isfile(brief.final))  # noqa: PTH113


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
    digests: Digests | None = None,
) -> str:
    """Return an image file's SHA-256; ``look`` refuses, the first time, what is no image."""

    def compute(path: Path) -> str:
        data = reading.read(path, config.limits.max_bytes, known)
        look(data, shown(path), config.limits.max_pixels)
        return bytes_digest(data)

    return ledger.file_digest(path, compute, known, digests)
