"""How much memory a transfer takes (pure arithmetic), and how much there is (the system says).

The engine asks before it works, so that what cannot fit is refused and not tried.
"""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from nst_pipeline.config.memory import control_groups
from nst_pipeline.config.networks import LAYER_NAMES
from nst_pipeline.engine.convolution import is_by_winograd
from nst_pipeline.engine.devices import free_bytes
from nst_pipeline.engine.winograd import room_bytes
from nst_pipeline.errors import OutOfMemoryError

SHARE = 0.9
"""Of the available memory, what a transfer may take."""

VECTORS = 6
"""Copies of the images, in float32, that live through an evaluation besides the history.

They are the start, the point, the best point, the pair in the making (Adam: the moments), and one
more: the images in the network's layout, then their gradient.
"""

HEAP_BLOCK = 32 * 2**20
"""Bytes up to which glibc takes a block from its heap, which it seldom makes smaller.

There what is freed is lost for larger blocks, and for one of its own size too: blocks are aligned.
"""


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


@dataclass(frozen=True)
class _Layer:
    """What a layer takes, in bytes.

    Attributes:
        kind: ``conv``, ``relu`` or ``pool``.
        after: its output.
        kept: blocks that are kept from its forward pass until its backward pass.
        has_loss: whether a loss compares its output.
        forward: what it needs besides while it is computed.
        backward: what its gradient needs.
        passing: a block among these, of a size that no other layer's has.
    """

    kind: str
    after: int
    kept: tuple[int, ...]
    has_loss: bool
    forward: int
    backward: int
    passing: int

    def peak(self, below: int) -> int:
        """Return the most that it takes in either direction.

        Args:
            below: what it and the layers before it keep.
        """
        peaks = [below + self.forward]
        if self.kind == "relu" or self.has_loss:
            peaks.append(below + 2 * self.after)  # the gradient that comes, and a new one
        if self.kind == "conv":
            peaks.append(below - sum(self.kept) + self.backward)
        elif self.kind == "pool":
            peaks.append(below + self.backward)
        return max(peaks)


def estimate(
    widths: Mapping[str, int],
    content_layers: Collection[str],
    style_layers: Collection[str],
    size: tuple[int, int],
    batch: int = 1,
    history_size: int = 10,
    value_bytes: int = 4,
    pooling: str = "max",
    regions: int = 0,
    heap_block: int = HEAP_BLOCK,
    padding: str = "zeros",
) -> Need:
    """Return what a transfer takes at its peak.

    Args:
        widths: channels of the network's convolutions by layer name, such as ``conv1_1: 64``.
        content_layers: layers compared with the content.
        style_layers: layers whose statistics are compared with the style's.
        size: height and width of the image.
        batch: images painted together.
        history_size: steps that the optimiser remembers.
        value_bytes: of one activation: 4 in fp32, 2 in bf16.
        pooling: ``max`` keeps where it took each value from, eight bytes each.
        regions: masks that the statistics are restricted by; 0: the whole picture's are compared.
        heap_block: bytes of the largest block that stays with the process when it is freed; 0 for
            a GPU.
        padding: with anything but ``zeros`` convolutions make a padded copy of what they take.
    """
    layers, targets = _layers(
        widths, content_layers, style_layers, size, batch, value_bytes, pooling, regions, padding
    )
    pixels = batch * 3 * size[0] * size[1]
    stays = [sum(block for block in layer.kept if block <= heap_block) for layer in layers]
    is_kept = padding == "reflect"
    below, above, most = pixels * value_bytes * is_kept, sum(stays), 0
    for layer, part in zip(layers, stays, strict=True):
        below, above = below + sum(layer.kept), above - part
        freed = layer.after if layer.after <= heap_block else 0  # a gradient of the layer before
        most = max(most, layer.peak(below) + above + freed)
    most += sum(layer.passing for layer in layers if layer.passing <= heap_block)
    return Need(most, pixels * 4 * (2 * history_size + VECTORS), targets)


def _layers(
    widths: Mapping[str, int],
    content_layers: Collection[str],
    style_layers: Collection[str],
    size: tuple[int, int],
    batch: int,
    value_bytes: int,
    pooling: str,
    regions: int,
    padding: str,
) -> tuple[list[_Layer], int]:
    """Return the layers up to the last that is compared, and the bytes of all targets."""
    compared = {*content_layers, *style_layers}
    last = max((LAYER_NAMES.index(name) for name in compared - {"pixels"}), default=-1)
    (height, width), channels, targets, previous = size, 3, 0, ""
    before = batch * channels * height * width * value_bytes
    found: list[_Layer] = []
    for name in LAYER_NAMES[: last + 1]:
        kind = name[:4]
        if kind != "pool" and name.replace("relu", "conv") not in widths:
            continue  # VGG-16 has fewer than VGG-19
        forward, backward, passing, taken = 0, before, 0, channels
        if kind == "conv":
            channels = widths[name]
        elif kind == "pool":
            height, width = height // 2, width // 2
        count = batch * channels * height * width
        after = count * value_bytes
        # What a ReLU gives takes the place of what it takes, unless that is compared; and what a
        # pooling gives is kept by what makes a reflected border.
        kept = [] if kind == "relu" and previous not in compared else [after]
        if kind == "pool":
            is_kept = padding == "reflect" or name in compared
            kept = [after] * is_kept + [count * 8] * (pooling == "max")
            passing = 0 if is_kept else after
        elif kind == "conv":
            forward, backward, passing = _convolution(
                (taken, channels), (height, width), batch, value_bytes, padding
            )
            forward += 0 if previous.startswith("relu") else before
        if name in content_layers:
            kept.append(after)  # the difference
            targets += after // batch
        if name in style_layers:
            matrix = batch * max(regions, 1) * channels**2 * 4
            targets += 2 * matrix  # in the cache, and beside each other
            kept += [matrix, *[after] * regions]  # the difference, the features under each mask
            # The derivative of the squared difference, and a float32 copy of the features.
            both = 4 * matrix + (count * 4 if value_bytes < 4 else 0)
            forward, backward = forward + both, backward + both
        is_compared = name in compared
        found.append(_Layer(kind, after, tuple(kept), is_compared, forward, backward, passing))
        before, previous = after, name
    return found, targets


def _convolution(
    channels: tuple[int, int],
    size: tuple[int, int],
    batch: int,
    value_bytes: int,
    padding: str,
) -> tuple[int, int, int]:
    """Return what a convolution takes forward and backward, and of what has a border, in bytes.

    Args:
        channels: of what it takes and of what it gives.
        size: height and width of either.
        batch: as for `estimate`.
        value_bytes: likewise.
        padding: likewise.
    """
    before, after = (batch * count * math.prod(size) * value_bytes for count in channels)
    planes = batch * channels[0] * (size[0] + 2) * (size[1] + 2) * value_bytes
    bordered = 0 if padding == "zeros" else planes
    room = 9 * math.prod(channels) * value_bytes  # the weights, which are brought into order
    if value_bytes == 4 and is_by_winograd(*channels, *size):
        bordered, room = planes, room_bytes(*channels, *size)
    backward = bordered + max(before, after) if bordered else before + after
    return bordered + room, backward + room, bordered


def fitting_batch(
    need: Callable[[int], Need], available: int | None, wanted: int, share: float = SHARE
) -> int:
    """Return the largest batch up to ``wanted`` whose need fits in a share of what is available.

    Args:
        need: gives what a batch needs.
        available: bytes; None: nobody knows, and every batch fits.
        wanted: the batch to begin with.
        share: of the available bytes that may be used.

    Returns:
        0 if not even one image fits.
    """
    fitting = (batch for batch in range(wanted, 0, -1) if fits(need(batch), available, share))
    return next(fitting, 0)


def fits(need: Need, available: int | None, share: float = SHARE) -> bool:
    """Tell whether a need fits in a share of what is available; None: nobody knows, so it does."""
    return available is None or need.total <= share * available


def refusal(
    size: tuple[int, int], need: Need | None, available: int | None, is_tiled: bool
) -> OutOfMemoryError:
    """Return the error to raise for a picture that memory does not suffice for.

    Args:
        size: of the picture, height and width.
        need: what it takes with the shortest history; None: nobody knows.
        available: bytes; None: nobody knows, or the device ran out of them.
        is_tiled: whether it was to be evaluated in tiles.
    """
    needed = f"{need or 'more memory than there is'}"
    there = f" of {available / 1e9:.1f} GB" if available is not None else ""
    way_out = "a smaller recipe.size" if is_tiled else "tile to 'on', or a smaller recipe.size"
    return OutOfMemoryError(
        f"memory: the picture of {size[1]} x {size[0]} needs {needed}{there}; set {way_out}"
    )


def available_bytes(device: torch.device, proc: Path = Path("/proc/meminfo")) -> int | None:
    """Return the bytes that this process can still take on a device; None where nobody tells.

    On a CPU the machine's available memory, or what the control group allows if that is less.
    """
    if device.type != "cpu":
        return free_bytes(device)
    limits = [_meminfo(proc), *(_cgroup_free(group) for group in control_groups())]
    known = [limit for limit in limits if limit is not None]
    return min(known) if known else None


def _meminfo(path: Path) -> int | None:
    try:
        lines = path.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvail"))
    except (OSError, StopIteration, ValueError):
        return None


def _cgroup_free(folder: Path) -> int | None:
    """Return what a control group may still take: its caches can be given up."""
    try:
        most = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no limit reads "max"
        return None
    return max(0, most - used + int(stat.get("inactive_file", 0)))
