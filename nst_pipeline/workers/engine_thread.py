"""The engine in a thread of its own: tasks in, results out, each as soon as it is there."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from nst_pipeline.config.pipeline import Config
from nst_pipeline.config.recipe import Recipe, recipe_digest
from nst_pipeline.config.sections import Limits
from nst_pipeline.config.weights import Weights
from nst_pipeline.errors import DeviceLostError, OutOfMemoryError, UnavailableError
from nst_pipeline.files import shown
from nst_pipeline.images.apart import try_apart
from nst_pipeline.images.decoding import Decoded, decode
from nst_pipeline.inbox.companions import visible
from nst_pipeline.jobs.job import Job, StyleImage
from nst_pipeline.jobs.outcome import Failure, Machine, failure
from nst_pipeline.workers.allocator import give_back_memory, keep_memory
from nst_pipeline.workers.handover import Halted, JobDone, TaskDone, TaskInWork
from nst_pipeline.workers.supply import Supply

if TYPE_CHECKING:
    from nst_pipeline import engine
    from nst_pipeline.engine import Result, StyleTransfer, TargetCache

    EngineStyle = engine.Style | dict[str, engine.Style]

STYLE_BYTES_KEPT = 256 * 2**20
"""Of style images that stay decoded, besides the last one."""
STYLES_KEPT = 1024
"""Styles that the engine knows again."""


class EngineThread:
    """The thread that the engine runs in, and nothing else does.

    Attributes:
        machine: what it runs on; None before the first result.
    """

    def __init__(self, config: Config, weights: Weights, supply: Supply) -> None:
        """Begin to load the engine, and nothing else yet."""
        self._config, self._weights, self._supply = config, weights, supply
        self._style_images: OrderedDict[tuple[Path, str], Decoded] = OrderedDict()
        # The engine prepares a style once, and knows it again as the same object.
        self._style = functools.lru_cache(maxsize=STYLES_KEPT)(self._make_style)
        self._notes: dict[Path, str] = {}
        self._transfers: dict[str, StyleTransfer] = {}
        self._targets: TargetCache | None = None
        self._queue: SimpleQueue[TaskInWork | None] = SimpleQueue()
        self._thread, self._over = threading.Thread(), threading.Event()
        self.machine: Machine | None = None
        keep_memory()
        self._start()  # loading takes a second, in which the first task is noted and decoded

    def begin(self, work: TaskInWork) -> None:
        """Paint ``work`` after what was begun before."""
        self._start()
        self._queue.put(work)

    def _start(self) -> None:
        if not self._thread.is_alive():
            # As a daemon, for a process that is ended twice does not wait for it.
            self._over = threading.Event()
            self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the thread, as soon as what it was given is over or halted."""
        if self._thread.is_alive():
            self._queue.put(None)
            # Not join alone: Python 3.11 takes a thread for ended when a signal interrupts that.
            self._over.wait()
            self._thread.join()

    # In the thread

    def _run(self) -> None:
        try:
            with contextlib.suppress(Exception):  # which is met with again where it is of use
                load_engine()
            self._paint_tasks()
        finally:
            self._over.set()

    def _paint_tasks(self) -> None:
        while (work := self._queue.get()) is not None:
            error = None
            try:
                self._paint_all(work)
            except BaseException as caught:  # noqa: BLE001 - raised again where it is of use
                error = caught
            work.events.put(TaskDone(error))
            if error:
                return
            if self._queue.empty():
                give_back_memory()

    def _paint_all(self, work: TaskInWork) -> None:
        """Paint a task, the jobs of one recipe together; what nobody foresaw fails the rest.

        Raises:
            UnavailableError: no such device or weights.
            DeviceLostError: nothing further can be painted in this process.
        """
        groups: dict[str, list[Job]] = {}
        for job in work.jobs:
            groups.setdefault(recipe_digest(job.style.recipe), []).append(job)
        left = {job.output: job for job in work.jobs}
        try:
            for same in groups.values():
                work.beat()
                for job, result in self._paint(work, same):
                    work.deliver(job, result)
                    del left[job.output]
        except Halted:
            for job in left.values():
                work.events.put(JobDone(job, None))
        except (UnavailableError, DeviceLostError):
            raise
        except Exception as error:  # noqa: BLE001 - one bad task must not stop the others
            for job in left.values():
                work.events.put(JobDone(job, failure(error)))

    def _paint(self, work: TaskInWork, jobs: list[Job]) -> Iterator[tuple[Job, Result | Failure]]:
        """Paint jobs of one recipe; whatever goes wrong fails what was painted together alone."""
        assert work.content
        try:
            from nst_pipeline.workers.callbacks import JobCallbacks

            transfer = self._transfer(jobs[0].style.recipe)
        except OutOfMemoryError as error:
            yield from ((job, failure(error)) for job in jobs)
            return
        except (UnavailableError, DeviceLostError):
            raise
        except Exception as error:  # noqa: BLE001 - that there is no engine is no job's fault
            yield from ((job, replace(failure(error), kind="system")) for job in jobs)
            return
        styles: dict[Path, EngineStyle] = {}
        for job in jobs:
            try:
                styles[job.output] = self._style(tuple(job.style.sources.items()))
            except Exception as error:  # noqa: BLE001 - a style takes along its own jobs alone
                yield job, failure(error)
        work.notes |= self._notes
        given = [job for job in jobs if job.output in styles]
        if not given:
            return
        callbacks = JobCallbacks(self._config, given, work, self._supply)
        wanted = list(styles.values())
        for indices, outcome in transfer.paint(work.content, wanted, callbacks, **work.arguments):
            self.machine = _machine(transfer)
            results: Sequence[Result | Failure]
            if isinstance(outcome, Exception):
                results = [failure(outcome)] * len(indices)
            else:
                results = outcome
            for index, result in zip(indices, results, strict=True):
                yield given[index], result

    def _make_style(self, sources: tuple[tuple[str, tuple[StyleImage, ...]], ...]) -> EngineStyle:
        """Return what the engine takes as a style with these images by region.

        Raises:
            ImageError: one of its files is no picture any more, or all transparent.
        """
        from nst_pipeline.engine import make_style

        for _, images in sources:
            for path, sha256, _ in images:
                self._style_image(path, sha256)  # tells what is wrong with it
        return make_style(
            {
                region: [(self._picture(image), image[2]) for image in images]
                for region, images in sources
            }
        )

    def _picture(self, image: StyleImage) -> functools.partial[Decoded]:
        path, sha256, _ = image
        return functools.partial(self._style_image, path, sha256)

    def _style_image(self, path: Path, sha256: str) -> Decoded:
        """Return a style's image, which stays decoded while there is room."""
        images = self._style_images
        if (path, sha256) not in images:
            images[path, sha256] = self._read_style_image(path, sha256)
        images.move_to_end((path, sha256))
        while len(images) > 1 and sum(map(_bytes, images.values())) > STYLE_BYTES_KEPT:
            images.popitem(last=False)
        return images[path, sha256]

    def _read_style_image(self, path: Path, sha256: str) -> Decoded:
        root = self._config.root_of(path)
        data = self._supply.read(path, sha256, root)
        picture = visible(path, decode_planned(path, data, self._config.limits))
        self._notes[path] = picture.note
        return picture

    def _transfer(self, recipe: Recipe) -> StyleTransfer:
        # Here, because a run with nothing to paint must not pay for importing torch.
        from nst_pipeline.engine import StyleTransfer, TargetCache

        if self._targets is None:
            self._targets = TargetCache(self._supply.targets, self._config.limits.cache_bytes)
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


def load_engine() -> None:
    """Import the engine, and with it torch, and all of ours that needs it."""
    from nst_pipeline.workers import callbacks  # noqa: F401


def decode_planned(path: Path, data: bytes, limits: Limits, is_suspect: bool = False) -> Decoded:
    """Decode a file with these bytes, first in another process if it is suspect.

    Raises:
        ImageError: it is no picture, or too large.
    """
    if is_suspect:
        try_apart(data, shown(path), limits.max_pixels)
    return decode(data, shown(path), limits.max_pixels)


def _bytes(picture: Decoded) -> int:
    alpha = 0 if picture.alpha is None else picture.alpha.nbytes
    return int(picture.pixels.nbytes) + alpha


def _machine(transfer: StyleTransfer) -> Machine:
    targets = transfer.targets
    return Machine(
        *transfer.describe(), targets.hits, targets.misses, targets.bytes,
        transfer.memory_bytes(), transfer.threads(),
    )  # fmt: skip
