"""What is handed over: the bytes that the plan was made of, or nothing."""

import os
from typing import cast

import pytest
from support import SilentObserver, draw, plan_of

from nst_pipeline.config.pipeline import Config
from nst_pipeline.errors import DiskFullError
from nst_pipeline.inbox.patience import Patience
from nst_pipeline.jobs.job import Job
from nst_pipeline.jobs.ledger import Ledger
from nst_pipeline.jobs.outcome import Failure
from nst_pipeline.jobs.planning import WATCH
from nst_pipeline.runner.intake import Intake
from nst_pipeline.runner.loading import Loader


class NothingKnown:
    """An intake that knows of no earlier result."""

    def repeat(self, *_: object) -> bool:
        return False


def nobody(_: list[Job], why: Failure) -> None:
    raise AssertionError(why.reason)


def loader_of(config: Config, ledger: Ledger) -> Loader:
    intake = cast("Intake", NothingKnown())
    return Loader(config, ledger, SilentObserver(), WATCH, Patience(1.0), intake)


def test_a_content_comes_with_its_bytes_and_its_queued_jobs(config: Config) -> None:
    with Ledger(None) as ledger:
        plan = plan_of(config, ledger)
        (job,) = plan.todo
        loaded = loader_of(config, ledger).load(plan, [job], False, nobody)
    assert loaded and loaded.data == job.content.path.read_bytes() and not loaded.was_begun
    assert [one for one, _ in loaded.jobs] == [job]


def test_a_file_that_is_another_by_now_is_put_off(config: Config) -> None:
    with Ledger(None) as ledger:
        plan = plan_of(config, ledger)
        (job,) = plan.todo
        draw(job.content.path, 99)
        os.utime(job.content.path, ns=(1, 1))
        assert loader_of(config, ledger).load(plan, [job], False, nobody) is None
        assert ledger.jobs.next_try() is not None


def test_nothing_is_handed_over_without_room_for_its_result(config: Config) -> None:
    for folder in (config.outbox, config.state):
        folder.mkdir(exist_ok=True)
    limits = config.limits.model_copy(update={"min_free_bytes": 2**62})
    full = config.model_copy(update={"limits": limits})
    with Ledger(None) as ledger:
        plan = plan_of(config, ledger)
        with pytest.raises(DiskFullError, match="min_free_bytes"):
            loader_of(full, ledger).load(plan, plan.todo, False, nobody)
