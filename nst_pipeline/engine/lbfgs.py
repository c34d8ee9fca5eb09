"""L-BFGS over a batch of images, each with its own history, step and safeguards."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Objective = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Takes a batch (B, ...); returns the losses (B,) and their gradient (B, ...)."""

OnStep = Callable[[int, list[float]], None]
"""Takes the number of steps done and the losses then."""

EXPLOSION_FACTOR = 100.0
FIRST_STEP = 0.1
"""Length of a step without history, in radii."""
SMALLEST_STEP = 1e-3


@dataclass(frozen=True)
class Minimum:
    """What `minimise` found.

    Attributes:
        point: the best finite point of each image, (B, ...).
        iterations: steps done.
        stop_reasons: of each image: ``iterations`` (all were done), ``converged`` (its gradient
            vanished) or ``diverged`` (no step, however small, gave a finite loss).
    """

    point: Tensor
    iterations: int
    stop_reasons: list[str]


class _State:
    """The minimiser's variables; those of one number an image have the shape (B, 1)."""

    def __init__(
        self,
        point: Tensor,
        loss: Tensor,
        gradient: Tensor,
        history_size: int,
        radius: float | None,
    ) -> None:
        self.radius = radius
        self.point, self.gradient, self.loss = point, gradient, loss
        self.best_point, self.best_gradient, self.best_loss = point, gradient, loss
        # Pairs (s, y, 1 / s.y), the oldest first; 0 for the images that must not use the pair.
        self.history: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=history_size)
        self.curvature = torch.ones_like(loss)
        self.fresh = torch.ones_like(loss, dtype=torch.bool)
        self.scale = torch.ones_like(loss)

    def direction(self) -> Tensor:
        """Return minus the product of the inverse Hessian and the gradient (two loops)."""
        direction = -self.gradient
        alphas = []
        for s, y, rho in reversed(self.history):
            alpha = rho * _dot(s, direction)
            direction = direction - alpha * y
            alphas.append(alpha)
        direction = direction * self.curvature
        for (s, y, rho), alpha in zip(self.history, reversed(alphas), strict=True):
            direction = direction + (alpha - rho * _dot(y, direction)) * s
        return direction

    def step(self) -> Tensor:
        """Return the next point: a full step, but a careful one while there is no history."""
        direction = self.direction()
        if self.radius is None:
            first = 1 / self.gradient.abs().sum(1, keepdim=True).clamp_min(1e-30)
            size = torch.where(self.fresh, first.clamp_max(1), torch.ones_like(first))
        else:
            length = direction.square().mean(1, keepdim=True).sqrt().clamp_min(1e-30)
            first, longest = FIRST_STEP * self.radius / length, self.radius / length
            size = torch.where(self.fresh, first, longest.clamp_max(1))
        return self.point + size * self.scale * direction

    def accept(self, point: Tensor, loss: Tensor, gradient: Tensor) -> None:
        """Move to ``point``; where the loss exploded, back to the best one with a clean slate."""
        finite = loss.isfinite() & gradient.isfinite().all(1, keepdim=True)
        good = finite & (loss < EXPLOSION_FACTOR * self.best_loss)
        s, y = point - self.point, gradient - self.gradient
        sy, yy = _dot(s, y), _dot(y, y)
        use = good & (sy > 1e-10)
        zero = torch.zeros_like(sy)
        # Where a pair is not used, NaN must not reach the products either.
        self.history.append(
            (torch.where(use, s, 0), torch.where(use, y, 0), torch.where(use, 1 / sy, zero))
        )
        self.curvature = torch.where(use, sy / yy, self.curvature)
        self.curvature = torch.where(good, self.curvature, torch.ones_like(zero))
        self.fresh = ~good
        self.history = deque(
            ((s, y, torch.where(good, rho, zero)) for s, y, rho in self.history),
            maxlen=self.history.maxlen,
        )
        self.scale = torch.where(good, self.scale, self.scale / 2)
        better = good & (loss < self.best_loss)
        self.best_point = torch.where(better, point, self.best_point)
        self.best_gradient = torch.where(better, gradient, self.best_gradient)
        self.best_loss = torch.where(better, loss, self.best_loss)
        self.point = torch.where(good, point, self.best_point)
        self.gradient = torch.where(good, gradient, self.best_gradient)
        self.loss = torch.where(good, loss, self.best_loss)

    def stop_reasons(self) -> list[str]:
        """Return why each image would stop now; empty text: it would not."""
        still = self.gradient.abs().amax(1) == 0
        lost = (self.scale < SMALLEST_STEP).flatten()
        return [
            "converged" if a else "diverged" if b else ""
            for a, b in zip(still.tolist(), lost.tolist(), strict=True)
        ]


def minimise(
    objective: Objective,
    start: Tensor,
    iterations: int,
    history_size: int = 10,
    project: Callable[[Tensor], Tensor] | None = None,
    radius: float | None = None,
    on_step: OnStep | None = None,
    report_every: int = 10,
    tolerance=0.0,
    after_step=None,
    resume=None,
) -> Minimum:
    """Minimise each image's loss by L-BFGS (Liu and Nocedal 1989) without a line search.

    Steps are those of torch.optim.LBFGS with lr 1: the first of length min(1, 1/|g|_1), a pair
    enters the history when s.y > 1e-10. An image whose loss turns non-finite or explodes goes
    back to its best point with an empty history and half the step; the others notice nothing.

    Args:
        objective: gives losses and gradients; must not change its argument.
        start: (B, ...), float.
        iterations: steps to do; there is one evaluation more.
        history_size: pairs remembered, each of twice the size of ``start``.
        project: maps a point into the feasible set between steps, such as a clamp.
        radius: the longest step, as a root mean square; without history a tenth of it. None:
            the steps of torch.optim.LBFGS, whose tiny first step says more about rounding than
            about curvature when the objective runs in bf16.
        on_step: called every ``report_every`` steps, and after the first and the last.
        report_every: the device is asked for numbers only this often.
    """
    shape = start.shape
    project = project or (lambda point: point)

    def evaluate(point: Tensor) -> tuple[Tensor, Tensor]:
        loss, gradient = objective(point.view(shape))
        return loss.detach()[:, None], gradient.detach().reshape(shape[0], -1)

    point = project(start.detach().reshape(shape[0], -1))
    state = _State(point, *evaluate(point), history_size, radius)
    done, reasons = 0, state.stop_reasons()
    while done < iterations and not all(reasons):
        point = project(state.step())
        state.accept(point, *evaluate(point))
        done += 1
        state.done = done
        if after_step:
            after_step(state)
        if done == 1 or done % report_every == 0 or done == iterations:
            reasons = state.stop_reasons()
            if on_step:
                on_step(done, state.best_loss.flatten().tolist())
    return Minimum(state.best_point.view(shape), done, [r or "iterations" for r in reasons])


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1, keepdim=True)


Lbfgs = _State
