"""The dispatcher: what fails fails alone, and nobody is asked twice."""

import json
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from support import (
    UNPRIVILEGED,
    FakeExecutor,
    SilentObserver,
    Watch,
    attempts,
    configure,
    draw,
    make_home,
    manifests,
    outputs,
    painted,
    plan_of,
    program,
    run_once,
    states,
    wait_until,
)

from nst_pipeline.config.pipeline import Config, load
from nst_pipeline.errors import CannotCreateError, DeviceLostError, DiskFullError
from nst_pipeline.inbox import reading
from nst_pipeline.inbox.patience import Waiting
from nst_pipeline.jobs import looking, planning
from nst_pipeline.jobs.job import Job
from nst_pipeline.jobs.ledger import Ledger, ledger_path
from nst_pipeline.jobs.outcome import Failure
from nst_pipeline.jobs.planning import Plan, make_scanner
from nst_pipeline.runner import intake
from nst_pipeline.runner import runner as runner_module
from nst_pipeline.runner.runner import Runner
from nst_pipeline.workers.protocol import Task

GOOD = [f"{number}.png" for number in range(10)]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_home(tmp_path / "home", watch={"settle_seconds": 0, "max_attempts": 2})


def config_of(home: Path) -> Config:
    return load(home / "pipeline.yaml")


def long_name(letter: str) -> str:
    """Return a name of 255 bytes, the longest that a file can have."""
    return letter * 251 + ".png"


def with_three_kinds_of_failures(home: Path) -> None:
    """Put ten good pictures around three that fail: as input, as a job, and when published."""
    for number, name in enumerate(GOOD):
        draw(home / "inbox" / name, number)
    (home / "inbox/35.png").write_text("hello")
    draw(home / "inbox/55.png", 55)
    (home / "orders/55.png").write_text("fail")
    (home / "inbox/75").mkdir()
    draw(home / "inbox/75/a.png", 75)
    (home / "outbox").mkdir()
    (home / "outbox/75").write_text("a file where a folder is needed")


EXPECTED = sorted(["75", *(name.replace(".png", "-s.png") for name in GOOD)])


def test_a_run_survives_every_kind_of_failing_job(home: Path) -> None:
    with_three_kinds_of_failures(home)
    done = program(home, "run")
    assert done.returncode == 1 and "10 jobs done, 3 failed" in done.stdout
    assert outputs(home) == EXPECTED
    (manifest,) = manifests(home)
    reasons = {
        Path(job["content"]["path"]).name: job["error"]["reason"]
        for job in manifest["jobs"]
        if job["status"] == "failed"
    }
    assert reasons.keys() == {"35.png", "55.png", "a.png"}
    assert "75" in reasons["a.png"] and "known format" in reasons["35.png"]
    assert manifest["run"]["status"] == "finished"


def test_a_daemon_survives_every_kind_of_failing_job_and_gives_up_after_max_attempts(
    home: Path,
) -> None:
    with_three_kinds_of_failures(home)
    with Watch(home) as watch:
        wait_until((home / "failed/75/a.png").exists)
        wait_until((home / "failed/55.png").exists)
        wait_until((home / "failed/35.png").exists)
        watch.until_idle()
        assert watch.stop() == 0
    assert outputs(home) == EXPECTED
    assert Counter(painted(home)) == Counter([*GOOD, "a.png", "a.png"])
    with Watch(home) as watch:
        watch.until_idle()
        assert watch.stop() == 0


@pytest.mark.parametrize("command", ["run", "watch"])
def test_names_too_long_for_their_outputs_are_shortened_and_stay_apart(
    home: Path, command: str
) -> None:
    for number, letter in enumerate("ab"):
        draw(home / "inbox" / long_name(letter), number)
    draw(home / "inbox" / ("é" * 120 + ".png"), 9)  # 240 bytes and a suffix
    if command == "run":
        assert program(home, "run").returncode == 0
    else:
        with Watch(home) as watch:
            wait_until(lambda: len(outputs(home)) == 3)
            watch.until_idle()
    names = outputs(home)
    assert len(set(names)) == 3 and all(len(name.encode()) <= 255 for name in names)
    assert program(home, "run").stdout.startswith("nothing to do")


def test_a_long_name_that_is_given_up_gets_its_report_and_comes_back(home: Path) -> None:
    name = long_name("a")
    draw(home / "inbox" / name, 1)
    (home / "orders" / name).write_text("fail")
    with Watch(home) as watch:
        wait_until((home / "failed" / name).exists)
        watch.until_idle()
        (report,) = (home / "failed").glob("*.error.json")
        assert "told to fail" in report.read_text()
        (home / "orders" / name).unlink()
        assert program(home, "retry", name).returncode == 0
        wait_until(lambda: len(outputs(home)) == 1)
        watch.until_idle()
    assert not list((home / "failed").iterdir())


LONGEST = ["漢" * 83 + ".png", "xy" + "漢" * 83 + ".png", "a" * 251 + ".png"]
"""Names of 83 Chinese letters, and two of 255 bytes."""


@pytest.mark.parametrize("command", ["run", "watch"])
@pytest.mark.parametrize("name", LONGEST)
@pytest.mark.parametrize("on_success", ["keep", "move", "delete"])
def test_everything_that_belongs_to_a_long_name_gets_a_name(
    home: Path, command: str, name: str, on_success: str
) -> None:
    output = {"snapshots": 1, "making": "gif"}
    config = configure(home, watch={"settle_seconds": 0}, output=output, on_success=on_success)
    draw(home / "inbox" / name, 1)
    draw(home / "inbox" / "sub.png", 2)
    if command == "run":
        assert program(home, "run").returncode == 0
    else:
        with Watch(home) as watch:
            wait_until(lambda: len(outputs(home)) == 6)
            watch.until_idle()
    (record,) = [job for job in manifests(home)[0]["jobs"] if name in job["content"]["path"]]
    made = [record["output"]["path"], *record["extras"]]
    assert len({*made}) == 3 and all(Path(path).is_file() for path in made)
    assert (home / "inbox" / name).exists() == (on_success == "keep")
    assert (config.processed / name).exists() == (on_success == "move")
    # Another with the same name finds the names taken.
    if on_success == "move":
        draw(home / "inbox" / name, 3)
        assert program(home, "run").returncode == 0
        assert len(list(config.processed.iterdir())) == 3 and len(outputs(home)) == 9


@pytest.mark.parametrize("name", LONGEST)
@pytest.mark.parametrize("why", ["fail", "die", "no picture"])
def test_a_long_name_that_is_given_up_goes_to_failed_with_its_reason(
    home: Path, name: str, why: str
) -> None:
    draw(home / "inbox" / name, 1)
    if why == "no picture":
        (home / "inbox" / name).write_text("hello")
    else:
        (home / "orders" / name).write_text(why)
    if why == "die":
        for _ in range(2):
            with Watch(home) as watch:
                assert watch.process.wait(60) == -signal.SIGKILL
    with Watch(home) as watch:
        wait_until((home / "failed" / name).exists)
        watch.until_idle()
        wait_until(lambda: watch.status()["failures"])  # noted just after the file has moved
        assert watch.status()["failures"][0]["source"].endswith(name)
    (report,) = (home / "failed").glob("*.error.json")
    reason = {"fail": "told to fail", "die": "2 times", "no picture": "known format"}[why]
    told = json.loads(report.read_text())
    assert reason in told["reason"] and told["source"].endswith(name)
    assert not list((home / "inbox").iterdir())


@pytest.mark.parametrize("name", LONGEST)
def test_a_run_tells_of_a_long_name_that_fails_and_leaves_it(home: Path, name: str) -> None:
    (home / "inbox" / name).write_text("hello")
    done = program(home, "run")
    assert done.returncode == 1 and f"{name}: not an image" in done.stdout
    assert (home / "inbox" / name).exists()


def test_an_outbox_that_takes_no_file_at_all_ends_the_run(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in GOOD[:3]:
        draw(home / "inbox" / name, int(name[0]))

    def refused(path: Path) -> None:
        raise CannotCreateError(f"{path}: read-only")

    executor = FakeExecutor()

    def publish(*_: object) -> None:
        monkeypatch.setattr(intake, "ensure_folder", refused)
        raise CannotCreateError("read-only")

    monkeypatch.setattr(intake, "publish_results", publish)
    with pytest.raises(CannotCreateError, match="read-only"):
        run_once(config_of(home), executor)
    assert len(executor.painted) == 1 and set(states(home).values()) == {"queued"}


def test_a_duplicate_that_cannot_be_published_fails_alone(home: Path) -> None:
    draw(home / "inbox/a.png", 1)
    (home / "inbox/sub").mkdir()
    draw(home / "inbox/sub/b.png", 1)  # the same bytes
    draw(home / "inbox/sub2.png", 2)
    (home / "outbox").mkdir()
    (home / "outbox/sub").touch()
    done = program(home, "run")
    assert done.returncode == 1 and "2 jobs done, 1 failed" in done.stdout


def test_a_result_that_is_cut_short_fails_alone(home: Path) -> None:
    draw(home / "inbox/a.png", 1)
    draw(home / "inbox/b.png", 2)
    (home / "orders/a.png").write_text("cut")
    done = program(home, "run")
    assert done.returncode == 1 and outputs(home) == ["b-s.png"]


def test_a_job_can_be_cancelled_while_it_waits_in_the_queue(home: Path) -> None:
    for name in ("a.png", "b.png", "e.png"):
        draw(home / "inbox" / name, ord(name[0]))
    (home / "orders/a.png").write_text("slow")
    with Watch(home) as watch:
        watch.until_painting()
        assert watch.status()["queue"] == 3
        done = program(home, "cancel", "e.png")
        assert done.returncode == 0, done.stderr
        assert watch.status()["queue"] == 2
        (home / "orders/a.png").unlink()
        watch.until_outputs("a-s.png", "b-s.png")
        watch.until_idle()
        assert states(home)["e.png"] == "cancelled" and "e.png" not in painted(home)
        assert program(home, "retry", "e.png").returncode == 0
        watch.until_outputs("a-s.png", "b-s.png", "e-s.png")


def test_a_picture_is_read_once_from_the_inbox_to_the_executor(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(home / "inbox/a.png", 1)
    reads: list[str] = []
    read = reading.read

    def counted(path: Path, *rest: object) -> bytes:
        reads.append(path.name)
        return read(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(looking, "read", counted)
    monkeypatch.setattr(reading, "read", counted)
    run_once(config_of(home))
    assert reads.count("a.png") == 1 and outputs(home) == ["a-s.png"]
    assert not (home / "state/work").exists()


def test_a_picture_that_changes_between_plan_and_turn_is_not_painted_by_its_old_bytes(
    home: Path,
) -> None:
    draw(home / "inbox/a.png", 1)
    draw(home / "inbox/b.png", 2)

    class Meddler(SilentObserver):
        def stepped(self, job: Job, done: int, total: int, loss: float) -> None:
            draw(home / "inbox/b.png", 3)

    observer = Meddler()
    run_once(config_of(home), FakeExecutor(limit=1), observer)
    assert [(r.status, Path(r.content.path).name) for r in observer.records] == [
        ("done", "a.png"),
        ("failed", "b.png"),
    ]
    assert run_once(config_of(home)).manifest().totals.done == 1


def test_memory_for_bytes_read_ahead_is_bounded(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in GOOD:
        draw(home / "inbox" / name, int(name[0]))
    size = max((home / "inbox" / name).stat().st_size for name in GOOD)
    monkeypatch.setattr(planning, "KEPT_BYTES", 3 * size)
    with Ledger(None) as ledger:
        plan = plan_of(config_of(home), ledger)
    kept = [plan.read_ahead.take(job.content.path) for job in plan.todo]
    assert len(kept) == 10 and 3 <= sum(data is not None for data in kept) <= 4
    assert run_once(config_of(home)).manifest().totals.done == 10


def test_an_executor_serves_all_that_a_daemon_paints(home: Path) -> None:
    config, executor = config_of(home), FakeExecutor()
    scanner = make_scanner(config)
    with Runner(config, executor, SilentObserver()) as runner:
        for number, name in enumerate(GOOD[:3]):
            draw(home / "inbox" / name, number)
            runner.run_standing(scanner)
    assert len(executor.painted) == 3 and executor.made == 1


def test_a_run_that_stops_for_want_of_room_leaves_its_jobs_in_the_queue(home: Path) -> None:
    config = configure(home, limits={"min_free_bytes": 2**62})
    draw(home / "inbox/a.png", 1)
    with pytest.raises(DiskFullError, match="make room"):
        run_once(config)
    assert states(home) == {"a.png": "queued"} and not painted(home)
    assert DiskFullError.exit_code == 74
    with Ledger(ledger_path(config.state)) as ledger:
        assert ledger.jobs.all()[0].attempts == 0


def test_a_device_that_is_lost_is_blamed_on_the_job_at_work_until_it_is_given_up(
    home: Path,
) -> None:
    for name in ("a.png", "b.png"):
        draw(home / "inbox" / name, ord(name[0]))
    (home / "orders/a.png").write_text("lost")
    config = config_of(home)
    for attempt in (1, 2):
        with pytest.raises(DeviceLostError):
            run_once(config, FakeExecutor())
        assert attempts(home) == {"a.png": attempt, "b.png": 0}
    assert states(home) == {"a.png": "failed", "b.png": "queued"}
    totals = run_once(config).manifest().totals
    assert (totals.done, totals.failed) == (1, 1)


@pytest.mark.parametrize("where", ["submit", "poll", "take in"])
def test_an_error_that_nobody_foresaw_fails_the_content_that_it_came_of_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    for name in GOOD[:4]:
        draw(home / "inbox" / name, int(name[0]))

    class Breaking(FakeExecutor):
        def submit(self, task: Task) -> None:
            if where == "submit" and task.content.path.name == "1.png":
                raise MemoryError
            super().submit(task)

    class Following(SilentObserver):
        def timed(self, stage: str, seconds: float) -> None:
            if where == "take in" and stage == "paint" and len(self.records) == 1:
                raise MemoryError

    executor = Breaking({"1": MemoryError()} if where == "poll" else {}, limit=1)
    totals = run_once(config_of(home), executor, Following()).manifest().totals
    if where == "take in":  # after its result had its name
        assert set(states(home).values()) == {"done"}
        return
    assert (totals.done, totals.failed) == (3, 1)
    assert states(home)["1.png"] == "queued" and attempts(home)["1.png"] == 1
    assert run_once(config_of(home)).manifest().totals.done == 1


def test_what_the_system_refused_is_no_attempt_and_has_a_new_plan_made(home: Path) -> None:
    configure(home, watch={"settle_seconds": 0, "retry_seconds": 60})
    for name in GOOD[:3]:
        draw(home / "inbox" / name, int(name[0]))
    fate = {"1": Failure("style.png: No such file or directory", kind="system")}
    executor, config = FakeExecutor(fate), config_of(home)  # type: ignore[arg-type]
    plans: list[list[str]] = []

    class Looks(SilentObserver):
        def looked(self, plan: Plan) -> None:
            plans.append([job.content.path.name for job in plan.todo])

        def waits(self, files: list[Waiting]) -> None:
            self.waiting = [(one.path.name, one.reason) for one in files]

    looks = Looks()
    with Runner(config, executor, looks) as runner:
        runner.run_standing(make_scanner(config))
    assert looks.waiting == [("1.png", "style.png: No such file or directory")]
    assert outputs(home) == ["0-s.png", "2-s.png"]
    assert attempts(home)["1.png"] == 0 and all("1.png" not in plan for plan in plans[1:])


def test_files_that_are_no_pictures_yet_keep_no_others_from_being_painted(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(home, watch={"settle_seconds": 0, "grace_seconds": 3600})
    monkeypatch.setattr(runner_module, "WATCH", replace(planning.WATCH, chunk=2))
    for number in range(5):
        (home / f"inbox/{number}.png").write_text("hello")
    draw(home / "inbox/good.png", 1)
    plans: list[Plan] = []

    class Looks(SilentObserver):
        def looked(self, plan: Plan) -> None:
            plans.append(plan)

    config = config_of(home)
    with Runner(config, FakeExecutor(), Looks()) as runner:
        runner.run_standing(make_scanner(config))
    assert outputs(home) == ["good-s.png"] and len(plans) == 2


def test_a_folder_that_may_not_be_searched_any_more_stops_nothing(home: Path) -> None:
    draw(home / "inbox/b.png", 2)
    (home / "orders/b.png").write_text("slow")
    (home / "inbox/sub").mkdir()
    draw(home / "inbox/sub/a.png", 1)
    with Watch(home, before=UNPRIVILEGED) as watch:
        watch.until_painting()
        (home / "inbox/sub").chmod(0)
        (home / "orders/b.png").unlink()
        watch.until_outputs("b-s.png")
        watch.until_idle()
        (home / "inbox/sub").chmod(0o755)
        watch.until_outputs("b-s.png", "sub/a-s.png")
    assert not (home / "failed").exists()
