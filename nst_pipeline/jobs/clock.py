"""The clock that jobs wait by: no setting of the machine's clock moves it while that is up."""

import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

LONGEST_WAIT_SECONDS = 86_400.0
"""Nothing waits longer for its next attempt, whatever the machine's clock was meanwhile."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def clock_of(database: sqlite3.Connection) -> Callable[[], float]:
    """Return a ledger's clock: seconds since the epoch, as they were when this boot first asked."""
    kept = _kept(database)
    offset = _offset() if kept is None else kept
    return lambda: offset + time.clock_gettime(SINCE_BOOT)


def set_clock(database: sqlite3.Connection) -> None:
    """Keep a ledger's clock for as long as the machine is up, and bound by it how long jobs wait.

    What jobs wait for was set by another boot's clock, perhaps.
    """
    if _kept(database) is None:
        kept = f"{_boot()} {_offset()!r}"
        database.execute("INSERT OR REPLACE INTO facts VALUES ('clock', ?)", (kept,))
    latest = clock_of(database)() + LONGEST_WAIT_SECONDS
    database.execute(
        "UPDATE jobs SET next_try = ?1 WHERE state = 'queued' AND next_try > ?1", (latest,)
    )
    database.execute("UPDATE deliveries SET next_try = ?1 WHERE next_try > ?1", (latest,))


def _kept(database: sqlite3.Connection) -> float | None:
    """Return the epoch's seconds at the boot that a ledger holds; None: it is another boot's."""
    row = database.execute("SELECT value FROM facts WHERE name = 'clock'").fetchone()
    boot, _, offset = (row[0] if row else "").partition(" ")
    return float(offset) if boot and boot == _boot() else None


def _offset() -> float:
    return time.time() - time.clock_gettime(SINCE_BOOT)


def _boot() -> str:
    """Return what tells this boot of the machine from all others; empty: nobody knows."""
    with contextlib.suppress(OSError):
        return BOOT_ID.read_text().strip()
    return ""
