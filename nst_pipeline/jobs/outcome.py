"""What comes of a job: a result, a failure, or nothing yet."""

import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from nst_pipeline.errors import (
    BeingWrittenError,
    NotReadyError,
    OutOfMemoryError,
    PipelineError,
    UnreadableError,
)
from nst_pipeline.jobs.job import Job


@dataclass(frozen=True)
class EncodedResult:
    """A finished job: the output file's bytes, and what the manifest says of how it was made.

    Attributes:
        data: the output, an image file.
        size: of the output, (height, width).
        content_size: of the content, (height, width).
        iterations: steps done, over all scales.
        stop_reason: why they ended.
        start: the losses that the optimisation began with, by term.
        end: the losses of the output.
        seconds: that it took.
        history_size: of L-BFGS, where memory did not suffice for the recipe's.
        extras: files that go with the output, by what follows its stem.
        notes: what else is in the files that it was made of, for people.
        curve: how the best loss so far fell: of each scale the size of the pastiche, (height,
            width), steps done over all scales, and the loss after each.
    """

    data: bytes
    size: tuple[int, int]
    content_size: tuple[int, int]
    iterations: int
    stop_reason: str
    start: dict[str, float]
    end: dict[str, float]
    seconds: float
    history_size: int | None = None
    extras: Mapping[str, bytes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    curve: tuple[tuple[tuple[int, int], list[int], list[float]], ...] = ()


@dataclass(frozen=True)
class Failure:
    """Why a job came to nothing.

    Attributes:
        reason: for people.
        trace: of Python; empty for a reason that the program foresaw.
        kind: ``input`` if the content is no picture, ``changed`` if one of its files or the style's
            is another one by now, ``job`` if it will not work the next time either, ``passing``
            if it may, and ``system`` if it is not the job's fault at all, but the machine refused
            something: that may last, and is no attempt.
    """

    reason: str
    trace: str = ""
    kind: Literal["input", "changed", "job", "passing", "system"] = "passing"


def failure(error: Exception) -> Failure:
    """Return what an error means for a job; only what we did not foresee has a trace."""
    if isinstance(error, BeingWrittenError):
        return Failure(str(error), kind="changed")
    if isinstance(error, UnreadableError):
        return Failure(str(error), kind="system")
    if isinstance(error, OutOfMemoryError | NotReadyError):
        return Failure(str(error), kind="passing")  # others may free some
    if isinstance(error, PipelineError):
        return Failure(str(error), kind="job")
    trace = "".join(traceback.format_exception(error))
    # With a number it is the system's; what decoders raise of a file's bytes has none.
    is_systems = isinstance(error, OSError) and error.errno is not None
    kind: Literal["passing", "system"] = "system" if is_systems else "passing"
    return Failure(f"{type(error).__name__}: {error}", trace, kind)


Place = tuple[str, str, str]
"""A worker: its node, its name there and its device."""


@dataclass(frozen=True)
class Machine:
    """What a worker runs on, and how its cache of style targets fares.

    ``memory_bytes`` is what it holds of the device's memory; None for a CPU. ``threads`` is how
    many a CPU computes with; None for other devices. ``node`` is the name of the computer; empty:
    this one. ``worker`` tells it from others there, as `WorkerState.name` does.
    """

    device: str
    precision: str
    cache_hits: int
    cache_misses: int
    cache_bytes: int = 0
    memory_bytes: int | None = None
    threads: int | None = None
    node: str = ""
    worker: str = ""

    @property
    def place(self) -> Place:
        """What tells it from others: their counts are apart."""
        return self.node, self.worker, self.device


@dataclass(frozen=True)
class Outcome:
    """What became of a job; None: it was ended before its time, and may be begun anew.

    ``machine`` is what it was painted on, where it is a result.
    """

    job: Job
    outcome: EncodedResult | Failure | None
    machine: Machine | None = None
