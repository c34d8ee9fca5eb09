from collections.abc import Callable

import pytest
import torch
from objectives import differentiate, quadratic, rosenbrock
from torch import Tensor

from nst_pipeline.engine.lbfgs import Lbfgs
from nst_pipeline.engine.optimiser import minimise


@pytest.mark.parametrize("function", [rosenbrock, quadratic])
@pytest.mark.parametrize("history_size", [4, 5, 100])
def test_iterates_are_those_of_torch_lbfgs(
    function: Callable[[Tensor], Tensor], history_size: int
) -> None:
    torch.manual_seed(0)
    start = torch.rand(1, 20, dtype=torch.float64)
    theirs: list[Tensor] = []
    x = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [x], max_iter=30, max_eval=99, history_size=history_size, tolerance_grad=0,
        tolerance_change=0,
    )  # fmt: skip

    def closure() -> Tensor:
        theirs.append(x.detach().clone())
        optimizer.zero_grad()
        loss = function(x).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    ours: list[Tensor] = []

    def recording(batch: Tensor) -> tuple[Tensor, Tensor]:
        ours.append(batch.clone())
        return differentiate(function)(batch)

    minimise(Lbfgs(recording, start, history_size), 29)
    assert len(ours) == len(theirs) == 30
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine - other).norm() <= 1e-6 * other.norm()


def test_no_step_is_longer_than_the_radius_and_the_first_is_a_tenth_of_it() -> None:
    points: list[Tensor] = []

    def objective(batch: Tensor) -> tuple[Tensor, Tensor]:
        points.append(batch.clone())
        return differentiate(quadratic)(batch)

    start = torch.full((2, 16), 9.0, dtype=torch.float64)
    minimise(Lbfgs(objective, start, radius=0.5), 60)
    lengths = torch.stack(
        [(b - a).square().mean(1).sqrt() for a, b in zip(points, points[1:], strict=False)]
    )
    torch.testing.assert_close(lengths[0], torch.full((2,), 0.05, dtype=torch.float64))
    assert lengths.max() <= 0.5 + 1e-9
    assert lengths.max() > 0.4  # far from the minimum, the bound is what limits the steps
    torch.testing.assert_close(points[-1], torch.ones_like(start), rtol=0, atol=1e-2)


@pytest.mark.parametrize("bad", [3, 4, 12])
def test_a_pair_without_curvature_pushes_none_out_of_the_history(bad: int) -> None:
    """As with torch.optim.LBFGS: the direction comes from the last pairs that were used."""

    def trace(history_size: int) -> Tensor:
        points: list[Tensor] = []

        def objective(batch: Tensor) -> tuple[Tensor, Tensor]:
            points.append(batch.clone())
            losses, gradient = differentiate(rosenbrock)(batch)
            if len(points) == bad:
                gradient = gradient - 10 * (points[-1] - points[-2])  # s.y < 0
            return losses, gradient

        minimise(Lbfgs(objective, start, history_size), 14)
        return torch.cat(points)

    start = torch.rand(1, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    theirs: list[Tensor] = []
    x = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [x], max_iter=15, max_eval=99, history_size=3, tolerance_grad=0, tolerance_change=0
    )

    def closure() -> Tensor:
        theirs.append(x.detach().clone())
        loss = rosenbrock(x).sum()
        (x.grad,) = torch.autograd.grad(loss, x)
        if len(theirs) == bad:
            x.grad -= 10 * (theirs[-1] - theirs[-2])
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(trace(3), torch.cat(theirs), rtol=1e-6, atol=1e-9)
