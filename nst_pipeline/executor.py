"""Executors paint tasks; the runner hands them out and takes in what comes back."""

from __future__ import annotations

import functools
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from nst_pipeline import inbox
from nst_pipeline.config import Config
from nst_pipeline.decoding import Decoded, Pixels, decode, to_grey
from nst_pipeline.errors import DeviceLostError, ImageError, PipelineError
from nst_pipeline.files import shown
from nst_pipeline.jobs import Content, Job, Source, Style
from nst_pipeline.outbox import encode
from nst_pipeline.recipe import Recipe, digest
from nst_pipeline.weights import Weights

if TYPE_CHECKING:
    from nst_pipeline.engine import Result, StyleTransfer, TargetCache


SHAPE_TOLERANCE = 0.02
"""How far a companion's proportions may be off: what rounding does to small pictures."""


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
        self._blend = functools.lru_cache(maxsize=64)(self._make_blend)  # the same object again

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
            extras = self._companions(task.content, content)
        except ImageError as error:
            failure = Failure(str(error), kind="input")
            yield from (Outcome(job, failure) for job in task.jobs)
            return
        groups: dict[str, list[Job]] = {}
        for job in task.jobs:
            if reason := _missing_mask(job):
                yield Outcome(job, Failure(reason, kind="input"))
                continue
            groups.setdefault(recipe_digest(job.style.recipe), []).append(job)
        for same in groups.values():
            transfer = self._transfer(same[0].style.recipe)
            for first in range(0, len(same), transfer.batch):
                yield from self._paint(
                    transfer, content, extras, same[first : first + transfer.batch]
                )

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
        self, transfer: StyleTransfer, content: Decoded, extras: dict[str, Any], jobs: list[Job]
    ) -> list[Outcome]:
        """Paint ``jobs`` together; whatever goes wrong fails these jobs alone.

        Raises:
            DeviceLostError: but nothing further can be painted in this process.
        """
        try:
            results = transfer.run(
                content.pixels,
                [self._style(job.style) for job in jobs],
                on_step=lambda index, done, loss: self._on_step(jobs[index], done, loss),
                check=self._check,
                **extras,
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
                self._config.output.bit_depth,
                self._config.tile,
            )
        return self._transfers[key]

    def _style(self, style: Style) -> Any:
        """Return what the engine takes as a style: an image, a blend, or these by region."""
        regions = {name: self._blend(sources) for name, sources in style.sources.items()}
        return regions[""] if list(regions) == [""] else regions

    def _make_blend(self, sources: tuple[Source, ...]) -> Any:
        images = tuple(self._style_image(path, sha256) for path, sha256, _ in sources)
        from nst_pipeline.engine import Style

        return Style(images, tuple(share for _, _, share in sources))

    def _read_style(self, path: Path, sha256: str) -> Pixels:
        return self._read(path, sha256).pixels

    def _companions(self, content: Content, picture: Decoded) -> dict[str, Any]:
        """Return what the engine takes of a content's companions, none of them: nothing.

        ``masks`` are (h, w) uint8 by the name of their region, the whole picture's without one;
        ``init`` is (h, w, 3), uint8 or uint16.
        """
        extras: dict[str, Any] = {}
        for kind, (path, sha256) in content.companions.items():
            pixels = self._read(path, sha256).pixels
            _check_shape(path, pixels, content.path, picture.pixels)
            if kind == "init":
                extras["init"] = pixels
            else:
                region = kind.removeprefix("mask").removeprefix(".")
                extras.setdefault("masks", {})[region] = to_grey(pixels)
        return extras

    def _read(self, path: Path, sha256: str, copy: Path | None = None) -> Decoded:
        """Decode a file that was planned with this digest."""
        data = inbox.read(copy or path, self._config.limits.max_bytes)
        if inbox.bytes_digest(data) != sha256:
            raise ImageError(f"{shown(path)}: changed since it was listed; run again")
        return decode(data, shown(path), self._config.limits.max_pixels)


def recipe_digest(recipe: Recipe) -> str:
    """Return the digest of what in a recipe can change a pixel."""
    return digest(recipe.pixels())


def _missing_mask(job: Job) -> str:
    """Say that a content has no mask of a region of its style; empty: it has all."""
    path, masks = job.content.path, job.content.companions
    for region in job.style.sources:
        if region and f"mask.{region}" not in masks:
            return (
                f"{shown(path)} in {job.style.name}: there is no mask of the region {region}; "
                f"put {shown(path.stem)}.mask.{shown(region)}.png beside it"
            )
    return ""


def _check_shape(path: Path, pixels: Pixels, picture: Path, content: Pixels) -> None:
    height, width = pixels.shape[:2]
    wanted_height, wanted_width = content.shape[:2]
    if abs(height * wanted_width / (width * wanted_height) - 1) > SHAPE_TOLERANCE:
        raise ImageError(
            f"{shown(path)}: {width} x {height} pixels, not of the shape of {shown(picture.name)} "
            f"({wanted_width} x {wanted_height}); make it as large or of the same proportions"
        )


def _painting(job: Job, content: Decoded, result: Result) -> Painting:
    height, width = result.pixels.shape[:2]
    data = encode(result.pixels, content.alpha, job.encoding, job.made_by(), content.exif)
    return Painting(
        data,
        (height, width),
        content.pixels.shape[:2],
        result.iterations,
        result.stop_reason,
        asdict(result.start),
        asdict(result.end),
        result.seconds,
        result.history_size if result.history_size < job.style.recipe.history_size else None,
    )
