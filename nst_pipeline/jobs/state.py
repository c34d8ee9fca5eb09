"""A job's life: its states, the transitions between them, and what the ledger holds of it."""

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple


class JobState(StrEnum):
    """How far a job came; `TRANSITIONS` says where it can go from there."""

    QUEUED = "queued"  # planned: waits for its turn, or for the time of its next attempt
    RUNNING = "running"  # handed to a worker; `attempts` counts how often
    COMMITTING = "committing"  # its result is whole in a temporary file of a known digest
    DONE = "done"  # its result has its final name, and its source is where it was
    DISPOSED = "disposed"  # done, and its source was moved away or deleted
    REPLACED = "replaced"  # done, and then another job's result was written over its own
    FAILED = "failed"  # given up, with a reason
    CANCELLED = "cancelled"  # taken out of the queue by a person
    GONE = "gone"  # was queued, and nothing would be made of it now: its source or settings changed


S = JobState

TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    S.QUEUED: frozenset((S.RUNNING, S.COMMITTING, S.CANCELLED, S.GONE)),
    S.RUNNING: frozenset((S.COMMITTING, S.QUEUED, S.FAILED, S.CANCELLED)),
    S.COMMITTING: frozenset((S.COMMITTING, S.DONE, S.QUEUED, S.FAILED)),
    S.DONE: frozenset((S.DISPOSED, S.REPLACED, S.QUEUED)),
    S.DISPOSED: frozenset((S.REPLACED, S.QUEUED)),
    S.REPLACED: frozenset((S.QUEUED,)),
    S.FAILED: frozenset((S.QUEUED,)),
    S.CANCELLED: frozenset((S.QUEUED,)),
    S.GONE: frozenset((S.QUEUED,)),
}
"""Where a job can go from each state; anything else is refused by the ledger.

From ``queued`` straight to ``committing`` goes a job whose result was made before, for another
name; from ``committing`` to itself one whose name was taken in the last moment. Whatever is over
can be queued again: forced, retried, or because its output is missing.
"""

IN_QUEUE = (S.QUEUED, S.RUNNING, S.COMMITTING)
"""Of a job that is still to be done."""
AT_WORK = (S.RUNNING, S.COMMITTING)
"""Of a job that somebody has in hand."""
FINISHED = (S.DONE, S.DISPOSED)
"""Of a job whose output stands where it was put."""


def before(state: JobState) -> tuple[JobState, ...]:
    """Return the states from which a job can go to ``state``."""
    return tuple(source for source, targets in TRANSITIONS.items() if state in targets)


COLUMNS = (
    "id, source, style, key, content, output, state, attempts, next_try, poison, final, "
    "temporary, sha256, reason, trace, forced"
)


@dataclass(frozen=True)
class Entry:
    """A job as the ledger holds it; `schema` describes the fields."""

    id: int
    source: Path
    style: str
    key: str
    content: str
    output: Path
    state: JobState
    attempts: int
    next_try: float
    poison: bool
    final: Path | None
    temporary: Path | None
    sha256: str | None
    reason: str
    trace: str
    forced: bool


class EntrySummary(NamedTuple):
    """What a plan needs to know of a job.

    ``content`` is the SHA-256 of its content, ``output`` where its output was to go, and ``final``
    where it went.
    """

    id: int
    content: str
    state: JobState
    attempts: int
    next_try: float
    poison: bool
    output: bytes
    final: bytes | None


class Ended(NamedTuple):
    """A job that made its output or failed; `schema` describes the fields."""

    source: bytes
    style: str
    key: str
    content: str
    state: JobState
    final: bytes | None
    sha256: str | None
    reason: str
    finished: float


def entry(row: tuple[object, ...]) -> Entry:
    """Return the entry that a row of `COLUMNS` holds."""
    values = list(row)
    for column in (1, 5, 10, 11):
        value = values[column]
        values[column] = Path(os.fsdecode(value)) if isinstance(value, bytes) else None
    values[6], values[9], values[15] = JobState(str(values[6])), bool(values[9]), bool(values[15])
    return Entry(*values)  # type: ignore[arg-type]
