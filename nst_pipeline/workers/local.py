"""Executors paint tasks; the runner hands them out and takes in what comes back."""

from __future__ import annotations

import contextlib
import functools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING, Any

import numpy as np

from nst_pipeline.config.pipeline import Config
from nst_pipeline.config.weights import Weights
from nst_pipeline.digests import bytes_digest
from nst_pipeline.errors import Abandoned, ImageError
from nst_pipeline.files import shown
from nst_pipeline.images.animation import Frames, animate
from nst_pipeline.images.decoding import Decoded, Pixels, decode
from nst_pipeline.images.encoding import SUFFIXES, encode
from nst_pipeline.inbox import reading
from nst_pipeline.inbox.companions import engine_arguments, missing_companion
from nst_pipeline.jobs.job import Content, Job
from nst_pipeline.jobs.outcome import EncodedResult, Failure, Machine, Outcome
from nst_pipeline.workers.engine_thread import (
    LOOK_SECONDS,
    EngineThread,
    Over,
    Painted,
    Work,
    failure,
)
from nst_pipeline.workers.protocol import OnStep, Task

if TYPE_CHECKING:
    from nst_pipeline.engine import Result


STYLES_KEPT = 8
"""Style images that stay decoded."""


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
            if reason := broken or _missing_companion(job):
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
                frames = work.frames.pop(event.job.output, [])
                yield Outcome(event.job, _encoded(event, work.content, frames))
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
        """Return what the engine takes of a content's companions."""
        beside = {
            kind: (path, self._read(path, sha256).pixels)
            for kind, (path, sha256) in content.companions.items()
        }
        return engine_arguments(content.path, picture.pixels, beside)

    def _read(self, path: Path, sha256: str, copy: Path | None = None) -> Decoded:
        """Decode a file that was planned with this digest."""
        data = reading.read(copy or path, self._config.limits.max_bytes)
        if bytes_digest(data) != sha256:
            raise ImageError(f"{shown(path)}: changed since it was listed; run again")
        return decode(data, shown(path), self._config.limits.max_pixels)


def _encoded(
    painted: Painted, content: Decoded | None, frames: Frames
) -> EncodedResult | Failure | None:
    if painted.result is None or isinstance(painted.result, Failure) or content is None:
        return painted.result if isinstance(painted.result, Failure) else None
    try:
        return _painting(painted.job, content, painted.result, frames)
    except Exception as error:  # noqa: BLE001 - one bad job must not stop the others
        return failure(error)


def _missing_companion(job: Job) -> str:
    """Say which companion a content lacks for its style and recipe; empty: none."""
    path, needs_init = job.content.path, job.style.recipe.init == "image"
    reason = missing_companion(path, job.style.sources, needs_init, job.content.companions)
    return reason and f"{shown(path)} in {job.style.name}: {reason}"


def _painting(job: Job, content: Decoded, result: Result, frames: Frames) -> EncodedResult:
    height, width = result.pixels.shape[:2]
    data = encode(result.pixels, content.alpha, job.encoding, job.made_by(), content.exif)
    return EncodedResult(
        data,
        (height, width),
        content.pixels.shape[:2],
        result.iterations,
        result.stop_reason,
        asdict(result.start),
        asdict(result.end),
        result.seconds,
        result.history_size if result.history_size < job.style.recipe.history_size else None,
        _extras(job, content, result, frames),
    )


def _extras(job: Job, content: Decoded, result: Result, frames: Frames) -> dict[str, bytes]:
    """Return the snapshots and the animation that the settings ask for."""
    extras = {}
    if job.encoding.snapshots:
        for done, picture in frames:
            made_by = job.made_by() | {"steps": done}
            data = encode(np.asarray(picture), content.alpha, job.encoding, made_by)
            extras[f".steps/{done:05}{SUFFIXES[job.encoding.format]}"] = data
    if job.encoding.making != "none":
        kind = job.encoding.making
        extras[f".{kind}"] = animate(frames, result.pastiche, kind)
    return extras
