"""The runner with an executor that paints nothing, so that only its own behaviour shows."""

import json
import signal
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import Program, picture
from jsonschema import Draft202012Validator
from PIL import Image
from safetensors.torch import load_file, save_file
from support import (
    FakeExecutor,
    SilentObserver,
    command,
    configure,
    draw,
    make_home,
    outputs,
    plan_of,
    program,
    run_once,
)
from support import painted as painted_names

from nst_pipeline.config.pipeline import Config, load
from nst_pipeline.config.settings import StyleSettings
from nst_pipeline.config.weights import COMPACT_PATH
from nst_pipeline.digests import bytes_digest
from nst_pipeline.errors import CannotCreateError, ConfigError, DiskFullError, InboxGoneError
from nst_pipeline.folders import Folders
from nst_pipeline.jobs.job_table import JobTable
from nst_pipeline.jobs.ledger import Ledger, ledger_path
from nst_pipeline.jobs.outcome import Failure
from nst_pipeline.jobs.planning import make_scanner
from nst_pipeline.manifest import recorder
from nst_pipeline.manifest.model import JobRecord, schema
from nst_pipeline.manifest.recorder import Recorder
from nst_pipeline.runner import publishing
from nst_pipeline.runner.runner import Runner
from nst_pipeline.workers.local import LocalExecutor

SCHEMA = Path(__file__).parents[2] / "nst_pipeline" / "manifest" / "manifest.schema.json"


class WatchfulObserver(SilentObserver):
    """Checks after each job that the manifest on disk is whole."""

    def __init__(self, outbox: Path) -> None:
        super().__init__()
        self._outbox = outbox

    def finished(self, record: JobRecord) -> None:
        super().finished(record)
        (path,) = (self._outbox / "manifests").iterdir()
        manifest = json.loads(path.read_text())
        assert manifest["run"]["status"] == "running"
        assert len(manifest["jobs"]) == len(self.records)


@pytest.fixture
def config(project: Path) -> Config:
    return load(project / "pipeline.yaml")


def run(config: Config, executor: FakeExecutor | None = None, **options: Any) -> Recorder:
    return run_once(config, executor, WatchfulObserver(config.outbox), **options)


def painted(config: Config, **options: Any) -> list[str]:
    """Run, and return which outputs were painted."""
    executor = FakeExecutor()
    run_once(config, executor, **options)
    return sorted(job.output.name for job in executor.painted)


ALL = ["boat-ink.png", "boat-oil.png", "hill-ink.png", "hill-oil.png"]


def test_every_content_gets_every_style_and_the_manifest_is_whole_after_each_job(
    config: Config,
) -> None:
    manifest = run(config).manifest()
    assert sorted(path.name for path in config.outbox.glob("*.png")) == ALL
    with Image.open(config.outbox / "hill-oil.png") as output:
        assert output.info["title"] == "hill.png in oil"
    assert manifest.totals.done == 4 and manifest.run.status == "finished"


def test_the_manifest_follows_the_schema_that_is_shipped(config: Config) -> None:
    (config.inbox / "bad.jpg").write_text("hello")
    run(config, FakeExecutor({"hill": Failure("no paint", "Traceback ...")}))
    painted(config)
    shipped = json.loads(SCHEMA.read_text())
    assert shipped == schema()
    validator = Draft202012Validator(shipped)
    paths = list((config.outbox / "manifests").iterdir())
    assert len(paths) == 2
    for path in paths:
        validator.validate(json.loads(path.read_text()))


def test_the_manifest_tells_how_each_output_was_made(config: Config) -> None:
    recorder = run(config)
    manifest = json.loads(recorder.path.read_text())
    assert list(manifest) == [
        "run", "program", "device", "devices", "weights", "config", "jobs", "totals",
    ]  # fmt: skip
    device = {"name": "fake", "precision": "fp32", "threads": 2, "node": None}
    assert manifest["device"] == device and manifest["devices"] == [device]
    assert manifest["weights"]["id"] == "compact" and len(manifest["weights"]["sha256"]) == 64
    assert manifest["program"]["libraries"].keys() >= {"torch", "torchvision", "pillow"}
    assert manifest["config"]["styles"]["ink"]["recipe"]["iterations"] == 3
    assert manifest["totals"]["cache_hits"] == 3 and manifest["totals"]["cache_misses"] == 4
    job = manifest["jobs"][0]
    assert job["status"] == "done" and job["content"]["path"].endswith("boat.jpg")
    assert job["content"]["size"] == [48, 64] and job["output"]["size"] == [36, 48]
    assert job["losses"]["end"]["total"] == 3.0 and job["stop_reason"] == "iterations"


def test_a_job_that_fails_stops_no_other(config: Config) -> None:
    executor = FakeExecutor({"boat": Failure("no paint", "Traceback ...")})
    totals = run(config, executor).manifest().totals
    assert (totals.done, totals.failed) == (2, 2)
    assert painted(config) == ["boat-ink.png", "boat-oil.png"]


def test_files_that_are_no_images_fail_with_their_reason_and_the_others_are_painted(
    config: Config,
) -> None:
    (config.inbox / "bad.jpg").write_text("hello")
    (config.inbox / "cut.png").write_bytes((config.inbox / "hill.png").read_bytes()[:0])
    manifest = run(config).manifest()
    failed = {Path(j.content.path).name: j.error for j in manifest.jobs if j.status == "failed"}
    assert failed.keys() == {"bad.jpg", "cut.png"}
    assert "known format" in failed["bad.jpg"].reason and "empty" in failed["cut.png"].reason
    assert manifest.totals.done == 4


def test_a_second_run_paints_nothing_and_writes_no_manifest(config: Config) -> None:
    assert painted(config) == ALL
    before = list((config.outbox / "manifests").iterdir())

    def must_not_be_made(*_: object) -> FakeExecutor:
        raise AssertionError("an executor was made")

    manifest = run_once(config, must_not_be_made).manifest()
    assert manifest.totals.skipped == 4 and manifest.device is None
    assert {job.output.sha256 is not None for job in manifest.jobs if job.output} == {True}
    assert list((config.outbox / "manifests").iterdir()) == before


def test_very_many_skipped_jobs_are_counted_and_not_listed(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    painted(config)
    monkeypatch.setattr(recorder, "LISTED_SKIPPED", 3)
    manifest = run_once(config, FakeExecutor()).manifest()
    assert manifest.totals.skipped == manifest.totals.jobs == 4 and not manifest.jobs


def test_the_next_content_is_handed_over_while_one_is_painted(config: Config) -> None:
    executor = FakeExecutor()
    run(config, executor)
    assert executor.together == [["boat"], ["boat", "hill"]]


def test_what_was_begun_before_is_painted_alone(config: Config) -> None:
    run(config, FakeExecutor({"boat": Failure("no paint")}))
    (config.outbox / "hill-oil.png").unlink()
    executor = FakeExecutor()
    run_once(config, executor)
    assert executor.together == [["boat"], ["hill"]]


def test_the_same_bytes_side_by_side_are_painted_once(config: Config) -> None:
    (config.inbox / "boat2.jpg").write_bytes((config.inbox / "boat.jpg").read_bytes())
    executor = FakeExecutor()
    totals = run(config, executor).manifest().totals
    assert (totals.done, totals.duplicates) == (6, 2) and len(executor.painted) == 4


def test_force_paints_everything_again(config: Config) -> None:
    painted(config)
    assert painted(config, force=True) == ALL


def test_an_output_that_was_deleted_is_made_again(config: Config) -> None:
    painted(config)
    (config.outbox / "boat-oil.png").unlink()
    assert painted(config) == ["boat-oil.png"]


def test_only_what_changed_is_painted_again(config: Config) -> None:
    painted(config)
    picture(seed=9).save(config.inbox / "boat.jpg")
    assert painted(config) == ["boat-ink.png", "boat-oil.png"]
    picture(seed=9).save(config.styles["oil"].image)
    assert painted(config) == ["boat-oil.png", "hill-oil.png"]
    styles = dict(config.styles)
    recipe = styles["ink"].recipe.model_copy(update={"iterations": 4})
    styles["ink"] = styles["ink"].model_copy(update={"recipe": recipe})
    assert painted(config.model_copy(update={"styles": styles})) == ["boat-ink.png", "hill-ink.png"]


def test_every_image_of_a_style_counts_and_is_told_in_the_manifest(config: Config) -> None:
    ink, oil = (config.styles[name].image for name in ("ink", "oil"))
    regions = {"sky": {"image": ink}, "ground": {"images": {str(ink): 1, str(oil): 3}}}
    land = StyleSettings.model_validate({"regions": regions})
    config = config.model_copy(update={"styles": {"land": land}})
    told = run(config).manifest().jobs[0].style.images
    assert [(one.region, Path(one.path).name, one.weight) for one in told] == [
        ("sky", "ink.png", 1.0),
        ("ground", "ink.png", 0.25),
        ("ground", "oil.png", 0.75),
    ]
    assert painted(config) == []
    picture(seed=9).save(oil)
    assert painted(config) == ["boat-land.png", "hill-land.png"]
    oil.write_text("hello")
    with pytest.raises(ConfigError, match=r"^styles\.land: .*oil\.png: not an image"):
        run(config)


def test_a_touched_file_with_the_same_bytes_is_not_painted_again(config: Config) -> None:
    painted(config)
    (config.inbox / "boat.jpg").touch()
    assert painted(config) == []


def test_other_weights_paint_everything_again(config: Config, project: Path) -> None:
    painted(config)
    weights = project / "other.safetensors"
    save_file(load_file(COMPACT_PATH), weights, {"made": "anew"})
    assert painted(config.model_copy(update={"weights": str(weights)})) == ALL


def test_paths_are_painted_in_place_of_the_inbox(config: Config) -> None:
    assert painted(config, paths=[config.inbox / "hill.png"]) == ["hill-ink.png", "hill-oil.png"]


def test_inputs_are_left_as_they_are(config: Config) -> None:
    files = [*config.inbox.iterdir(), *(style.image for style in config.styles.values())]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
    run(config)
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_a_missing_inbox_and_a_style_that_is_no_image_are_config_errors(config: Config) -> None:
    config.styles["oil"].image.write_text("hello")
    config.styles["ink"].image.write_text("hello")
    with pytest.raises(ConfigError) as caught:
        run(config)
    assert [p.partition(":")[0] for p in caught.value.problems] == ["styles.ink", "styles.oil"]
    with pytest.raises(ConfigError, match="mount or create it"):
        run(config.model_copy(update={"inbox": config.inbox / "gone"}))


def test_an_outbox_that_cannot_be_written_stops_the_run_before_any_work(config: Config) -> None:
    config.outbox.touch()
    executor = FakeExecutor()
    with pytest.raises(CannotCreateError, match="permissions"):
        run(config, executor)
    assert not executor.painted


def test_a_full_disk_stops_the_run_and_the_manifest_says_how_far_it_came(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = publishing.write_temporary

    def full(path: Path, *rest: Any) -> Path:
        if path.name == "boat-oil.png":
            raise DiskFullError(f"{path}: No space left on device")
        return write(path, *rest)

    monkeypatch.setattr(publishing, "write_temporary", full)
    with pytest.raises(DiskFullError):
        run_once(config)
    (path,) = (config.outbox / "manifests").iterdir()
    manifest = json.loads(path.read_text())
    assert manifest["run"]["status"] == "stopped"
    assert [job["status"] for job in manifest["jobs"]] == ["done", "failed"]


def test_an_interrupt_leaves_the_record_of_what_was_done(config: Config) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_once(config, FakeExecutor({"hill": KeyboardInterrupt()}))
    (path,) = (config.outbox / "manifests").iterdir()
    manifest = json.loads(path.read_text())
    assert manifest["run"]["status"] == "stopped" and manifest["totals"]["done"] == 2
    assert painted(config) == ["hill-ink.png", "hill-oil.png"]


def test_a_job_that_is_at_work_for_nobody_is_done_by_the_next_run(config: Config) -> None:
    # What a ledger looks like whose last write failed, and was kept all the same.
    with Ledger(ledger_path(config.state)) as ledger:
        for job in plan_of(config, ledger).todo[:2]:
            ledger.jobs.start(ledger.jobs.of_source(job.content.path)[job.style.name, job.key].id)
        ledger.set_fact("clean", "yes")
    assert painted(config) == ALL


def test_a_companion_that_is_no_picture_fails_its_picture_by_its_own_name(config: Config) -> None:
    (config.inbox / "boat.mask.png").write_text("hello")
    manifest = run(config).manifest()
    errors = {(Path(j.content.path).name, j.status): j.error for j in manifest.jobs}
    assert errors.keys() == {("boat.jpg", "failed"), ("hill.png", "done")}
    error = errors["boat.jpg", "failed"]
    assert error and "boat.mask.png: not an image" in error.reason


def test_the_manifest_names_the_companions(config: Config) -> None:
    mask = config.inbox / "boat.mask.sky.png"
    picture(seed=9).save(mask)
    companions = {j.content.path: j.content.companions for j in run(config).manifest().jobs}
    assert companions[str(config.inbox / "hill.png")] == {}
    (found,) = companions[str(config.inbox / "boat.jpg")].items()
    assert found[0] == "mask.sky" and found[1].path == str(mask)
    assert found[1].sha256 == bytes_digest(mask.read_bytes())


def test_an_executor_with_jobs_in_flight_is_closed_when_the_ledger_fails_twice(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = FakeExecutor()

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    class Failing(SilentObserver):
        def stepped(self, *_: object) -> None:
            monkeypatch.setattr(JobTable, "state", full)
            monkeypatch.setattr(JobTable, "requeue", full)
            full()

    runner = Runner(config, executor, Failing())
    with pytest.raises(DiskFullError):
        runner.run()
    assert executor.capacity == executor.limit  # nothing is left in it
    monkeypatch.undo()
    assert run_once(config, executor).manifest().totals.done == 4


def test_an_executor_with_nothing_to_do_outlives_an_error(config: Config) -> None:
    executor, observer = FakeExecutor(), SilentObserver()
    with Runner(config, executor, observer) as runner:
        runner.run()
        config.inbox.rename(config.inbox.with_name("away"))
        with pytest.raises(InboxGoneError):
            runner.run_standing(make_scanner(config))
        config.inbox.with_name("away").rename(config.inbox)
        runner.run(force=True)
    assert executor.made == 1


def test_each_manifest_counts_its_own_use_of_the_cache(config: Config) -> None:
    with Runner(config, LocalExecutor, SilentObserver()) as runner:
        first, second = runner.run().manifest(), runner.run(force=True).manifest()
    assert (first.totals.cache_hits, first.totals.cache_misses) == (2, 2)
    assert (second.totals.cache_hits, second.totals.cache_misses) == (4, 0)


def test_a_run_in_one_style_leaves_the_jobs_of_the_others_in_the_queue(config: Config) -> None:
    with Ledger(ledger_path(config.state)) as ledger:
        plan_of(config, ledger)
        only = config.model_copy(update={"styles": {"ink": config.styles["ink"]}})
        run_once(only)
        states = {(e.source.name, e.style): e.state for e in ledger.jobs.all()}
    assert states == {
        ("boat.jpg", "ink"): "done", ("boat.jpg", "oil"): "queued",
        ("hill.png", "ink"): "done", ("hill.png", "oil"): "queued",
    }  # fmt: skip


# Folders as they are


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = make_home(tmp_path / "home", watch={"settle_seconds": 0})
    (home / "style2.png").unlink()
    return home


def test_what_is_no_picture_by_name_is_passed_over_told_and_fails_only_if_named(
    home: Path, here: Program
) -> None:
    draw(home / "inbox/a.png", 1)
    (home / "inbox/@eaDir").mkdir()
    draw(home / "inbox/@eaDir/thumb.png", 2)
    for name in ("a.MOV", "a.aae", "Thumbs.DB", "draft.png"):
        (home / "inbox" / name).write_text("no picture")
    configure(home, watch={"settle_seconds": 0}, also_ignore=["DRAFT.*"])
    done = program(home, "run")
    assert done.returncode == 0 and outputs(home) == ["a-s.png"]
    assert "passed   4 files by their names" in done.stdout
    assert "passed     4 files by their names" in here("check", cwd=home).stdout
    named = program(home, "run", "inbox/a.MOV")
    assert named.returncode == 1 and "a.MOV: not an image in a known format" in named.stdout


def test_links_out_of_the_inbox_and_styles_in_it_are_told_once(home: Path, here: Program) -> None:
    draw(home / "inbox/a.png", 1)
    draw(home / "outside.png", 2)
    (home / "inbox/b.png").symlink_to(home / "outside.png")
    draw(home / "inbox/style.png", 3)
    configure(home, watch={"settle_seconds": 0.2}, styles={"s": "inbox/style.png"})
    done = program(home, "run")
    assert done.returncode == 0 and outputs(home) == ["a-s.png"]
    assert done.stderr.count("inbox/b.png: a link to a folder or out of") == 1
    assert done.stderr.count("inbox/style.png: an image of the style s") == 1
    assert "passed     1 link to a folder or out" in here("check", cwd=home).stdout


@pytest.mark.parametrize("spelling", [".", "../home", "link"])
def test_results_among_the_pictures_are_never_painted_again(home: Path, spelling: str) -> None:
    draw(home / "a.png", 1)
    draw(home / "sub.png", 2)
    (home / "link").symlink_to(home)
    making = {"making": "gif", "snapshots": 1}
    configure(home, watch={"settle_seconds": 0}, output=making)
    for _ in range(2):
        done = program(home, "run", spelling, "--outbox", ".")
        assert done.returncode == 0, done.stderr
    assert painted_names(home) == ["a.png", "sub.png"]
    assert "6 results of earlier runs" in done.stdout
    draw(home / "new.png", 3)
    program(home, "run", spelling, "--outbox", ".")
    assert painted_names(home) == ["a.png", "sub.png", "new.png"]
    assert program(home, "run", "a-s.png", "--outbox", ".").returncode == 0
    assert painted_names(home)[3:] == ["a-s.png"]  # somebody named it


def test_a_pattern_that_names_pictures_and_their_results_paints_the_pictures(home: Path) -> None:
    draw(home / "a.png", 1)
    draw(home / "b.png", 2)
    for _ in range(3):
        names = sorted(path.name for path in home.glob("*.png") if path.name != "style.png")
        assert program(home, "run", *names, "--outbox", ".").returncode == 0
    assert painted_names(home) == ["a.png", "b.png"]


def test_an_outbox_among_the_pictures_is_told_and_not_searched(home: Path) -> None:
    draw(home / "a.png", 1)
    for outbox in ("out", "other"):
        for _ in range(2):
            done = program(home, "run", ".", "--outbox", outbox)
    assert painted_names(home) == ["a.png"]
    assert done.stderr.count("other: the outbox, passed over") == 1
    assert done.stderr.count("out: the outbox of an earlier run, passed over") == 1


def test_recovery_leaves_the_unfinished_files_of_another_pipeline_in_a_shared_outbox(
    home: Path,
) -> None:
    owners = {}
    for name in ("one", "two"):
        shared = {"outbox": "../shared", "processed": "../shared/done"}
        make_home(home / name, watch={"settle_seconds": 0}, **shared)
        draw(home / name / "inbox/a.png", 1)
        assert program(home / name, "run").returncode == 0
        with Ledger(ledger_path(home / name / "state")) as ledger:
            owners[name] = Folders((), ledger.owner())
            assert ledger.owner() == owners[name].owner
    left = {}
    for name, folders in owners.items():
        left[name] = [folders.temporary(home / place / "a.png") for place in ("shared", "shared/d")]
        for path in left[name]:
            path.parent.mkdir(exist_ok=True)
            path.touch()
    draw(home / "one/inbox/b.png", 2)
    (home / "one/orders").mkdir(exist_ok=True)
    (home / "one/orders/b.png").write_text("die")
    assert program(home / "one", "run").returncode == -signal.SIGKILL
    (home / "one/orders/b.png").unlink()
    assert program(home / "one", "run").returncode == 0
    assert not any(path.exists() for path in left["one"])
    assert all(path.exists() for path in left["two"])


@pytest.mark.parametrize("umask", [0o077, 0o027, 0o002])
def test_all_that_is_published_follows_the_umask(home: Path, umask: int) -> None:
    making = {"snapshots": 1, "making": "gif"}
    configure(home, watch={"settle_seconds": 0}, output=making)
    (home / "inbox").mkdir(exist_ok=True)
    draw(home / "inbox/a.png", 1)
    (home / "inbox/a.png").chmod(0o600)
    subprocess.run(command("run"), cwd=home, check=True, umask=umask, capture_output=True)
    files = [path for path in (home / "outbox").rglob("*") if path.is_file()]
    assert len(files) == 4
    assert {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~umask}
