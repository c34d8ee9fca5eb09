"""What gives way to what when a worker is about to begin it."""

import pytest
from support import SilentObserver, draw, plan_of

from nst_pipeline.config.pipeline import Config
from nst_pipeline.jobs.job import Job
from nst_pipeline.jobs.ledger import Ledger
from nst_pipeline.jobs.planning import make_scanner
from nst_pipeline.jobs.state import Entry
from nst_pipeline.runner.in_flight import InFlight, JobsInFlight


class Told(SilentObserver):
    """Keeps what it is told of jobs that are handed over."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[tuple[Job, bool | None]] = []

    def handed_over(self, job: Job) -> None:
        self.jobs.append((job, None))

    def released(self, job: Job, is_over: bool) -> None:
        self.jobs.append((job, is_over))


class Field:
    """Three contents, the last of them urgent, to be handed over one after the other."""

    def __init__(self, config: Config) -> None:
        (config.inbox / "urgent").mkdir()
        draw(config.inbox / "b.png", 2)
        draw(config.inbox / "urgent/now.png", 3)
        self.told = Told()
        self.held = JobsInFlight(self.told, make_scanner(config, None, 0))
        with Ledger(None) as ledger:
            self._jobs = {job.content.path.stem: job for job in plan_of(config, ledger).todo}
            self._entries = {
                name: ledger.jobs.of_source(job.content.path)[job.style.name, job.key]
                for name, job in self._jobs.items()
            }

    def one(self, name: str) -> tuple[Job, Entry]:
        return self._jobs[name], self._entries[name]

    def hand_over(self, name: str, workers: int) -> InFlight:
        self.held.add([self.one(name)], self.held.contents(), workers)
        found = self.held.of(self._jobs[name])
        assert found
        return found

    def gives_way(self, one: InFlight, workers: int, is_look_wanted: bool = False) -> bool:
        return self.held.gives_way(one, workers, is_look_wanted, may_wait=True)


@pytest.fixture
def field(config: Config) -> Field:
    return Field(config)


def test_what_waits_for_the_first_worker_is_begun_by_it(field: Field) -> None:
    first = field.hand_over("a", workers=0)
    assert not field.gives_way(first, workers=1, is_look_wanted=True)


def test_what_is_ready_behind_another_gives_way_to_a_look(field: Field) -> None:
    field.held.begin(field.hand_over("a", workers=1))
    second = field.hand_over("b", workers=1)
    assert field.gives_way(second, workers=1, is_look_wanted=True)
    assert not field.gives_way(second, workers=1)


def test_what_a_worker_that_was_being_started_may_begin_gives_way_to_no_look(field: Field) -> None:
    field.held.begin(field.hand_over("a", workers=1))
    second = field.hand_over("b", workers=1)
    assert not field.gives_way(second, workers=2, is_look_wanted=True)


def test_the_place_of_a_worker_that_was_being_started_is_for_the_urgent(field: Field) -> None:
    field.held.begin(field.hand_over("a", workers=1))
    second, urgent = field.hand_over("b", workers=1), field.hand_over("now", workers=1)
    assert field.gives_way(second, workers=2) and not field.gives_way(urgent, workers=2)
    field.held.begin(urgent)
    assert not field.gives_way(second, workers=2)


def test_nothing_gives_way_to_an_urgent_content_that_has_a_worker_of_its_own(
    field: Field,
) -> None:
    field.held.begin(field.hand_over("a", workers=1))
    second, _ = field.hand_over("b", workers=1), field.hand_over("now", workers=1)
    assert field.held.has_urgent_waiting(2) and not field.held.has_urgent_waiting(3)
    assert not field.gives_way(second, workers=3)


def test_it_is_told_which_jobs_are_in_flight(field: Field) -> None:
    one, (other, _) = field.hand_over("a", workers=1), field.one("b")
    assert field.held.release(one.job, is_over=True) is one and not field.held
    assert field.held.release(other, is_over=True) is None
    assert field.told.jobs == [(one.job, None), (one.job, True)]
