"""How much memory a transfer takes, and how much there is: pure arithmetic, and the system's word.

The engine asks before it works, so that what cannot fit is told and not tried.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from nst_pipeline.recipe import LAYER_NAMES

VECTORS = 8
"""Copies of the image that the optimiser and the objective hold besides the history."""


@dataclass(frozen=True)
class Need:
    """Bytes that a transfer takes at its peak, above what the loaded network takes.

    Attributes:
        network: activations, and gradients into them.
        optimiser: the images, their gradients and the history.
        targets: features and Gram matrices to compare with.
    """

    network: int
    optimiser: int
    targets: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.network + self.optimiser + self.targets

    def __str__(self) -> str:
        """Return it in GB, for people: ``9.1 GB (network 7.0, optimiser 2.0, targets 0.1)``."""
        parts = ", ".join(
            f"{name} {getattr(self, name) / 1e9:.1f}"
            for name in ("network", "optimiser", "targets")
        )
        return f"{self.total / 1e9:.1f} GB ({parts})"


def estimate(
    widths: Mapping[str, int],
    content_layers: Collection[str],
    style_layers: Collection[str],
    size: tuple[int, int],
    batch: int = 1,
    history_size: int = 10,
    value_bytes: int = 4,
    pooling: str = "max",
) -> Need:
    """Return what a transfer takes at its peak.

    Args:
        widths: channels of the convolutions by layer name, such as ``conv1_1: 64``.
        content_layers: layers compared with the content.
        style_layers: layers whose statistics are compared with the style's.
        size: height and width of the image.
        batch: images painted together.
        history_size: steps that the optimiser remembers, or that it does if they are fewer.
        value_bytes: of one activation: 4 in fp32, 2 in bf16.
        pooling: ``max`` keeps where it took each value from, eight bytes each.
    """
    watched = {*content_layers, *style_layers}
    last = max(map(LAYER_NAMES.index, watched))
    height, width = size
    channels, seen, kept, targets = 3, "", 0, 0
    saved: list[int] = []  # bytes that each layer keeps until its gradient is known
    values: list[int] = [batch * 3 * height * width * value_bytes]  # bytes of each layer's output
    for name in LAYER_NAMES[: last + 1]:
        channels = widths.get(name, channels)
        if name.startswith("pool"):
            height, width = height // 2, width // 2
        count = batch * channels * height * width
        in_place = name.startswith("relu") and seen not in watched
        kept = 0 if in_place else count * value_bytes
        kept += count * 8 if name.startswith("pool") and pooling == "max" else 0
        if name in content_layers:  # the difference, and the features of the one content
            kept += count * value_bytes
            targets += count // batch * value_bytes
        if name in style_layers:
            targets += batch * channels**2 * 4
        saved.append(kept)
        values.append(count * value_bytes)
        seen = name
    image = batch * 3 * size[0] * size[1] * 4
    return Need(_peak(saved, values), image * (2 * history_size + VECTORS), targets)


def _peak(saved: list[int], values: list[int]) -> int:
    """Return the most that is alive while the gradient goes back through the layers.

    Alive are then what the layers below keep, the gradient of the output and that of the input.
    """
    peaks, below = [], 0
    for kept, coming, going in zip(saved, values[1:], values[:-1], strict=True):
        below += kept
        peaks.append(below + coming + going)
    return max(peaks)


def fitting_batch(
    need: Callable[[int], Need], available: int, most: int, share: float = 0.9
) -> int:
    """Return the largest batch up to ``most`` whose need fits in a share of what is available.

    Args:
        need: gives what a batch needs.
        available: bytes.
        most: the batch wanted.
        share: of the available bytes that may be used.

    Returns:
        0 if not even one image fits.
    """
    fits = (batch for batch in range(most, 0, -1) if need(batch).total <= share * available)
    return next(fits, 0)


def available_bytes(device: torch.device, proc: Path = Path("/proc/meminfo")) -> int | None:
    """Return the bytes that this process can still take on a device; None where nobody tells.

    On a CPU the machine's available memory, or what the control group allows if that is less.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + cached
    limits = [_meminfo(proc), *(_cgroup_free(group) for group in _cgroups())]
    known = [limit for limit in limits if limit is not None]
    return min(known) if known else None


def _meminfo(path: Path) -> int | None:
    try:
        lines = path.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvail"))
    except (OSError, StopIteration, ValueError):
        return None


def _cgroups(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> list[Path]:
    """Return the folders of this process's control group (version 2) and those above it."""
    try:
        name = next(
            line[3:] for line in own.read_text().splitlines() if line.startswith("0::")
        ).strip("/")
    except (OSError, StopIteration):
        return []
    folder = root / name
    return [folder, *(above for above in folder.parents if above.is_relative_to(root))]


def _cgroup_free(folder: Path) -> int | None:
    """Return what a control group may still take: its caches can be given up."""
    try:
        most = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no limit reads "max"
        return None
    return max(0, most - used + int(stat.get("inactive_file", 0)))
