"""What a daemon does at this moment, as the live page has it."""

import time

import pytest
from support import plan_of

from nst_pipeline.config.pipeline import Config
from nst_pipeline.daemon.live import Live
from nst_pipeline.daemon.page_state import page_state
from nst_pipeline.daemon.status import read_status
from nst_pipeline.jobs.ledger import Ledger
from nst_pipeline.jobs.planning import Plan
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


def test_the_next_plan_forgets_nothing_of_what_is_at_work(
    config: Config, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    live, (job,) = Live(), plan.todo
    live.planned(plan, 1.0)
    live.stepped(job, 1, 2, 3.0)
    before = live.view().left_seconds
    plan.todo.clear()
    live.planned(plan, 1.0)
    assert live.view().left_seconds == before and before
    live.workers([WorkerState(f"w{n}", "studio") for n in range(4)])
    assert live.view().left_seconds == before / 4
    live.released(job)
    assert live.view().left_seconds is None
