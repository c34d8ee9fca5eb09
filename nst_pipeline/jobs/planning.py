"""What there is to do: the inbox x the styles, less what the ledger knows to be finished."""

import functools
import itertools
import os
import stat
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

from nst_pipeline.config.pipeline import Config
from nst_pipeline.config.weights import Weights, resolve
from nst_pipeline.digests import digest, file_digest
from nst_pipeline.files import shown
from nst_pipeline.images.animation import extra_path
from nst_pipeline.inbox.patience import Patience, judge
from nst_pipeline.inbox.scanner import PassedOver, Scan, Scanner, SourceFile, uncollected
from nst_pipeline.inbox.style_folders import StyleFolders, style_paths
from nst_pipeline.jobs.file_table import Known
from nst_pipeline.jobs.job import Candidate, Content, Job, PlannedStyle, pair
from nst_pipeline.jobs.ledger import DatabaseError, Ledger
from nst_pipeline.jobs.looking import as_content, terms_of
from nst_pipeline.jobs.palette import Palette, make_palette
from nst_pipeline.jobs.state import AT_WORK, FINISHED, Entry, EntrySummary, JobState

T = TypeVar("T")

CHUNK = 256
"""Files that are looked at together, and new contents that `WATCH` takes up at a time."""
EXTRAS = (".steps", ".gif", ".webp")
"""What follows the stem of a result in the names of the folder and the files beside it."""
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
    """A file that no job can be made of, and why.

    Attributes:
        found: the file.
        reason: why, for people.
        is_final: whether it is to be given up whatever its age.
    """

    found: SourceFile
    reason: str
    is_final: bool = False


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
        return "cancelled" if self.is_cancelled else self.entry.reason

    @property
    def is_cancelled(self) -> bool:
        """Whether a person took it out of the queue."""
        return self.entry.state == JobState.CANCELLED


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
        palette: the styles that are there, with their recipes.
        terms: digest of all but a file itself that decides whether it is a picture.
        digest: of all that decides the outputs but the contents.
        todo: jobs to do, all styles of a content before the next.
        done: those whose output is there already, in the same order.
        broken: files that cannot be painted.
        held: jobs that wait for another attempt, were cancelled or have failed for good.
        arriving: files that are not stable, or that somebody writes to.
        stale: queued jobs of the same sources of which nothing would be made now, such as those of
            older bytes.
        attempts: at the jobs to do of a content, by its path.
        passed_over: what the scan passed over.
        more: how many stable files there are beyond those of the plan.
        read_ahead: bytes of contents that were read just now, `KEPT_BYTES` at most.
        seconds: what it took to find out.
    """

    weights: Weights
    palette: Palette
    terms: str
    digest: str
    todo: list[Job] = field(default_factory=list)
    done: list[Done] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    arriving: list[SourceFile] = field(default_factory=list)
    stale: list[int] = field(default_factory=list)
    attempts: Counter[Path] = field(default_factory=Counter)
    passed_over: PassedOver = field(default_factory=PassedOver)
    more: int = 0
    read_ahead: ReadAhead = field(default_factory=lambda: ReadAhead(KEPT_BYTES))
    seconds: float = 0.0

    @property
    def styles(self) -> list[PlannedStyle]:
        """The styles of the inbox at large, with their recipes."""
        return self.palette.styles


def make_scanner(
    config: Config, paths: list[Path] | None = None, settle_seconds: float | None = None
) -> Scanner:
    """Return a scanner of the inbox, or of ``paths``; by default with the settings' patience."""
    return Scanner(
        paths or [config.inbox],
        config.ignored,
        excluded(config, are_named=bool(paths)),
        config.watch.settle_seconds if settle_seconds is None else settle_seconds,
        "" if paths else config.watch.urgent,
        is_inbox=not paths,
        style_paths=style_paths(config),
    )


def excluded(config: Config, are_named: bool) -> dict[Path, str]:
    """Return what is not painted where it lies among the contents, and what to say of it.

    Args:
        config: the settings.
        are_named: whether somebody named the files and folders to paint, in place of the inbox.
    """
    places = dict.fromkeys(config.excluded, "")
    if are_named:
        places[config.outbox] = f"{shown(config.outbox)}: the outbox, passed over"
    for name, style in config.styles.items():
        for path in style.paths():
            places[path] = (
                f"{shown(path)}: an image of the style {name}, so passed over; name it as a "
                "picture to have it painted"
            )
    return places


@uncollected()
def make_plan(
    config: Config,
    ledger: Ledger,
    scanner: Scanner,
    policy: Policy = RUN,
    force: bool = False,
    scan: Scan | None = None,
    patience: Patience | None = None,
    style_folders: StyleFolders | None = None,
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
        patience: notes which files are looked at, and knows at which of them a process ended.
            Where the policy retries, it also knows which are to wait, and puts off what cannot be
            read; else none waits, and that is as broken as any other.
        style_folders: looks for styles; by default, every image there is taken as stable.

    Raises:
        InboxGoneError: a folder to search is not there.
        NoStylesError: the folders of styles hold no image, and there is no other style.
        ConfigError: a style that is no image, a recipe with a layer that the network lacks, or
            outputs that would clash.
        UnavailableError: no weights as asked.
        UnreadableError: a style, or a folder of styles, that cannot be read now.
        UsageError: a path to paint does not exist.
    """
    begun = time.monotonic()
    network, terms, palette = find_styles(config, ledger, style_folders)
    plan = Plan(network, palette, terms, _digest_of_plan(config, palette, network, terms))
    if policy.remembers:
        _recall(ledger, scanner, plan.digest)
    scan = _without_results(scan or scanner.scan(), config, ledger, scanner.roots)
    if not all(palette.by_folder.values()):  # the pictures of those whose styles are gone wait
        scan = replace(scan, stable=[found for found in scan.stable if palette.of(found)])
    plan.arriving.extend(scan.unstable)
    if patience and policy.retries:
        patience.forget_all_but({found.path for found in (*scan.stable, *scan.unstable)})
    try:
        contents, more = _contents(plan, config, ledger, scan, policy, patience, force)
    finally:
        if patience:
            patience.end_look()
    candidates = pair(
        contents, palette.styles, config.outbox, config.output, network, config.precision,
        scan.finished, palette.of,
    )  # fmt: skip
    for some in _chunks(contents):
        known = ledger.jobs.summaries([content.path for content in some])
        for content in some:
            items = list(itertools.islice(candidates, len(palette.of(content.found))))
            entries = known[os.fsencode(content.path)]
            _sort(items, entries, ledger, plan, config.outbox, policy, force)
    if policy.retries:
        # What was tried before comes after all that was not: it may end the process again.
        plan.todo.sort(key=lambda job: plan.attempts[job.content.path])
    wanted = {job.content.path for job in plan.todo}
    for content in contents:
        if content.path not in wanted:
            plan.read_ahead.take(content.path)
    return replace(plan, more=more, passed_over=scan.passed_over, seconds=time.monotonic() - begun)


def find_styles(
    config: Config, ledger: Ledger, style_folders: StyleFolders | None = None
) -> tuple[Weights, str, Palette]:
    """Return the weights, the terms and the styles of settings: all of a plan but the contents.

    Args:
        config: the settings.
        ledger: remembers what was looked at.
        style_folders: as `make_plan` takes them.

    Raises:
        ConfigError: a style that is no image, or a recipe with a layer that the network lacks.
        NoStylesError: there is none.
        UnavailableError: no weights as asked.
        UnreadableError: a style, or a folder of styles, that cannot be read now.
    """
    network = resolve(config.weights, lambda path: ledger.files.digest(path, file_digest))
    terms = terms_of(config.limits)
    folders = style_folders or StyleFolders(config, 0)
    try:
        palette = make_palette(config, folders.find(), ledger, network, terms, folders.patience)
    finally:
        if folders.patience:
            folders.patience.end_look()
    return network, terms, palette


def _recall(ledger: Ledger, scanner: Scanner, plan_digest: str) -> None:
    """Tell the scanner what is finished, where it cannot know: at first, and after a change."""
    known = f"{plan_digest} {ledger.fact('changed_by_hand') or ''}"
    if scanner.known_as != known:
        scanner.set_finished(ledger.files.finished(plan_digest), known)


def _without_results(scan: Scan, config: Config, ledger: Ledger, roots: list[Path]) -> Scan:
    """Return a scan without what earlier runs made, should the outbox itself be searched.

    A result that somebody named is a picture like any other, unless its own source is named too:
    then it was a pattern of the shell's that named both.
    """
    outbox = os.path.realpath(config.outbox)
    if not any(f"{os.path.realpath(root)}/".startswith(f"{outbox}/") for root in roots):
        return scan
    real = functools.cache(os.path.realpath)
    made: dict[tuple[str, str], set[Path]] = {}
    for result, source in ledger.jobs.results():
        for path in (result, *(extra_path(result, suffix) for suffix in EXTRAS)):
            made.setdefault((real(path.parent), path.name), set()).add(source)
    named = {root.absolute() for root in roots}

    def is_content(found: SourceFile) -> bool:
        path, folder = found.path, found.path.parent
        places = (real(folder), path.name), (real(folder.parent), folder.name)
        sources = set().union(*(made.get(place, ()) for place in places))
        return sources.isdisjoint(named) if path in named else not sources

    stable, unstable = (list(filter(is_content, some)) for some in (scan.stable, scan.unstable))
    count = len(scan.stable) + len(scan.unstable) - len(stable) - len(unstable)
    passed_over = replace(scan.passed_over, results=count)
    return replace(scan, stable=stable, unstable=unstable, passed_over=passed_over)


def _chunks(items: list[T]) -> Iterator[list[T]]:
    return (items[first : first + CHUNK] for first in range(0, len(items), CHUNK))


def _contents(
    plan: Plan,
    config: Config,
    ledger: Ledger,
    scan: Scan,
    policy: Policy,
    patience: Patience | None,
    force: bool,
) -> tuple[list[Content], int]:
    """Return the contents of a plan, and how many files are left for the next.

    What cannot be one is put into the plan's ``broken`` or ``arriving``, or has to wait.
    """
    contents: list[Content] = []
    new, looked_at = 0, 0
    waiting = patience if policy.retries else None
    terms = plan.terms if waiting is None else None
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
            if waiting and not waiting.take_up(found):
                continue
            try:
                is_suspect = patience is not None and patience.is_suspect(found)
                if patience and not force:
                    patience.check(found, config.watch.max_attempts)
                if patience and _is_new(found, known, terms):
                    patience.begin_look(found)
                keep = plan.read_ahead.keep
                contents.append(as_content(found, config, ledger, known, terms, keep, is_suspect))
                new += found.path not in queued
            except DatabaseError:
                raise
            except Exception as error:  # noqa: BLE001 - one bad file must not stop the others
                judged = judge(found, error, waiting, config.watch.max_attempts)
                if judged.fate == "arriving":
                    plan.arriving.append(found)
                elif judged.fate != "waits":
                    plan.broken.append(Broken(found, judged.reason, judged.fate == "lost"))
    return contents, 0


def _is_new(found: SourceFile, known: Known, terms: str | None) -> bool:
    """Tell whether a file may have to be read, by what is known of it under such terms."""
    row = known.get(os.fsencode(found.path))
    if row is None or row.signature != found.signature or found.companions:
        return True
    return row.problem is not None and row.terms != terms


def _sort(
    candidates: list[Candidate],
    known: dict[tuple[str, str], EntrySummary],
    ledger: Ledger,
    plan: Plan,
    outbox: Path,
    policy: Policy,
    force: bool,
) -> None:
    """Sort a content's jobs into those to do, those done, and those to leave."""
    now = ledger.jobs.now()
    for item in candidates:
        style = item.template.style
        entry = known.pop((style.name, item.key), None)
        is_finished = entry is not None and entry.state in FINISHED
        if entry and not force and is_finished and _is_done(entry, item, outbox, policy):
            plan.done.append(Done(item.content, style, entry.id))
        elif entry and (entry.state in AT_WORK or (not force and _is_held(entry, policy, now))):
            plan.held.append(Held(item.job(), ledger.jobs.get(entry.id)))
        else:
            plan.todo.append(item.job())
            if entry and not is_finished:
                plan.attempts[item.content.path] += entry.attempts
    names = {item.template.style.name for item in candidates}
    plan.stale.extend(
        one.id
        for (style_name, _), one in known.items()
        if one.state == JobState.QUEUED
        # A run in some styles leaves those of the others alone.
        and (policy.remembers or style_name in names or one.content != candidates[0].content.sha256)
    )


def copies(jobs: list[Job], ledger: Ledger) -> set[Path]:
    """Return the outputs of jobs that a run only copies: painted before, or for another content."""
    painters: dict[str, Content] = {}
    return {
        job.output
        for job in jobs
        if painters.setdefault(job.key, job.content) != job.content
        or any(map(_is_there, ledger.jobs.finished_with(job.key)))
    }


def _is_done(entry: EntrySummary, item: Candidate, outbox: Path, policy: Policy) -> bool:
    """Tell whether a finished job's output was put where the settings say, and counts as there."""
    is_at_place = item.may_be_at(os.fsdecode(entry.output), outbox)
    return is_at_place and (policy.remembers or _is_there(entry))


def _is_there(entry: Entry | EntrySummary) -> bool:
    try:  # a link is no result of ours
        return entry.final is not None and stat.S_ISREG(os.lstat(entry.final).st_mode)
    except OSError:
        return False


def _is_held(entry: EntrySummary, policy: Policy, now: float) -> bool:
    if entry.state == JobState.FAILED:
        return policy.retries or bool(entry.poison)
    if entry.state == JobState.QUEUED:
        return policy.retries and entry.next_try > now
    return entry.state == JobState.CANCELLED


def _digest_of_plan(config: Config, palette: Palette, network: Weights, terms: str) -> str:
    lists = [palette.styles, *palette.by_folder.values()]
    return digest(
        [
            terms,
            [[[style.name, style.sha256, style.pixels] for style in styles] for styles in lists],
            list(palette.by_folder),
            config.watch.urgent if palette.by_folder else "",
            network.sha256,
            config.precision,
            config.output.model_dump(mode="json"),
            str(config.outbox),
            config.on_success,
            config.on_failure,
        ]
    )
