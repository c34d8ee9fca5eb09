"""The ledger's copy of the manifests: what a lost or interrupted one is written anew from."""

import contextlib
import os
import time
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from nst_pipeline.files import publish
from nst_pipeline.jobs.ledger import Ledger
from nst_pipeline.manifest.model import JobRecord, Manifest, Recorder, to_json, totals

Ending = Literal["finished", "stopped"]
KEPT_RUNS = 100
"""Runs whose records stay in the ledger."""


def begin(ledger: Ledger, recorder: Recorder) -> None:
    """Record that a run has begun to make a manifest; forget very old ones."""
    with ledger.transaction():
        ledger.database.execute(
            "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, 1)",
            (recorder.id, time.time(), os.fsencode(recorder.path), _head(recorder)),
        )
        old = "SELECT id FROM runs ORDER BY started DESC LIMIT -1 OFFSET ?"
        ledger.database.execute(f"DELETE FROM records WHERE run IN ({old})", (KEPT_RUNS,))
        ledger.database.execute(f"DELETE FROM runs WHERE id IN ({old})", (KEPT_RUNS,))


def keep(ledger: Ledger, recorder: Recorder, record: JobRecord) -> None:
    """Keep a job's record."""
    ledger.database.execute(
        "INSERT OR REPLACE INTO records VALUES (?, ?, ?)",
        (
            recorder.id,
            f"{record.content.path}\n{record.style.name}",
            record.model_dump_json(exclude_defaults=True),
        ),
    )


def end(ledger: Ledger, recorder: Recorder) -> None:
    """Record that a run's manifest is complete."""
    ledger.database.execute(
        "UPDATE runs SET open = 0, head = ? WHERE id = ?", (_head(recorder), recorder.id)
    )


def rebuild(ledger: Ledger) -> list[Path]:
    """Write anew the manifests of interrupted runs, and the last one if it is lost or damaged.

    Raises:
        CannotCreateError: the outbox cannot be written to.
        OutputError: the disk is full or broken.
    """
    rows = ledger.database.execute(
        "SELECT id, path, head, open FROM runs ORDER BY started DESC"
    ).fetchall()
    rebuilt = []
    for number, (run, path_bytes, head, is_open) in enumerate(rows):
        path = Path(os.fsdecode(path_bytes))
        if is_open or (number == 0 and not _is_valid(path)):
            publish(path, to_json(_from_ledger(ledger, run, head)).encode())
            ledger.database.execute("UPDATE runs SET open = 0 WHERE id = ?", (run,))
            rebuilt.append(path)
    return rebuilt


def _from_ledger(ledger: Ledger, run: str, head: str) -> Manifest:
    manifest = Manifest.model_validate_json(head)
    rows = ledger.database.execute("SELECT record FROM records WHERE run = ?", (run,))
    jobs = [JobRecord.model_validate_json(record) for (record,) in rows]
    about = manifest.run
    if about.status == "running":
        about = about.model_copy(update={"status": "stopped"})
    old = manifest.totals
    return manifest.model_copy(
        update={
            "run": about,
            "jobs": jobs,
            "totals": totals(jobs, old.seconds, old.cache_hits, old.cache_misses),
        }
    )


def _head(recorder: Recorder) -> str:
    return recorder.manifest().model_copy(update={"jobs": []}).model_dump_json()


def _is_valid(path: Path) -> bool:
    with contextlib.suppress(OSError, ValidationError):
        Manifest.model_validate_json(path.read_bytes())
        return True
    return False
