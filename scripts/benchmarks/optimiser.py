"""A step of `engine.lbfgs` against one of torch.optim.LBFGS, at the same history."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks import pairs, workload
from nst_pipeline.engine.devices import resolve_device
from nst_pipeline.engine.graphs import captured
from nst_pipeline.engine.lbfgs import Lbfgs

STEPS = 10
"""Steps between two looks at the clock."""

Row = dict[str, object]


def measure(
    rounds: int | None = None,
    sizes: Sequence[int] | None = None,
    device: str = "auto",
    quick: bool = False,
) -> list[Row]:
    """Return a row for each size, batch and history; and how a step compares with an evaluation.

    The objective is a quadratic, whose gradient costs next to nothing; both optimisers have a
    full history when the clock starts. torch.optim.LBFGS has one optimiser an image, as one over
    them all would mix their steps.

    Args:
        rounds: pairs of ten steps; None: as `pairs.rounds_at` says.
        sizes: longer sides of the picture.
        device: as `StyleTransfer` takes it.
        quick: tiny.
    """
    place = resolve_device(device)
    rows: list[Row] = []
    for size in sizes or (workload.QUICK_SIZES if quick else (512,)):
        count = pairs.rounds_at(size, rounds)
        for batch in (1, 2) if quick else (1, 8):
            for history in (3,) if quick else (10, 100):
                facts = {"size": size, "batch": batch, "history": history}
                start = _start(batch, size, place)
                ours, theirs = _ours(start, history), _theirs(start, history)
                timed = pairs.alternate(theirs, ours, count, warm_up=1 + history // STEPS)
                compared = "torch.optim : engine"
                rows.append(_per_step(timed, 1, compared=compared, **facts))
        rows += [_share(name, size, device, count) for name in workload.networks(quick)]
    return rows


def _share(name: str, size: int, device: str, rounds: int) -> Row:
    """Return how many steps an evaluation is worth, at the default history."""
    made = workload.recipe(preset="gatys")
    transfer = workload.engine(name, device, "auto", made)
    evaluate = workload.engine_evaluation(
        transfer, workload.noise(size, 0), [workload.noise(size, 1)]
    )
    start = _start(1, size, transfer.device)
    step = _ours(start, made.history_size)
    timed = pairs.alternate(evaluate, step, rounds, warm_up=1 + made.history_size // STEPS)
    compared = f"evaluation, {name} {transfer.describe()[1]} : step"
    facts = {"size": size, "batch": 1, "history": made.history_size}
    return _per_step(timed, STEPS, compared=compared, **facts)


def _per_step(timed: pairs.Pairs, ratio: int, **facts: object) -> Row:
    """Return a row of a step's time; ``ratio`` is by how many steps more were timed second."""
    steps = [(first * ratio / STEPS, second / STEPS) for first, second in timed]
    return pairs.row(steps, "first", "second", **facts)


def _start(batch: int, size: int, device: torch.device) -> Tensor:
    shape = batch, 3, size * 3 // 4, size
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(device)


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
