"""The ledger's copy of the manifests, as JSON: what a lost one is written anew from."""

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from nst_pipeline.jobs.schema import transaction

KEPT_RUNS = 100
"""Runs whose records stay in the ledger."""


class KnownRun(NamedTuple):
    """A run: its manifest's path, the manifest without its jobs, and whether it has an end."""

    id: str
    path: Path
    head: str
    is_open: bool


class RunTable:
    """The last runs, with the records of their jobs."""

    def __init__(self, database: sqlite3.Connection) -> None:
        """Work with the tables of ``database``."""
        self._database = database

    def begin(self, run: str, path: Path, head: str) -> None:
        """Record that a run has begun to make the manifest at ``path``; forget very old ones."""
        with transaction(self._database):
            self._database.execute(
                "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, 1)",
                (run, time.time(), os.fsencode(path), head),
            )
            old = "SELECT id FROM runs ORDER BY started DESC LIMIT -1 OFFSET ?"
            self._database.execute(f"DELETE FROM records WHERE run IN ({old})", (KEPT_RUNS,))
            self._database.execute(f"DELETE FROM runs WHERE id IN ({old})", (KEPT_RUNS,))

    def keep(self, run: str, records: Mapping[str, str]) -> None:
        """Keep the records of jobs, by `record_name`, in place of what was said before."""
        with transaction(self._database):
            self._database.executemany(
                "INSERT OR REPLACE INTO records VALUES (?, ?, ?)",
                ((run, job, record) for job, record in records.items()),
            )

    def note(self, run: str, head: str) -> None:
        """Keep what is known of a run by now."""
        self._database.execute("UPDATE runs SET head = ? WHERE id = ?", (head, run))

    def end(self, run: str, head: str | None = None) -> None:
        """Record that a run's manifest is complete."""
        self._database.execute(
            "UPDATE runs SET open = 0, head = coalesce(?, head) WHERE id = ?", (head, run)
        )

    def forget(self, run: str) -> None:
        """Know of a run no more that no job came of."""
        self._database.execute("DELETE FROM runs WHERE id = ?", (run,))

    def latest_first(self) -> list[KnownRun]:
        """Return the runs."""
        rows = self._database.execute(
            "SELECT id, path, head, open FROM runs ORDER BY started DESC"
        ).fetchall()
        return [
            KnownRun(run, Path(os.fsdecode(path)), head, bool(is_open))
            for run, path, head, is_open in rows
        ]

    def listed(self) -> list[tuple[str, bool]]:
        """Return the runs, the oldest first, and whether each has no end yet."""
        rows = self._database.execute("SELECT id, open FROM runs ORDER BY started, id").fetchall()
        return [(run, bool(is_open)) for run, is_open in rows]

    def head(self, run: str) -> str | None:
        """Return a run's manifest without its jobs; None: it was forgotten."""
        row = self._database.execute("SELECT head FROM runs WHERE id = ?", (run,)).fetchone()
        return row[0] if row else None

    def records(self, run: str, jobs: Sequence[str] | None = None) -> Iterator[str]:
        """Give the records of a run's jobs, or of those alone that were kept by some names."""
        if jobs is None:
            rows = self._database.execute("SELECT record FROM records WHERE run = ?", (run,))
            yield from (record for (record,) in rows)
            return
        for job in jobs:
            yield from (
                record
                for (record,) in self._database.execute(
                    "SELECT record FROM records WHERE run = ? AND job = ?", (run, job)
                )
            )


def record_name(place: str, style: str) -> str:
    """Return what a job's record is kept by: its content's place and its style."""
    return f"{place}\n{style}"
