"""L-BFGS over a batch of images, each with its own history, step and safeguards."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nst_pipeline.engine.checkpoint import CheckpointError
from nst_pipeline.engine.graphs import captured

Objective = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Takes a batch (B, ...); returns the losses (B,) and their gradient (B, ...).

Must neither change nor keep its argument: the minimiser writes the next point into it.
"""

Project = Callable[[Tensor], Tensor]
"""Maps points (B, N), of one image or more, into the feasible set."""

OnReport = Callable[[int, list[float]], None]
"""Takes the number of steps done and the best loss of each image."""

EXPLOSION_FACTOR = 100.0
FIRST_STEP = 0.1
"""Length of a step without history, in radii."""
SMALLEST_STEP = 1e-3
LEAST_CURVATURE = 1e-10
"""A pair of a step and its change of gradient is remembered when their product is more."""

LONG = 4096
"""Numbers from which a CPU is faster at dot products one by one than at their matrix product."""

PARTS = 16

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


class _Images:
    """Some images of a batch, which move together; the numbers of one are of shape (B, 1)."""

    def __init__(
        self,
        point: Tensor,
        best: Tensor,
        work: Tensor,
        history_size: int,
        project: Project,
        radius: float | None,
        tolerance: float,
        window: int,
    ) -> None:
        """Move what ``point`` (B, N) and ``best`` (B, N) are views of; ``work`` (B, N) is free."""
        self._point, self._best, self._work, self._project = point, best, work, project
        self._radius, self._tolerance = radius, tolerance
        batch, m, device = len(point), history_size, point.device

        def numbers(*shape: int, value: float = 0.0) -> Tensor:
            return torch.full(shape, value, dtype=torch.float64, device=device)

        self.best_loss = numbers(batch, 1, value=torch.inf)
        self.reason = torch.zeros(batch, 1, dtype=torch.int64, device=device)
        self._past = numbers(batch, window, value=torch.inf)
        # Pairs (s, y) in a ring, and behind it the one in the making: s and the last gradient.
        self._pairs = point.new_zeros(batch, m + 1, 2, point.shape[1])
        self._slot = torch.zeros(batch, 1, dtype=torch.int64, device=device)
        self._sy = numbers(batch, m)  # 0 where the slot is empty
        self._inverse = numbers(batch, m, m)  # of R, the s.y of no younger s
        self._yy = numbers(batch, m, m)
        self._products = numbers(batch, m, 2)  # of the pairs with the gradient
        self._gamma = numbers(batch, 1, value=1)
        self._scale = numbers(batch, 1, value=1)
        self._returned = torch.ones(batch, 1, dtype=torch.bool, device=device)

    def tensors(self) -> dict[str, Tensor]:
        """Return all that changes, but the points."""
        named = {name.strip("_"): value for name, value in vars(self).items()}
        del named["point"], named["best"], named["work"]
        return {name: value for name, value in named.items() if isinstance(value, Tensor)}

    def move(self, loss: Tensor, gradient: Tensor) -> None:
        """Take in the loss (B, 1) and the gradient (B, N) at the point, and move it on."""
        square = _times(gradient[:, None], gradient)
        good = loss.isfinite() & square.isfinite() & (loss < EXPLOSION_FACTOR * self.best_loss)
        self._judge(loss, good, good & (square == 0))
        self._remember(gradient, good)
        direction = self._direction()
        stride = (self._stride(direction, gradient) * self._scale).to(gradient)
        moved = self._project(torch.addcmul(self._point, direction, stride, out=direction))
        held = ~good | (self.reason != 0)
        _overwrite(moved, self._best, held)
        torch.sub(moved, self._point, out=self._pairs[:, -1, 0])
        self._point.copy_(moved)
        torch.logical_not(good, out=self._returned)

    def _judge(self, loss: Tensor, good: Tensor, still: Tensor) -> None:
        """Keep the best point, and tell who stops; all arguments (B, 1)."""
        better = good & (loss < self.best_loss) & (self.reason == 0)
        _overwrite(self._best, self._point, better)
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

    def _remember(self, gradient: Tensor, good: Tensor) -> None:
        """Complete the pair in the making; where it shows curvature, put it into the ring."""
        batch, m = self._sy.shape
        made = self._pairs[:, -1]
        torch.sub(gradient, made[:, 1], out=made[:, 1])
        with_y = _times(self._pairs.flatten(1, 2), made[:, 1]).double().view(batch, m + 1, 2)
        sy, yy = with_y[:, -1, :1], with_y[:, -1, 1:]
        use = good & ~self._returned & (sy > LEAST_CURVATURE) & yy.isfinite()
        here = use & (torch.arange(m, device=sy.device) == self._slot)
        keep = good & (self._sy > 0) & ~here
        # In an empty slot there may be anything; no NaN may reach the products.
        both = keep[:, :, None] & keep[:, None, :]
        self._inverse.copy_(torch.where(both, self._inverse, 0))
        self._yy.copy_(torch.where(both, self._yy, 0))
        old = torch.where(keep[:, :, None], with_y[:, :-1], 0)
        column = torch.where(here, 1, -_times(self._inverse, old[..., 0])) / sy
        self._inverse.copy_(torch.where(here[:, None], column[:, :, None], self._inverse))
        column = torch.where(here, yy, old[..., 1])
        self._yy.copy_(torch.where(here[:, None], column[:, :, None], self._yy))
        self._yy.copy_(torch.where(here[:, :, None], column[:, None], self._yy))
        self._sy.copy_(torch.where(here, sy, torch.where(keep, self._sy, 0)))
        with_gradient = _times(made, gradient).double()[:, None]
        lasting = torch.where(keep[:, :, None], self._products + old, 0)
        self._products.copy_(torch.where(here[:, :, None], with_gradient, lasting))
        gamma = torch.where(use, sy / yy, self._gamma)
        self._gamma.copy_(torch.where(good, gamma, 1))
        self._insert(made, use)
        made[:, 1].copy_(gradient)

    def _insert(self, made: Tensor, use: Tensor) -> None:
        """Copy the pairs (B, 2, N) that are used into the ring, over the oldest ones."""
        batch, size = self._pairs.shape[:2]
        if self._pairs.is_cuda:
            # A pair that is not used is copied onto itself.
            rows = torch.arange(batch, device=use.device) * size
            rows = rows + torch.where(use, self._slot, size - 1).flatten()
            self._pairs.view(batch * size, -1).index_copy_(0, rows, made.flatten(1).clone())
        else:
            for pairs, slot in zip(self._pairs, self._slot.flatten().tolist(), strict=True):
                _overwrite(pairs[slot][None], pairs[-1:], use)
        self._slot.copy_(torch.where(use, (self._slot + 1) % (size - 1), self._slot))

    def _direction(self) -> Tensor:
        """Return minus the product of the inverse Hessian and the gradient, (B, N).

        The gradient is in the place of y behind the ring.
        """
        with_s, with_y = self._products.unbind(2)
        u = _times(self._inverse, with_s)
        w = self._sy * u + self._gamma * (_times(self._yy, u) - with_y)
        w = _times(self._inverse.transpose(1, 2), w)
        factors = torch.stack([-w, self._gamma * u], 2).flatten(1)
        last = torch.cat([torch.zeros_like(self._gamma), -self._gamma], 1)
        factors = torch.cat([factors, last], 1).to(self._pairs)
        return _combined(self._pairs.flatten(1, 2), factors, self._work)

    def _stride(self, direction: Tensor, gradient: Tensor) -> Tensor:
        """Return the factor (B, 1) of the direction: 1, but careful while there is no history."""
        if self._radius is None:
            first = 1 / gradient.abs().sum(1, keepdim=True).clamp_min(1e-30)
            return torch.where(self._returned, first.clamp_max(1), 1)
        square = _times(direction[:, None], direction) / direction.shape[1]
        longest = self._radius / square.sqrt().clamp_min(1e-30)
        return torch.where(self._returned, FIRST_STEP * longest, longest.clamp_max(1))


class Lbfgs:
    """The state of a minimisation, in tensors of fixed places on the device.

    Of vectors as large as ``start``, 2 * history_size + 4 outlast a step: the history's, the
    pair in the making, the point and the best point. The gradient comes on top, and up to
    four more while a step moves, when the objective's own memory is free again.

    The direction comes from the compact representation (Byrd, Nocedal and Schnabel 1994,
    theorem 2.2), H = gamma I + [S, gamma Y] M [S, gamma Y]^T. The small matrices are float64
    and follow the history by a row and a column a step; as R is triangular in the order of
    age, the inverse without the oldest pair is R's inverse with its row and column struck out.
    So a step reads the history twice, for the products with y and for the direction.

    On a CPU the images move one after the other, each while it is in the processor's cache.

    Attributes:
        done: steps done, to be counted by the caller of `step`; -1 before ``start`` is evaluated.
        point: what the next step evaluates, (B, ...).
        best_point: the best finite point so far, (B, ...).
    """

    def __init__(
        self,
        objective: Objective,
        start: Tensor,
        history_size: int = 10,
        project: Project | None = None,
        radius: float | None = None,
        tolerance: float = 0.0,
        window: int = 20,
    ) -> None:
        """Begin at ``start``; see `minimise` for the arguments."""
        project = project or (lambda point: point)
        point = project(start.detach().reshape(len(start), -1).clone())
        best = point.clone()
        self.done = -1
        self.point, self.best_point = point.view_as(start), best.view_as(start)
        self._objective = objective
        self._together = len(start) if start.is_cuda else 1
        parts = zip(
            torch.split(point, self._together), torch.split(best, self._together), strict=True
        )
        work = torch.empty_like(point[: self._together])  # anew each step, it would be page faults
        self._groups = [
            _Images(*part, work, history_size, project, radius, tolerance, window) for part in parts
        ]

    def step(self) -> None:
        """Evaluate the point and move on; the host learns nothing and decides nothing.

        An image whose loss turned non-finite or exploded goes back to its best point, with an
        empty history and half the step, and the next step evaluates that again.
        """
        losses, gradient = self._objective(self.point)
        loss = torch.split(losses.detach()[:, None].double(), self._together)
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
    objective: Objective,
    start: Tensor,
    iterations: int,
    history_size: int = 10,
    project: Project | None = None,
    radius: float | None = None,
    tolerance: float = 0.0,
    on_report: OnReport | None = None,
    report_every: int = 10,
    after_step: Callable[[Lbfgs], None] | None = None,
    resume: Mapping[str, Tensor] | None = None,
    window: int = 20,
    graph: bool = True,
) -> Minimum:
    """Minimise each image's loss by L-BFGS (Liu and Nocedal 1989) without a line search.

    Steps are those of torch.optim.LBFGS with lr 1: the first of length min(1, 1/|g|_1), a pair
    enters the history when s.y > 1e-10. An image whose loss turns non-finite or explodes goes
    back to its best point with an empty history and half the step; the others notice nothing.

    Args:
        objective: gives losses and gradients; must neither change nor keep its argument.
        start: (B, ...), float.
        iterations: steps to do; there is one evaluation more.
        history_size: pairs remembered, each of twice the size of ``start``.
        project: maps a point into the feasible set between steps, such as a clamp.
        radius: the longest step, as a root mean square; without history a tenth of it. None:
            the steps of torch.optim.LBFGS, whose tiny first step says more about rounding than
            about curvature when the objective runs in bf16.
        tolerance: an image whose best loss changed by less than this share over a window rests;
            0: never.
        on_report: called every ``report_every`` steps, and after the first and the last.
        report_every: the device is asked for numbers only this often.
        after_step: called after every step; whatever it raises ends the minimisation.
        resume: what `Lbfgs.state` gave in an earlier call with the same arguments.
        window: steps over which ``tolerance`` is meant.
        graph: on CUDA, replay the step as a CUDA graph; the objective must then ask the device
            for no numbers, and its code runs in the first steps only.
    """
    lbfgs = Lbfgs(objective, start, history_size, project, radius, tolerance, window)
    if resume is not None:
        lbfgs.load(resume)
    step = captured(lbfgs.step, start.device) if graph else lbfgs.step
    del start  # as large as the image
    if lbfgs.done < 0:
        step()
        lbfgs.done = 0
    reasons = lbfgs.report().stop_reasons
    while lbfgs.done < iterations and not all(reasons):
        step()
        lbfgs.done += 1
        if after_step:
            after_step(lbfgs)
        if lbfgs.done in (1, iterations) or lbfgs.done % report_every == 0:
            report = lbfgs.report()
            reasons = report.stop_reasons
            if on_report:
                on_report(lbfgs.done, report.losses)
    return Minimum(lbfgs.best_point, lbfgs.done, [r or "iterations" for r in reasons])


def _times(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Return matrices (B, R, C) times vectors (B, C), as (B, R)."""
    if matrices.is_cuda:
        return torch.bmm(matrices, vectors[:, :, None])[:, :, 0]
    # On a CPU the product of a batch is slower for matrices as long as an image.
    found = vectors.new_empty(matrices.shape[:2])
    for matrix, vector, row in zip(matrices, vectors, found, strict=True):
        if matrix.shape[1] < LONG:
            torch.mv(matrix, vector, out=row)
        else:
            torch.stack([torch.dot(line, vector) for line in matrix], out=row)
    return found


def _combined(vectors: Tensor, factors: Tensor, out: Tensor) -> Tensor:
    """Return the sums (B, C) of vectors (B, R, C) times factors (B, R), in the place of ``out``."""
    if vectors.is_cuda:
        torch.bmm(factors[:, None], vectors, out=out[:, None])
        return out
    # On a CPU the parts of one long product are faster than the whole.
    rows, columns = vectors.shape[1:]
    parts = math.gcd(columns, PARTS)
    for lines, weights, sums in zip(vectors, factors, out, strict=True):
        pieces = lines.view(rows, parts, -1).transpose(0, 1)
        torch.bmm(weights.expand(parts, 1, rows), pieces, out=sums.view(parts, 1, -1))
    return out


def _overwrite(target: Tensor, source: Tensor, where: Tensor) -> None:
    """Copy the images (B, ...) for which ``where`` (B, 1) holds."""
    if target.is_cuda:
        torch.where(where, source, target, out=target)
        return
    # On a CPU a look at the flag costs nothing, and a selection much more than a copy.
    for old, new, flag in zip(target, source, where.flatten().tolist(), strict=True):
        if flag:
            old.copy_(new)
