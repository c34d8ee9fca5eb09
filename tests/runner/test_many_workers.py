"""The dispatcher with many workers: all are kept busy, and what one died of blames nobody else."""

import json
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import (
    LONG,
    PATIENCE_SECONDS,
    FakeExecutor,
    ManyWorkers,
    SilentObserver,
    Watch,
    attempts,
    configure,
    draw,
    make_home,
    manifests,
    outputs,
    painted,
    program,
    run_once,
    states,
    wait_until,
)

from nst_pipeline.config.pipeline import Config, load
from nst_pipeline.errors import DiskFullError, InboxGoneError, UnavailableError
from nst_pipeline.jobs.job import Job
from nst_pipeline.jobs.ledger import Ledger, ledger_path
from nst_pipeline.jobs.outcome import Outcome
from nst_pipeline.jobs.planning import Plan, make_scanner
from nst_pipeline.manifest.model import JobRecord
from nst_pipeline.runner import intake
from nst_pipeline.runner import runner as runner_module
from nst_pipeline.runner.runner import Runner
from nst_pipeline.workers.protocol import Progress, Task, WorkerState


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_home(
        tmp_path / "home",
        watch={"settle_seconds": 0, "max_attempts": 2, "retry_seconds": 0.05, "poll_seconds": LONG},
    )


def config_of(home: Path) -> Config:
    return load(home / "pipeline.yaml")


def draw_all(home: Path, count: int, folder: str = "") -> list[str]:
    """Put pictures into the inbox; return the names of their results."""
    (home / "inbox" / folder).mkdir(exist_ok=True)
    for number in range(count):
        draw(home / "inbox" / folder / f"{number:02}.png", number)
    return [f"{number:02}-s.png" for number in range(count)]


def order(home: Path, what: str, *names: str) -> None:
    for name in names:
        (home / "orders" / name).write_text(what)


def take_back(home: Path, *names: str) -> None:
    for name in names:
        (home / "orders" / name).unlink()


class Watching(Watch):
    """`nst-pipeline watch` with four workers."""

    def __init__(self, home: Path, count: int = 4) -> None:
        super().__init__(home, FAKE_WORKERS=str(count))

    def at_work(self) -> list[str]:
        """Return the names of the contents that workers are at."""
        found = [one["job"] for one in self.status()["workers"]]
        return sorted(Path(job["content"]).name for job in found if job)

    def until_at_work(self, *names: str) -> None:
        wait_until(lambda: self.at_work() == sorted(names))


# Nothing is lost, and nothing is done twice


@pytest.mark.parametrize("command", ["run", "watch"])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_hundred_random_deaths_of_workers_lose_nothing_and_double_nothing(
    home: Path, command: str, seed: int
) -> None:
    watch = {"settle_seconds": 0, "max_attempts": 1000, "retry_seconds": 0}
    config = configure(home, watch=watch)
    names = draw_all(home, 60)
    executor = ManyWorkers(4, kills=100, seed=seed)
    observer = SilentObserver()
    if command == "run":
        run_once(config, executor, observer)
    else:
        scanner = make_scanner(config)
        with Runner(config, executor, observer) as runner:
            while len(observer.records) < 60:
                runner.run_standing(scanner)
    assert len(executor.killed) == 100
    assert outputs(home) == names and set(states(home).values()) == {"done"}
    assert Counter(painted(home)) == {f"{number:02}.png": 1 for number in range(60)}
    deaths = Counter(executor.killed)
    assert attempts(home) == {f"{n:02}.png": deaths[f"{n:02}"] + 1 for n in range(60)}
    assert [record.status for record in observer.records] == ["done"] * 60


@pytest.mark.parametrize("command", ["run", "watch"])
def test_what_kills_workers_is_given_up_while_the_others_go_on(home: Path, command: str) -> None:
    names = draw_all(home, 12)
    order(home, "die", "05.png")
    if command == "run":
        done = run_once(config_of(home), ManyWorkers(3)).manifest()
        assert (done.totals.done, done.totals.failed) == (11, 1)
    else:
        with Watching(home) as watch:
            wait_until((home / "failed/05.png").exists)
            watch.until_idle()
            report = json.loads((home / "failed/05.png.error.json").read_text())
            assert report["attempts"] == 2 and "the worker on" in report["reason"]
    assert outputs(home) == [name for name in names if name != "05-s.png"]
    counts = attempts(home)
    assert counts.pop("05.png") == 2 and set(counts.values()) == {1}


def test_a_run_tries_once_more_what_one_worker_died_of(home: Path) -> None:
    names = draw_all(home, 4)
    order(home, "die once", "02.png")
    observer = SilentObserver()
    run_once(config_of(home), ManyWorkers(2), observer)
    assert outputs(home) == names
    assert [record.status for record in observer.records] == ["done"] * 4
    assert attempts(home)["02.png"] == 2


def test_what_a_worker_died_of_is_suspect_when_it_is_tried_again(home: Path) -> None:
    draw_all(home, 3)
    order(home, "die once", "02.png")
    suspects: list[tuple[str, bool]] = []

    class Noting(ManyWorkers):
        def submit(self, task: Task) -> None:
            suspects.append((task.content.path.stem, task.is_suspect))
            super().submit(task)

    run_once(config_of(home), Noting(2))
    assert sorted(suspects) == [("00", False), ("01", False), ("02", False), ("02", True)]


def test_the_death_of_the_driver_is_an_attempt_of_no_job(home: Path) -> None:
    names = draw_all(home, 6)
    order(home, "slow", "00.png", "01.png")
    for _ in range(3):  # more often than an attempt may fail
        with Watching(home, 2) as watch:
            watch.until_at_work("00.png", "01.png")
            watch.send(signal.SIGKILL)
            watch.process.wait()
        assert states(home)["00.png"] == "running"
        (home / "state/status.json").unlink()
    take_back(home, "00.png", "01.png")
    with Watching(home, 2) as watch:
        watch.until_outputs(*names)
    assert attempts(home)["00.png"] == 1


def test_the_death_of_the_driver_counts_again_once_it_paints_itself(home: Path) -> None:
    draw_all(home, 1)
    run_once(config_of(home), ManyWorkers(2))
    draw(home / "inbox/bad.png", 9)
    order(home, "die", "bad.png")
    for _ in range(2):
        assert program(home, "run").returncode == -signal.SIGKILL
    assert program(home, "run").returncode == 1 and states(home)["bad.png"] == "failed"


@pytest.mark.parametrize("limit", [1, 3, 8])
def test_all_workers_have_one_task_at_work_and_one_ready(home: Path, limit: int) -> None:
    names = draw_all(home, 20)
    executor = ManyWorkers(limit)
    run_once(config_of(home), executor)
    assert executor.most == 2 * limit and outputs(home) == names


def test_a_file_that_was_begun_before_waits_for_no_other(home: Path) -> None:
    names = draw_all(home, 8)
    (home / "orders/03.png").write_text("pass once")
    config = config_of(home)
    executor = ManyWorkers(2, seconds=0.05)
    run_once(config, executor)
    # Nothing was drained before it: there was other work beside it each time.
    assert all(len(some) > 1 for some in executor.together[1:]) and outputs(home) == names


# The same picture under several names


def test_a_picture_under_many_names_is_painted_once_and_keeps_nobody_waiting(home: Path) -> None:
    for number in range(6):
        draw(home / f"inbox/twin{number}.png", 99)
    names = draw_all(home, 6)
    executor = ManyWorkers(4, seconds=0.05)
    run_once(config_of(home), executor)
    assert len(outputs(home)) == 12 and set(names) < set(outputs(home))
    assert sum(name.startswith("twin") for name in painted(home)) == 1
    assert any(len(some) > 2 for some in executor.together)


def test_a_file_that_changes_while_it_is_painted_is_painted_anew_after_that(home: Path) -> None:
    draw(home / "inbox/a.png", 1)
    order(home, "slow", "a.png")
    with Watching(home) as watch:
        watch.until_at_work("a.png")
        draw(home / "inbox/a.png", 2)
        draw(home / "inbox/b.png", 3)
        watch.until_outputs("b-s.png")
        take_back(home, "a.png")
        watch.until_outputs("a-s.png", "b-s.png")
        wait_until(lambda: painted(home).count("a.png") == 2)
        watch.until_idle()
    with Ledger(ledger_path(home / "state")) as ledger:
        of_a = ledger.jobs.of_source(home / "inbox/a.png").values()
        assert sorted(entry.state for entry in of_a) == ["done", "replaced"]


# The work of one plan goes on while the next is made


def test_workers_that_wait_get_new_files_while_another_is_slow(home: Path) -> None:
    draw(home / "inbox/slow.png", 77)
    order(home, "slow", "slow.png")
    with Watching(home) as watch:
        watch.until_at_work("slow.png")
        names = draw_all(home, 5)
        watch.until_outputs(*names)
        watch.until_at_work("slow.png")
        assert states(home)["slow.png"] == "running"
        take_back(home, "slow.png")
        watch.until_outputs(*names, "slow-s.png")
        watch.until_idle()
    assert painted(home).count("slow.png") == 1 and set(states(home).values()) == {"done"}


def test_a_retry_that_is_due_does_not_wait_for_what_is_slow(home: Path) -> None:
    configure(
        home, watch={"settle_seconds": 0, "retry_seconds": 1.5, "poll_seconds": LONG}
    )  # later than any look for new files
    draw(home / "inbox/slow.png", 77)
    draw(home / "inbox/tried.png", 2)
    order(home, "slow", "slow.png")
    order(home, "die once", "tried.png")
    with Watching(home) as watch:
        watch.until_outputs("tried-s.png")
        watch.until_at_work("slow.png")
        take_back(home, "slow.png")
        watch.until_outputs("slow-s.png", "tried-s.png")
    assert attempts(home)["tried.png"] == 2


def test_a_retry_that_no_plan_can_take_up_has_no_plan_made_ever_again(home: Path) -> None:
    draw(home / "inbox/slow.png", 77)
    draw(home / "inbox/goes.png", 2)
    order(home, "slow", "slow.png")
    order(home, "pass", "goes.png")

    class Counting(SilentObserver):
        made = checks = 0

        def looked(self, plan: Plan) -> None:
            self.made += 1

        def check(self) -> None:
            if attempts(home).get("goes.png"):
                (home / "inbox/goes.png").unlink(missing_ok=True)
                self.checks += 1
            if self.checks == 500:
                take_back(home, "slow.png")

    observer = Counting()
    stand(home, ManyWorkers(2), observer)
    assert outputs(home) == ["slow-s.png"] and observer.made <= 5


def test_a_manifest_is_closed_while_workers_go_on_and_the_next_has_the_rest(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "BATCH_JOBS", 3)
    config = config_of(home)
    scanner = make_scanner(config)
    draw(home / "inbox/slow.png", 77)
    order(home, "slow", "slow.png")
    draw_all(home, 4)

    class Later(SilentObserver):
        count = 0

        def looked(self, plan: Plan) -> None:
            self.count += 1
            if self.count == 2:
                assert len(self.records) >= 3
                take_back(home, "slow.png")

        def should_look(self) -> bool:
            return len(self.records) >= 3 and self.count == 1

    with Runner(config, ManyWorkers(3), Later()) as runner:
        runner.run_standing(scanner)
    first, second = manifests(home)
    jobs = [job["content"]["path"] for one in (first, second) for job in one["jobs"]]
    assert len(jobs) == len(set(jobs)) == 5
    assert first["run"]["status"] == second["run"]["status"] == "finished"
    assert second["jobs"][-1]["content"]["path"].endswith("slow.png")


def test_sources_go_when_their_last_job_is_over_whichever_plan_began_it(home: Path) -> None:
    config = configure(
        home, on_success="move", styles={"s": "style.png", "t": "style2.png"},
        watch={"settle_seconds": 0},
    )  # fmt: skip
    draw(home / "inbox/slow.png", 77)
    order(home, "slow", "slow.png")
    with Watching(home) as watch:
        watch.until_at_work("slow.png")
        draw_all(home, 3)
        wait_until(lambda: len(list(config.processed.glob("*.png"))) == 3)
        assert (home / "inbox/slow.png").exists()
        take_back(home, "slow.png")
        wait_until((config.processed / "slow.png").exists)
        watch.until_idle()
    assert not list((home / "inbox").glob("*.png"))


# What people ask


def test_an_urgent_file_gets_the_next_worker_that_is_free(home: Path) -> None:
    draw_all(home, 8)
    every = [f"{number:02}.png" for number in range(8)]
    order(home, "slow", *every)
    urgent = home / "inbox/urgent/now.png"
    urgent.parent.mkdir()

    class Urgent(SilentObserver):
        begun: list[str] = []
        has_seen = False

        def stepped(self, job: Job, done: int, total: int, loss: float) -> None:
            name = job.content.path.name
            if done == 1:
                self.begun.append(name)
            if len(self.begun) == 4 and not urgent.exists():
                draw(urgent, 50)
                take_back(home, self.begun[2])
            elif name == "now.png" and (home / "orders" / self.begun[0]).exists():
                take_back(home, *(one for one in every if one != self.begun[2]))

        def looked(self, plan: Plan) -> None:
            self.has_seen = urgent.exists()

        def should_look(self) -> bool:
            return urgent.exists() and not self.has_seen

    config, observer = config_of(home), Urgent()
    with Runner(config, ManyWorkers(4), observer) as runner:
        runner.run_standing(make_scanner(config))
    assert observer.begun[4] == "now.png" and len(outputs(home)) == 9
    assert set(attempts(home).values()) == {1}


def test_an_urgent_file_behind_a_long_job_is_begun_by_whoever_is_free(home: Path) -> None:
    every = [f"{number:02}.png" for number in range(6)]
    draw_all(home, 6)
    order(home, "slow", *every)
    urgent = home / "inbox/urgent/now.png"
    urgent.parent.mkdir()
    executor = ManyWorkers(3)

    class Urgent(SilentObserver):
        begun: list[str] = []
        has_seen = False
        checks = 0

        def stepped(self, job: Job, done: int, total: int, loss: float) -> None:
            if (name := job.content.path.name) not in self.begun:
                self.begun.append(name)
            if len(self.begun) == 3 and (home / "orders/02.png").exists():
                take_back(home, "02.png")
            if len(self.begun) == 4 and not urgent.exists():
                draw(urgent, 50)  # it lies behind the fourth

        def finished(self, record: JobRecord) -> None:
            if record.content.path.endswith("now.png"):
                take_back(home, *(one for one in every if (home / "orders" / one).exists()))

        def check(self) -> None:
            if "now" in executor.together[-1] and (home / "orders/00.png").exists():
                take_back(home, "00.png")
            self.checks += 1
            if self.checks > 5000:
                raise KeyboardInterrupt

        def looked(self, plan: Plan) -> None:
            self.has_seen = urgent.exists()

        def should_look(self) -> bool:
            return urgent.exists() and not self.has_seen

    observer = Urgent()
    stand(home, executor, observer)
    assert observer.begun[4] == "now.png" and len(outputs(home)) == 7
    assert set(attempts(home).values()) == {1}
    assert len(executor.together) <= 7 + 2  # what was ready is handed over once more, and not ever


class Noting(ManyWorkers):
    """Notes the name of each content that is handed over, each time it is."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.given: list[str] = []

    def submit(self, task: Task) -> None:
        self.given.append(task.content.path.name)
        super().submit(task)


@pytest.mark.parametrize("count", [0, 1])
def test_a_look_while_workers_are_started_sends_nothing_back(home: Path, count: int) -> None:
    every = [f"{number:02}.png" for number in range(4)]
    draw_all(home, 4)
    order(home, "slow", *every)
    order(home, str(count), ".workers")
    executor = Noting(4)

    class Observing(SilentObserver):
        begun: list[str] = []
        is_due = False
        times = 0

        def stepped(self, job: Job, done: int, total: int, loss: float) -> None:
            if job.content.path.name not in self.begun:
                self.begun.append(job.content.path.name)
            if len(self.begun) == 4:
                take_back(home, *every)
                self.begun.append("all")

        def check(self) -> None:
            are_ahead = len(executor.given) > count == len(self.begun)
            if are_ahead and (home / "orders/.workers").exists():
                take_back(home, ".workers")  # the others come, and a file with them
                self.is_due = True

        def should_look(self) -> bool:
            is_due, self.is_due = self.is_due, False
            self.times += is_due
            return is_due

    observer = Observing()
    stand(home, executor, observer)
    assert observer.times == 1 and len(outputs(home)) == 4
    assert sorted(executor.given) == every
    assert set(attempts(home).values()) == {1}


def test_what_is_urgent_while_workers_are_started_takes_the_next_place(home: Path) -> None:
    every = [f"{number:02}.png" for number in range(5)]
    draw_all(home, 5)
    order(home, "slow", *every, "now.png")
    urgent = home / "inbox/urgent/now.png"
    urgent.parent.mkdir()
    order(home, "1", ".workers")
    executor = Noting(4)

    class Observing(SilentObserver):
        begun: list[str] = []
        has_seen = False

        def stepped(self, job: Job, done: int, total: int, loss: float) -> None:
            if (name := job.content.path.name) in self.begun:
                return
            self.begun.append(name)
            if name == "now.png":
                take_back(home, ".workers", *every, name)

        def check(self) -> None:
            if len(self.begun) == 1 and len(executor.given) == 2 and not urgent.exists():
                draw(urgent, 50)
                order(home, "2", ".workers")
            elif len(self.begun) == 2 and "now.png" in executor.given:
                order(home, "3", ".workers")

        def looked(self, plan: Plan) -> None:
            self.has_seen = urgent.exists()

        def should_look(self) -> bool:
            return urgent.exists() and not self.has_seen

    observer = Observing()
    stand(home, executor, observer)
    assert observer.begun[:3] == ["00.png", "01.png", "now.png"] and len(outputs(home)) == 6
    assert sorted(executor.given) == sorted([*every, "now.png"])
    assert set(attempts(home).values()) == {1}


def test_of_several_at_work_the_cancelled_one_alone_ends(home: Path) -> None:
    draw_all(home, 5)
    slow = [f"{number:02}.png" for number in range(4)]
    order(home, "slow", *slow)
    with Watching(home) as watch:
        wait_until(
            lambda: set(slow) <= set(watch.at_work()) | {"04.png"} and len(watch.at_work()) == 4
        )
        assert program(home, "cancel", "01.png").returncode == 0
        wait_until(lambda: "01.png" not in watch.at_work())
        watch.until_outputs("04-s.png")
        take_back(home, *slow)
        watch.until_outputs("00-s.png", "02-s.png", "03-s.png", "04-s.png")
        watch.until_idle()
    assert states(home)["01.png"] == "cancelled"


def test_a_pause_lets_what_is_at_work_end_and_gives_back_what_is_only_ready(home: Path) -> None:
    draw_all(home, 8)
    slow = [f"{number:02}.png" for number in range(4)]
    order(home, "slow", *slow)
    with Watching(home) as watch:
        watch.until_at_work(*slow)
        assert program(home, "pause").returncode == 0
        take_back(home, *slow)
        watch.until_state("paused")
        assert outputs(home) == [name.replace(".png", "-s.png") for name in slow]
        assert Counter(states(home).values()) == {"done": 4, "queued": 4}
        assert attempts(home)["06.png"] == 0
        assert program(home, "resume").returncode == 0
        wait_until(lambda: len(outputs(home)) == 8)


@pytest.mark.parametrize("seconds", [0.3, LONG])
def test_sigterm_ends_what_is_at_work_in_time_and_counts_nothing(
    home: Path, seconds: float
) -> None:
    configure(home, watch={"settle_seconds": 0, "stop_seconds": seconds})
    draw_all(home, 8)
    slow = [f"{number:02}.png" for number in range(4)]
    order(home, "slow", *slow)
    with Watching(home) as watch:
        watch.until_at_work(*slow)
        watch.send(signal.SIGTERM)
        if seconds == LONG:
            watch.until_state("stopping")
            take_back(home, *slow)
        assert watch.process.wait(PATIENCE_SECONDS) == 0
    done = 4 if seconds == LONG else 0
    assert Counter(states(home).values()) == Counter({"done": done, "queued": 8 - done})
    assert Counter(attempts(home).values()) == Counter({1: done, 0: 8 - done})


# However a run ends, what is done is done


class Ending(SilentObserver):
    """Has a run end once so many contents were begun; patient no longer than some thousand polls.

    Attributes:
        begun: the contents that were.
        is_ending: whether it is to end.
        checks: how often it was asked since whether to go on.
    """

    def __init__(self, home: Path, count: int) -> None:
        super().__init__()
        self.home, self.count = home, count
        self.begun: set[str] = set()
        self.is_ending, self.checks = False, 0

    def stepped(self, job: Job, done: int, total: int, loss: float) -> None:
        self.begun.add(job.content.path.name)
        self.is_ending |= len(self.begun) == self.count

    def check(self) -> None:
        self.checks += self.is_ending
        if self.checks > 5000:
            raise KeyboardInterrupt


class Stopping(Ending):
    """Ends it as a signal does."""

    has_told = False

    def should_stop(self) -> bool:
        self.has_told |= self.is_ending
        return self.is_ending


class LosingInbox(Ending):
    """Ends it by there being no inbox when it is looked at."""

    has_looked = False

    def should_look(self) -> bool:
        if self.is_ending and not self.has_looked:
            (self.home / "inbox").rename(self.home / "away")
            self.has_looked = True
            return True
        return False


def stand(home: Path, executor: ManyWorkers, observer: SilentObserver) -> None:
    """Do as `watch`, until nothing is left to do."""
    config = config_of(home)
    with Runner(config, executor, observer) as runner:
        runner.run_standing(make_scanner(config))


def test_what_is_done_is_published_while_a_run_that_ends_waits_for_what_is_not(home: Path) -> None:
    names = draw_all(home, 2)
    order(home, "slow", "00.png", "01.png")

    class Waiting(Stopping):
        def check(self) -> None:
            super().check()
            if self.has_told and (home / "orders/00.png").exists():
                take_back(home, "00.png")

        def finished(self, record: JobRecord) -> None:
            if not self.records:
                take_back(home, "01.png")
            super().finished(record)

    stand(home, ManyWorkers(2), Waiting(home, 2))
    assert outputs(home) == names and set(states(home).values()) == {"done"}


def test_ctrl_c_loses_nothing_that_came_already(home: Path) -> None:
    draw_all(home, 6)

    class Interrupted(ManyWorkers):
        def poll(self, progress: Progress) -> Iterator[Outcome]:
            for outcome in super().poll(progress):
                yield outcome
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_once(config_of(home), Interrupted(3))
    assert len(outputs(home)) == 1
    assert Counter(states(home).values()) == {"done": 1, "queued": 5}
    assert Counter(attempts(home).values()) == {1: 1, 0: 5}


def test_a_full_outbox_is_told_of_each_result_of_a_group(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_all(home, 1)
    config = configure(home, styles={"s": "style.png", "t": "style2.png"})
    full = DiskFullError("outbox: full")
    monkeypatch.setattr(
        intake, "publish_results", lambda _, __, results, ___: [full] * len(results)
    )
    with pytest.raises(DiskFullError):
        run_once(config, ManyWorkers(1))
    (manifest,) = manifests(home)
    assert [job["status"] for job in manifest["jobs"]] == ["failed", "failed"]
    assert set(states(home).values()) == {"queued"}


def test_trouble_while_a_run_waits_for_the_last_jobs_puts_them_back(home: Path) -> None:
    draw_all(home, 2)
    order(home, "slow", "00.png", "01.png")
    observer = Stopping(home, 2)

    class Full(ManyWorkers):
        def poll(self, progress: Progress) -> Iterator[Outcome]:
            if observer.is_ending:
                raise DiskFullError("outbox: full")
            yield from super().poll(progress)

    with pytest.raises(DiskFullError):
        stand(home, Full(2), observer)
    assert set(states(home).values()) == {"queued"} and set(attempts(home).values()) == {0}
    assert [one["run"]["status"] for one in manifests(home)] == ["stopped"]


def test_an_inbox_that_goes_costs_nothing_that_is_at_work(home: Path) -> None:
    names = draw_all(home, 2)
    order(home, "slow", "00.png", "01.png")

    class Gone(LosingInbox):
        def check(self) -> None:
            super().check()
            if self.has_looked and (home / "orders/00.png").exists():
                take_back(home, "00.png", "01.png")

    with pytest.raises(InboxGoneError):
        stand(home, ManyWorkers(2), Gone(home, 2))
    assert outputs(home) == names and set(states(home).values()) == {"done"}


def test_a_run_that_is_to_end_waits_for_no_worker_to_come(home: Path) -> None:
    draw_all(home, 3)
    order(home, "slow", "00.png", "01.png", "02.png")

    class Empty(LosingInbox):
        def check(self) -> None:
            super().check()
            if self.has_looked and self.checks:
                order(home, "0", ".workers")

    with pytest.raises(InboxGoneError):
        stand(home, ManyWorkers(2), Empty(home, 2))
    assert set(states(home).values()) == {"queued"}


# Clusters come and go


def test_a_run_ends_with_status_69_when_the_cluster_is_lost_and_counts_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = draw_all(home, 6)
    config, executor = config_of(home), ManyWorkers(2, seconds=0.01)

    class Losing(SilentObserver):
        def finished(self, record: object) -> None:
            order(home, "lost", ".workers")

    with pytest.raises(UnavailableError, match="cluster fake"):
        run_once(config, executor, Losing())
    assert UnavailableError.exit_code == 69
    found = Counter(states(home).values())
    assert found.keys() == {"done", "queued"} and found["queued"] >= 2
    assert all(attempts(home)[n] == (s == "done") for n, s in states(home).items())
    take_back(home, ".workers")
    run_once(config, executor)
    assert outputs(home) == names and executor.made == 2
    assert len(painted(home)) == 6


def test_a_daemon_waits_for_a_lost_cluster_says_so_and_goes_on(home: Path) -> None:
    names = draw_all(home, 8)
    order(home, "slow", "00.png", "01.png")
    with Watching(home, 2) as watch:
        watch.until_at_work("00.png", "01.png")
        order(home, "lost", ".workers")
        watch.until_state("waiting")
        assert "its head has ended" in watch.status()["detail"]
        assert watch.status()["workers"] == []
        assert set(states(home).values()) == {"queued"} and set(attempts(home).values()) == {0}
        take_back(home, "00.png", "01.png", ".workers")
        watch.until_outputs(*names)
        watch.until_idle()
    assert set(attempts(home).values()) == {1}


def test_a_cluster_out_of_reach_is_told_once_and_no_try_leaves_a_manifest(home: Path) -> None:
    names = draw_all(home, 2)
    order(home, "lost", ".workers")
    with Watching(home, 2) as watch:
        wait_until(lambda: watch.log.read_text().count("2 jobs to do") >= 3)
        take_back(home, ".workers")
        watch.until_outputs(*names)
        watch.until_idle()
    assert watch.log.read_text().count(" ERROR ") == 1
    (manifest,) = manifests(home)
    assert len(manifest["jobs"]) == 2
    with Ledger(ledger_path(home / "state")) as ledger:
        assert len(ledger.runs.listed()) == 1


def test_a_cluster_that_shrinks_to_nothing_is_waited_for_and_told(home: Path) -> None:
    names = draw_all(home, 8)
    order(home, "slow", "00.png", "01.png")
    with Watching(home, 2) as watch:
        watch.until_at_work("00.png", "01.png")
        order(home, "0", ".workers")
        watch.until_state("waiting")
        assert "for a worker" in watch.status()["detail"] and watch.status()["workers"] == []
        take_back(home, "00.png", "01.png")
        order(home, "3", ".workers")
        watch.until_outputs(*names)
        watch.until_idle()
    counts = attempts(home)  # two were at work on workers that went
    assert counts.pop("00.png") == counts.pop("01.png") == 2 and set(counts.values()) == {1}


def test_a_daemon_stops_at_once_that_waits_for_a_worker(home: Path) -> None:
    draw_all(home, 3)
    order(home, "0", ".workers")
    with Watching(home, 2) as watch:
        watch.until_state("waiting")
        assert "being started" in watch.status()["detail"]
        assert watch.stop() == 0
    assert Counter(states(home).values()) == {"queued": 3}
    assert set(attempts(home).values()) == {0}


# What nobody foresaw


@pytest.mark.parametrize("where", ["submit 03", "03"])
def test_an_executor_that_breaks_costs_what_was_at_work_an_attempt_and_nothing_else(
    home: Path, where: str
) -> None:
    draw_all(home, 12)
    executor = ManyWorkers(2, seconds=0.05, fates={where: MemoryError()})
    totals = run_once(config_of(home), executor).manifest().totals
    assert totals.failed >= 1 and states(home)["03.png"] == "failed"
    executor.fates.clear()
    run_once(config_of(home), executor, force=False)
    assert len(outputs(home)) >= 11 - 2


def test_the_manifest_tells_which_node_and_device_painted_each_job(home: Path) -> None:
    draw_all(home, 12)
    manifest = run_once(config_of(home), ManyWorkers(4, seconds=0.02)).manifest()
    assert {(job.node, job.device) for job in manifest.jobs} == {("n0", "fake"), ("n1", "fake")}
    assert {(one.node, one.name) for one in manifest.devices} == {("n0", "fake"), ("n1", "fake")}
    assert manifest.device == manifest.devices[0]
    # Of each worker, what it found in its cache; each began with 3 and found one more a job.
    assert manifest.totals.cache_misses == 16


def test_with_one_worker_here_no_job_has_a_node(home: Path) -> None:
    draw_all(home, 1)
    manifest = run_once(config_of(home), FakeExecutor()).manifest()
    assert [(job.node, job.device) for job in manifest.jobs] == [(None, "fake")]
    assert manifest.devices == [manifest.device]


def test_observers_are_told_what_the_workers_do(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nst_pipeline.runner import dispatcher

    monkeypatch.setattr(dispatcher, "TELL_SECONDS", 0.0)
    draw_all(home, 6)
    seen: list[list[WorkerState]] = []

    class Following(SilentObserver):
        def workers(self, workers: list[WorkerState]) -> None:
            seen.append(workers)

        def stepped(self, job: Job, done: int, total: int, loss: float) -> None:
            pass

    run_once(config_of(home), ManyWorkers(3, seconds=0.02), Following())
    assert max(sum(one.job is not None for one in some) for some in seen) == 3
    assert sum(one.jobs_done for one in seen[-1]) == 6


def test_other_weights_wait_for_what_is_painted_with_the_old_ones(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(home / "inbox/a.png", 1)
    order(home, "slow", "a.png")
    plans: list[Plan] = []
    make_plan = runner_module.make_plan

    def made(*arguments: Any, **options: Any) -> Plan:
        plan = make_plan(*arguments, **options)
        if (home / "inbox/b.png").exists():
            weights = replace(plan.weights, sha256="0" * 64)
            plan = replace(
                plan, weights=weights, todo=[replace(job, weights=weights) for job in plan.todo]
            )
        plans.append(plan)
        return plan

    class Changing(SilentObserver):
        def stepped(self, job: Job, done: int, total: int, loss: float) -> None:
            if not (home / "inbox/b.png").exists():
                draw(home / "inbox/b.png", 2)
            elif job.content.path.name == "a.png" and (home / "orders/a.png").exists():
                take_back(home, "a.png")

        def should_look(self) -> bool:
            return (home / "inbox/b.png").exists() and len(plans) == 1

    monkeypatch.setattr(runner_module, "make_plan", made)
    config, executor = config_of(home), ManyWorkers(2)
    with Runner(config, executor, Changing()) as runner:
        runner.run_standing(make_scanner(config))
    assert outputs(home) == ["a-s.png", "b-s.png"] and executor.made == 2
    assert painted(home) == ["a.png", "b.png"] and attempts(home)["a.png"] == 1
