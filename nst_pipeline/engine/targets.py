"""The cache of style targets: computed once and reused by every content."""

import contextlib
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from nst_pipeline.errors import PipelineError
from nst_pipeline.files import publish

Targets = dict[str, torch.Tensor]
"""Style statistics (1, R, C, C or C + 1), float32, by layer."""
Shapes = Mapping[str, tuple[int, ...]]
"""Of targets, by layer."""


class TargetCache:
    """Style targets on a device, least recently used out first, with a copy on disk.

    Attributes:
        hits: how often targets were found in memory or on disk.
        misses: how often they had to be computed.
    """

    def __init__(self, folder: Path | None = None, cache_bytes: int = 512 * 2**20) -> None:
        """Keep at most ``cache_bytes`` in the device's memory, and all in ``folder`` if given."""
        self._folder, self._cache_bytes = folder, cache_bytes
        self._memory: OrderedDict[tuple[str, torch.device], Targets] = OrderedDict()
        self.hits = self.misses = 0

    def get(
        self, key: str, device: torch.device, shapes: Shapes, compute: Callable[[], Targets]
    ) -> Targets:
        """Return the targets of ``key`` on ``device``, from ``compute()`` if they are new.

        What is on disk is used only if it has ``shapes`` and is finite, else computed anew.
        """
        place = (key, device)
        if place in self._memory:
            self.hits += 1
            self._memory.move_to_end(place)
            return self._memory[place]
        targets = self._load(key, device, shapes)
        if targets is None:
            self.misses += 1
            targets = compute()
            self._save(key, targets)
        else:
            self.hits += 1
        self._memory[place] = targets
        while self.bytes > self._cache_bytes and self._memory:
            self._memory.popitem(last=False)
        return targets

    @property
    def bytes(self) -> int:
        """Bytes of device memory held."""
        return sum(t.nbytes for targets in self._memory.values() for t in targets.values())

    def _load(self, key: str, device: torch.device, shapes: Shapes) -> Targets | None:
        if self._folder is None:
            return None
        path = self._folder / f"{key}.safetensors"
        try:
            found = load_file(path, device=str(device))
        except (OSError, SafetensorError):
            return None  # not there, or damaged: computed anew and written over
        with contextlib.suppress(OSError):
            os.utime(path)  # so that it is known which were not used for long
        is_whole = {name: tuple(t.shape) for name, t in found.items()} == dict(shapes)
        return found if is_whole and _are_finite(found) else None

    def _save(self, key: str, targets: Targets) -> None:
        if self._folder is None or not _are_finite(targets):
            return
        data = save({name: t.cpu().contiguous() for name, t in targets.items()})
        with contextlib.suppress(PipelineError):  # a cache that cannot be written costs time only
            publish(self._folder / f"{key}.safetensors", data)


def _are_finite(targets: Targets) -> bool:
    return all(t.dtype == torch.float32 and bool(t.isfinite().all()) for t in targets.values())
