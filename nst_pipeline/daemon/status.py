"""What `nst-pipeline status` tells: read beside the daemon, without disturbing it."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nst_pipeline.config.pipeline import Config
from nst_pipeline.daemon.live import is_paused, read_live
from nst_pipeline.files import free_bytes, shown
from nst_pipeline.jobs.ledger import Ledger
from nst_pipeline.jobs.lock import holder
from nst_pipeline.jobs.planning import ledger_path

HOUR_SECONDS = 3600


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
        current: the job at work, with its iteration and its loss.
        done: jobs done, ever.
        failed: files given up.
        cancelled: jobs cancelled.
        jobs_last_hour: jobs done in the last hour.
        last_error: the last reason for trouble, and when.
        failures: the files given up, each with its reason and its place.
        device: what is painted on.
        memory_bytes: what is used of its memory.
        cache: style targets: hits, misses, bytes in memory, bytes on disk.
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
    current: dict[str, Any] | None = None
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    jobs_last_hour: int = 0
    last_error: dict[str, Any] | None = None
    failures: list[dict[str, Any]] = field(default_factory=list)
    device: str | None = None
    memory_bytes: int | None = None
    cache: dict[str, int] = field(default_factory=dict)
    free_bytes: int = 0
    min_free_bytes: int = 0

    def to_plain(self) -> dict[str, Any]:
        """Return it as plain data, ready for JSON."""
        return asdict(self)


def read_status(config: Config) -> Status:
    """Look at the lock, the ledger and what the daemon says of itself.

    Raises:
        CannotCreateError: the ledger cannot be read.
    """
    who = holder(config.state)
    live = read_live(config.state) if who and who.command == "watch" else {}
    facts = _from_ledger(config)
    on_disk = _size(config.state / "targets")
    return Status(
        alive=who is not None,
        pid=who.pid if who else None,
        command=who.command if who else None,
        since=who.since if who else None,
        state=live.get("state", "running" if who else "not running"),
        detail=live.get("detail", ""),
        paused=is_paused(config.state),
        queue=max(facts.pop("queue", 0), live.get("queue", 0)),
        arriving=live.get("arriving", 0),
        current=live.get("current"),
        last_error=live.get("last_error") or facts.pop("last_failure", None),
        device=live.get("device"),
        memory_bytes=live.get("memory_bytes"),
        cache=live.get("cache", {}) | {"disk_bytes": on_disk},
        free_bytes=free_bytes(config.outbox),
        min_free_bytes=config.limits.min_free_bytes,
        **{k: v for k, v in facts.items() if k != "last_failure"},
    )


def _from_ledger(config: Config) -> dict[str, Any]:
    ledger = Ledger.to_read(ledger_path(config))
    if ledger is None:
        return {}
    with ledger:
        count = dict(ledger.database.execute("SELECT state, count(*) FROM jobs GROUP BY state"))
        (recent,) = ledger.database.execute(
            "SELECT count(*) FROM jobs WHERE finished > ? AND state <> 'failed'",
            (time.time() - HOUR_SECONDS,),
        ).fetchone()
        failures = [
            {"source": shown(Path(source.decode("utf-8", "surrogateescape"))),
             "place": shown(Path(place.decode("utf-8", "surrogateescape"))),
             "reason": reason, "time": failed}
            for source, place, reason, failed in ledger.database.execute(
                "SELECT source, place, reason, failed FROM failures ORDER BY failed"
            )
        ]  # fmt: skip
    last = failures[-1] if failures else None
    return {
        "queue": sum(count.get(state, 0) for state in ("queued", "running", "committing")),
        "done": sum(count.get(state, 0) for state in ("done", "disposed", "replaced")),
        "failed": max(len(failures), 0),
        "cancelled": count.get("cancelled", 0),
        "jobs_last_hour": recent,
        "failures": failures,
        "last_failure": last and {"reason": last["reason"], "time": last["time"]},
    }


def lines(status: Status) -> Iterator[str]:
    """Give the status as lines for people."""
    if status.alive:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(status.since))
        yield f"{status.command:10} alive, process {status.pid}, since {since}"
    else:
        yield "watch      not running"
    state = f"{status.state}: {status.detail}" if status.detail else status.state
    yield f"state      {state}{' (a pause is asked for)' if status.paused else ''}"
    if status.current:
        now = status.current
        yield (
            f"job        {Path(now['content']).name} in {now['style']}: iteration "
            f"{now['iteration']} of {now['iterations']}, loss {now['loss']:.4g}"
        )
    yield f"queue      {status.queue} jobs, {status.arriving} files still arriving"
    yield (
        f"jobs       {status.done} done, {status.failed} files failed, {status.cancelled} "
        f"cancelled; {status.jobs_last_hour} done in the last hour"
    )
    for failure in status.failures[-5:]:
        yield f"failed     {failure['reason']}; now {failure['place']}"
    if status.last_error:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(status.last_error["time"]))
        yield f"error      {when} {status.last_error['reason']}"
    if status.device:
        memory = f", {_megabytes(status.memory_bytes)}" if status.memory_bytes else ""
        yield f"device     {status.device}{memory}"
    cache = status.cache
    yield (
        f"cache      {cache.get('hits', 0)} hits, {cache.get('misses', 0)} misses, "
        f"{_megabytes(cache.get('bytes', 0))} in memory, {_megabytes(cache['disk_bytes'])} on disk"
    )
    yield (
        f"disk       {_megabytes(status.free_bytes)} free, "
        f"{_megabytes(status.min_free_bytes)} must be"
    )


def width() -> int:
    """Return the terminal's width, in columns."""
    return shutil.get_terminal_size().columns


def _megabytes(number: int | None) -> str:
    return f"{(number or 0) / 1e6:,.0f} MB"


def _size(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in folder.iterdir())
    except OSError:
        return 0
