"""What people see of a run where there is no terminal, and how long it is said to take."""

import io
import time

import pytest
from rich.console import Console

from nst_pipeline.cli import display
from nst_pipeline.cli.display import Bars, Pace, StepsDone
from nst_pipeline.cli.echo import duration
from nst_pipeline.config.recipe import make_recipe, step_costs


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (600, "10 min"), (5400, "1 h 30 min"),
     (48 * 3600, "2 days")],
)  # fmt: skip
def test_a_time_is_told_as_long_as_people_care_for(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_the_time_left_is_known_from_earlier_runs_before_the_first_step() -> None:
    assert Pace(None).left(10) == ""
    assert Pace(2.0).left(10) == "about 20 s left"


def test_after_some_seconds_the_pace_of_this_run_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pace = Pace(2.0)
    pace.begin()
    now[0] += 1
    pace.advance(10)
    assert pace.left(10) == "about 20 s left"
    now[0] += 9
    assert pace.left(10) == "about 10 s left"


def test_of_a_job_with_scales_the_last_steps_are_most_of_the_work() -> None:
    recipe = make_recipe(size=512, scales=[128], iterations=[100, 100])
    steps, costs = StepsDone(), step_costs(recipe)
    half = steps.move("job", recipe, 100, 200)
    assert half == sum(costs[:100]) and half < 0.1 * steps.all(recipe)
    assert steps.move("job", recipe, 200, 200) == sum(costs[100:])
    assert steps.done("job") == steps.all(recipe)


def test_without_a_terminal_a_line_now_and_then_says_how_far_the_work_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, text = [100.0], io.StringIO()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Bars(Console(file=text)) as bars:
        bars.begin(100)
        for _ in range(4):
            bars.advance(10)
            now[0] += display.LINE_SECONDS / 2
    assert text.getvalue() == "working  30%; about 70 s left\n"
