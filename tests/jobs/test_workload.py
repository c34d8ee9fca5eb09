"""What is left of several jobs, and how long it takes by several workers."""

import time

import pytest
from support import draw, plan_of

from nst_pipeline.config.pipeline import Config
from nst_pipeline.jobs.job import Job
from nst_pipeline.jobs.ledger import Ledger
from nst_pipeline.jobs.workload import Workload, key_of


@pytest.fixture
def jobs(config: Config) -> list[Job]:
    """Return four jobs, each of another content."""
    for number in range(1, 4):
        draw(config.inbox / f"{number}.png", number)
    with Ledger(None) as ledger:
        return plan_of(config, ledger).todo


@pytest.fixture
def cost(jobs: list[Job]) -> int:
    return jobs[0].style.cost


@pytest.fixture
def work(jobs: list[Job]) -> Workload:
    work = Workload()
    work.plan(jobs, 1.0)
    work.use(4)
    return work


def test_jobs_of_the_last_plan_that_no_worker_has_are_not_of_the_next(
    work: Workload, jobs: list[Job], cost: int
) -> None:
    work.handed_over(jobs[0])
    work.plan(jobs[1:2], 1.0)
    assert work.left == 2 * cost
    work.plan([], 1.0)
    assert work.left == cost


def test_what_goes_back_to_the_queue_is_to_be_done_from_its_beginning(
    work: Workload, jobs: list[Job], cost: int
) -> None:
    work.handed_over(jobs[0])
    work.stepped(jobs[0], 1, 2)
    assert work.left == 3.5 * cost
    work.released(jobs[0], is_over=False)
    assert work.left == 4 * cost
    work.handed_over(jobs[0])
    work.stepped(jobs[0], 1, 2)
    work.released(jobs[0], is_over=True)
    assert work.left == 3 * cost and key_of(jobs[0]) not in work


def test_workers_without_a_content_make_the_rest_no_shorter(
    work: Workload, jobs: list[Job], cost: int
) -> None:
    for job in jobs:
        work.handed_over(job)
    assert work.all_left_seconds() == cost
    for job in jobs[:3]:
        work.released(job, is_over=True)
    assert work.all_left_seconds() == cost


def test_workers_without_a_content_do_not_make_the_others_look_slow(
    work: Workload, jobs: list[Job], cost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for job in jobs[:1]:
        work.handed_over(job)
        work.stepped(job, 0, 2)
        now[0] += 1000
        work.stepped(job, 1, 2)
    assert work.left_seconds(jobs[0]) == pytest.approx(1000)


def test_while_no_worker_is_there_nobody_knows_how_long_it_takes(work: Workload) -> None:
    work.use(0)
    assert work.all_left_seconds() is None
