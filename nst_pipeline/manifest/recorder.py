"""The record of a run, kept in the manifest and in the ledger at once."""

import contextlib
import secrets
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from nst_pipeline.config.weights import Weights
from nst_pipeline.files import as_text, publish
from nst_pipeline.folders import Folders
from nst_pipeline.jobs.outcome import Machine, Place
from nst_pipeline.jobs.run_table import RunTable, record_name
from nst_pipeline.manifest.model import (
    DeviceRecord,
    JobRecord,
    Manifest,
    RunRecord,
    TotalsRecord,
    WeightsRecord,
    job_json,
    program,
    to_json,
    totals,
)

BULK = 500
"""A manifest of more jobs is not written after each: that would take ever longer."""
BULK_SHARE = 10
"""Of a time span, one part in so many may go into writing one."""
LISTED_SKIPPED = 10_000
"""Of more jobs that were done already, a manifest tells the number alone."""

Ending = Literal["finished", "stopped"]


class Recorder:
    """Keeps the record of a run.

    Attributes:
        path: of the manifest.
        is_open: whether the run has begun, and not ended.
    """

    def __init__(
        self,
        outbox: Path,
        weights: Weights,
        config: dict[str, Any],
        runs: RunTable,
        folders: Folders,
        machines: dict[Place, Machine] | None = None,
        on_finish: Callable[[JobRecord], None] = lambda _: None,
    ) -> None:
        """Record a run that starts now; nothing is written before `begin`.

        Args:
            outbox: holds the manifest.
            weights: the network's.
            config: the settings, as plain data.
            runs: the ledger's copy.
            folders: to reach the manifest in.
            machines: what workers told last, kept for the run after this one.
            on_finish: told of each job that is over, once that is durable.
        """
        now = datetime.now(UTC)
        self._begun = time.monotonic()
        self._run = RunRecord(id=f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}", started=now)
        self._weights = WeightsRecord(
            id=weights.id, path=as_text(weights.path), sha256=weights.sha256, note=weights.note
        )
        self._config, self._jobs = config, dict[tuple[str, str], JobRecord]()
        self._texts: dict[tuple[str, str], str] = {}
        self._runs, self._folders, self._on_finish = runs, folders, on_finish
        self._saved, self._save_seconds = 0.0, 0.0
        self._skipped = 0
        self._told = {} if machines is None else machines
        self._before = dict(self._told)
        self._machines: dict[Place, Machine] = {}
        self.path = outbox / "manifests" / f"{self._run.id}.json"
        self.is_open = False

    def add_styles(self, styles: dict[str, Any]) -> None:
        """Record that there are other styles from now on: the settings, by name, as plain data."""
        self._config = self._config | {"styles": self._config["styles"] | styles}

    @property
    def count(self) -> int:
        """The number of jobs."""
        return len(self._jobs)

    def skip(self, records: Iterable[JobRecord], count: int) -> None:
        """Record that ``count`` jobs were done already; very many are not listed."""
        if count > LISTED_SKIPPED:
            self._skipped = count
        else:
            for record in records:
                self.add(record)

    def add(self, record: JobRecord) -> None:
        """Add what became of a job, in place of what was said of it before."""
        key = record.content.place, record.style.name
        self._jobs[key], self._texts[key] = record, job_json(record)

    def begin(self) -> None:
        """Write the manifest for the first time.

        Raises:
            CannotCreateError, OutputError: see `files.publish`.
        """
        if not self.is_open:
            self._runs.begin(self._run.id, self.path, self._head())
            self._save(durably=True)
            self.is_open = True

    def finish(self, *records: JobRecord) -> None:
        """Record what became of jobs, durably.

        The manifest is written anew after each call, but a long one only now and then.

        Raises:
            CannotCreateError, OutputError: see `files.publish`.
        """
        for record in records:
            self.add(record)
        kept = {
            record_name(record.content.place, record.style.name): record.model_dump_json(
                exclude_defaults=True
            )
            for record in records
        }
        self._runs.keep(self._run.id, kept)
        wait = BULK_SHARE * self._save_seconds if len(self._jobs) > BULK else 0.0
        if time.monotonic() - self._saved >= wait:
            begun = time.monotonic()
            self._save()
            self._saved = time.monotonic()
            self._save_seconds = self._saved - begun
        for record in records:
            self._on_finish(record)

    def note(self, machine: Machine) -> None:
        """Record what is painted on."""
        is_new = machine.place not in self._machines
        self._machines[machine.place] = self._told[machine.place] = machine
        if is_new and self.is_open:
            self._runs.note(self._run.id, self._head())

    def end(self, status: Ending) -> None:
        """Record the run's end.

        Raises:
            CannotCreateError, OutputError: see `files.publish`.
        """
        self._run = self._run.model_copy(update={"status": status, "ended": datetime.now(UTC)})
        if self.is_open:
            self._save(durably=True)
            self._runs.end(self._run.id, self._head())
            self.is_open = False

    def drop_empty(self) -> None:
        """Leave no trace of a run that no job came of, and end it."""
        if self.is_open and not self._jobs and not self._skipped:
            with contextlib.suppress(OSError):
                self._folders.unlink(self.path)
            self._runs.forget(self._run.id)
            self.is_open = False

    def manifest(self) -> Manifest:
        """Return the manifest as it stands."""
        jobs, devices = list(self._jobs.values()), self._devices()
        seconds = time.monotonic() - self._begun
        hits, misses = self._cache_counts()
        return Manifest(
            run=self._run,
            program=program(),
            device=devices[0] if devices else None,
            devices=devices,
            weights=self._weights,
            config=self._config,
            jobs=jobs,
            totals=totals(jobs, seconds, hits, misses, self._skipped),
        )

    def _cache_counts(self) -> tuple[int, int]:
        """Return the hits and misses of this run, of workers that may have served others."""
        hits = misses = 0
        for place, now in self._machines.items():
            before = self._before.get(place)
            hits += max(0, now.cache_hits - (before.cache_hits if before else 0))
            misses += max(0, now.cache_misses - (before.cache_misses if before else 0))
        return hits, misses

    def _devices(self) -> list[DeviceRecord]:
        """Return what was painted on, each once, however many workers share it."""
        found = [
            DeviceRecord(
                node=one.node or None, name=one.device, precision=one.precision,
                threads=one.threads,
            )
            for one in self._machines.values()
        ]  # fmt: skip
        return list(dict.fromkeys(found))

    def _save(self, durably: bool = False) -> None:
        # Between its begin and its end a loss of power costs nothing: the ledger has the records.
        text = to_json(self._without_jobs(), self._texts.values())
        publish(self.path, text.encode(), self._folders, durably=durably)

    def _head(self) -> str:
        return self._without_jobs().model_dump_json()

    def _without_jobs(self) -> Manifest:
        return self.manifest().model_copy(update={"jobs": []})


def rebuild(runs: RunTable, folders: Folders) -> list[Path]:
    """Complete the manifests of interrupted runs, and write the last one anew if it is lost.

    What a manifest holds and the ledger does not, such as the jobs that were skipped, is kept.

    Raises:
        CannotCreateError, OutputError: see `files.publish`.
    """
    rebuilt = []
    for number, run in enumerate(runs.latest_first()):
        if not run.is_open and number:
            continue
        there = _read(run.path, folders)
        if there is None or run.is_open:
            whole = _completed(there or Manifest.model_validate_json(run.head), runs, run.id)
            if whole != there:
                publish(run.path, to_json(whole).encode(), folders)
                rebuilt.append(run.path)
            runs.end(run.id)
    return rebuilt


def _read(path: Path, folders: Folders) -> Manifest | None:
    with contextlib.suppress(OSError, ValidationError), folders.reader(path) as file:
        return Manifest.model_validate_json(file.read())
    return None


def _completed(manifest: Manifest, runs: RunTable, run: str) -> Manifest:
    """Return a manifest with the ledger's records and an end."""
    jobs = {(job.content.place, job.style.name): job for job in manifest.jobs}
    for text in runs.records(run):
        job = JobRecord.model_validate_json(text)
        jobs[job.content.place, job.style.name] = job
    about = manifest.run
    if about.status == "running":
        about = about.model_copy(update={"status": "stopped"})
    return manifest.model_copy(
        update={
            "run": about,
            "jobs": list(jobs.values()),
            "totals": _new_totals(list(jobs.values()), manifest.totals),
        }
    )


def _new_totals(jobs: list[JobRecord], old: TotalsRecord) -> TotalsRecord:
    listed = sum(job.status == "skipped" for job in jobs)
    return totals(jobs, old.seconds, old.cache_hits, old.cache_misses, max(0, old.skipped - listed))
