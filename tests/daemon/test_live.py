"""What a daemon does at this moment, as the live page has it."""

from dataclasses import replace

import pytest
from support import draw, plan_of

from nst_pipeline.config.pipeline import Config
from nst_pipeline.daemon.live import Live
from nst_pipeline.daemon.page_state import page_state
from nst_pipeline.daemon.status import read_status
from nst_pipeline.jobs.job import Job
from nst_pipeline.jobs.ledger import Ledger
from nst_pipeline.jobs.outcome import Failure
from nst_pipeline.jobs.planning import Plan
from nst_pipeline.manifest import records
from nst_pipeline.workers.protocol import WorkerState


@pytest.fixture
def plan(config: Config) -> Plan:
    with Ledger(None) as ledger:
        return plan_of(config, ledger)


def test_of_several_workers_the_page_tells_which_is_at_a_job(config: Config, plan: Plan) -> None:
    live, (job,) = Live(), plan.todo
    live.planned(plan, None)
    live.stepped(job, 1, 2, 3.0)
    live.workers([WorkerState("w0", "studio", "cuda:1, H100", job=job), WorkerState("w1", "b")])
    (shown,) = page_state(config, live.view(), read_status(config), [])["at_work"]
    assert shown["worker"] == "studio, cuda:1"


def test_the_one_worker_of_the_daemon_is_its_device(config: Config, plan: Plan) -> None:
    live, (job,) = Live(), plan.todo
    live.runs_on("cuda:0, H100")
    live.stepped(job, 1, 2, 3.0)
    live.workers([WorkerState("local", device="cuda:0, H100", job=job)])
    state = page_state(config, live.view(), read_status(config), [])
    assert state["at_work"][0]["worker"] == "cuda:0" and state["workers"] == ""


@pytest.fixture
def jobs(config: Config) -> list[Job]:
    """Return three jobs of two contents, all of the same cost."""
    for number in (1, 2):
        draw(config.inbox / f"{number}.png", number)
    with Ledger(None) as ledger:
        return plan_of(config, ledger).todo


def test_the_next_plan_forgets_nothing_of_what_is_at_work(config: Config, plan: Plan) -> None:
    live, (job,) = Live(), plan.todo
    live.planned(plan, 1.0)
    live.handed_over(job)
    live.stepped(job, 1, 2, 3.0)
    before = live.view().left_seconds
    plan.todo.clear()
    live.planned(plan, 1.0)
    assert live.view().left_seconds == before and before
    live.released(job, is_over=True)
    assert live.view().left_seconds is None


def test_what_a_worker_has_ready_counts_until_it_is_begun_and_then_its_rest(
    plan: Plan, jobs: list[Job]
) -> None:
    live, cost = Live(), jobs[0].style.cost
    live.planned(replace(plan, todo=jobs), 1.0)
    for job in jobs:
        live.handed_over(job)
    live.stepped(jobs[0], 1, 2, 3.0)
    live.planned(replace(plan, todo=[]), 1.0)  # it knows nothing of what is in flight
    assert live.view().left_seconds == 2.5 * cost
    live.stepped(jobs[1], 1, 2, 3.0)
    assert live.view().left_seconds == 2 * cost
    live.released(jobs[0], is_over=True)
    assert live.view().left_seconds == 1.5 * cost


def test_what_is_over_without_a_worker_counts_no_more(plan: Plan, jobs: list[Job]) -> None:
    live = Live()
    live.planned(replace(plan, todo=jobs[:1]), 1.0)
    live.finished(records.failed(jobs[0], Failure("it is gone")))
    assert live.view().left_seconds is None


def test_files_that_no_plan_has_come_to_count_in_the_time_of_the_queue(
    plan: Plan, jobs: list[Job]
) -> None:
    live = Live()
    later = replace(plan, todo=jobs[:1], more=4)
    live.looked(later)
    live.planned(later, 1.0)
    assert live.view().left_seconds == 5 * jobs[0].style.cost
    live.looked(replace(later, more=0))
    assert live.view().left_seconds == jobs[0].style.cost
