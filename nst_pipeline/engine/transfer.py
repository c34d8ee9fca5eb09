"""StyleTransfer: a content and its styles in, pastiches out."""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nst_pipeline.config.recipe import Padding, Pooling, Recipe, make_recipe
from nst_pipeline.config.weights import Weights, resolve
from nst_pipeline.engine import vgg
from nst_pipeline.engine.batch import Batch, Callbacks, Result
from nst_pipeline.engine.devices import (
    Precision,
    broken_device_told,
    describe_device,
    describe_precision,
    deterministic,
    is_out_of_memory,
    resolve_device,
    resolve_precision,
)
from nst_pipeline.engine.images import Bits, Picture, to_tensor
from nst_pipeline.engine.scales import plan_scales
from nst_pipeline.engine.scene import make_scene
from nst_pipeline.engine.styles import AnyStyle, StyleTargets, regions, style_set
from nst_pipeline.engine.targets import TargetCache
from nst_pipeline.engine.tiles import TILE_SIZE, TileMode, Tiling

OnStep = Callable[[int, int, float], None]
"""Takes the style's index, the steps done, and the best loss so far."""

Mask = NDArray[Any]
"""(H, W), uint8: 255 is painted, 0 is not."""


class Progress(Callbacks):
    """A callbacks of two functions."""

    def __init__(self, on_step: OnStep | None, check: Callable[[], None] | None) -> None:
        """Tell ``on_step``, and call ``check``, which ends the work by raising."""
        self._on_step, self._check = on_step, check

    def stepped(self, index: int, done: int, loss: float) -> None:
        """Tell the progress."""
        if self._on_step:
            self._on_step(index, done, loss)

    def check(self) -> None:
        """Ask whether to go on."""
        if self._check:
            self._check()


class StyleTransfer:
    """Paints contents by one recipe (Gatys, Ecker and Bethge 2016).

    Attributes:
        recipe: what decides the pixels.
        device: where it runs.
        dtype: what the network runs in; images, statistics and losses are float32.
        weights: the network's weights.
        targets: the cache of style targets.
        batch: styles painted together; halved when the device's memory does not suffice.
        bits: of the results' samples.
        tiling: which images are evaluated in tiles, so that their activations need no more memory
            than a tile's; the results are equal to rounding.
        history_size: steps that L-BFGS remembers; halved when that does not suffice either.
    """

    def __init__(
        self,
        recipe: Recipe | None = None,
        device: str = "auto",
        precision: Precision = "auto",
        weights: str | Weights = "auto",
        targets: TargetCache | None = None,
        batch: int | None = None,
        bits: Bits = 8,
        tile: TileMode = "auto",
        tile_size: int = TILE_SIZE,
    ) -> None:
        """Load the network.

        Args:
            recipe: see `recipe.make_recipe`; None: the default of the network.
            device: ``auto`` (CUDA when there is one), ``cpu``, ``cuda`` or ``cuda:N``.
            precision: of the network; ``auto`` is bf16 where the device is fast at it.
            weights: as `weights.resolve` takes or gives them.
            targets: cache of style targets, to share among several instances.
            batch: styles painted together; default 1 on a CPU and 8 on CUDA.
            bits: of the results' samples.
            tile: evaluate images in tiles: ``on``, ``off``, or ``auto``: where memory would not
                suffice otherwise.
            tile_size: most of a tile's side in pixels, without the halo it overlaps others by.

        Raises:
            UnavailableError: no such device or weights.
        """
        self.device = resolve_device(device)
        self.dtype = resolve_precision(precision, self.device)
        self.weights = weights if isinstance(weights, Weights) else resolve(weights)
        self.recipe = recipe = recipe or make_recipe(self.weights.id)
        self.targets = TargetCache() if targets is None else targets
        self.batch = batch or (8 if self.device.type == "cuda" else 1)
        self.bits = bits
        self.tiling = Tiling(tile, tile_size)
        self.history_size = recipe.history_size
        last = vgg.deepest((*recipe.content_layers, *recipe.style_layers))
        self._trunk = _trunk(
            self.weights, last, recipe.pooling, recipe.padding, self.device, self.dtype
        )
        self._styles = StyleTargets(self._trunk, recipe, self.weights, self.targets, self.tiling)

    def run(
        self,
        content: Picture,
        styles: Sequence[AnyStyle],
        on_step: OnStep | None = None,
        init: Picture | None = None,
        check: Callable[[], None] | None = None,
        masks: Mapping[str, Mask] | None = None,
    ) -> list[Result]:
        """Paint ``content`` in each of ``styles``; see `paint`."""
        return list(self.paint(content, styles, Progress(on_step, check), init, masks))

    def paint(
        self,
        content: Picture,
        styles: Sequence[AnyStyle],
        callbacks: Callbacks | None = None,
        init: Picture | None = None,
        masks: Mapping[str, Mask] | None = None,
    ) -> Iterator[Result]:
        """Paint ``content`` in each of ``styles``, giving each batch's results when it is done.

        Where memory does not suffice, fewer styles are painted together, and then L-BFGS
        remembers fewer steps.

        Args:
            content: what to paint; scaled to the recipe's size.
            styles: each a picture, a `Style`, or those by the names of masks: a style a region.
            callbacks: told of the progress, and asked whether to go on.
            init: what the pastiches start as, in place of what the recipe's ``init`` says.
            masks: of any size; ``""`` says what is painted, the others are the regions' masks.

        Yields:
            One result a style, in order.

        Raises:
            ShapeError: a picture of another shape.
            ImageError: a region without a mask, or no picture where the recipe needs one.
            UnavailableError: memory does not suffice for one style and one step.
            DeviceLostError: the device broke; only a new process can use it again.
        """
        callbacks = callbacks or Callbacks()
        pixels = to_tensor(content)
        height, width = pixels.shape[-2:]
        with self._guarded():
            scales = plan_scales(self.recipe, (height, width))
            scenes = [
                make_scene(self._trunk, self.recipe, pixels, scale, self.tiling) for scale in scales
            ]
        del pixels  # which may be far larger than the last scene
        known = {name: _mask(mask) for name, mask in (masks or {}).items()}
        start = None if init is None else to_tensor(init)
        waiting = [style_set(style) for style in styles]
        done = 0
        while waiting:
            _, alike = next(itertools.groupby(waiting, key=regions))
            part = list(itertools.islice(alike, self.batch))
            layers = self.recipe.content_layers, self.recipe.style_layers
            count, history = self.tiling.fit(
                self._trunk, layers, scenes[-1].content, len(part), self.history_size
            )
            part = part[:count]
            indices = range(done, done + len(part))
            batch = Batch(
                self._trunk, self._styles, scenes, known, self.tiling, part, indices, start,
                history, self.bits,
            )  # fmt: skip
            try:
                with self._guarded():
                    results = batch.paint(callbacks)
            except (RuntimeError, MemoryError) as error:
                self._make_room(error, len(part))
                continue
            yield from results
            waiting, done = waiting[len(part) :], done + len(part)

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        with deterministic(self.device), broken_device_told(self.device):
            yield

    def _make_room(self, error: RuntimeError | MemoryError, batch: int) -> None:
        """Ask for less memory from now on; raise ``error`` if it is about something else."""
        if not is_out_of_memory(error):
            raise error
        if batch > 1:
            self.batch = batch // 2
        elif self.history_size > 1:
            self.history_size //= 2
        else:
            raise error
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def describe(self) -> tuple[str, str]:
        """Return the device's name and the network's precision, for people."""
        return describe_device(self.device), describe_precision(self.dtype)

    def memory_bytes(self) -> int | None:
        """Return the bytes of the device's memory in use by this process; None for a CPU."""
        return torch.cuda.memory_allocated(self.device) if self.device.type == "cuda" else None


@functools.lru_cache(maxsize=4)
def _trunk(
    weights: Weights,
    last: str,
    pooling: Pooling,
    padding: Padding,
    device: torch.device,
    dtype: torch.dtype,
) -> nn.Sequential:
    trunk = vgg.load_trunk(weights.path, last, pooling, padding)
    return trunk.to(device, dtype).to(memory_format=torch.channels_last)


def _mask(mask: Mask) -> Tensor:
    """Return a mask as (1, 1, H, W) in [0, 1]."""
    return torch.from_numpy(mask.astype(np.float32) / 255)[None, None]
