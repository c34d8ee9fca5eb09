"""StyleTransfer: a content and its styles in, pastiches out."""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nst_pipeline.config.recipe import Padding, Pooling, Recipe, check_layers
from nst_pipeline.config.sizes import crop
from nst_pipeline.config.weights import Weights, resolve
from nst_pipeline.engine import vgg
from nst_pipeline.engine.alpha import Seen, SeenWhole, see
from nst_pipeline.engine.batch import Batch, Callbacks, FunctionCallbacks, OnStep, Result
from nst_pipeline.engine.convolution import prepare
from nst_pipeline.engine.devices import (
    Precision,
    describe_device,
    describe_precision,
    detect_lost_device,
    deterministic,
    is_out_of_memory,
    release_memory,
    resolve_device,
    resolve_precision,
    used_bytes,
)
from nst_pipeline.engine.images import Bits, Picture, padded
from nst_pipeline.engine.memory import refusal
from nst_pipeline.engine.scales import Scale, plan_scales
from nst_pipeline.engine.scene import Scene, check_init, guide_count, make_scene
from nst_pipeline.engine.styles import AnyStyle, StyleSet, StyleTargets, regions, style_set
from nst_pipeline.engine.targets import TargetCache
from nst_pipeline.engine.tiles import TILE_SIZE, TileMode, Tiling
from nst_pipeline.errors import DeviceLostError, OutOfMemoryError, UnavailableError
from nst_pipeline.files import shown

Mask = NDArray[Any]
"""(H, W), uint8: 255 is painted, 0 is not."""

T = TypeVar("T")
P = ParamSpec("P")


@dataclass(frozen=True)
class _Prepared:
    """A content that is ready to be painted.

    Attributes:
        scenes: coarse to fine.
        masks: (1, 1, H, W), uint8 or in [0, 1], by name.
        init: a picture to start from; None: as the recipe says.
    """

    scenes: list[Scene]
    masks: dict[str, Tensor]
    init: Seen | SeenWhole | None


class StyleTransfer:
    """Paints contents by one recipe (Gatys, Ecker and Bethge 2016).

    Attributes:
        recipe: what decides the pixels.
        device: where it runs.
        dtype: what the network runs in; images, statistics and losses are float32.
        weights: the network's weights.
        targets: the cache of style targets.
        batch: styles painted together, at most.
        bits: of the results' samples.
        tiling: which images are evaluated in tiles, so that their activations need no more memory
            than a tile's; the results are equal to rounding.
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
            recipe: see `recipe.make_recipe`; None: the default.
            device: ``cpu``, ``cuda``, ``cuda:N``, ``xpu``, ``xpu:N``, ``mps``, or ``auto``: the
                first GPU that there is, else the CPU.
            precision: of the network; ``auto`` is bf16 where the device is fast at it.
            weights: as `weights.resolve` takes or gives them.
            targets: cache of style targets, to share among several instances.
            batch: styles painted together; default 1 on a CPU, else 8.
            bits: of the results' samples.
            tile: evaluate images in tiles: ``on``, ``off``, or ``auto``: where memory would not
                suffice otherwise.
            tile_size: most of a tile's side in pixels, without the halo it overlaps others by.

        Raises:
            UnavailableError: no such device or weights.
            ConfigError: the recipe names a layer that the network lacks.
            OutOfMemoryError: the device has no room for the network.
        """
        self.device = resolve_device(device)
        self.dtype = resolve_precision(precision, self.device)
        self.weights = weights if isinstance(weights, Weights) else resolve(weights)
        self.recipe = recipe = recipe or Recipe()
        check_layers(recipe, self.weights)
        self.targets = TargetCache() if targets is None else targets
        self.batch = batch or (1 if self.device.type == "cpu" else 8)
        self.bits = bits
        self.tiling = Tiling(tile, tile_size)
        self._layers = recipe.content_layers, recipe.style_layers
        self._trunk = self._load_trunk()
        self._styles = StyleTargets(self._trunk, recipe, self.weights, self.targets, self.tiling)

    def _load_trunk(self) -> nn.Sequential:
        recipe, weights = self.recipe, self.weights
        last = vgg.deepest((*recipe.content_layers, *recipe.style_layers))
        try:
            with detect_lost_device(self.device):
                return _trunk(
                    weights, last, recipe.pooling, recipe.padding, self.device, self.dtype
                )
        except DeviceLostError as error:  # whatever is to be painted
            raise UnavailableError(str(error)) from error
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(
                f"device: {self.device}: no memory is left for the network {shown(weights.path)}; "
                "give another device, or wait until others free this one"
            ) from error

    def run(
        self,
        content: Picture,
        styles: Sequence[AnyStyle],
        on_step: OnStep | None = None,
        init: Picture | None = None,
        check: Callable[[], None] | None = None,
        masks: Mapping[str, Mask] | None = None,
    ) -> list[Result]:
        """Return ``content`` painted in each of ``styles``, in order.

        See `paint` for the arguments; its first error is raised.
        """
        results: list[Result] = []
        for _, outcome in self.paint(
            content, styles, FunctionCallbacks(on_step, check), init, masks
        ):
            if isinstance(outcome, Exception):
                raise outcome
            results += outcome
        return results

    def paint(
        self,
        content: Picture,
        styles: Sequence[AnyStyle],
        callbacks: Callbacks | None = None,
        init: Picture | None = None,
        masks: Mapping[str, Mask] | None = None,
    ) -> Iterator[tuple[range, list[Result] | Exception]]:
        """Paint ``content`` in each of ``styles``, batch by batch.

        Where memory does not suffice, fewer styles are painted together, and then L-BFGS
        remembers fewer steps.

        Args:
            content: what to paint; scaled to the recipe's size, and its masks and start cut as it
                is. Of this and of all other pictures only what is seen counts, where they have an
                alpha; results have none.
            styles: each a picture, a `Style`, or those by the names of masks: a style a region.
            callbacks: called with the progress, and to ask whether to go on.
            init: what the pastiches start as, in place of what the recipe's ``init`` says.
            masks: of any size; ``""`` says what is painted, the others are the regions' masks.

        Yields:
            The indices of styles that were painted together, in order, and their results, or the
            error that ended this batch alone. An error of the content comes once, with all
            indices. Among the errors are:

            - ShapeError: a picture of another shape.
            - ImageError: a region without a mask, or no picture where the recipe demands one.
            - OutOfMemoryError: memory does not suffice for one style and one step.

        Raises:
            DeviceLostError: the device broke; only a new process can use it again.
        """
        callbacks = callbacks or Callbacks()
        waiting = [style_set(style) for style in styles]
        prepared = self._attempt(self._prepare, content, init, masks or {})
        if isinstance(prepared, Exception):
            yield range(len(waiting)), prepared
            return
        first, most, history_size = 0, self.batch, self.recipe.remembered_steps
        while waiting:
            _, alike = next(itertools.groupby(waiting, key=regions))
            part = list(itertools.islice(alike, most))
            indices = range(first, first + len(part))
            outcome: list[Result] | Exception
            batch = self._attempt(self._make_batch, prepared, part, indices, history_size)
            if isinstance(batch, Exception):
                outcome = batch
            else:
                indices, outcome = batch.indices, self._attempt(batch.paint, callbacks)
                if isinstance(outcome, Exception) and is_out_of_memory(outcome):
                    if len(indices) > 1:
                        most = len(indices) // 2
                        continue
                    if batch.history_size > 1:
                        history_size = batch.history_size // 2
                        continue
                    outcome = self._refusal(batch, outcome)
                    history_size = self.recipe.remembered_steps  # the others may need less
            yield indices, outcome
            waiting, first = waiting[len(indices) :], indices.stop

    def _attempt(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | Exception:
        """Return what ``work`` returns or raises.

        Raises:
            DeviceLostError: the device broke.
        """
        try:
            with deterministic(self.device), detect_lost_device(self.device):
                return work(*args, **kwargs)
        except DeviceLostError:
            raise
        except Exception as error:  # noqa: BLE001 - what fails is the caller's, the rest goes on
            release_memory(error, self.device)
            return error

    def _prepare(
        self, content: Picture, init: Picture | None, masks: Mapping[str, Mask]
    ) -> _Prepared:
        check_init(self.recipe, init)
        scales: list[Scale] = []
        try:
            seen = see(content)
            scales += plan_scales(self.recipe, seen.size)
            painted = functools.partial(crop, self.recipe.size, seen.size)
            known = {n: _mask(mask)[..., *painted(mask.shape)] for n, mask in masks.items()}
            start = None if init is None else see(init)
            start = start and start.part(*painted(start.size))
            seen = seen.part(*painted())
            scenes = [
                make_scene(self._trunk, self.recipe, seen, scale, self.tiling) for scale in scales
            ]
            return _Prepared(scenes, known, start)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if not scales:
                raise OutOfMemoryError(
                    "memory: the content needs more than there is; give it smaller"
                ) from error
            raise refusal(scales[-1].size, None, None, self.tiling.mode != "off") from error

    def _make_batch(
        self, prepared: _Prepared, part: list[StyleSet], indices: range, history_size: int
    ) -> Batch:
        """Return the batch of as many of the first styles as fit in memory together."""
        scene = prepared.scenes[-1]
        guides = guide_count(prepared.masks, regions(part[0]), scene)
        image = padded(scene.content)
        count, history_size = self.tiling.fit(
            self._trunk, self._layers, image, len(part), history_size, guides
        )
        return Batch(
            self._trunk, self._styles, prepared.scenes, prepared.masks, self.tiling, part[:count],
            indices[:count], prepared.init, history_size, self.bits,
        )  # fmt: skip

    def _refusal(self, batch: Batch, error: Exception) -> OutOfMemoryError:
        """Return what to say of a single style and step that ran out of memory."""
        scene = batch.scenes[-1]
        guides = guide_count(batch.masks, regions(batch.styles[0]), scene)
        image = padded(scene.content)
        steps = min(batch.history_size, 1)
        refused = self.tiling.refusal(self._trunk, self._layers, image, guides, None, steps)
        refused.__cause__ = error
        return refused

    def describe(self) -> tuple[str, str]:
        """Return the device's name and the network's precision, for people."""
        return describe_device(self.device), describe_precision(self.dtype)

    def threads(self) -> int | None:
        """Return how many threads a CPU computes with, which its sums depend on; else None."""
        return torch.get_num_threads() if self.device.type == "cpu" else None

    def memory_bytes(self) -> int | None:
        """Return the bytes of the device's memory in use by this process; None for a CPU."""
        return used_bytes(self.device)


@functools.lru_cache(maxsize=4)
def _trunk(
    weights: Weights,
    last: str,
    pooling: Pooling,
    padding: Padding,
    device: torch.device,
    dtype: torch.dtype,
) -> nn.Sequential:
    return prepare(vgg.load_trunk(weights.path, last, pooling, padding), device, dtype)


def _mask(mask: Mask) -> Tensor:
    """Return a mask as (1, 1, H, W): uint8 as it is, for there may be many, else in [0, 1]."""
    values = np.array(mask) if mask.dtype == np.uint8 else mask.astype(np.float32) / 255
    return torch.from_numpy(values)[None, None]
