"""Functions of a batch to be minimised, for the tests of the optimisers."""

from collections.abc import Callable

import torch
from torch import Tensor


def differentiate(
    function: Callable[[Tensor], Tensor],
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Turn a function of a batch into an objective: losses and gradients."""

    def objective(batch: Tensor) -> tuple[Tensor, Tensor]:
        batch = batch.detach().requires_grad_()
        losses = function(batch)
        (gradient,) = torch.autograd.grad(losses.sum(), batch)
        return losses, gradient

    return objective


def rosenbrock(batch: Tensor) -> Tensor:
    x, y = batch[:, :-1], batch[:, 1:]
    return (0.01 * (1 - x).square() + (y - x.square()).square()).sum(1)


def quadratic(batch: Tensor) -> Tensor:
    scales = torch.logspace(-2, 0, batch.shape[1], dtype=batch.dtype)
    return (scales * (batch - 1).square()).sum(1)
