"""What `nst-pipeline status` tells: written by the daemon, read without disturbing it."""

import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nst_pipeline.config.pipeline import Config
from nst_pipeline.daemon.control import is_paused
from nst_pipeline.errors import PipelineError, UnreadableError
from nst_pipeline.files import as_text, counted, free_bytes, is_gone, shown
from nst_pipeline.inbox.scanner import PassedOver
from nst_pipeline.inbox.style_folders import StyleFolders
from nst_pipeline.jobs.delivery_table import NO_DELIVERIES
from nst_pipeline.jobs.ledger import Ledger, ledger_path
from nst_pipeline.jobs.lock import holder
from nst_pipeline.jobs.planning import make_scanner
from nst_pipeline.jobs.state import FINISHED, IN_QUEUE, JobState
from nst_pipeline.runner.pruning import kept

HOUR_SECONDS = 3600


STATUS_NAME = "status.json"
FAILURES = 5
"""How many failures people are told, the last ones."""
WORKERS = 16
"""How many workers people are told of."""
EVERY_SECONDS = 1.0
"""How often, at most, progress is written."""


@dataclass(frozen=True)
class Status:
    """The state of a pipeline.

    Attributes:
        alive: whether a process works with the state folder; then its ``pid``, its ``command``
            (watch or run) and ``since`` when, in seconds since the epoch.
        state: what a daemon does: idle, painting, paused, waiting, stopping.
        detail: why, or what.
        paused: whether a pause was asked for.
        queue: jobs queued or at work.
        arriving: files that still change.
        waiting: files that something is to be done for later, each with its path, what it waits
            for, and when it is tried again.
        passed_over: numbers of files that are not painted: ``by_name`` for being none or ignored,
            ``links`` out of the inbox, ``results`` of earlier runs; empty if there are none.
        styles: how many a picture of the inbox at large is painted in; None: not known.
        left_out: what is passed over in folders of styles, and why, a line each.
        current: the job at work, with its iteration and its loss; of several, any.
        workers: those that there are, each with its ``name``, ``node`` (empty: this computer),
            ``device``, ``memory_bytes``, ``job`` (null: it waits), ``iteration`` of
            ``iterations``, and ``jobs_done``; empty, too, while nothing was painted yet.
        done: jobs done, ever.
        failed: files given up that are still there.
        failed_jobs: their jobs that failed; of a file that is no picture, one a style.
        cancelled: jobs cancelled.
        jobs_last_hour: jobs done in the last hour.
        last_error: the last reason for trouble, and when.
        failures: the files given up that are still there, each with its reason and its place.
        device: what is painted on.
        memory_bytes: what is used of its memory.
        cache: style targets: hits, misses, bytes in memory, bytes on disk.
        deliveries: what hooks are still to be told: how many are ``waiting``, and the
            ``last_failure``, null or its reason and time.
        kept: how many files and bytes there are of checkpoints, targets and manifests.
        free_bytes: room in the outbox.
        min_free_bytes: what must be free.
    """

    alive: bool
    pid: int | None = None
    command: str | None = None
    since: float | None = None
    state: str = "not running"
    detail: str = ""
    paused: bool = False
    queue: int = 0
    arriving: int = 0
    waiting: list[dict[str, Any]] = field(default_factory=list)
    passed_over: dict[str, int] = field(default_factory=dict)
    styles: int | None = None
    left_out: list[str] = field(default_factory=list)
    current: dict[str, Any] | None = None
    workers: list[dict[str, Any]] = field(default_factory=list)
    done: int = 0
    failed: int = 0
    failed_jobs: int = 0
    cancelled: int = 0
    jobs_last_hour: int = 0
    last_error: dict[str, Any] | None = None
    failures: list[dict[str, Any]] = field(default_factory=list)
    device: str | None = None
    memory_bytes: int | None = None
    cache: dict[str, int] = field(default_factory=dict)
    deliveries: dict[str, Any] = field(default_factory=dict)
    kept: dict[str, dict[str, int]] = field(default_factory=dict)
    free_bytes: int = 0
    min_free_bytes: int = 0

    def to_plain(self) -> dict[str, Any]:
        """Return it as plain data, ready for JSON."""
        return asdict(self)


class StatusFile:
    """What a daemon does at this moment, in a small file that `read_status` reads.

    A change of what the daemon does is written at once, progress now and then.

    The file is replaced whole, and not made durable: it says nothing that outlives the process.
    """

    def __init__(self, state: Path) -> None:
        """Write to the state folder, from the first change on."""
        self._path = state / STATUS_NAME
        self._fields: dict[str, Any] = {"pid": os.getpid(), "started": time.time()}
        self._written = 0.0

    def set(self, now: bool = True, **fields: Any) -> None:
        """Change some fields; written at once, or within a second if that is not asked for."""
        self._fields |= fields
        if now or time.monotonic() - self._written >= EVERY_SECONDS:
            self.write()

    def write(self) -> None:
        """Write the file; a disk that is full does not stop anybody."""
        self._written = time.monotonic()
        self._fields["updated"] = time.time()
        temporary = self._path.with_name(f".nst-{STATUS_NAME}")
        with contextlib.suppress(OSError):
            temporary.write_text(json.dumps(self._fields), encoding="utf-8")
            temporary.replace(self._path)

    def remove(self) -> None:
        """Delete the file."""
        with contextlib.suppress(OSError):
            self._path.unlink()


def read_file(state: Path) -> dict[str, Any]:
    """Return what a daemon said last; empty if there was none."""
    try:
        found = json.loads((state / STATUS_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_status(config: Config) -> Status:
    """Look at the lock, the ledger and what the daemon says of itself.

    Raises:
        CannotCreateError: the ledger cannot be read.
    """
    who = holder(config.state)
    live = read_file(config.state) if who and who.command == "watch" else {}
    known, piled_up = _from_ledger(config), kept(config)
    last = known["failures"][-1] if known["failures"] else None
    return Status(
        alive=who is not None,
        pid=who.pid if who else None,
        command=who.command if who else None,
        since=who.since if who else None,
        state=live.get("state", "running" if who else "not running"),
        detail=live.get("detail", ""),
        paused=is_paused(config.state),
        queue=known.pop("queue") + _backlog(config, live),
        arriving=live.get("arriving", 0),
        waiting=_waiting(known.pop("waiting"), live.get("waiting", [])),
        passed_over=live.get("passed_over", {}),
        styles=live.get("styles"),
        left_out=live.get("left_out", []),
        current=live.get("current"),
        workers=live.get("workers", []),
        last_error=live.get("last_error") or (last and {k: last[k] for k in ("reason", "time")}),
        device=live.get("device"),
        memory_bytes=live.get("memory_bytes"),
        cache=live.get("cache", {}) | {"disk_bytes": piled_up["targets"].bytes},
        kept={kind: asdict(one) for kind, one in piled_up.items()},
        free_bytes=free_bytes(config.outbox),
        min_free_bytes=config.limits.min_free_bytes,
        **known,
    )


def _from_ledger(config: Config) -> dict[str, Any]:
    """Return the fields of `Status` that the ledger knows."""
    ledger = Ledger.to_read(ledger_path(config.state))
    if ledger is None:
        return {"queue": 0, "failures": [], "waiting": [], "deliveries": NO_DELIVERIES}
    with ledger:
        counts = ledger.jobs.counts()
        recent = ledger.jobs.finished_since(time.time() - HOUR_SECONDS)
        deliveries = ledger.deliveries.summary()
        ahead = ledger.jobs.now() - time.time()  # the jobs' clock is not set when the system's is
        waiting = [
            {"path": as_text(one.source), "reason": one.reason, "next_try": one.next_try - ahead}
            for one in ledger.jobs.waiting()
        ]
        failed = [one for one in ledger.files.failed() if not is_gone(one.place)]
        jobs = Counter(job.source for job in ledger.jobs.in_state(JobState.FAILED))
    styles = _style_count(config)
    failures = [
        {"source": as_text(one.source), "place": as_text(one.place), "reason": one.reason,
         "time": one.time}
        for one in failed
    ]  # fmt: skip
    return {
        "queue": sum(counts.get(state, 0) for state in IN_QUEUE),
        "done": sum(counts.get(state, 0) for state in (*FINISHED, JobState.REPLACED)),
        "failed": len(failures),
        # What is no picture has no jobs, and fails once a style.
        "failed_jobs": sum(jobs[one.source] or styles for one in failed),
        "cancelled": counts.get(JobState.CANCELLED, 0),
        "jobs_last_hour": recent,
        "failures": failures,
        "waiting": waiting,
        "deliveries": deliveries,
    }


def _backlog(config: Config, live: dict[str, Any]) -> int:
    """Return how many jobs there are of files that no plan has come to yet.

    While it paints, or is paused, a daemon does not look: then the inbox itself says.
    """
    if live.get("state") not in ("painting", "paused", "stopping"):
        return int(live.get("backlog", 0))
    try:
        scan = make_scanner(config, None, 0).scan()
    except (PipelineError, OSError):
        return 0  # the daemon waits for it, and says so
    new = {found.path for found in scan.stable}
    if ledger := Ledger.to_read(ledger_path(config.state)):
        with ledger:
            new -= {one.source for one in ledger.files.failed() if not is_gone(one.place)}
            new.difference_update(ledger.jobs.sources(*JobState))
    return len(new) * _style_count(config)


def _style_count(config: Config) -> int:
    """Return how many styles there are, those of folders as far as these are there."""
    try:
        return len(StyleFolders(config, 0).find().config.styles)
    except UnreadableError:
        return len(config.styles)


def _waiting(*sources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each file once that waits, the first to be tried again first; the last source wins."""
    by_path = {one["path"]: one for some in sources for one in some}
    return sorted(by_path.values(), key=lambda one: one["next_try"])


def lines(status: Status) -> Iterator[str]:
    """Give the status as lines for people."""
    if status.alive:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(status.since))
        yield f"{status.command:10} alive, process {status.pid}, since {since}"
    else:
        yield "watch      not running"
    state = f"{status.state}: {status.detail}" if status.detail else status.state
    if status.state == "idle" and status.queue:
        state = f"idle: {counted(status.queue, 'job')} cannot be done yet"
    yield f"state      {state}{' (a pause is asked for)' if status.paused else ''}"
    if in_short := workers_in_short(status.workers):
        yield f"workers    {in_short}"
        yield from _worker_lines(status.workers)
    elif status.current:
        now = status.current
        yield (
            f"job        {shown(Path(now['content']).name)} in {now['style']}: iteration "
            f"{now['iteration']} of {now['iterations']}, loss {now['loss']:.4g}"
        )
    arriving = counted(status.arriving, "file")
    yield f"queue      {counted(status.queue, 'job')}, {arriving} still arriving"
    if status.passed_over:
        yield f"passed     {PassedOver(**status.passed_over, notes=[])}"
    if status.styles is not None:
        yield f"styles     {status.styles}"
    for note in status.left_out[:FAILURES]:
        yield f"           {shown(note)}"
    if (more := len(status.left_out) - FAILURES) > 0:
        yield f"           and {more} more like these; --json lists all"
    for one in status.waiting[:5]:
        wait = max(0.0, one["next_try"] - time.time())
        yield f"waits      {shown(one['reason'])}; tried again in {wait:.0f} s"
    if len(status.waiting) > 5:
        yield f"           and {len(status.waiting) - 5} more"
    files = f" ({counted(status.failed, 'file')})" if status.failed else ""
    yield (
        f"jobs       {status.done} done, {status.failed_jobs} failed{files}, {status.cancelled} "
        f"cancelled; {status.jobs_last_hour} done in the last hour"
    )
    for failure in status.failures[-FAILURES:]:
        is_left = failure["place"] == failure["source"]
        where = "left there" if is_left else f"now {shown(failure['place'])}"
        yield f"failed     {shown(failure['reason'])}; {where}"
    if (more := len(status.failures) - FAILURES) > 0:
        yield f"failed     {more} more before them; --json lists all"
    yield from _deliveries(status)
    if status.last_error:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(status.last_error["time"]))
        yield f"error      {when} {shown(status.last_error['reason'])}"
    if status.device and not in_short:
        memory = f", {_megabytes(status.memory_bytes)}" if status.memory_bytes else ""
        yield f"device     {status.device}{memory}"
    cache = status.cache
    yield (
        f"cache      {cache.get('hits', 0)} hits, {cache.get('misses', 0)} misses, "
        f"{_megabytes(cache.get('bytes', 0))} in memory, {_megabytes(cache['disk_bytes'])} on disk"
    )
    piled_up = (
        f"{counted(one['files'], kind.removesuffix('s'))} ({_megabytes(one['bytes'])})"
        for kind, one in status.kept.items()
    )
    yield f"kept       {', '.join(piled_up)}"
    yield (
        f"disk       {_megabytes(status.free_bytes)} free; nothing is begun below "
        f"{_megabytes(status.min_free_bytes)}"
    )


def workers_in_short(workers: list[dict[str, Any]]) -> str:
    """Return how many workers there are and are at work; empty: none but the daemon itself."""
    if len(workers) < 2 and not any(one["node"] for one in workers):
        return ""
    at_work = sum(one["job"] is not None for one in workers)
    nodes = len({one["node"] for one in workers})
    return f"{len(workers)} on {counted(nodes, 'node')}, {at_work} at work"


def _worker_lines(workers: list[dict[str, Any]]) -> Iterator[str]:
    """Give what the workers do, those at work first."""
    for one in sorted(workers, key=lambda one: one["job"] is None)[:WORKERS]:
        memory = f", {_megabytes(one['memory_bytes'])}" if one["memory_bytes"] else ""
        where = shown(", ".join(filter(None, (one["node"], one["device"]))))
        what = "waits"
        if job := one["job"]:
            name = shown(Path(job["content"]).name)
            what = f"{name} in {job['style']}: iteration {one['iteration']} of {one['iterations']}"
        done = counted(one["jobs_done"], "job")
        yield f"           {shown(one['name'])} ({where}{memory}; {done} done): {what}"
    if (more := len(workers) - WORKERS) > 0:
        yield f"           and {more} more; --json lists all"


def _deliveries(status: Status) -> Iterator[str]:
    """Give what there is to say of hooks."""
    waiting, last = status.deliveries["waiting"], status.deliveries["last_failure"]
    left = counted(waiting, "delivery")
    if last:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(last["time"]))
        yield f"hooks      {left} waiting; last failure {when} {shown(last['reason'])}"
    elif waiting:
        yield f"hooks      {left} waiting"


def _megabytes(number: int | None) -> str:
    return f"{(number or 0) / 1e6:,.0f} MB"
