"""Adam over a batch of images, each with its own moments and safeguards."""

import torch
from torch import Tensor

from nst_pipeline.engine.optimiser import Images, Objective, Optimiser, Project

FIRST, SECOND = 0.9, 0.999
"""What of the moments stays at each step."""
EPSILON = 1e-12
"""Added to the root of the second moment: less than the gradient at any pixel that matters."""


class _Images(Images):
    """Images with the moments of their gradients, which are emptied when one goes back."""

    def __init__(
        self,
        point: Tensor,
        best: Tensor,
        project: Project,
        learning_rate: float,
        tolerance: float,
        window: int,
    ) -> None:
        """Move what ``point`` (B, N) and ``best`` (B, N) are views of."""
        super().__init__(point, best, project, tolerance, window)
        self._rate = learning_rate
        self._first, self._second = torch.zeros_like(point), torch.zeros_like(point)
        self._count = self._numbers(1)

    def _next(self, gradient: Tensor, good: Tensor) -> Tensor:
        kept = good.to(gradient)
        gradient = torch.where(good, gradient, 0)
        self._first.mul_(FIRST * kept).add_(gradient, alpha=1 - FIRST)
        self._second.mul_(SECOND * kept).addcmul_(gradient, gradient, value=1 - SECOND)
        self._count.copy_(torch.where(good, self._count + 1, 0))
        count = self._count.clamp_min(1)
        stride = -self._rate * self._scale / (1 - FIRST**count)
        root = torch.div(self._second, (1 - SECOND**count).to(gradient), out=gradient)
        quotient = torch.div(self._first, root.sqrt_().add_(EPSILON), out=root)
        return torch.addcmul(self._point, quotient, stride.to(gradient), out=quotient)


class Adam(Optimiser):
    """Adam (Kingma and Ba 2015).

    Of vectors as large as ``start``, 4 outlast a step: the moments, the point and the best point.
    The gradient comes on top, and one more while a step moves.
    """

    def __init__(
        self,
        objective: Objective,
        start: Tensor,
        learning_rate: float,
        project: Project | None = None,
        tolerance: float = 0.0,
        window: int = 20,
    ) -> None:
        """Begin at ``start``.

        Args:
            objective: gives losses and gradients; must neither change nor keep its argument.
            start: (B, ...), float.
            learning_rate: about how far a step moves a number.
            project: maps a point into the feasible set between steps, such as a clamp.
            tolerance: an image whose best loss changed by less than this share over a window
                rests; 0: never.
            window: steps over which ``tolerance`` is meant.
        """
        self._settings = learning_rate, tolerance, window
        super().__init__(objective, start, project)

    def _images(self, point: Tensor, best: Tensor, project: Project) -> _Images:
        return _Images(point, best, project, *self._settings)
