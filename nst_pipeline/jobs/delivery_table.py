"""The ledger's deliveries: what hooks are still to be told of jobs that are over."""

import json
import os
import secrets
import sqlite3
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nst_pipeline.config.hooks import Event, Kind
from nst_pipeline.jobs.clock import LONGEST_WAIT_SECONDS, clock_of
from nst_pipeline.jobs.schema import transaction

Hook = tuple[Event, Kind]
"""Of what is told, and how."""


NO_DELIVERIES: dict[str, Any] = {"waiting": 0, "last_failure": None}
"""What `DeliveryTable.summary` says of none."""


@dataclass(frozen=True)
class Delivery:
    """What a hook is to be told.

    Attributes:
        id: its number.
        key: the same at each attempt, and no other delivery's.
        record: of the job, JSON.
        manifest: the manifest that holds it; None: none does.
        attempts: how often it was begun.
    """

    id: int
    key: str
    record: str
    manifest: Path | None
    attempts: int


@dataclass(frozen=True)
class Prepared:
    """What is to be told of a job as soon as that is over."""

    job: int
    event: Event
    record: str


class DeliveryTable:
    """What is still to be delivered; nothing that was, or that was given up.

    Attributes:
        now: gives the time that attempts wait by, in seconds since the epoch.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        """Work with the tables of ``database``."""
        self._database = database
        self.now = clock_of(database)

    # What is noted

    def prepare(
        self, job: int, event: Event, kinds: Iterable[Kind], record: str, manifest: Path | None
    ) -> None:
        """Note what is to be told of a job once it is over, in place of what was noted before."""
        self._note(job, event, kinds, record, manifest, job)

    def note(
        self,
        job: int | None,
        event: Event,
        kinds: Iterable[Kind],
        record: str,
        manifest: Path | None,
    ) -> None:
        """Note what is to be told now, in place of what was prepared for the job."""
        self._note(job, event, kinds, record, manifest, None)

    def prepared(self) -> list[Prepared]:
        """Return what waits for a job to be over."""
        rows = self._database.execute(
            "SELECT DISTINCT job, event, record FROM deliveries WHERE job IS NOT NULL"
        )
        return [Prepared(*row) for row in rows]

    def release(self, job: int, record: str) -> None:
        """Have told what was prepared for a job, with this record."""
        self._database.execute(
            "UPDATE deliveries SET job = NULL, record = ? WHERE job = ?", (record, job)
        )

    def discard(self, job: int) -> None:
        """Forget what was prepared for a job."""
        self._database.execute("DELETE FROM deliveries WHERE job = ?", (job,))

    def drop_all_but(self, hooks: Collection[Hook]) -> dict[Hook, int]:
        """Forget what was to be told to hooks that there are not; return how many of which."""
        dropped = {}
        with transaction(self._database):
            for hook, count in self._counts().items():
                if hook not in hooks:
                    self._database.execute(
                        "DELETE FROM deliveries WHERE event = ? AND kind = ?", hook
                    )
                    dropped[hook] = count
            if not hooks and self._last_failure():
                self._database.execute("DELETE FROM facts WHERE name = 'delivery_failure'")
        return dropped

    # What becomes of it

    def begin(self, hook: Hook) -> Delivery | None:
        """Return the next delivery that is due, counting an attempt; None: none is."""
        with transaction(self._database):
            row = self._database.execute(
                "SELECT id, key, record, manifest, attempts FROM deliveries "
                "WHERE event = ? AND kind = ? AND job IS NULL AND next_try <= ? "
                "ORDER BY next_try, id LIMIT 1",
                (*hook, self.now()),
            ).fetchone()
            if row is None:
                return None
            number, key, record, manifest, attempts = row
            self._database.execute(
                "UPDATE deliveries SET attempts = attempts + 1 WHERE id = ?", (number,)
            )
        path = Path(os.fsdecode(manifest)) if manifest else None
        return Delivery(number, key, record, path, attempts + 1)

    def end(self, delivery: Delivery) -> None:
        """Record that a delivery was made, or is given up."""
        self._database.execute("DELETE FROM deliveries WHERE id = ?", (delivery.id,))

    def put_off(self, delivery: Delivery, wait_seconds: float) -> None:
        """Have a delivery wait for its next attempt."""
        due = self.now() + min(wait_seconds, LONGEST_WAIT_SECONDS)
        self._database.execute(
            "UPDATE deliveries SET next_try = ? WHERE id = ?", (due, delivery.id)
        )

    def put_back(self, delivery: Delivery) -> None:
        """Take an attempt back that was ended before its time."""
        self._database.execute(
            "UPDATE deliveries SET attempts = attempts - 1 WHERE id = ?", (delivery.id,)
        )

    def note_failure(self, reason: str) -> None:
        """Remember the last failure, for people."""
        self._database.execute(
            "INSERT OR REPLACE INTO facts VALUES ('delivery_failure', ?)",
            (json.dumps({"reason": reason, "time": time.time()}),),
        )

    # What there is

    def waiting(self, until: float | None = None) -> int:
        """Return how many deliveries wait; with ``until``, of those that are due by then."""
        (count,) = self._database.execute(
            "SELECT count(*) FROM deliveries WHERE job IS NULL AND next_try <= ?",
            (1e300 if until is None else until,),
        ).fetchone()
        return int(count)

    def next_try(self, hook: Hook) -> float | None:
        """Return when, by `now`, the next delivery to a hook is due; None: there is none."""
        (when,) = self._database.execute(
            "SELECT min(next_try) FROM deliveries WHERE event = ? AND kind = ? AND job IS NULL",
            hook,
        ).fetchone()
        return None if when is None else float(when)

    def summary(self) -> dict[str, Any]:
        """Return how many deliveries wait, and the last failure with its reason and time."""
        is_there = self._database.execute("SELECT 1 FROM sqlite_master WHERE name = 'deliveries'")
        if not is_there.fetchone():  # of an older version, which is only read
            return NO_DELIVERIES
        return {"waiting": self.waiting(), "last_failure": self._last_failure()}

    def _last_failure(self) -> dict[str, Any] | None:
        row = self._database.execute(
            "SELECT value FROM facts WHERE name = 'delivery_failure'"
        ).fetchone()
        return json.loads(row[0]) if row else None

    def _counts(self) -> dict[Hook, int]:
        rows = self._database.execute(
            "SELECT event, kind, count(*) FROM deliveries GROUP BY event, kind"
        )
        return {(event, kind): count for event, kind, count in rows.fetchall()}

    def _note(
        self,
        replaced: int | None,
        event: Event,
        kinds: Iterable[Kind],
        record: str,
        manifest: Path | None,
        job: int | None,
    ) -> None:
        place = os.fsencode(manifest) if manifest else None
        with transaction(self._database):
            if replaced is not None:
                self.discard(replaced)
            self._database.executemany(
                "INSERT INTO deliveries (key, event, kind, job, record, manifest) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                ((secrets.token_hex(16), event, kind, job, record, place) for kind in kinds),
            )
