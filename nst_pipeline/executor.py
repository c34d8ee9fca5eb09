"""Executors paint tasks; the runner hands them out and takes in what comes back."""

from __future__ import annotations

import functools
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from nst_pipeline import inbox
from nst_pipeline.config import Config
from nst_pipeline.errors import DeviceLostError, ImageError, PipelineError
from nst_pipeline.files import shown
from nst_pipeline.jobs import Content, Job
from nst_pipeline.outbox import encode
from nst_pipeline.recipe import Recipe, digest
from nst_pipeline.weights import Weights

if TYPE_CHECKING:
    from PIL import Image

    from nst_pipeline.engine import Result, StyleTransfer, TargetCache


@dataclass(frozen=True)
class Task:
    """A content with its jobs; ``copy`` holds its bytes where nobody else changes them."""

    content: Content
    jobs: tuple[Job, ...]
    copy: Path | None = None


@dataclass(frozen=True)
class Painting:
    """A finished job: the output file's bytes, and what the manifest says of their making.

    ``history_size`` is given only if memory did not suffice for the recipe's.
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


@dataclass(frozen=True)
class Failure:
    """Why a job came to nothing; ``trace`` is empty for a reason that we foresaw.

    ``kind`` is ``input`` if the content is no picture, ``job`` if it will not work the next
    time either, and ``passing`` if it may.
    """

    reason: str
    trace: str = ""
    kind: Literal["input", "job", "passing"] = "passing"


@dataclass(frozen=True)
class Outcome:
    """What became of a job."""

    job: Job
    outcome: Painting | Failure


@dataclass(frozen=True)
class Machine:
    """What an executor painted on, and how its cache of style targets fared.

    ``memory_bytes`` is what it holds of the device's memory; None for a CPU.
    """

    device: str
    precision: str
    cache_hits: int
    cache_misses: int
    cache_bytes: int = 0
    memory_bytes: int | None = None


OnStep = Callable[[Job, int, float], None]
"""Takes a job, the steps done, and the best loss so far."""


class Executor(Protocol):
    """Paints tasks, here or elsewhere."""

    @property
    def capacity(self) -> int:
        """How many tasks it takes now."""

    def submit(self, task: Task) -> None:
        """Take a task."""

    def poll(self) -> Iterator[Outcome]:
        """Give the outcomes that are ready, waiting for one if there is none."""

    def drain(self) -> Iterator[Outcome]:
        """Give the outcomes of everything submitted."""

    def machine(self) -> Machine | None:
        """Tell what it paints on; None before the first painting."""


class LocalExecutor:
    """Paints in this process, one task after the other."""

    def __init__(
        self,
        config: Config,
        weights: Weights,
        on_step: OnStep,
        check: Callable[[], None] | None = None,
    ) -> None:
        """Take what the engine needs; the engine itself is loaded by the first good content.

        Args:
            config: the settings.
            weights: the network's.
            on_step: told of the progress; may raise `Abandoned`.
            check: called before every single step; may raise `Abandoned`.
        """
        self._config, self._weights, self._on_step = config, weights, on_step
        self._check = check
        self._tasks: deque[Task] = deque()
        self._transfers: dict[str, StyleTransfer] = {}
        self._targets: TargetCache | None = None
        self._style_image = functools.lru_cache(maxsize=8)(self._read_style)

    @property
    def capacity(self) -> int:
        """One task at a time."""
        return 0 if self._tasks else 1

    def submit(self, task: Task) -> None:
        """Take a task."""
        self._tasks.append(task)

    def poll(self) -> Iterator[Outcome]:
        """Paint the oldest task, giving each outcome as it comes.

        Raises:
            UnavailableError: no such device or weights.
        """
        task = self._tasks.popleft()
        try:
            content = self._read(task.content.path, task.content.sha256, task.copy)
        except ImageError as error:
            failure = Failure(str(error), kind="input")
            yield from (Outcome(job, failure) for job in task.jobs)
            return
        groups: dict[str, list[Job]] = {}
        for job in task.jobs:
            groups.setdefault(recipe_digest(job.style.recipe), []).append(job)
        for same in groups.values():
            transfer = self._transfer(same[0].style.recipe)
            for first in range(0, len(same), transfer.batch):
                yield from self._paint(transfer, content, same[first : first + transfer.batch])

    def drain(self) -> Iterator[Outcome]:
        """Paint everything submitted."""
        while self._tasks:
            yield from self.poll()

    def machine(self) -> Machine | None:
        """Tell what it paints on; None before the first painting."""
        for transfer in self._transfers.values():
            targets, memory = transfer.targets, transfer.memory_bytes()
            return Machine(
                *transfer.describe(), targets.hits, targets.misses, targets.bytes, memory
            )
        return None

    def _paint(
        self, transfer: StyleTransfer, content: inbox.Decoded, jobs: list[Job]
    ) -> list[Outcome]:
        """Paint ``jobs`` together; whatever goes wrong fails these jobs alone.

        Raises:
            DeviceLostError: but nothing further can be painted in this process.
        """
        try:
            results = transfer.run(
                content.image,
                [self._style_image(job.style.path, job.style.sha256) for job in jobs],
                on_step=lambda index, done, loss: self._on_step(jobs[index], done, loss),
                check=self._check,
            )
            return [
                Outcome(job, _painting(job, content, result))
                for job, result in zip(jobs, results, strict=True)
            ]
        except DeviceLostError:
            raise
        except PipelineError as error:
            failure = Failure(str(error), kind="job")
        except Exception as error:  # noqa: BLE001 - one bad job must not stop the others
            failure = Failure(f"{type(error).__name__}: {error}", traceback.format_exc())
        return [Outcome(job, failure) for job in jobs]

    def _transfer(self, recipe: Recipe) -> StyleTransfer:
        # Here, because a run with nothing to paint must not pay for importing torch.
        from nst_pipeline.engine import StyleTransfer, TargetCache

        if self._targets is None:
            folder = self._config.state / "targets"
            self._targets = TargetCache(folder, self._config.limits.cache_bytes)
        key = recipe_digest(recipe)
        if key not in self._transfers:
            batch = self._config.limits.batch
            self._transfers[key] = StyleTransfer(
                recipe,
                self._config.device,
                self._config.precision,
                self._weights,
                self._targets,
                None if batch == "auto" else batch,
                tile=self._config.tile,
            )
        return self._transfers[key]

    def _read_style(self, path: Path, sha256: str) -> Image.Image:
        return self._read(path, sha256).image

    def _read(self, path: Path, sha256: str, copy: Path | None = None) -> inbox.Decoded:
        """Decode a file that was planned with this digest."""
        data = inbox.read(copy or path, self._config.limits.max_bytes)
        if inbox.bytes_digest(data) != sha256:
            raise ImageError(f"{shown(path)}: changed since it was listed; run again")
        return inbox.decode(data, shown(path), self._config.limits.max_pixels)


def recipe_digest(recipe: Recipe) -> str:
    """Return the digest of what in a recipe can change a pixel."""
    return digest(recipe.pixels())


def _painting(job: Job, content: inbox.Decoded, result: Result) -> Painting:
    width, height = result.pastiche.size
    alpha = content.alpha and content.alpha.resize((width, height))
    data = encode(result.pastiche, alpha, job.encoding, job.made_by(), content.exif)
    return Painting(
        data,
        (height, width),
        (content.image.height, content.image.width),
        result.iterations,
        result.stop_reason,
        asdict(result.start),
        asdict(result.end),
        result.seconds,
        result.history_size if result.history_size < job.style.recipe.history_size else None,
    )
