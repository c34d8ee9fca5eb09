"""The manifest's schema: everything that the record of a run holds."""

import json
import platform
import re
import textwrap
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from functools import cache
from importlib.metadata import version
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from nst_pipeline import __version__
from nst_pipeline.files import as_text, raw_bytes

NUMBERS = re.compile(r"\[\n\s+([-+.,\de\s]+?)\s+\]")
"""A list of numbers in indented JSON; in a text there, no line ends."""
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

    node: str | None = Field(None, description="the computer's name; null: that of the program")
    name: str
    precision: Literal["fp32", "bf16"]
    threads: int | None = Field(
        None, description="of a CPU: with another number the pixels come out a little different"
    )


class WeightsRecord(Record):
    """The network's weights; ``sha256`` is as `Weights` has it."""

    id: str
    path: str
    sha256: str
    note: str


class FileRecord(Record):
    """An image file; ``size`` is (height, width)."""

    path: str
    raw: str | None = Field(
        None, description="the path's bytes in hexadecimal, where they are no text"
    )
    sha256: str | None = None
    size: tuple[int, int] | None = None

    @classmethod
    def of(cls, path: object, **rest: Any) -> Self:
        """Return the record of the file at a path."""
        return cls(path=as_text(path), raw=raw_bytes(path), **rest)

    @property
    def place(self) -> str:
        """What no other file has: the path, or its bytes."""
        return self.raw or self.path


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


class CurveRecord(Record):
    """How the best loss so far fell at one scale, whose pastiche is of ``size`` (height, width)."""

    size: tuple[int, int]
    steps: list[int] = Field(description="done over all scales")
    losses: list[float] = Field(description="after each; not to be compared with other scales'")


class JobRecord(Record):
    """One content x one style."""

    status: Literal["done", "failed", "skipped"]
    content: ContentRecord
    style: StyleRecord
    output: FileRecord | None = None
    key: str | None = Field(
        None, description="SHA-256 over everything that decides the output, but the machine"
    )
    error: ErrorRecord | None = None
    iterations: int | None = None
    stop_reason: Literal["iterations", "converged", "settled", "diverged"] | None = None
    losses: dict[Literal["start", "end"], LossRecord] | None = None
    curve: list[CurveRecord] = Field(
        [], description="of the loss, by scale, coarse to fine; 100 points at most"
    )
    seconds: float | None = None
    history_size: int | None = Field(
        None, description="of L-BFGS, where memory did not suffice for the recipe's"
    )
    extras: list[str] = Field([], description="snapshots and animation beside the output")
    notes: list[str] = Field(
        [], description="what else is in the files it was made of: pages, frames, pictures"
    )
    duplicate_of: str | None = Field(
        None, description="the output that this one is a copy of: the same bytes, painted once"
    )
    node: str | None = Field(
        None, description="the computer that painted it; null: that of the program"
    )
    device: str | None = Field(None, description="what painted it, as in `devices`")


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
    device: DeviceRecord | None = Field(
        description="the first of `devices`; null when nothing had to be painted"
    )
    devices: list[DeviceRecord] = Field([], description="all that painted something")
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


def to_json(manifest: Manifest, jobs: Iterable[str] = ()) -> str:
    """Return a manifest as indented JSON.

    Args:
        manifest: the record.
        jobs: of one without any, its jobs as `job_json` gives them: so that none need be written
            out again when one is added.
    """
    text = _indented(manifest)
    if not (listed := ",\n".join(jobs)):
        return text
    return text.replace('\n  "jobs": [],\n', f'\n  "jobs": [\n{listed}\n  ],\n', 1)


def job_json(record: JobRecord) -> str:
    """Return a job as it stands in the JSON of its manifest."""
    return textwrap.indent(_indented(record), "    ")


def _indented(record: Record) -> str:
    """Return a record as indented JSON, but lists of numbers on one line."""
    text = json.dumps(record.model_dump(mode="json"), indent=2)
    return NUMBERS.sub(lambda match: f"[{' '.join(match[1].split())}]", text)


def schema() -> dict[str, Any]:
    """Return the JSON schema that every manifest follows."""
    return Manifest.model_json_schema(mode="serialization")
