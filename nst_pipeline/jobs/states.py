"""What the ledger holds of a job.

A job is ``queued``, ``running`` (attempt n), ``committing`` (its result stands in a temporary
file whose digest is known), ``done``, and ``disposed`` once its source was moved or deleted. It
ends elsewhere as ``failed``, ``cancelled``, ``replaced`` (its output was written over by another
job's) or ``gone`` (its source went away first).
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

State = Literal[
    "queued", "running", "committing", "done", "disposed", "failed", "cancelled", "replaced", "gone"
]
DONE_STATES = ("done", "disposed")
"""Of a job that made its output, which no other job wrote over."""
COLUMNS = (
    "id, source, style, key, content, output, state, attempts, next_try, poison, final, "
    "temporary, sha256, reason, trace"
)


@dataclass(frozen=True)
class Entry:
    """A job as the ledger holds it; see `schema` for the fields."""

    id: int
    source: Path
    style: str
    key: str
    content: str
    output: Path
    state: State
    attempts: int
    next_try: float
    poison: bool
    final: Path | None
    temporary: Path | None
    sha256: str | None
    reason: str
    trace: str

    @property
    def is_done(self) -> bool:
        """Whether it made its output, and no other job wrote over it."""
        return self.state in DONE_STATES


class Brief(NamedTuple):
    """What a plan needs to know of a job; ``final`` is where its output went."""

    id: int
    state: State
    final: bytes | None


def entry(row: tuple[object, ...]) -> Entry:
    """Return the entry that a row of `COLUMNS` holds."""
    values = list(row)
    for column in (1, 5, 10, 11):
        value = values[column]
        values[column] = Path(os.fsdecode(value)) if isinstance(value, bytes) else None
    values[9] = bool(values[9])
    return Entry(*values)  # type: ignore[arg-type]
