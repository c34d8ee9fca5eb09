"""The ledger's jobs: what can become of one, and who sees it."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import draw, make_home, plan_of

from nst_pipeline.config.pipeline import Config, load
from nst_pipeline.jobs import clock
from nst_pipeline.jobs.clock import LONGEST_WAIT_SECONDS
from nst_pipeline.jobs.ledger import Ledger, ledger_path
from nst_pipeline.jobs.planning import WATCH
from nst_pipeline.jobs.state import TRANSITIONS, JobState

S = JobState


@pytest.fixture
def config(tmp_path: Path) -> Config:
    home = make_home(tmp_path / "home")
    draw(home / "inbox/a.png", 1)
    return load(home / "pipeline.yaml")


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with Ledger(None) as ledger:
        yield ledger


def take_to(state: JobState, ledger: Ledger, config: Config) -> int:
    """Plan the only job and take it to a state, as the program would; return its number."""
    plan_of(config, ledger)
    (entry,) = ledger.jobs.all()
    jobs, source = ledger.jobs, entry.source
    ways: dict[JobState, list[JobState]] = {
        S.QUEUED: [],
        S.GONE: [S.GONE],
        S.CANCELLED: [S.CANCELLED],
        S.RUNNING: [S.RUNNING],
        S.FAILED: [S.RUNNING, S.FAILED],
        S.COMMITTING: [S.RUNNING, S.COMMITTING],
        S.DONE: [S.RUNNING, S.COMMITTING, S.DONE],
        S.DISPOSED: [S.RUNNING, S.COMMITTING, S.DONE, S.DISPOSED],
        S.REPLACED: [S.RUNNING, S.COMMITTING, S.DONE, S.REPLACED],
    }
    for step in ways[state]:
        move(step, ledger, entry.id, source)
    assert jobs.state(entry.id) == state
    return entry.id


def move(state: JobState, ledger: Ledger, job: int, source: Path) -> None:
    jobs = ledger.jobs
    actions = {
        S.QUEUED: lambda: jobs._go([job], S.QUEUED),
        S.RUNNING: lambda: jobs.start(job),
        S.COMMITTING: lambda: jobs.begin_commit(job, Path("/o/a"), Path("/o/.t"), "0" * 64),
        S.DONE: lambda: jobs.finish(job),
        S.DISPOSED: lambda: jobs.dispose(source),
        S.FAILED: lambda: jobs.fail(job, "because"),
        S.CANCELLED: lambda: jobs.cancel(source),
        S.GONE: lambda: jobs.drop([job]),
        S.REPLACED: lambda: jobs._go([job], S.REPLACED),
    }
    actions[state]()


@pytest.mark.parametrize(("here", "there"), list(itertools.product(JobState, JobState)))
def test_a_job_goes_only_where_the_table_of_transitions_has_a_way(
    config: Config, ledger: Ledger, here: JobState, there: JobState
) -> None:
    job = take_to(here, ledger, config)
    source = ledger.jobs.get(job).source
    move(there, ledger, job, source)
    expected = there if there in TRANSITIONS[here] else here
    assert ledger.jobs.state(job) == expected


@pytest.mark.parametrize(
    ("state", "again"),
    [
        (S.QUEUED, S.QUEUED), (S.RUNNING, S.RUNNING), (S.COMMITTING, S.COMMITTING),
        (S.CANCELLED, S.CANCELLED), (S.DONE, S.QUEUED), (S.DISPOSED, S.QUEUED),
        (S.REPLACED, S.QUEUED), (S.FAILED, S.QUEUED), (S.GONE, S.QUEUED),
    ],
)  # fmt: skip
def test_planning_a_job_again_queues_it_unless_it_is_at_work_or_cancelled(
    config: Config, ledger: Ledger, state: JobState, again: JobState
) -> None:
    jobs = plan_of(config, ledger).todo
    job = take_to(state, ledger, config)
    ledger.jobs.add(jobs)
    assert ledger.jobs.state(job) == again


@pytest.mark.parametrize("state", JobState)
def test_only_a_job_at_work_is_put_back(config: Config, ledger: Ledger, state: JobState) -> None:
    job = take_to(state, ledger, config)
    is_at_work = state in (S.RUNNING, S.COMMITTING)
    # Whoever has it at work may hear late that it was cancelled, and must not undo that.
    assert ledger.jobs.requeue(job, "again") == is_at_work
    assert ledger.jobs.state(job) == (S.QUEUED if is_at_work else state)


@pytest.mark.parametrize("state", JobState)
def test_cancel_tells_what_it_decided(config: Config, ledger: Ledger, state: JobState) -> None:
    job = take_to(state, ledger, config)
    is_late = state in (S.COMMITTING, S.DONE, S.DISPOSED)
    decided = ledger.jobs.cancel(ledger.jobs.get(job).source)
    is_cancelled = state in (S.QUEUED, S.RUNNING)
    assert decided == (["s"] * is_cancelled, ["s"] * is_late)
    assert ledger.jobs.state(job) == (S.CANCELLED if is_cancelled else state)


def test_of_the_jobs_of_older_bytes_nobody_who_cancels_hears(
    config: Config, ledger: Ledger
) -> None:
    job = take_to(S.DONE, ledger, config)
    draw(config.inbox / "a.png", 2)
    plan_of(config, ledger)
    assert ledger.jobs.cancel(ledger.jobs.get(job).source) == (["s"], [])


def test_force_queues_even_a_cancelled_job(config: Config, ledger: Ledger) -> None:
    jobs = plan_of(config, ledger).todo
    job = take_to(S.CANCELLED, ledger, config)
    ledger.jobs.add(jobs)
    assert ledger.jobs.state(job) == S.CANCELLED
    ledger.jobs.add(jobs, force=True)
    assert ledger.jobs.state(job) == S.QUEUED


def test_a_retried_job_is_as_good_as_new(config: Config, ledger: Ledger) -> None:
    job = take_to(S.RUNNING, ledger, config)
    ledger.jobs.fail(job, "it killed us", poison=True)
    ledger.jobs.retry(ledger.jobs.get(job).source)
    entry = ledger.jobs.get(job)
    assert (entry.state, entry.attempts, entry.poison) == (S.QUEUED, 0, False)


def test_jobs_are_in_the_queue_as_soon_as_they_are_planned(config: Config, ledger: Ledger) -> None:
    for number in range(3):
        draw(config.inbox / f"{number}.png", number)
    plan_of(config, ledger)
    assert ledger.jobs.counts() == {S.QUEUED: 4}
    assert {path.name for path in ledger.jobs.sources(S.QUEUED)} == {
        "a.png", "0.png", "1.png", "2.png",
    }  # fmt: skip


def waits(ledger: Ledger) -> float:
    """Return in how many seconds the next attempt is due."""
    due = ledger.jobs.next_try()
    assert due is not None
    return due - ledger.jobs.now()


YEAR = 365 * 86_400.0


@pytest.fixture
def on_disk(config: Config) -> Iterator[Ledger]:
    with Ledger(ledger_path(config.state)) as ledger:
        yield ledger


@pytest.mark.parametrize("years", [-10, 10])
def test_setting_the_clock_delays_no_attempt_and_brings_none_forward(
    config: Config, on_disk: Ledger, monkeypatch: pytest.MonkeyPatch, years: int
) -> None:
    job = take_to(S.RUNNING, on_disk, config)
    on_disk.jobs.requeue(job, "no luck", wait_seconds=600)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + years * YEAR)
    assert waits(on_disk) == pytest.approx(600, abs=60)
    with Ledger(ledger_path(config.state)) as other:  # another process of this boot
        assert waits(other) == pytest.approx(600, abs=60)
        assert plan_of(config, other, WATCH).held
    reader = Ledger.to_read(ledger_path(config.state))
    assert reader and waits(reader) == pytest.approx(600, abs=60)


@pytest.mark.parametrize(("years", "seconds"), [(-10, LONGEST_WAIT_SECONDS), (0, 600), (1, None)])
def test_after_another_boot_no_attempt_waits_longer_than_a_day(
    config: Config, on_disk: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, years: int,
    seconds: float | None,
) -> None:  # fmt: skip
    job = take_to(S.RUNNING, on_disk, config)
    on_disk.jobs.requeue(job, "no luck", wait_seconds=600)
    (tmp_path / "boot").write_text("another")
    monkeypatch.setattr(clock, "BOOT_ID", tmp_path / "boot")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + years * YEAR)
    with Ledger(ledger_path(config.state)) as other:
        if seconds is None:
            assert waits(other) < 0
        else:
            assert waits(other) == pytest.approx(seconds, abs=60)


def test_no_attempt_waits_longer_than_a_day(config: Config, ledger: Ledger) -> None:
    job = take_to(S.RUNNING, ledger, config)
    ledger.jobs.requeue(job, "no luck", wait_seconds=1e9)
    assert waits(ledger) == pytest.approx(LONGEST_WAIT_SECONDS, abs=60)


def test_an_attempt_counts_unless_it_ended_for_no_reason_of_the_jobs(
    config: Config, ledger: Ledger
) -> None:
    job = take_to(S.RUNNING, ledger, config)
    ledger.jobs.requeue(job)
    assert ledger.jobs.get(job).attempts == 1
    ledger.jobs.start(job)
    ledger.jobs.requeue(job, "no luck", wait_seconds=60)
    assert ledger.jobs.get(job).attempts == 2 and ledger.jobs.next_try() is not None
    ledger.jobs.start(job)
    ledger.jobs.requeue(job, "somebody stopped us", is_attempt=False)
    assert ledger.jobs.get(job).attempts == 2
