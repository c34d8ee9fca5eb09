"""L-BFGS over a batch of images, each with its own history, step and safeguards."""

import math

import torch
from torch import Tensor

from nst_pipeline.engine.optimiser import (
    Images,
    Objective,
    Optimiser,
    Project,
    overwrite,
    times,
)

FIRST_STEP = 0.1
"""Length of a step without history, in radii."""
LEAST_CURVATURE = 1e-10
"""A pair of a step and its change of gradient is remembered when their product is more."""

PARTS = 16


class _Images(Images):
    """Images with their histories, which are emptied when one goes back."""

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
        super().__init__(point, best, project, tolerance, window)
        self._work, self._radius = work, radius
        batch, m, device = len(point), history_size, point.device
        # Pairs (s, y) in a ring, and behind it the one in the making: s and the last gradient.
        self._pairs = point.new_zeros(batch, m + 1, 2, point.shape[1])
        self._slot = torch.zeros(batch, 1, dtype=torch.int64, device=device)
        self._sy = self._numbers(m)  # 0 where the slot is empty
        self._inverse = self._numbers(m, m)  # of R, the s.y of no younger s
        self._yy = self._numbers(m, m)
        self._products = self._numbers(m, 2)  # of the pairs with the gradient
        self._gamma = self._numbers(1, value=1)
        self._returned = torch.ones(batch, 1, dtype=torch.bool, device=device)

    def _next(self, gradient: Tensor, good: Tensor) -> Tensor:
        self._remember(gradient, good)
        direction = self._direction()
        stride = (self._stride(direction, gradient) * self._scale).to(gradient)
        return torch.addcmul(self._point, direction, stride, out=direction)

    def _moved(self, moved: Tensor, good: Tensor) -> None:
        torch.sub(moved, self._point, out=self._pairs[:, -1, 0])
        torch.logical_not(good, out=self._returned)

    def _remember(self, gradient: Tensor, good: Tensor) -> None:
        """Complete the pair in the making; where it shows curvature, put it into the ring."""
        batch, m = self._sy.shape
        made = self._pairs[:, -1]
        torch.sub(gradient, made[:, 1], out=made[:, 1])
        with_y = times(self._pairs.flatten(1, 2), made[:, 1]).to(self._sy).view(batch, m + 1, 2)
        sy, yy = with_y[:, -1, :1], with_y[:, -1, 1:]
        use = good & ~self._returned & (sy > LEAST_CURVATURE) & yy.isfinite()
        here = use & (torch.arange(m, device=sy.device) == self._slot)
        keep = good & (self._sy > 0) & ~here
        # In an empty slot there may be anything; no NaN may reach the products.
        both = keep[:, :, None] & keep[:, None, :]
        self._inverse.copy_(torch.where(both, self._inverse, 0))
        self._yy.copy_(torch.where(both, self._yy, 0))
        old = torch.where(keep[:, :, None], with_y[:, :-1], 0)
        column = torch.where(here, 1, -times(self._inverse, old[..., 0])) / sy
        self._inverse.copy_(torch.where(here[:, None], column[:, :, None], self._inverse))
        column = torch.where(here, yy, old[..., 1])
        self._yy.copy_(torch.where(here[:, None], column[:, :, None], self._yy))
        self._yy.copy_(torch.where(here[:, :, None], column[:, None], self._yy))
        self._sy.copy_(torch.where(here, sy, torch.where(keep, self._sy, 0)))
        with_gradient = times(made, gradient).to(self._sy)[:, None]
        lasting = torch.where(keep[:, :, None], self._products + old, 0)
        self._products.copy_(torch.where(here[:, :, None], with_gradient, lasting))
        gamma = torch.where(use, sy / yy, self._gamma)
        self._gamma.copy_(torch.where(good, gamma, 1))
        self._insert(made, use)
        made[:, 1].copy_(gradient)

    def _insert(self, made: Tensor, use: Tensor) -> None:
        """Copy the pairs (B, 2, N) that are used into the ring, over the oldest ones."""
        batch, size = self._pairs.shape[:2]
        if not self._pairs.is_cpu:
            # A pair that is not used is copied onto itself.
            rows = torch.arange(batch, device=use.device) * size
            rows = rows + torch.where(use, self._slot, size - 1).flatten()
            self._pairs.view(batch * size, -1).index_copy_(0, rows, made.flatten(1).clone())
        else:
            for pairs, slot in zip(self._pairs, self._slot.flatten().tolist(), strict=True):
                overwrite(pairs[slot][None], pairs[-1:], use)
        self._slot.copy_(torch.where(use, (self._slot + 1) % (size - 1), self._slot))

    def _direction(self) -> Tensor:
        """Return minus the product of the inverse Hessian and the gradient, (B, N).

        The gradient is in the place of y behind the ring.
        """
        with_s, with_y = self._products.unbind(2)
        u = times(self._inverse, with_s)
        w = self._sy * u + self._gamma * (times(self._yy, u) - with_y)
        w = times(self._inverse.transpose(1, 2), w)
        factors = torch.stack([-w, self._gamma * u], 2).flatten(1)
        last = torch.cat([torch.zeros_like(self._gamma), -self._gamma], 1)
        factors = torch.cat([factors, last], 1).to(self._pairs)
        return _combined(self._pairs.flatten(1, 2), factors, self._work)

    def _stride(self, direction: Tensor, gradient: Tensor) -> Tensor:
        """Return the factor (B, 1) of the direction: 1, but careful while there is no history."""
        if self._radius is None:
            first = 1 / gradient.abs().sum(1, keepdim=True).clamp_min(1e-30)
            return torch.where(self._returned, first.clamp_max(1), 1)
        square = times(direction[:, None], direction) / direction.shape[1]
        longest = self._radius / square.sqrt().clamp_min(1e-30)
        return torch.where(self._returned, FIRST_STEP * longest, longest.clamp_max(1))


class Lbfgs(Optimiser):
    """L-BFGS (Liu and Nocedal 1989) without a line search.

    Steps are those of torch.optim.LBFGS with lr 1: the first of length min(1, 1/|g|_1), a pair
    enters the history when s.y > 1e-10. An image whose loss turns non-finite or explodes goes
    back to its best point with an empty history and half the step; the others notice nothing.

    Of vectors as large as ``start``, 2 * history_size + 4 outlast a step: the history's, the
    pair in the making, the point and the best point. The gradient comes on top, and up to
    four more while a step moves, when the objective's own memory is free again.

    The direction comes from the compact representation (Byrd, Nocedal and Schnabel 1994,
    theorem 2.2), H = gamma I + [S, gamma Y] M [S, gamma Y]^T. The small matrices are float64
    where the device has it, and follow the history by a row and a column a step; as R is triangular
    in the order of age, the inverse without the oldest pair is R's inverse with its row and column
    struck out.
    So a step reads the history twice, for the products with y and for the direction.
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
        """Begin at ``start``.

        Args:
            objective: gives losses and gradients; must neither change nor keep its argument.
            start: (B, ...), float.
            history_size: pairs remembered, each of twice the size of ``start``.
            project: maps a point into the feasible set between steps, such as a clamp.
            radius: the longest step, as a root mean square; without history a tenth of it. None:
                the steps of torch.optim.LBFGS, whose tiny first step says more about rounding than
                about curvature when the objective runs in bf16.
            tolerance: an image whose best loss changed by less than this share over a window
                rests; 0: never.
            window: steps over which ``tolerance`` is meant.
        """
        self._settings = radius, tolerance, window
        self._history_size = history_size
        self._work: Tensor | None = None
        super().__init__(objective, start, project)

    def _images(self, point: Tensor, best: Tensor, project: Project) -> _Images:
        if self._work is None:  # anew each step, it would be page faults
            self._work = torch.empty_like(point)
        return _Images(point, best, self._work, self._history_size, project, *self._settings)


def _combined(vectors: Tensor, factors: Tensor, out: Tensor) -> Tensor:
    """Return the sums (B, C) of vectors (B, R, C) times factors (B, R), in the place of ``out``."""
    if not vectors.is_cpu:
        torch.bmm(factors[:, None], vectors, out=out[:, None])
        return out
    # On a CPU the parts of one long product are faster than the whole.
    rows, columns = vectors.shape[1:]
    parts = math.gcd(columns, PARTS)
    for lines, weights, sums in zip(vectors, factors, out, strict=True):
        pieces = lines.view(rows, parts, -1).transpose(0, 1)
        torch.bmm(weights.expand(parts, 1, rows), pieces, out=sums.view(parts, 1, -1))
    return out
