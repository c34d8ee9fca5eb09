import pytest
import torch
from objectives import differentiate, rosenbrock
from torch import Tensor

from nst_pipeline.engine import adam
from nst_pipeline.engine.adam import Adam
from nst_pipeline.engine.optimiser import minimise


@pytest.mark.parametrize("learning_rate", [0.001, 0.05, 0.5])
def test_iterates_are_those_of_torch_adam(learning_rate: float) -> None:
    start = torch.rand(2, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], learning_rate, eps=adam.EPSILON)
    theirs: list[Tensor] = []
    for _ in range(40):
        theirs.append(x.detach().clone())
        optimizer.zero_grad()
        rosenbrock(x).sum().backward()
        optimizer.step()
    ours: list[Tensor] = []

    def recording(batch: Tensor) -> tuple[Tensor, Tensor]:
        ours.append(batch.clone())
        return differentiate(rosenbrock)(batch)

    minimise(Adam(recording, start, learning_rate), 39)
    assert len(ours) == 40
    torch.testing.assert_close(torch.stack(ours), torch.stack(theirs))


def test_steps_are_as_long_however_small_the_gradient_is() -> None:
    """A large picture's losses are means, and its gradient is small at every pixel."""

    def first_step(factor: float) -> Tensor:
        def objective(batch: Tensor) -> tuple[Tensor, Tensor]:
            losses, gradient = differentiate(rosenbrock)(batch)
            return losses * factor, gradient * factor

        optimiser = Adam(objective, torch.full((1, 8), 0.3), 0.05)
        minimise(optimiser, 1)
        return optimiser.point

    torch.testing.assert_close(first_step(1e-8), first_step(1.0), rtol=1e-3, atol=1e-5)
