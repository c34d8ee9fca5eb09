"""What people see of a run where there is no terminal, and how long it is said to take."""

import io
import time

import pytest
from rich.console import Console
from support import plan_of

from nst_pipeline.cli import display
from nst_pipeline.cli.display import Bars, Display
from nst_pipeline.cli.echo import duration
from nst_pipeline.config.pipeline import Config
from nst_pipeline.jobs.job import Job
from nst_pipeline.jobs.ledger import Ledger
from nst_pipeline.jobs.outcome import Failure
from nst_pipeline.manifest import records
from nst_pipeline.workers.protocol import WorkerState


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


def crew(count: int, job: Job | None) -> list[WorkerState]:
    return [
        WorkerState(f"w{number}", f"node{number // 2}", "cuda:0", None, job, number, 10, 3)
        for number in range(count)
    ]


@pytest.fixture
def job(config: Config) -> Job:
    with Ledger(None) as ledger:
        return plan_of(config, ledger).todo[0]


def shown(display_of: Display) -> list[str]:
    return [task.description for task in display_of._progress.tasks if task.visible]


def test_each_worker_at_work_has_a_bar_and_of_many_the_first_have_one(
    config: Config, job: Job
) -> None:
    with Display(Console(file=io.StringIO()), config, lambda: None) as bars:
        bars.begin(100)
        bars.workers(crew(3, job))
        assert shown(bars) == [
            "0 of 0 jobs, 3 of 3 workers at work",
            "node0: a.png in s", "node0: a.png in s", "node1: a.png in s",
        ]  # fmt: skip
        bars.workers(crew(64, job))
        assert len(shown(bars)) == 1 + display.BARS
        bars.workers([*crew(1, job), *crew(64, None)])
        assert shown(bars) == ["0 of 0 jobs, 1 of 65 workers at work", "node0: a.png in s"]


def test_who_waits_for_a_worker_is_told_so_once(config: Config, job: Job) -> None:
    text = io.StringIO()
    with Display(Console(file=text), config, lambda: None) as bars:
        for workers in ([], [], crew(2, job), []):
            bars.workers(workers)
    assert text.getvalue().count("waits    for a worker") == 2


def test_the_one_worker_of_this_process_has_the_bar_that_it_ever_had(
    config: Config, job: Job
) -> None:
    with Display(Console(file=io.StringIO()), config, lambda: None) as bars:
        bars.begin(100)
        bars.workers([WorkerState("local", job=job, done=1, total=2)])
        bars.stepped(job, 1, 2, 3.0)
        assert shown(bars) == ["", "a.png in s"]


def test_the_rest_of_a_job_that_is_over_or_begins_anew_counts_as_what_it_is(
    config: Config, job: Job
) -> None:
    with Ledger(None) as ledger:
        plan = plan_of(config, ledger)

    def done(bars: Display) -> float:
        return bars._progress.tasks[0].percentage

    with Display(Console(file=io.StringIO()), config, lambda: None) as bars:
        bars.planned(plan)
        bars.handed_over(job)
        bars.stepped(job, 1, 2, 3.0)
        assert done(bars) == 50
        bars.released(job, is_over=False)
        assert done(bars) == 0
        bars.finished(records.failed(job, Failure("it is gone")))
        assert done(bars) == 100 and bars.ended == 1
