"""What people see of a run where there is no terminal, and how long it is said to take."""

import io
import time

import pytest
from rich.console import Console

from nst_pipeline.cli import display
from nst_pipeline.cli.display import Bars
from nst_pipeline.cli.echo import duration


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (600, "10 min"), (5400, "1 h 30 min"),
     (48 * 3600, "2 days")],
)  # fmt: skip
def test_a_time_is_told_as_long_as_people_care_for(seconds: float, said: str) -> None:
    assert duration(seconds) == said


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
