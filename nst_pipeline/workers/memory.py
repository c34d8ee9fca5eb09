"""The memory that a task takes to be decoded, by the headers of its files alone."""

import functools
from collections.abc import Iterable
from pathlib import Path

from nst_pipeline.config.sections import Limits
from nst_pipeline.config.sizes import scale
from nst_pipeline.errors import ImageError
from nst_pipeline.files import shown
from nst_pipeline.images.decoding import FINENESS, Decoded, Need, need
from nst_pipeline.inbox.companions import used
from nst_pipeline.jobs.job import Job
from nst_pipeline.workers.protocol import Task
from nst_pipeline.workers.supply import Supply

FILES_KEPT = 4096
"""Files whose need is remembered."""
UNBOUNDED = 2**20
"""Longer than the side of any picture, in pixels."""
CUT_OUT_BYTES = 60
"""Of a pixel of a picture with hidden ones, once the engine has it."""


class Budget:
    """Holds tasks to ``limits.max_memory_bytes``."""

    def __init__(self, limits: Limits, supply: Supply) -> None:
        """Take the limits, and where files come from."""
        self._limits, self._bytes, self._supply = limits, limits.memory_bytes, supply
        self._need = functools.lru_cache(maxsize=FILES_KEPT)(self._read_need)

    def of_content(self, task: Task) -> list[Need]:
        """Return what a content and its companions take.

        Raises:
            ImageError: too much, or one is no picture.
        """
        name = shown(task.content.path)
        needs = [need(task.data, name, self._limits.max_pixels)]
        side = longest_side(task.jobs)
        for kind in used_companions(task):
            path, sha256 = task.content.companions[kind]
            one = self._need(path, sha256, task.content.found.root)
            if kind != "init":  # it is kept in grey, and no finer than need be
                one = Need(one.peak, min(one.held, (2 * FINENESS * side) ** 2))
            needs.append(one)
        self._check(name, needs)
        return needs

    def check_style(self, job: Job, needs: list[Need]) -> None:
        """See that each image of a job's style can be decoded besides its content.

        Raises:
            ImageError: one takes too much, or is no picture any more.
        """
        for images in job.style.sources.values():
            for path, sha256, _ in images:
                self._check(shown(path), [*needs, self._need(path, sha256)])

    def check_decoded(self, path: Path, picture: Decoded) -> None:
        """See that the engine can make room for a picture with hidden pixels.

        Raises:
            ImageError: it cannot.
        """
        if picture.alpha is not None:
            self._check(shown(path), [Need(picture.alpha.size * CUT_OUT_BYTES, 0)])

    def _read_need(self, path: Path, sha256: str, root: Path | None = None) -> Need:
        data = self._supply.read(path, sha256, root)
        return need(data, shown(path), self._limits.max_pixels)

    def _check(self, name: str, needs: list[Need]) -> None:
        held = sum(one.held for one in needs)
        most = held + max(one.peak - one.held for one in needs)
        if most > self._bytes:
            raise ImageError(
                f"{name}: takes {_gigabytes(most)} of memory, with all that it is decoded with; "
                f"limits.max_memory_bytes allows {_gigabytes(self._bytes)}"
            )


def longest_side(jobs: Iterable[Job], content: tuple[int, int] | None = None) -> int:
    """Return the longest side, in pixels, that a content has where jobs paint it uncut.

    Args:
        jobs: how it is painted.
        content: its height and width; None: not known yet, and what depends on it has no bound.
    """
    sizes = (job.style.recipe.size for job in jobs)
    if content is None:
        return max(size if isinstance(size, int) else UNBOUNDED for size in sizes)
    return max(round(scale(size, content) * max(content)) for size in sizes)


def used_companions(task: Task) -> list[str]:
    """Return the kinds of the companions that a task's jobs take anything of."""
    regions = [region for job in task.jobs for region in job.style.sources]
    return used(task.content.companions, regions)


def _gigabytes(number: int) -> str:
    return f"{number / 1e9:.2f} GB"
