"""Executors paint tasks; the runner hands them out and takes in what comes back."""

from __future__ import annotations

import contextlib
import functools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING, Any, Protocol

from nst_pipeline import inbox
from nst_pipeline.config import Config
from nst_pipeline.decoding import Decoded, Pixels, decode, to_grey
from nst_pipeline.engine_thread import LOOK_SECONDS, EngineThread, Over, Painted, Work, failure
from nst_pipeline.errors import Abandoned, ImageError
from nst_pipeline.files import shown
from nst_pipeline.jobs import Content, Job
from nst_pipeline.outbox import encode
from nst_pipeline.tasks import Failure, Machine, Outcome, Painting, Task
from nst_pipeline.weights import Weights

if TYPE_CHECKING:
    from nst_pipeline.engine import Result

__all__ = [
    "Executor",
    "Failure",
    "LocalExecutor",
    "Machine",
    "OnStep",
    "Outcome",
    "Painting",
    "Task",
]

STYLES_KEPT = 8
"""Style images that stay decoded."""
SHAPE_TOLERANCE = 0.02
"""How far a companion's proportions may be off: what rounding does to small pictures."""

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

    def close(self) -> None:
        """End everything submitted, at once; nothing comes of it any more."""


class LocalExecutor:
    """Paints in this process: the engine in a thread of its own, all the rest in the caller's.

    While the engine paints, the next task is decoded and what was painted before is encoded.
    Whatever the caller gave is called in the caller's thread, inside `poll`.
    """

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
            on_step: told of the progress; if it raises `Abandoned`, the task is ended.
            check: called every now and then while the engine makes steps; likewise.
        """
        self._config, self._on_step, self._check = config, on_step, check
        self._work: deque[Work] = deque()
        style_image = functools.lru_cache(maxsize=STYLES_KEPT)(self._read_style)
        self._engine = EngineThread(config, weights, style_image)

    @property
    def capacity(self) -> int:
        """One task at work, and one that is ready when it is over."""
        return 2 - len(self._work)

    def submit(self, task: Task) -> None:
        """Take a task, and decode its content."""
        work, broken = Work(), ""
        try:
            work.content = self._read(task.content.path, task.content.sha256, task.copy)
            work.extras = self._companions(task.content, work.content)
        except ImageError as error:
            broken = str(error)
        for job in task.jobs:
            if reason := broken or _missing_mask(job):
                work.events.put(Painted(job, Failure(reason, kind="input")))
            else:
                work.jobs.append(job)
        self._engine.begin(work)
        self._work.append(work)

    def poll(self) -> Iterator[Outcome]:
        """Give the outcomes of the oldest task, each as it comes.

        Raises:
            UnavailableError: no such device or weights.
            DeviceLostError: nothing further can be painted in this process.
        """
        work, beats = self._work[0], 0
        while True:
            event = None
            with contextlib.suppress(Empty):
                event = work.events.get(timeout=LOOK_SECONDS)
            if isinstance(event, Over):
                break
            if isinstance(event, Painted):
                work.room.release()
                yield Outcome(event.job, _encoded(event, work.content))
                continue
            try:
                if self._check and work.beats > beats:
                    beats = work.beats
                    self._check()
                if event:
                    self._on_step(event.job, event.done, event.loss)
            except Abandoned:
                work.halt.set()
        self._work.popleft()
        if event.error:
            raise event.error

    def drain(self) -> Iterator[Outcome]:
        """Give the outcomes of everything submitted."""
        while self._work:
            yield from self.poll()

    def machine(self) -> Machine | None:
        """Tell what it paints on; None before the first painting."""
        return self._engine.machine

    def close(self) -> None:
        """End everything submitted, after the step at work."""
        for work in self._work:
            work.halt.set()
        self._work.clear()
        self._engine.close()

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


def _encoded(painted: Painted, content: Decoded | None) -> Painting | Failure | None:
    if painted.result is None or isinstance(painted.result, Failure) or content is None:
        return painted.result if isinstance(painted.result, Failure) else None
    try:
        return _painting(painted.job, content, painted.result)
    except Exception as error:  # noqa: BLE001 - one bad job must not stop the others
        return failure(error)


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
