from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nst_pipeline.engine.graphs import WARM_UP
from nst_pipeline.engine.lbfgs import Lbfgs, minimise


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

    minimise(recording, start, iterations=29, history_size=history_size)
    assert len(ours) == len(theirs) == 30
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine - other).norm() <= 1e-6 * other.norm()


def test_a_batch_gives_what_its_images_give_alone() -> None:
    torch.manual_seed(1)
    start = torch.rand(3, 12, dtype=torch.float64) * torch.tensor([[0.1], [1.0], [3.0]])
    together = minimise(differentiate(rosenbrock), start, 25).point
    alone = [minimise(differentiate(rosenbrock), image[None], 25).point for image in start]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e9])
def test_an_image_that_explodes_goes_back_to_its_best_and_the_others_notice_nothing(
    bad: float,
) -> None:
    calls = 0

    def objective(batch: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal calls
        calls += 1
        losses, gradient = differentiate(quadratic)(batch)
        if calls == 8:
            losses = losses.clone()
            losses[1] = bad
            gradient = gradient.clone()
            gradient[1] = bad
        return losses, gradient

    start = torch.zeros(3, 8, dtype=torch.float64)
    start[1], start[2] = 0.5, -1.0
    disturbed = minimise(objective, start, 30)
    undisturbed = minimise(differentiate(quadratic), start, 30)
    for image in (0, 2):
        assert torch.equal(disturbed.point[image], undisturbed.point[image])
    assert quadratic(disturbed.point)[1] < 1e-3 * quadratic(start)[1]
    assert disturbed.stop_reasons == ["iterations"] * 3


def test_the_best_point_is_returned_and_not_the_last() -> None:
    seen: list[tuple[float, Tensor]] = []

    def objective(batch: Tensor) -> tuple[Tensor, Tensor]:
        losses, gradient = differentiate(quadratic)(batch)
        if len(seen) > 10:
            losses = losses + 1  # everything after the tenth looks worse, but does not explode
        seen.append((losses.item(), batch.clone()))
        return losses, gradient

    found = minimise(objective, torch.zeros(1, 4), 20)
    assert torch.equal(found.point, min(seen, key=lambda pair: pair[0])[1])


def test_a_loss_that_is_never_finite_again_stops_as_diverged_at_the_start() -> None:
    calls = 0

    def objective(batch: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal calls
        calls += 1
        losses, gradient = differentiate(quadratic)(batch)
        return (losses if calls == 1 else losses * float("nan")), gradient

    start = torch.zeros(1, 4)
    found = minimise(objective, start, 1000)
    assert found.stop_reasons == ["diverged"]
    assert found.iterations < 100
    assert torch.equal(found.point, start)


def test_a_vanished_gradient_stops_as_converged() -> None:
    found = minimise(differentiate(quadratic), torch.ones(2, 4), 50)
    assert found.stop_reasons == ["converged", "converged"]
    assert found.iterations < 50


def test_points_stay_in_the_feasible_set_and_the_objective_never_sees_another() -> None:
    def objective(batch: Tensor) -> tuple[Tensor, Tensor]:
        assert batch.min() >= 0 and batch.max() <= 0.5
        return differentiate(quadratic)(batch)

    found = minimise(objective, torch.zeros(1, 4), 20, project=lambda x: x.clamp(0, 0.5))
    torch.testing.assert_close(found.point, torch.full((1, 4), 0.5))


def test_progress_is_reported_now_and_then_and_at_the_end() -> None:
    steps: list[int] = []
    minimise(
        differentiate(rosenbrock),
        torch.zeros(1, 5),
        25,
        on_report=lambda done, losses: steps.append(done),
        report_every=10,
    )
    assert steps == [1, 10, 20, 25]


def test_no_step_is_longer_than_the_radius_and_the_first_is_a_tenth_of_it() -> None:
    points: list[Tensor] = []

    def objective(batch: Tensor) -> tuple[Tensor, Tensor]:
        points.append(batch.clone())
        return differentiate(quadratic)(batch)

    start = torch.full((2, 16), 9.0, dtype=torch.float64)
    minimise(objective, start, 60, radius=0.5)
    lengths = torch.stack(
        [(b - a).square().mean(1).sqrt() for a, b in zip(points, points[1:], strict=False)]
    )
    torch.testing.assert_close(lengths[0], torch.full((2,), 0.05, dtype=torch.float64))
    assert lengths.max() <= 0.5 + 1e-9
    assert lengths.max() > 0.4  # far from the minimum, the bound is what limits the steps
    torch.testing.assert_close(points[-1], torch.ones_like(start), rtol=0, atol=1e-2)


def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(tmp_path: Path) -> None:
    start = torch.rand(3, 12, generator=torch.Generator().manual_seed(2))
    calls = 0

    def objective(batch: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal calls
        calls += 1
        losses, gradient = differentiate(rosenbrock)(batch)
        # An explosion at the tenth evaluation, wherever the run was interrupted.
        factor = torch.tensor([1.0, float("nan") if calls == 10 else 1.0, 1.0])
        return losses * factor, gradient

    def save(lbfgs: Lbfgs) -> None:
        if lbfgs.done in (4, 9, 13):
            torch.save(lbfgs.state(), tmp_path / f"{lbfgs.done}.pt")

    whole = minimise(objective, start, 30, 5, tolerance=1e-9, after_step=save)
    for done in (4, 9, 13):
        calls = done + 1
        state = torch.load(tmp_path / f"{done}.pt")
        again = minimise(objective, start, 30, 5, tolerance=1e-9, resume=state)
        assert torch.equal(again.point, whole.point)
        assert (again.iterations, again.stop_reasons) == (whole.iterations, whole.stop_reasons)
        assert calls == 31


def test_an_image_that_changes_no_more_settles_and_rests_while_the_others_go_on() -> None:
    points: list[Tensor] = []

    def objective(batch: Tensor) -> tuple[Tensor, Tensor]:
        points.append(batch.clone())
        losses, gradient = differentiate(quadratic)(batch)
        # The second image's floor is high: soon nothing changes it by a thousandth.
        return losses + torch.tensor([0.0, 100.0], dtype=batch.dtype), gradient

    start = torch.zeros(2, 8, dtype=torch.float64)
    found = minimise(objective, start, 30, tolerance=1e-3, window=5)
    assert found.stop_reasons == ["iterations", "settled"]
    assert torch.equal(points[-1][1], points[-8][1])
    assert not torch.equal(points[-1][0], points[-8][0])
    alone = minimise(differentiate(quadratic), start[:1], 30, tolerance=1e-3, window=5)
    assert torch.equal(found.point[:1], alone.point)


def test_the_loop_ends_when_all_images_have_settled() -> None:
    def objective(batch: Tensor) -> tuple[Tensor, Tensor]:
        losses, gradient = differentiate(quadratic)(batch)
        return losses + 100, gradient

    found = minimise(objective, torch.zeros(2, 8), 1000, tolerance=1e-3, window=5)
    assert found.stop_reasons == ["settled"] * 2
    assert found.iterations < 100


def test_what_is_raised_after_a_step_ends_the_run() -> None:
    done: list[int] = []

    def stop(lbfgs: Lbfgs) -> None:
        done.append(lbfgs.done)
        if lbfgs.done == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        minimise(differentiate(rosenbrock), torch.zeros(1, 5), 25, after_step=stop)
    assert done == [1, 2, 3]


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

        minimise(objective, start, 14, history_size)
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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("deterministic", [False, True])
def test_a_replayed_graph_gives_what_the_steps_give(deterministic: bool) -> None:
    start = torch.rand(3, 3, 16, 16, device="cuda")
    calls = 0

    def objective(batch: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal calls
        calls += 1
        scales = torch.linspace(0.1, 1, batch[0].numel(), device="cuda").view_as(batch[0])
        return differentiate(lambda x: (scales * (x - 1).square()).flatten(1).sum(1))(batch)

    torch.use_deterministic_algorithms(deterministic)
    try:
        eager = minimise(objective, start, 40, 5, graph=False)
        assert calls == 41
        calls = 0
        replayed = minimise(objective, start, 40, 5)
    finally:
        torch.use_deterministic_algorithms(False)
    assert calls == WARM_UP + 1
    torch.testing.assert_close(replayed.point, eager.point)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_objective_that_asks_the_device_runs_without_a_graph() -> None:
    calls = 0

    def objective(batch: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal calls
        calls += 1
        assert batch.sum().item() < 1e9
        return differentiate(lambda x: (x - 1).square().sum(1))(batch)

    start = torch.zeros(2, 32, device="cuda")
    found = minimise(objective, start, 10)
    torch.testing.assert_close(found.point, torch.ones_like(start))
