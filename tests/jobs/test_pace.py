"""How long work is said to take, and how far it is."""

import time
from pathlib import Path

import pytest
from support import make_home

from nst_pipeline.config.pipeline import load
from nst_pipeline.config.recipe import make_recipe, step_costs
from nst_pipeline.config.sections import ClusterSettings
from nst_pipeline.config.weights import resolve
from nst_pipeline.jobs.ledger import Ledger
from nst_pipeline.jobs.pace import Pace, StepsDone, longest_share, note_pace, seconds_per_pixel


def test_the_time_left_is_known_from_earlier_runs_before_the_first_step() -> None:
    assert Pace(None).left_seconds(10) is None
    assert Pace(2.0).left_seconds(10) == 20


def test_the_pace_of_a_cluster_is_none_of_this_computer(tmp_path: Path) -> None:
    here = load(make_home(tmp_path / "home") / "pipeline.yaml")
    there = here.model_copy(update={"cluster": ClusterSettings(address="head:6379")})
    weights = resolve(here.weights)
    with Ledger(None) as ledger:
        note_pace(ledger, there, weights, 6.0, 3)
        assert seconds_per_pixel(ledger, here, weights) is None
        assert seconds_per_pixel(ledger, there, weights) == 2


def test_after_some_seconds_the_pace_of_this_run_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pace = Pace(2.0)
    pace.begin()
    now[0] += 1
    pace.advance(10)
    assert pace.left_seconds(10) == 20
    now[0] += 9
    assert pace.left_seconds(10) == 10


def test_of_a_job_with_scales_the_last_steps_are_most_of_the_work() -> None:
    recipe = make_recipe(size=512, scales=[128], iterations=[100, 100])
    steps, costs = StepsDone(), step_costs(recipe)
    half = steps.move("job", recipe, 100, 200)
    assert half == sum(costs[:100]) and half < 0.1 * steps.all(recipe)
    assert steps.move("job", recipe, 200, 200) == sum(costs[100:])
    assert steps.done("job") == steps.all(recipe)


def test_several_workers_share_what_is_left_and_one_has_its_own_pace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Pace(2.0, workers=4).all_left_seconds(10) == 5
    assert Pace(2.0, workers=4).left_seconds(10) == 20
    assert Pace(2.0, workers=0).all_left_seconds(10) is None
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pace = Pace(None, workers=2)
    pace.begin()
    now[0] += 10
    pace.advance(20)  # a worker does one a second
    pace.use(8)
    assert (pace.left_seconds(16), pace.all_left_seconds(16)) == (16, 2)
    now[0] += 10
    pace.advance(80)
    assert (pace.left_seconds(16), pace.all_left_seconds(16)) == (16, 2)


def test_a_task_is_shared_by_no_two_workers() -> None:
    assert longest_share([10] * 5, 4) == 20
    assert longest_share([10] * 5, 1) == 50
    assert longest_share([30, 10, 10], 8) == 30
