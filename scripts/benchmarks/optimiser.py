"""A step of `engine.lbfgs` against one of torch.optim.LBFGS, at the same history."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks.pairs import alternate, row
from nst_pipeline.engine.graphs import captured
from nst_pipeline.engine.lbfgs import Lbfgs

SHAPE = (3, 384, 512)
STEPS = 10
"""Steps between two looks at the clock."""


def measure(
    rounds: int,
    batches: Sequence[int] = (1, 8),
    histories: Sequence[int] = (10, 100),
    device: str = "cpu",
) -> list[dict[str, object]]:
    """Return a row for each size of batch and history.

    The objective is a quadratic, whose gradient costs next to nothing; both optimisers have a
    full history when the clock starts. torch.optim.LBFGS has one optimiser an image, as one over
    them all would mix their steps.
    """
    rows = []
    for batch in batches:
        for history in histories:
            start = torch.rand(batch, *SHAPE, generator=torch.Generator().manual_seed(0))
            ours, theirs = _ours(start.to(device), history), _theirs(start.to(device), history)
            pairs = alternate(theirs, ours, rounds, warm_up=1 + history // STEPS)
            steps = [(a / STEPS, b / STEPS) for a, b in pairs]
            rows.append(row(steps, "torch.optim", "ours", batch=batch, history=history))
    return rows


def _scales(like: Tensor) -> Tensor:
    return torch.logspace(-3, 0, like[0].numel(), device=like.device).view_as(like[0])


def _ours(start: Tensor, history: int) -> Callable[[], None]:
    scales = _scales(start)

    def objective(point: Tensor) -> tuple[Tensor, Tensor]:
        gradient = (point - 1).mul_(scales)
        return gradient[:, 0, 0, 0] + 1e3, gradient

    step = captured(Lbfgs(objective, start, history).step, start.device)

    def work() -> None:
        for _ in range(STEPS):
            step()

    return work


def _theirs(start: Tensor, history: int) -> Callable[[], None]:
    scales = _scales(start)
    images = [image.clone().requires_grad_() for image in start]
    optimisers = [
        torch.optim.LBFGS(
            [image], max_iter=STEPS, history_size=history, tolerance_grad=0, tolerance_change=0
        )
        for image in images
    ]

    def closure(image: Tensor) -> Tensor:
        image.grad = (image.detach() - 1).mul_(scales)
        return image.grad[0, 0, 0] + 1e3

    def work() -> None:
        for image, optimiser in zip(images, optimisers, strict=True):
            optimiser.step(lambda image=image: closure(image))

    return work


if __name__ == "__main__":
    for found in measure(rounds=5):
        print(found)  # noqa: T201
