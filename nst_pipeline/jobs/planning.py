"""What there is to do: the inbox x the styles, less what the ledger knows to be finished."""

import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

from nst_pipeline.config.pipeline import Config
from nst_pipeline.config.weights import Weights, resolve
from nst_pipeline.digests import bytes_digest, digest, file_digest
from nst_pipeline.errors import (
    BeingWrittenError,
    ConfigError,
    ImageError,
)
from nst_pipeline.files import shown
from nst_pipeline.images.decoding import decode, identify
from nst_pipeline.inbox.companions import by_kind
from nst_pipeline.inbox.reading import read
from nst_pipeline.inbox.scanner import Scan, Scanner, SourceFile, uncollected
from nst_pipeline.jobs.file_table import Known
from nst_pipeline.jobs.job import Candidate, Content, Job, PlannedStyle, pair
from nst_pipeline.jobs.ledger import Ledger
from nst_pipeline.jobs.state import AT_WORK, FINISHED, Entry, EntrySummary, JobState

T = TypeVar("T")

CHUNK = 256
"""Files that are looked at together, and new contents that `WATCH` takes up at a time."""
KEPT_BYTES = 64 * 2**20
"""Bytes of new contents that stay in memory until they are painted, so that none is read twice."""


@dataclass(frozen=True)
class Policy:
    """What `run` and `watch` do differently.

    Attributes:
        remembers: what is finished is left out of plans until it changes, and a result that
            somebody took away is not made again.
        chunk: new contents that a plan takes up, so that painting begins soon; None: all.
        retries: what may pass is tried again after some time; what does not is moved to the failed
            folder, and left alone until a person asks for it. Without it, a failure is reported at
            once, and the next run tries again.
        looks: before each content, new files may be looked for.
    """

    remembers: bool
    chunk: int | None
    retries: bool
    looks: bool


RUN = Policy(remembers=False, chunk=None, retries=False, looks=False)
WATCH = Policy(remembers=True, chunk=CHUNK, retries=True, looks=True)


@dataclass(frozen=True)
class Broken:
    """A file that no job can be made of, and why."""

    found: SourceFile
    reason: str


class Done(NamedTuple):
    """A job whose output is there already, small, for there may be very many.

    ``entry`` is its number in the ledger.
    """

    content: Content
    style: PlannedStyle
    entry: int


@dataclass(frozen=True)
class Held:
    """A job that is not to be done now, and why."""

    job: Job
    entry: Entry

    @property
    def reason(self) -> str:
        """Why, for people."""
        if self.entry.state == JobState.QUEUED:
            wait = max(0.0, self.entry.next_try - time.time())
            return f"tried again in {wait:.0f} s: {self.entry.reason}"
        if self.entry.state == JobState.CANCELLED:
            return "cancelled; `nst-pipeline retry` puts it back"
        return self.entry.reason


class ReadAhead:
    """Bytes of contents that were read for their digests, up to a limit."""

    def __init__(self, limit: int) -> None:
        """Hold at most ``limit`` bytes."""
        self._data: dict[Path, bytes] = {}
        self._free = limit

    def keep(self, path: Path, data: bytes) -> None:
        """Hold a file's bytes, if there is room."""
        if len(data) <= self._free:
            self._data[path] = data
            self._free -= len(data)

    def take(self, path: Path) -> bytes | None:
        """Return a file's bytes, once; None: they are not held."""
        data = self._data.pop(path, None)
        self._free += len(data or b"")
        return data


@dataclass(frozen=True)
class Plan:
    """What there is to do.

    Attributes:
        weights: the network's weights.
        styles: with their recipes.
        digest: of all that decides the outputs but the contents.
        todo: jobs to do, all styles of a content before the next.
        done: those whose output is there already, in the same order.
        broken: files that cannot be painted.
        held: jobs that wait for another attempt, were cancelled or have failed for good.
        arriving: files that are not stable, or that somebody writes to.
        stale: queued jobs of the same sources of which nothing would be made now, such as those of
            older bytes.
        attempts: at the jobs to do of a content, by its path.
        more: how many stable files there are beyond those of the plan.
        read_ahead: bytes of contents that were read just now, `KEPT_BYTES` at most.
        seconds: what it took to find out.
    """

    weights: Weights
    styles: list[PlannedStyle]
    digest: str
    todo: list[Job] = field(default_factory=list)
    done: list[Done] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    arriving: list[SourceFile] = field(default_factory=list)
    stale: list[int] = field(default_factory=list)
    attempts: Counter[Path] = field(default_factory=Counter)
    more: int = 0
    read_ahead: ReadAhead = field(default_factory=lambda: ReadAhead(KEPT_BYTES))
    seconds: float = 0.0


def make_scanner(
    config: Config, paths: list[Path] | None = None, settle_seconds: float | None = None
) -> Scanner:
    """Return a scanner of the inbox, or of ``paths``; by default with the settings' patience."""
    styles = (path for style in config.styles.values() for path in style.paths())
    return Scanner(
        paths or [config.inbox],
        config.ignore,
        (*config.excluded, *styles),
        config.watch.settle_seconds if settle_seconds is None else settle_seconds,
        "" if paths else config.watch.urgent,
        is_inbox=not paths,
    )


@uncollected()
def make_plan(
    config: Config,
    ledger: Ledger,
    scanner: Scanner,
    policy: Policy = RUN,
    force: bool = False,
    scan: Scan | None = None,
) -> Plan:
    """Find the contents and decide what must be painted.

    Imports no torch, and changes nothing but what the ledger remembers of files: `JobTable.add`
    queues what is to do.

    Args:
        config: the settings.
        ledger: what is done already.
        scanner: of the files to paint.
        policy: of `run` or `watch`.
        force: paint also what is done already.
        scan: what the scanner found; by default it looks now, after it was told what is finished.

    Raises:
        InboxGoneError: a folder to search is not there.
        ConfigError: a style that is no image, or outputs that would clash.
        UnavailableError: no weights as asked.
        UsageError: a path to paint does not exist.
    """
    begun = time.monotonic()
    network = resolve(config.weights, lambda path: ledger.files.digest(path, file_digest))
    styles = _styles(config, ledger, network)
    plan = Plan(network, styles, _digest_of_plan(config, styles, network))
    if policy.remembers:
        _recall(ledger, scanner, plan.digest)
    scan = scan or scanner.scan()
    plan.arriving.extend(scan.unstable)
    contents, more = _contents(plan, config, ledger, scan, policy)
    candidates = pair(
        contents, styles, config.outbox, config.output, network, config.precision, scan.finished
    )
    for some in _chunks(contents):
        known = ledger.jobs.summaries([content.path for content in some])
        for content in some:
            items = list(itertools.islice(candidates, len(styles)))
            entries = known[os.fsencode(content.path)]
            _sort(items, entries, ledger, plan, policy, force)
    if policy.retries:
        # What was tried before comes after all that was not: it may end the process again.
        plan.todo.sort(key=lambda job: plan.attempts[job.content.path])
    wanted = {job.content.path for job in plan.todo}
    for content in contents:
        if content.path not in wanted:
            plan.read_ahead.take(content.path)
    return replace(plan, more=more, seconds=time.monotonic() - begun)


def _recall(ledger: Ledger, scanner: Scanner, plan_digest: str) -> None:
    """Tell the scanner what is finished, where it cannot know: at first, and after a change."""
    known = f"{plan_digest} {ledger.fact('changed_by_hand') or ''}"
    if scanner.known_as != known:
        scanner.set_finished(ledger.files.finished(plan_digest), known)


def _chunks(items: list[T]) -> Iterator[list[T]]:
    return (items[first : first + CHUNK] for first in range(0, len(items), CHUNK))


def _contents(
    plan: Plan, config: Config, ledger: Ledger, scan: Scan, policy: Policy
) -> tuple[list[Content], int]:
    """Return the contents of a plan, and how many files are left for the next.

    What cannot be one is put into the plan's ``broken`` or ``arriving``.
    """
    contents: list[Content] = []
    new, looked_at = 0, 0
    for files in _chunks(scan.stable):
        paths = [found.path for found in files]
        known = ledger.files.known(paths)
        queued = ledger.jobs.queued_sources(paths) if policy.chunk else set()
        for found in files:
            if new == policy.chunk:
                return contents, len(scan.stable) - looked_at
            looked_at += 1
            if policy.remembers and found.signature is None:
                continue  # a link to nowhere, or gone by now
            try:
                contents.append(_content(found, plan, config, ledger, known))
                new += found.path not in queued
            except BeingWrittenError as error:
                if policy.retries:
                    plan.arriving.append(found)
                else:
                    plan.broken.append(Broken(found, str(error)))
            except ImageError as error:
                plan.broken.append(Broken(found, str(error)))
    return contents, 0


def _content(
    found: SourceFile, plan: Plan, config: Config, ledger: Ledger, known: Known
) -> Content:
    """Return a file as a content, with its companions.

    Raises:
        ImageError: it is none, or a companion is none, or has no picture.
    """
    by = by_kind(found.path, found.companions)

    def compute(path: Path) -> str:
        data = _look(path, config, identify, found.signature)
        plan.read_ahead.keep(path, data)
        return bytes_digest(data)

    sha256 = ledger.files.digest(found.path, compute, found.signature, known)
    if not by:
        return Content(found, sha256)
    companions = {
        kind: (one.path, _digest(one.path, config, ledger, identify, one.signature))
        for kind, one in by.items()
    }
    return Content(found, sha256, companions)


def _sort(
    candidates: list[Candidate],
    known: dict[tuple[str, str], EntrySummary],
    ledger: Ledger,
    plan: Plan,
    policy: Policy,
    force: bool,
) -> None:
    """Sort a content's jobs into those to do, those done, and those to leave."""
    for item in candidates:
        style = item.template.style
        entry = known.pop((style.name, item.key), None)
        if entry and not force and _is_done(entry, policy):
            plan.done.append(Done(item.content, style, entry.id))
        elif entry and (entry.state in AT_WORK or (not force and _is_held(entry, policy))):
            plan.held.append(Held(item.job(), ledger.jobs.get(entry.id)))
        else:
            plan.todo.append(item.job())
            plan.attempts[item.content.path] += entry.attempts if entry else 0
    plan.stale.extend(
        one.id
        for one in known.values()
        if one.state == JobState.QUEUED
        # A run in some styles leaves those of the others alone.
        and (policy.remembers or one.content != candidates[0].content.sha256)
    )


def _is_done(entry: EntrySummary, policy: Policy) -> bool:
    if entry.state not in FINISHED:
        return False
    is_there = entry.final is not None and os.path.isfile(entry.final)  # noqa: PTH113
    return policy.remembers or is_there


def _is_held(entry: EntrySummary, policy: Policy) -> bool:
    if entry.state == JobState.FAILED:
        return policy.retries or bool(entry.poison)
    if entry.state == JobState.QUEUED:
        return policy.retries and entry.next_try > time.time()
    return entry.state == JobState.CANCELLED


def _digest_of_plan(config: Config, styles: list[PlannedStyle], network: Weights) -> str:
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


def _styles(config: Config, ledger: Ledger, network: Weights) -> list[PlannedStyle]:
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
        styles.append(PlannedStyle(name, sources, config.style_recipe(name, network.id)))
    if problems:
        raise ConfigError(problems)
    return styles


Look = Callable[[bytes, str, int], object]
"""Refuses what is no image, by its bytes, its name and the pixels allowed."""


def _digest(path: Path, config: Config, ledger: Ledger, look: Look, seen: str | None = None) -> str:
    """Return an image file's SHA-256, looked at the first time."""

    def compute(path: Path) -> str:
        return bytes_digest(_look(path, config, look, seen))

    return ledger.files.digest(path, compute, seen)


def _look(path: Path, config: Config, look: Look, seen: str | None) -> bytes:
    """Return the bytes of an image file of the signature ``seen``.

    Raises:
        ImageError: it is none.
    """
    data = read(path, config.limits.max_bytes, seen)
    look(data, shown(path), config.limits.max_pixels)
    return data
