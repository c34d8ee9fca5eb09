"""What the optimisers share: each image of a batch by itself, safeguards, ends and resuming."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from objectives import differentiate, quadratic, rosenbrock
from torch import Tensor

from nst_pipeline.engine.adam import Adam
from nst_pipeline.engine.graphs import WARM_UP
from nst_pipeline.engine.lbfgs import Lbfgs
from nst_pipeline.engine.optimiser import Objective, Optimiser, minimise

Make = Callable[..., Optimiser]


def lbfgs(objective: Objective, start: Tensor, **options: Any) -> Lbfgs:
    return Lbfgs(objective, start, 5, **options)


def adam(objective: Objective, start: Tensor, **options: Any) -> Adam:
    return Adam(objective, start, 0.02, **options)


@pytest.fixture(params=[lbfgs, adam])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    yield request.param


def test_a_batch_gives_what_its_images_give_alone(make: Make) -> None:
    torch.manual_seed(1)
    start = torch.rand(3, 12, dtype=torch.float64) * torch.tensor([[0.1], [1.0], [3.0]])
    together = minimise(make(differentiate(rosenbrock), start), 25).point
    alone = [minimise(make(differentiate(rosenbrock), one[None]), 25).point for one in start]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e9])
def test_an_image_that_explodes_goes_back_to_its_best_and_the_others_notice_nothing(
    make: Make, bad: float
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
    disturbed = minimise(make(objective, start), 60)
    undisturbed = minimise(make(differentiate(quadratic), start), 60)
    for image in (0, 2):
        assert torch.equal(disturbed.point[image], undisturbed.point[image])
    assert quadratic(disturbed.point)[1] < 1e-2 * quadratic(start)[1]
    assert disturbed.stop_reasons == ["iterations"] * 3


def test_the_best_point_is_returned_and_not_the_last(make: Make) -> None:
    seen: list[tuple[float, Tensor]] = []

    def objective(batch: Tensor) -> tuple[Tensor, Tensor]:
        losses, gradient = differentiate(quadratic)(batch)
        if len(seen) > 10:
            losses = losses + 1  # everything after the tenth looks worse, but does not explode
        seen.append((losses.item(), batch.clone()))
        return losses, gradient

    found = minimise(make(objective, torch.zeros(1, 4)), 20)
    assert torch.equal(found.point, min(seen, key=lambda pair: pair[0])[1])


def test_a_loss_that_is_never_finite_again_stops_as_diverged_at_the_start(make: Make) -> None:
    calls = 0

    def objective(batch: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal calls
        calls += 1
        losses, gradient = differentiate(quadratic)(batch)
        return (losses if calls == 1 else losses * float("nan")), gradient

    start = torch.zeros(1, 4)
    found = minimise(make(objective, start), 1000)
    assert found.stop_reasons == ["diverged"]
    assert found.iterations < 100
    assert torch.equal(found.point, start)


def test_a_vanished_gradient_stops_as_converged(make: Make) -> None:
    found = minimise(make(differentiate(quadratic), torch.ones(2, 4)), 50)
    assert found.stop_reasons == ["converged", "converged"]
    assert found.iterations < 50


def test_points_stay_in_the_feasible_set_and_the_objective_never_sees_another(make: Make) -> None:
    def objective(batch: Tensor) -> tuple[Tensor, Tensor]:
        assert batch.min() >= 0 and batch.max() <= 0.5
        return differentiate(quadratic)(batch)

    found = minimise(make(objective, torch.zeros(1, 4), project=lambda x: x.clamp(0, 0.5)), 60)
    torch.testing.assert_close(found.point, torch.full((1, 4), 0.5))


def test_progress_is_reported_now_and_then_and_at_the_end(make: Make) -> None:
    steps: list[int] = []
    minimise(
        make(differentiate(rosenbrock), torch.zeros(1, 5)),
        25,
        on_report=lambda done, losses: steps.append(done),
        report_every=10,
    )
    assert steps == [1, 10, 20, 25]


def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(make: Make, tmp_path: Path) -> None:
    start = torch.rand(3, 12, generator=torch.Generator().manual_seed(2))
    calls = 0

    def objective(batch: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal calls
        calls += 1
        losses, gradient = differentiate(rosenbrock)(batch)
        # An explosion at the tenth evaluation, wherever the run was interrupted.
        factor = torch.tensor([1.0, float("nan") if calls == 10 else 1.0, 1.0])
        return losses * factor, gradient

    def save(optimiser: Optimiser) -> None:
        if optimiser.done in (4, 9, 13):
            torch.save(optimiser.state(), tmp_path / f"{optimiser.done}.pt")

    def fresh() -> Optimiser:
        return make(objective, start, tolerance=1e-9)

    whole = minimise(fresh(), 30, after_step=save)
    for done in (4, 9, 13):
        calls = done + 1
        state = torch.load(tmp_path / f"{done}.pt")
        again = minimise(fresh(), 30, resume=state)
        assert torch.equal(again.point, whole.point)
        assert (again.iterations, again.stop_reasons) == (whole.iterations, whole.stop_reasons)
        assert calls == 31


def test_an_image_that_changes_no_more_settles_and_rests_while_the_others_go_on(
    make: Make,
) -> None:
    points: list[Tensor] = []

    def objective(batch: Tensor) -> tuple[Tensor, Tensor]:
        points.append(batch.clone())
        losses, gradient = differentiate(quadratic)(batch)
        # The second image's floor is high: soon nothing changes it by a thousandth.
        return losses + torch.tensor([0.0, 1000.0], dtype=batch.dtype), gradient

    start = torch.zeros(2, 8, dtype=torch.float64)
    found = minimise(make(objective, start, tolerance=1e-3, window=5), 30)
    assert found.stop_reasons == ["iterations", "settled"]
    assert torch.equal(points[-1][1], points[-8][1])
    assert not torch.equal(points[-1][0], points[-8][0])
    alone = make(differentiate(quadratic), start[:1], tolerance=1e-3, window=5)
    assert torch.equal(found.point[:1], minimise(alone, 30).point)


def test_the_loop_ends_when_all_images_have_settled(make: Make) -> None:
    def objective(batch: Tensor) -> tuple[Tensor, Tensor]:
        losses, gradient = differentiate(quadratic)(batch)
        return losses + 100, gradient

    found = minimise(make(objective, torch.zeros(2, 8), tolerance=1e-3, window=5), 1000)
    assert found.stop_reasons == ["settled"] * 2
    assert found.iterations < 100


def test_what_is_raised_after_a_step_ends_the_run(make: Make) -> None:
    done: list[int] = []

    def stop(optimiser: Optimiser) -> None:
        done.append(optimiser.done)
        if optimiser.done == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        minimise(make(differentiate(rosenbrock), torch.zeros(1, 5)), 25, after_step=stop)
    assert done == [1, 2, 3]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("deterministic", [False, True])
def test_a_replayed_graph_gives_what_the_steps_give(make: Make, deterministic: bool) -> None:
    start = torch.rand(3, 3, 16, 16, device="cuda")
    calls = 0

    def objective(batch: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal calls
        calls += 1
        scales = torch.linspace(0.1, 1, batch[0].numel(), device="cuda").view_as(batch[0])
        return differentiate(lambda x: (scales * (x - 1).square()).flatten(1).sum(1))(batch)

    torch.use_deterministic_algorithms(deterministic)
    try:
        eager = minimise(make(objective, start), 40, graph=False)
        assert calls == 41
        calls = 0
        replayed = minimise(make(objective, start), 40)
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
    found = minimise(lbfgs(objective, start), 10)
    torch.testing.assert_close(found.point, torch.ones_like(start))
