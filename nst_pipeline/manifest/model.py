"""One run's record: valid JSON on disk from its first job to its last."""

import json
import platform
import secrets
import time
from collections import Counter
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from nst_pipeline import __version__
from nst_pipeline.config.weights import Weights
from nst_pipeline.files import publish, shown

BULK = 500
"""A manifest of more jobs is not written after each: that would take ever longer."""
BULK_SHARE = 10
"""Of a time span, one part in so many may go into writing one."""
LISTED_SKIPPED = 10_000
"""Of more jobs that were done already, a manifest tells the number alone."""
LIBRARIES = ("torch", "torchvision", "numpy", "pillow", "imagecodecs", "safetensors")


class Record(BaseModel):
    """Base of all records."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RunRecord(Record):
    """The run itself."""

    id: str
    started: datetime
    ended: datetime | None = Field(None, description="null while it runs, or after a kill")
    status: Literal["running", "finished", "stopped"] = "running"


class ProgramRecord(Record):
    """What ran."""

    name: str = "nst-pipeline"
    version: str = __version__
    python: str
    platform: str
    libraries: dict[str, str]


class DeviceRecord(Record):
    """What it ran on."""

    name: str
    precision: Literal["fp32", "bf16"]


class WeightsRecord(Record):
    """The network's weights."""

    id: str
    path: str
    sha256: str
    note: str


class FileRecord(Record):
    """An image file; ``size`` is (height, width)."""

    path: str
    sha256: str | None = None
    size: tuple[int, int] | None = None


class ContentRecord(FileRecord):
    """A picture that was to be painted."""

    companions: dict[str, FileRecord] = Field(
        {}, description="files beside it that say how, by kind: mask, mask.NAME, init"
    )


class SourceRecord(Record):
    """One of a style's images; ``weight`` is its share of its region's style."""

    region: str
    path: str
    sha256: str
    weight: float


class StyleRecord(Record):
    """A style; of several images, ``path`` is the first's and ``sha256`` is over all."""

    name: str
    path: str
    sha256: str
    images: list[SourceRecord] = Field([], description="of a style of several images")


class ErrorRecord(Record):
    """Why a job failed; ``trace`` is empty for a reason that the program foresaw."""

    reason: str
    trace: str = ""


class LossRecord(Record):
    """Weighted terms of a loss, and their sum."""

    content: float
    style: float
    tv: float
    total: float


class JobRecord(Record):
    """One content x one style."""

    status: Literal["done", "failed", "skipped"]
    content: ContentRecord
    style: StyleRecord
    output: FileRecord | None = None
    key: str | None = Field(None, description="SHA-256 over everything that decides the output")
    error: ErrorRecord | None = None
    iterations: int | None = None
    stop_reason: Literal["iterations", "converged", "settled", "diverged"] | None = None
    losses: dict[Literal["start", "end"], LossRecord] | None = None
    seconds: float | None = None
    history_size: int | None = Field(
        None, description="of L-BFGS, where memory did not suffice for the recipe's"
    )
    extras: list[str] = Field([], description="snapshots and animation beside the output")
    duplicate_of: str | None = Field(
        None, description="the output that this one is a copy of: the same bytes, painted once"
    )


class TotalsRecord(Record):
    """Sums over the jobs."""

    jobs: int
    done: int
    failed: int
    skipped: int
    duplicates: int = Field(0, description="of the jobs done, those that needed no painting")
    seconds: float
    cache_hits: int
    cache_misses: int


class Manifest(Record):
    """A run's record, as outbox/manifests holds it."""

    run: RunRecord
    program: ProgramRecord
    device: DeviceRecord | None = Field(description="null when nothing had to be painted")
    weights: WeightsRecord
    config: dict[str, Any] = Field(description="as resolved, every default filled in")
    jobs: list[JobRecord] = Field(
        description="those skipped only if they are not more than 10,000; `totals` counts them"
    )
    totals: TotalsRecord


@cache
def program() -> ProgramRecord:
    """Return what is running; asks the installed packages, and imports none of them."""
    return ProgramRecord(
        python=platform.python_version(),
        platform=platform.platform(),
        libraries={name: version(name) for name in LIBRARIES},
    )


class Recorder:
    """Keeps a run's manifest.

    Attributes:
        device: set once it is known.
        cache_hits: of the style targets.
        cache_misses: of the style targets.
    """

    def __init__(self, outbox: Path, weights: Weights, config: dict[str, Any]) -> None:
        """Begin the record of a run that starts now; nothing is written yet."""
        now = datetime.now(UTC)
        self._begun = time.monotonic()
        self._run = RunRecord(id=f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}", started=now)
        self._weights = WeightsRecord(
            id=weights.id, path=shown(weights.path), sha256=weights.sha256, note=weights.note
        )
        self._config, self._jobs = config, dict[tuple[str, str], JobRecord]()
        self._saved, self._save_seconds = 0.0, 0.0
        self._skipped = 0
        self.path = outbox / "manifests" / f"{self._run.id}.json"
        self.device: DeviceRecord | None = None
        self.cache_hits = self.cache_misses = 0

    @property
    def id(self) -> str:
        """The run's name."""
        return self._run.id

    @property
    def count(self) -> int:
        """The number of jobs."""
        return len(self._jobs)

    def add(self, record: JobRecord) -> None:
        """Add what became of a job, in place of what was said of it before."""
        self._jobs[record.content.path, record.style.name] = record

    def skip(self, jobs: int) -> None:
        """Count jobs that were done already, too many to be listed."""
        self._skipped = jobs

    def end(self, status: Literal["finished", "stopped"]) -> None:
        """Record that the run is over."""
        self._run = self._run.model_copy(update={"status": status, "ended": datetime.now(UTC)})

    def manifest(self) -> Manifest:
        """Return the manifest as it stands."""
        jobs = list(self._jobs.values())
        seconds = time.monotonic() - self._begun
        return Manifest(
            run=self._run,
            program=program(),
            device=self.device,
            weights=self._weights,
            config=self._config,
            jobs=jobs,
            totals=totals(jobs, seconds, self.cache_hits, self.cache_misses, self._skipped),
        )

    def save_if_due(self) -> None:
        """Write the manifest after a job, but a long one only now and then.

        Raises:
            CannotCreateError, OutputError: see `save`.
        """
        wait = BULK_SHARE * self._save_seconds if len(self._jobs) > BULK else 0.0
        if time.monotonic() - self._saved >= wait:
            begun = time.monotonic()
            self.save()
            self._saved = time.monotonic()
            self._save_seconds = self._saved - begun

    def save(self) -> None:
        """Write the manifest to the outbox, replacing the last one atomically.

        Raises:
            CannotCreateError: the outbox cannot be written to.
            OutputError: the disk is full or broken.
        """
        publish(self.path, to_json(self.manifest()).encode())


def totals(
    jobs: list[JobRecord],
    seconds: float,
    cache_hits: int = 0,
    cache_misses: int = 0,
    skipped: int = 0,
) -> TotalsRecord:
    """Return the sums over ``jobs``, and ``skipped`` more that are not among them."""
    count = Counter(job.status for job in jobs)
    return TotalsRecord(
        jobs=len(jobs) + skipped,
        done=count["done"],
        failed=count["failed"],
        skipped=count["skipped"] + skipped,
        duplicates=sum(job.duplicate_of is not None for job in jobs),
        seconds=seconds,
        cache_hits=cache_hits,
        cache_misses=cache_misses,
    )


def to_json(manifest: Manifest) -> str:
    """Return a manifest as indented JSON."""
    return json.dumps(manifest.model_dump(mode="json"), indent=2)


def schema() -> dict[str, Any]:
    """Return the JSON schema that every manifest follows."""
    return Manifest.model_json_schema(mode="serialization")
