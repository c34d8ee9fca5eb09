"""What the optimisers of a batch of images share: judging, safeguards, state, and the loop."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nst_pipeline.engine.checkpoint import CheckpointError
from nst_pipeline.engine.devices import widest_float
from nst_pipeline.engine.graphs import captured

Objective = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Takes a batch (B, ...); returns the losses (B,) and their gradient (B, ...).

Must neither change nor keep its argument: the optimiser writes the next point into it.
"""

Project = Callable[[Tensor], Tensor]
"""Maps points (B, N), of one image or more, into the feasible set."""

OnReport = Callable[[int, list[float]], None]
"""Takes the number of steps done and the best loss of each image."""

EXPLOSION_FACTOR = 100.0
SMALLEST_STEP = 1e-3

LONG = 4096
"""Numbers from which a CPU is faster at dot products one by one than at their matrix product."""

STOP_REASONS = ("", "converged", "diverged", "settled")
_CONVERGED, _DIVERGED, _SETTLED = 1, 2, 3


@dataclass(frozen=True)
class Report:
    """Where a minimisation stands.

    Attributes:
        losses: the best loss of each image.
        stop_reasons: of each image: empty while it goes on, ``converged`` (its gradient
            vanished), ``diverged`` (no step, however small, gave a finite loss) or ``settled``
            (its best loss changed less than the tolerance over a window).
    """

    losses: list[float]
    stop_reasons: list[str]


@dataclass(frozen=True)
class Minimum:
    """What `minimise` found.

    Attributes:
        point: the best finite point of each image, (B, ...).
        iterations: steps done.
        stop_reasons: as in `Report`; ``iterations`` where all of them were done.
    """

    point: Tensor
    iterations: int
    stop_reasons: list[str]


class Images(ABC):
    """Some images of a batch, which move together; the numbers of one are of shape (B, 1).

    An image whose loss turns non-finite or exploded goes back to its best point, and from there
    takes half the step.
    """

    def __init__(
        self, point: Tensor, best: Tensor, project: Project, tolerance: float, window: int
    ) -> None:
        """Move what ``point`` (B, N) and ``best`` (B, N) are views of."""
        self._point, self._best, self._project = point, best, project
        self._tolerance = tolerance
        self.best_loss = self._numbers(1, value=torch.inf)
        self.reason = torch.zeros(len(point), 1, dtype=torch.int64, device=point.device)
        self._past = self._numbers(window, value=torch.inf)
        self._scale = self._numbers(1, value=1)

    def _numbers(self, *shape: int, value: float = 0.0) -> Tensor:
        """Return numbers of each image, (B, *shape)."""
        shape = len(self._point), *shape
        device = self._point.device
        return torch.full(shape, value, dtype=widest_float(device), device=device)

    def tensors(self) -> dict[str, Tensor]:
        """Return all that changes, but the points."""
        named = {name.strip("_"): value for name, value in vars(self).items()}
        return {
            name: value
            for name, value in named.items()
            if isinstance(value, Tensor) and name not in ("point", "best", "work")
        }

    def move(self, loss: Tensor, gradient: Tensor) -> None:
        """Take in the loss (B, 1) and the gradient (B, N) at the point, and move it on."""
        square = times(gradient[:, None], gradient)
        good = loss.isfinite() & square.isfinite() & (loss < EXPLOSION_FACTOR * self.best_loss)
        self._judge(loss, good, good & (square == 0))
        moved = self._project(self._next(gradient, good))
        overwrite(moved, self._best, ~good | (self.reason != 0))
        self._moved(moved, good)
        self._point.copy_(moved)

    @abstractmethod
    def _next(self, gradient: Tensor, good: Tensor) -> Tensor:
        """Return the next point (B, N) of the images that are good (B, 1), in memory of its own."""

    def _moved(self, moved: Tensor, good: Tensor) -> None:  # noqa: B027 - some have no use of it
        """Take in the next point (B, N), while the last one is still there."""

    def _judge(self, loss: Tensor, good: Tensor, still: Tensor) -> None:
        """Keep the best point, and tell who stops; all arguments (B, 1)."""
        better = good & (loss < self.best_loss) & (self.reason == 0)
        overwrite(self._best, self._point, better)
        self.best_loss.copy_(torch.where(better, loss, self.best_loss))
        self._scale.copy_(torch.where(good, self._scale, self._scale / 2))
        reason = torch.where(still, _CONVERGED, 0)
        reason = torch.where(self._scale < SMALLEST_STEP, _DIVERGED, reason)
        if self._tolerance:
            change = self._past[:, -1:] - self.best_loss
            settled = change < self._tolerance * self.best_loss.abs()
            reason = torch.where((reason == 0) & settled, _SETTLED, reason)
            self._past.copy_(torch.cat([self.best_loss, self._past[:, :-1]], 1))
        self.reason.copy_(torch.where(self.reason == 0, reason, self.reason))


class Optimiser(ABC):
    """The state of a minimisation, in tensors of fixed places on the device.

    On a CPU the images move one after the other, each while it is in the processor's cache.

    Attributes:
        done: steps done, to be counted by the caller of `step`; -1 before ``start`` is evaluated.
        objective: what is minimised.
        point: what the next step evaluates, (B, ...).
        best_point: the best finite point so far, (B, ...).
    """

    def __init__(self, objective: Objective, start: Tensor, project: Project | None) -> None:
        """Begin at ``start`` (B, ...), projected; None: everything is feasible."""
        project = project or (lambda point: point)
        point = project(start.detach().reshape(len(start), -1).clone())
        best = point.clone()
        self.done = -1
        self.point, self.best_point = point.view_as(start), best.view_as(start)
        self.objective = objective
        self._real = widest_float(start.device)
        self._together = 1 if start.is_cpu else len(start)
        points, bests = (torch.split(one, self._together) for one in (point, best))
        self._groups = [self._images(*part, project) for part in zip(points, bests, strict=True)]

    @abstractmethod
    def _images(self, point: Tensor, best: Tensor, project: Project) -> Images:
        """Return what moves some of the images; ``point`` and ``best`` are (B, N)."""

    def step(self) -> None:
        """Evaluate the point and move on; the host learns nothing and decides nothing.

        An image whose loss turned non-finite or exploded goes back to its best point, and the
        next step evaluates that again.
        """
        losses, gradient = self.objective(self.point)
        loss = torch.split(losses.detach()[:, None].to(self._real), self._together)
        gradients = torch.split(gradient.detach().flatten(1), self._together)
        for group, *values in zip(self._groups, loss, gradients, strict=True):
            group.move(*values)

    def report(self) -> Report:
        """Return where the minimisation stands; this waits for the device."""
        losses = torch.cat([group.best_loss for group in self._groups])
        reasons = torch.cat([group.reason for group in self._groups])
        return Report(
            losses.flatten().tolist(), [STOP_REASONS[i] for i in reasons.flatten().tolist()]
        )

    def _tensors(self) -> dict[str, Tensor]:
        found = {"point": self.point, "best_point": self.best_point}
        for index, group in enumerate(self._groups):
            found |= {f"{name}.{index}": value for name, value in group.tensors().items()}
        return found

    def state(self) -> dict[str, Tensor]:
        """Return all that a continuation needs: the very tensors, which the next step changes."""
        return {**self._tensors(), "done": torch.tensor(self.done)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state` gave of a minimisation with the same arguments.

        Raises:
            CheckpointError: it gave no such thing; nothing has changed.
        """
        tensors, shapes = self._tensors(), {name: t.shape for name, t in state.items()}
        if shapes != {"done": (), **{name: t.shape for name, t in tensors.items()}}:
            raise CheckpointError("of another minimisation")
        if not (state["point"].isfinite().all() and state["best_point"].isfinite().all()):
            raise CheckpointError("not finite")
        for name, tensor in tensors.items():
            tensor.copy_(state[name])
        self.done = int(state["done"])


def minimise(
    optimiser: Optimiser,
    iterations: int,
    on_report: OnReport | None = None,
    report_every: int = 10,
    after_step: Callable[[Optimiser], None] | None = None,
    resume: Mapping[str, Tensor] | None = None,
    graph: bool = True,
) -> Minimum:
    """Minimise each image's loss.

    Args:
        optimiser: at its start.
        iterations: steps to do; there is one evaluation more.
        on_report: called every ``report_every`` steps, and after the first and the last.
        report_every: the device is asked for numbers only this often.
        after_step: called after every step, and its report; whatever it raises ends the
            minimisation.
        resume: what `Optimiser.state` gave of one that was made with the same arguments.
        graph: on CUDA, replay the step as a CUDA graph; the objective must then ask the device
            for no numbers, and its code runs in the first steps only.
    """
    if resume is not None:
        optimiser.load(resume)
    step = captured(optimiser.step, optimiser.point.device) if graph else optimiser.step
    if optimiser.done < 0:
        step()
        optimiser.done = 0
    reasons = optimiser.report().stop_reasons
    while optimiser.done < iterations and not all(reasons):
        step()
        optimiser.done += 1
        if optimiser.done in (1, iterations) or optimiser.done % report_every == 0:
            report = optimiser.report()
            reasons = report.stop_reasons
            if on_report:
                on_report(optimiser.done, report.losses)
        if after_step:
            after_step(optimiser)
    return Minimum(optimiser.best_point, optimiser.done, [r or "iterations" for r in reasons])


def times(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Return matrices (B, R, C) times vectors (B, C), as (B, R)."""
    if not matrices.is_cpu:
        return torch.bmm(matrices, vectors[:, :, None])[:, :, 0]
    # On a CPU the product of a batch is slower for matrices as long as an image.
    found = vectors.new_empty(matrices.shape[:2])
    for matrix, vector, row in zip(matrices, vectors, found, strict=True):
        if matrix.shape[1] < LONG:
            torch.mv(matrix, vector, out=row)
        else:
            torch.stack([torch.dot(line, vector) for line in matrix], out=row)
    return found


def overwrite(target: Tensor, source: Tensor, where: Tensor) -> None:
    """Copy the images (B, ...) for which ``where`` (B, 1) holds."""
    if not target.is_cpu:
        torch.where(where, source, target, out=target)
        return
    # On a CPU a look at the flag costs nothing, and a selection much more than a copy.
    for old, new, flag in zip(target, source, where.flatten().tolist(), strict=True):
        if flag:
            old.copy_(new)
