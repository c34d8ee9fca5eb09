"""The local executor: this process is the worker, the engine has a thread of its own in it."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING, Any

import numpy as np

from nst_pipeline.config.pipeline import Config
from nst_pipeline.config.sizes import crop
from nst_pipeline.config.weights import Weights
from nst_pipeline.errors import Abandoned, ImageError, NotReadyError
from nst_pipeline.files import shown
from nst_pipeline.images.animation import Frames, animate
from nst_pipeline.images.decoding import Decoded, Need, Pixels
from nst_pipeline.images.encoding import SUFFIXES, encode
from nst_pipeline.inbox.companions import engine_arguments
from nst_pipeline.jobs.job import Job
from nst_pipeline.jobs.outcome import EncodedResult, Failure, Machine, Outcome, failure
from nst_pipeline.workers.engine_thread import EngineThread, decode_planned
from nst_pipeline.workers.handover import (
    LOOK_SECONDS,
    Event,
    JobDone,
    JobGlimpse,
    JobStep,
    TaskDone,
    TaskInWork,
)
from nst_pipeline.workers.memory import Budget, longest_side, used_companions
from nst_pipeline.workers.protocol import Progress, Task, WorkerState
from nst_pipeline.workers.supply import Disk, Supply

if TYPE_CHECKING:
    from nst_pipeline.engine import Result


class LocalExecutor:
    """Paints in this process: the engine in a thread of its own, all the rest in the caller's.

    While the engine paints, the next task is decoded and what was painted before is encoded.
    """

    def __init__(self, config: Config, weights: Weights, supply: Supply | None = None) -> None:
        """Take what the engine needs; the engine itself is loaded by the first good content.

        Args:
            config: the settings.
            weights: the network's.
            supply: of files and checkpoints; None: the disk.
        """
        self._limits, self._supply = config.limits, supply or Disk(config)
        self._tasks: deque[TaskInWork] = deque()
        self._engine = EngineThread(config, weights, self._supply)
        self._budget = Budget(config.limits, self._supply)
        self._at: JobStep | None = None
        self._jobs_done = 0

    @property
    def capacity(self) -> int:
        """One task at work, and one that is ready when it is over."""
        return 2 - len(self._tasks)

    @property
    def outlives_workers(self) -> bool:
        """No: it is the worker."""
        return False

    def submit(self, task: Task) -> None:
        """Take a task, and decode its content."""
        work, content = TaskInWork(), task.content
        broken: Failure | None = None
        needs: list[Need] = []
        try:
            needs = self._budget.of_content(task)
            work.content = decode_planned(content.path, task.data, self._limits, task.is_suspect)
            self._budget.check_decoded(content.path, work.content)
            work.notes[content.path] = work.content.note
            work.arguments = self._companions(task, work.content, work.notes)
        except NotReadyError as error:
            broken = failure(error)
        except ImageError as error:
            broken = Failure(str(error), kind="input")
        except Exception as error:  # noqa: BLE001 - one bad content must not stop the others
            broken = failure(error)
        for job in task.jobs:
            lack = Failure(why, kind="input") if (why := job.lack()) else None
            if wrong := broken or lack or self._too_large_style(job, needs):
                work.events.put(JobDone(job, wrong))
            else:
                work.jobs.append(job)
        self._engine.begin(work)
        self._tasks.append(work)

    def poll(self, progress: Progress) -> Iterator[Outcome]:
        """Give the outcomes of the oldest task, each as it comes.

        Raises:
            UnavailableError: no such device or weights.
            DeviceLostError: nothing further can be painted in this process.
        """
        work, beats = self._tasks[0], 0
        while True:
            event: Event | None = None
            with contextlib.suppress(Empty):
                event = work.events.get(timeout=LOOK_SECONDS)
            if isinstance(event, TaskDone):
                break
            if isinstance(event, JobDone):
                work.room.release()
                frames = work.frames.pop(event.job.output, [])
                self._at, self._jobs_done = None, self._jobs_done + 1
                yield Outcome(event.job, _encoded(event, work, frames), self.machine())
                continue
            try:
                if work.beats > beats:
                    beats = work.beats
                    progress.check()
                    if progress.wants_glimpse():
                        work.glimpse.set()
                if isinstance(event, JobGlimpse):
                    progress.glimpsed(event.job, event.glimpse)
                elif event:
                    self._at = event
                    progress.stepped(event.job, event.done, event.total, event.loss)
            except Abandoned:
                work.halt.set()
        self._tasks.popleft()
        if event.error:
            raise event.error

    def halt(self, place: int) -> None:
        """End the task at a place in the queue; what comes of it is given when it is its turn."""
        self._tasks[place].halt.set()

    def drain(self, progress: Progress) -> Iterator[Outcome]:
        """Give the outcomes of everything submitted; raises as `poll` does."""
        while self._tasks:
            yield from self.poll(progress)

    def machine(self) -> Machine | None:
        """Tell what it runs on; None before the first result."""
        return self._engine.machine

    def workers(self) -> list[WorkerState]:
        """Tell what this process does."""
        machine, at = self.machine(), self._at if self._tasks else None
        return [
            WorkerState(
                "local",
                device=machine.device if machine else "",
                memory_bytes=machine.memory_bytes if machine else None,
                job=at.job if at else None,
                done=at.done if at else 0,
                total=at.total if at else 0,
                jobs_done=self._jobs_done,
            )
        ]

    def close(self) -> None:
        """End everything submitted, after the step at work."""
        for work in self._tasks:
            work.halt.set()
        self._tasks.clear()
        self._engine.close()

    def _companions(self, task: Task, picture: Decoded, notes: dict[Path, str]) -> dict[str, Any]:
        """Return what the engine takes of a content's companions; note what else is in them."""

        def read() -> Iterator[tuple[str, Path, Decoded]]:
            for kind in used_companions(task):
                path, sha256 = task.content.companions[kind]
                root = task.content.found.root
                data = self._supply.read(path, sha256, root)
                companion = decode_planned(path, data, self._limits, task.is_suspect)
                notes[path] = companion.note
                yield kind, path, companion
                del companion

        side = longest_side(task.jobs, picture.pixels.shape[:2])
        return engine_arguments(task.content.path, picture.pixels, read(), side)

    def _too_large_style(self, job: Job, needs: list[Need]) -> Failure | None:
        try:
            self._budget.check_style(job, needs)
        except Exception as error:  # noqa: BLE001 - a bad style takes its own jobs alone
            return failure(error)
        return None


def _encoded(event: JobDone, work: TaskInWork, frames: Frames) -> EncodedResult | Failure | None:
    content = work.content
    if event.result is None or isinstance(event.result, Failure) or content is None:
        return event.result if isinstance(event.result, Failure) else None
    if event.result.problem:
        where = f"{shown(event.job.content.path)} in {event.job.style.name}"
        return Failure(f"{where}: {event.result.problem}", kind="job")
    try:
        encoded = _encode(event.job, content, event.result, frames)
    except Exception as error:  # noqa: BLE001 - one bad job must not stop the others
        return failure(error)
    return replace(encoded, notes=_notes(event.job, work.notes))


def _notes(job: Job, notes: dict[Path, str]) -> tuple[str, ...]:
    """Return the notes of the files that a job is made of."""
    companions = (path for path, _ in job.content.companions.values())
    files = (job.content.path, *companions, *sorted(job.style.paths))
    return tuple(filter(None, (notes.get(path) for path in files)))


def _encode(job: Job, content: Decoded, result: Result, frames: Frames) -> EncodedResult:
    height, width = result.pixels.shape[:2]
    alpha, about = _alpha(job, content), content.metadata
    is_short = result.history_size < job.style.recipe.remembered_steps
    return EncodedResult(
        data=encode(result.pixels, alpha, job.encoding, job.made_by(), about),
        size=(height, width),
        content_size=content.pixels.shape[:2],
        iterations=result.iterations,
        stop_reason=result.stop_reason,
        start=asdict(result.start),
        end=asdict(result.end),
        seconds=result.seconds,
        history_size=result.history_size if is_short else None,
        extras=_extras(job, content, result, frames),
        curve=tuple((one.size, one.steps, one.losses) for one in result.curve),
    )


def _alpha(job: Job, content: Decoded) -> Pixels | None:
    """Return the transparency of what a job paints of a content."""
    if content.alpha is None:
        return None
    alpha: Pixels = content.alpha[crop(job.style.recipe.size, content.pixels.shape[:2])]
    return alpha


def _extras(job: Job, content: Decoded, result: Result, frames: Frames) -> dict[str, bytes]:
    """Return the snapshots and the animation that the settings ask for."""
    extras = {}
    if job.encoding.snapshots:
        for done, picture in frames:
            made_by = job.made_by() | {"steps": done}
            data = encode(np.asarray(picture), _alpha(job, content), job.encoding, made_by)
            extras[f".steps/{done:05}{SUFFIXES[job.encoding.format]}"] = data
    if job.encoding.making != "none":
        kind = job.encoding.making
        extras[f".{kind}"] = animate(frames, result.pastiche, kind, job.encoding.mode == "grey")
    return extras
