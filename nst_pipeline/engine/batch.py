"""A batch of styles on one content, through all scales."""

import contextlib
import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from nst_pipeline.engine.adam import Adam
from nst_pipeline.engine.alpha import Seen, SeenWhole
from nst_pipeline.engine.checkpoint import Checkpoint, CheckpointError
from nst_pipeline.engine.curve import LossCurve, LossCurves
from nst_pipeline.engine.devices import is_out_of_memory
from nst_pipeline.engine.images import Bits, fit, padded, quantise, resize, to_image, to_tensor
from nst_pipeline.engine.lbfgs import Lbfgs
from nst_pipeline.engine.losses import LossModel, build_model, total_variation
from nst_pipeline.engine.optimiser import Minimum, Optimiser, minimise
from nst_pipeline.engine.scene import Scene, blend, first_pastiche, masks_at, style_masks
from nst_pipeline.engine.styles import StyleSet, StyleTargets, regions
from nst_pipeline.engine.tiles import TiledModel, Tiling

GLIMPSE_SIDE = 1280
"""The longer side of a glimpse, at most, in pixels."""
LONGEST_STEP = 0.1
"""Root mean square change of the pixels in a step of L-BFGS; good steps are shorter."""


@dataclass(frozen=True)
class Losses:
    """The weighted terms of a loss, and their sum."""

    content: float
    style: float
    tv: float
    total: float


@dataclass(frozen=True)
class Result:
    """A finished pastiche.

    Attributes:
        pixels: (H, W, 3), uint8 or uint16, the very ones that the losses at the end are of.
        start: losses, at the size of ``pixels``, of what the optimisation began with.
        end: losses of ``pixels``.
        iterations: steps done, over all scales.
        seconds: wall time, shared evenly among the styles of a batch.
        stop_reason: of the last scale: ``iterations``, ``converged``, ``settled`` or ``diverged``.
        history_size: steps that the optimiser remembered; fewer than the recipe's where memory
            did not suffice.
        curve: how the loss fell, by scale.
    """

    pixels: NDArray[Any]
    start: Losses
    end: Losses
    iterations: int
    seconds: float
    stop_reason: str
    history_size: int
    curve: tuple[LossCurve, ...] = ()

    @property
    def problem(self) -> str:
        """Why this is no pastiche, for people; empty: it is one."""
        if math.isfinite(self.end.total):
            return ""
        return f"the loss is {self.end.total}; lower the recipe's weights, or give other weights"

    @property
    def pastiche(self) -> Image.Image:
        """The picture in 8 bits."""
        return to_image(to_tensor(self.pixels))


OnStep = Callable[[int, int, int, float], None]
"""Takes the style's index, the steps done, those in all, and the best loss so far."""


class Callbacks:
    """What is called while a batch is painted. This one does nothing.

    Styles are known by their index among all of the content's.

    Attributes:
        snapshot_steps: a snapshot is taken every so many steps; 0: never.
        checkpoint_seconds: a checkpoint is made after so much work.
    """

    snapshot_steps = 0
    checkpoint_seconds = float("inf")

    def stepped(self, index: int, done: int, total: int, loss: float) -> None:
        """Take the steps done of all scales' total, and the best loss; called every ten steps."""

    def check(self) -> None:
        """Raise what is to end the work; called after every step.

        An ``Exception`` ends the batch at work alone; any other, such as ``KeyboardInterrupt``,
        ends everything.
        """

    def snapshot(self, index: int, done: int, picture: Image.Image) -> None:
        """Take an unfinished picture."""

    def wants_glimpse(self) -> bool:
        """Tell whether somebody looks on; asked after every step."""
        return False

    def glimpse(self, index: int, done: int, picture: Image.Image) -> None:
        """Take a copy of an unfinished picture, no larger than is looked at."""

    def checkpoint(self, indices: range, checkpoint: Checkpoint) -> None:
        """Take what the batch of these styles can be resumed from."""

    def resume(self, indices: range) -> Checkpoint | None:
        """Return what the batch of these styles is to be resumed from, if anything."""
        return None


class FunctionCallbacks(Callbacks):
    """Callbacks that call a function after a step, and another to ask whether to go on."""

    def __init__(
        self, on_step: OnStep | None = None, check: Callable[[], None] | None = None
    ) -> None:
        """Call ``on_step`` every ten steps, and ``check``, which may raise, after every one."""
        self._on_step, self._check = on_step, check

    def stepped(self, index: int, done: int, total: int, loss: float) -> None:
        """Hand on the progress."""
        if self._on_step:
            self._on_step(index, done, total, loss)

    def check(self) -> None:
        """Ask whether to go on."""
        if self._check:
            self._check()


class Objective:
    """The loss of pastiches of one content at one scale, and its gradient."""

    def __init__(self, scene: Scene, model: LossModel | TiledModel, mask: Tensor | None) -> None:
        """Take the losses from ``model``, of what ``mask`` (1, 1, H, W) lets of the pixels in."""
        self._scene, self._model, self.mask = scene, model, mask
        self.recipe = recipe = scene.recipe
        # Total variation is a mean over the whole picture, the others are over what is seen.
        tv_weight = recipe.tv_weight / scene.visible_share
        self._weights = recipe.content_weight, recipe.style_weight, tv_weight

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the losses (B,) of optimised ``pixels`` (B, 3, H, W), and their gradient."""
        pixels = pixels.detach().requires_grad_()
        losses = self._terms(blend(self._scene.network_input, pixels, self.mask)).sum(0)
        (gradient,) = torch.autograd.grad(losses.sum(), pixels)
        return losses, gradient

    @torch.no_grad()
    def of_optimised(self, pixels: Tensor) -> list[Losses]:
        """Return the losses of ``pixels`` (B, 3, H, W) as the optimiser has them."""
        return self._rows(blend(self._scene.network_input, pixels, self.mask))

    @torch.no_grad()
    def of_finished(self, pixels: Tensor) -> list[Losses]:
        """Return the losses of ``pixels`` (B, 3, H, W) as people get them."""
        return self._rows(self._scene.as_input(pixels))

    def _rows(self, image: Tensor) -> list[Losses]:
        terms = self._terms(image)
        rows = torch.cat([terms, terms.sum(0, keepdim=True)]).T.tolist()
        return [Losses(*row) for row in rows]

    def _terms(self, image: Tensor) -> Tensor:
        """Return the weighted losses (3, B) of what the network gets."""
        # The gradient comes in reverse order: the model's first, with nothing else to hold.
        tv = total_variation(image) if self._weights[2] else image.new_zeros(len(image))
        terms = *self._model(padded(image)), tv
        return torch.stack([w * t for w, t in zip(self._weights, terms, strict=True)])


@dataclass(frozen=True)
class Batch:
    """What is painted together: sets of styles of the same regions, on one content.

    Attributes:
        trunk: the network.
        targets: prepares the styles.
        scenes: the content, coarse to fine.
        masks: as `scene.masks_at` takes them.
        tiling: how large images are evaluated.
        styles: what to paint.
        indices: of the styles, among all of the content's.
        init: a picture to start from; None: as the recipe says.
        history_size: steps that the optimiser remembers.
        bits: of the results.
    """

    trunk: nn.Sequential
    targets: StyleTargets
    scenes: Sequence[Scene]
    masks: dict[str, Tensor]
    tiling: Tiling
    styles: Sequence[StyleSet]
    indices: range
    init: Seen | SeenWhole | None
    history_size: int
    bits: Bits

    def paint(self, callbacks: Callbacks) -> list[Result]:
        """Return the pastiches, in order of the styles."""
        resume = callbacks.resume(self.indices)
        if resume and resume.history_size == self.history_size:
            with contextlib.suppress(CheckpointError):
                return self._paint(callbacks, resume)
        return self._paint(callbacks)

    def _paint(self, callbacks: Callbacks, resume: Checkpoint | None = None) -> list[Result]:
        if resume and not 0 <= resume.scale < len(self.scenes):
            raise CheckpointError("of more scales")
        begun = time.perf_counter() - (resume.seconds if resume else 0)
        done, found = (resume.steps_before if resume else 0), None
        first = resume.scale if resume else 0
        curves = LossCurves(resume.curve if resume else ())
        for number, scene in enumerate(self.scenes[first:], first):
            objective = self._objective(scene)
            reporter = _ScaleReporter(self, callbacks, curves, number, objective.mask, done, begun)
            found = minimise(
                self._optimiser(
                    objective,
                    self._start(scene) if found is None else resize(found.point, scene.scale.size),
                ),
                scene.scale.iterations,
                on_report=reporter.on_report,
                after_step=reporter.after_step,
                resume=resume.tensors if resume and number == first else None,
            )
            done += found.iterations
        assert found is not None
        return self._results(
            objective, scene.finish(found.point, objective.mask), found, done, begun, curves
        )

    def _objective(self, scene: Scene) -> Objective:
        recipe = scene.recipe
        targets = [self.targets.get(styles, scene) for styles in self.styles]
        mask, region_masks = masks_at(self.masks, regions(self.styles[0]), scene.content)
        model = build_model(
            self.trunk,
            scene.features,
            {layer: torch.cat([t[layer] for t in targets]) for layer in recipe.style_layers},
            recipe.content_layers,
            recipe.style_layers,
            recipe.balanced,
            recipe.statistic,
            style_masks(scene, region_masks),
            scene.weights,
        )
        image = padded(scene.content).expand(len(self.styles), -1, -1, -1)
        return Objective(scene, self.tiling.model(model, image, self.history_size), mask)

    def _optimiser(self, objective: Objective, start: Tensor) -> Optimiser:
        recipe = objective.recipe
        if recipe.optimizer == "adam":
            return Adam(objective, start, recipe.learning_rate, _clamp, recipe.tolerance)
        return Lbfgs(objective, start, self.history_size, _clamp, LONGEST_STEP, recipe.tolerance)

    def _start(self, scene: Scene) -> Tensor:
        colours = [functools.partial(self.targets.colours, styles) for styles in self.styles]
        return torch.cat([first_pastiche(scene, each, self.init) for each in colours])

    def _results(
        self,
        objective: Objective,
        finished: Tensor,
        found: Minimum,
        done: int,
        begun: float,
        curves: LossCurves,
    ) -> list[Result]:
        before = objective.of_optimised(self._start(self.scenes[-1]))
        pixels = [quantise(pastiche, self.bits) for pastiche in finished]
        saved = torch.cat([to_tensor(one) for one in pixels]).to(finished)
        after = objective.of_finished(saved)
        seconds = (time.perf_counter() - begun) / len(pixels)
        return [
            Result(one, start, end, done, seconds, reason, self.history_size, curve)
            for one, start, end, reason, curve in zip(
                pixels, before, after, found.stop_reasons, self._curves(curves), strict=True
            )
        ]

    def _curves(self, curves: LossCurves) -> list[tuple[LossCurve, ...]]:
        sizes = [scene.scale.size for scene in self.scenes]
        return [curves.of(style, sizes) for style in range(len(self.styles))]


class _ScaleReporter:
    """Calls a batch's callbacks from the optimiser of one scale."""

    def __init__(
        self,
        batch: Batch,
        callbacks: Callbacks,
        curves: LossCurves,
        scale: int,
        mask: Tensor | None,
        steps_before: int,
        begun: float,
    ) -> None:
        self._batch, self._callbacks, self._curves = batch, callbacks, curves
        self._scale, self._mask, self._steps_before = scale, mask, steps_before
        self._total = sum(scene.scale.iterations for scene in batch.scenes)
        self._begun, self._saved = begun, time.perf_counter()

    def on_report(self, done: int, losses: list[float]) -> None:
        self._curves.add(self._scale, self._steps_before + done, losses)
        for index, loss in zip(self._batch.indices, losses, strict=True):
            self._callbacks.stepped(index, self._steps_before + done, self._total, loss)

    def after_step(self, optimiser: Optimiser) -> None:
        try:
            self._callbacks.check()
        except BaseException:
            if time.perf_counter() - self._begun >= self._callbacks.checkpoint_seconds:
                self._save(optimiser)
            raise
        done = self._steps_before + optimiser.done
        if self._callbacks.snapshot_steps and done % self._callbacks.snapshot_steps == 0:
            for index, pixels in zip(self._batch.indices, self._finished(optimiser), strict=True):
                self._callbacks.snapshot(index, done, to_image(pixels))
        if self._callbacks.wants_glimpse():
            self._glimpse(optimiser, done)
        if time.perf_counter() - self._saved >= self._callbacks.checkpoint_seconds:
            self._save(optimiser)

    def _finished(self, optimiser: Optimiser) -> Tensor:
        """Return the pictures (B, 3, H, W) as people would get them now."""
        return self._batch.scenes[self._scale].finish(optimiser.best_point, self._mask)

    def _glimpse(self, optimiser: Optimiser, done: int) -> None:
        """Let the callbacks look, where memory suffices: that somebody does must change nothing."""
        try:
            pictures = self._finished(optimiser)
            height, width = pictures.shape[-2:]
            if max(height, width) > GLIMPSE_SIDE:
                pictures = resize(pictures, fit((height, width), GLIMPSE_SIDE))
            images = [to_image(pixels) for pixels in pictures]
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return
        for index, image in zip(self._batch.indices, images, strict=True):
            self._callbacks.glimpse(index, done, image)

    def _save(self, optimiser: Optimiser) -> None:
        tensors = {name: tensor.cpu() for name, tensor in optimiser.state().items()}
        seconds = time.perf_counter() - self._begun
        checkpoint = Checkpoint(
            self._scale, self._steps_before, seconds, self._batch.history_size,
            self._curves.rows, tensors,
        )  # fmt: skip
        self._callbacks.checkpoint(self._batch.indices, checkpoint)
        self._saved = time.perf_counter()


def _clamp(pixels: Tensor) -> Tensor:
    return pixels.clamp_(0, 1)
