"""The record of a run: complete after a kill, and never poorer than before."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from support import Watch, configure, draw, make_home, manifests, program, wait_until

from nst_pipeline.digests import bytes_digest
from nst_pipeline.folders import Folders
from nst_pipeline.jobs.ledger import Ledger, ledger_path
from nst_pipeline.manifest.model import Manifest, job_json, to_json
from nst_pipeline.manifest.recorder import rebuild


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a place where two jobs are done, and the third killed its run."""
    home = make_home(tmp_path / "home", watch={"settle_seconds": 0})
    for number, name in enumerate(("a.png", "b.png")):
        draw(home / "inbox" / name, number)
    assert program(home, "run").returncode == 0
    shutil.rmtree(home / "outbox/manifests")
    for number, name in enumerate(("c.png", "d.png")):
        draw(home / "inbox" / name, 10 + number)
    (home / "orders/d.png").write_text("die")
    assert program(home, "run").returncode == -signal.SIGKILL
    (home / "orders/d.png").unlink()
    return home


def test_jobs_written_one_by_one_make_the_same_json_as_all_at_once(home: Path) -> None:
    (path,) = (home / "outbox/manifests").iterdir()
    manifest = Manifest.model_validate_json(path.read_bytes())
    assert len(manifest.jobs) == 3
    bare = manifest.model_copy(update={"jobs": []})
    assert to_json(bare, map(job_json, manifest.jobs)) == to_json(manifest) == path.read_text()
    assert to_json(bare, []) == to_json(bare)


def rebuilt(home: Path) -> list[Path]:
    with Ledger(ledger_path(home / "state")) as ledger:
        return rebuild(ledger.runs, Folders())


def test_a_manifest_that_a_kill_left_whole_gets_its_end_and_keeps_the_rest(home: Path) -> None:
    (before,) = manifests(home)
    assert before["run"]["status"] == "running"
    assert [job["status"] for job in before["jobs"]] == ["skipped", "skipped", "done"]
    assert before["totals"]["cache_hits"] == 3
    (path,) = rebuilt(home)
    after = json.loads(path.read_text())
    assert after["run"]["status"] == "stopped"
    assert after["jobs"] == before["jobs"] and after["totals"] == before["totals"]
    assert rebuilt(home) == []


@pytest.mark.parametrize("damage", ["lost", "cut"])
def test_a_manifest_that_is_lost_or_damaged_is_written_anew(home: Path, damage: str) -> None:
    (path,) = (home / "outbox/manifests").iterdir()
    path.unlink() if damage == "lost" else path.write_bytes(path.read_bytes()[:300])
    assert rebuilt(home) == [path]
    manifest = Manifest.model_validate_json(path.read_bytes())
    assert manifest.run.status == "stopped"
    assert [job.status for job in manifest.jobs] == ["done"]
    # The skipped jobs are not in the ledger's records, but their number is.
    assert (manifest.totals.skipped, manifest.totals.done, manifest.totals.jobs) == (2, 1, 3)


def test_a_job_that_the_manifest_missed_is_added_from_the_ledger(home: Path) -> None:
    (path,) = (home / "outbox/manifests").iterdir()
    manifest = json.loads(path.read_text())
    manifest["jobs"] = [job for job in manifest["jobs"] if job["status"] == "skipped"]
    path.write_text(json.dumps(manifest))
    assert rebuilt(home) == [path]
    after = Manifest.model_validate_json(path.read_bytes())
    assert [job.status for job in after.jobs] == ["skipped", "skipped", "done"]
    assert (after.totals.skipped, after.totals.done) == (2, 1)


def test_a_finished_manifest_is_left_alone(home: Path) -> None:
    assert program(home, "run").returncode == 0
    before = {path: path.stat().st_mtime_ns for path in (home / "outbox/manifests").iterdir()}
    assert len(before) == 2 and rebuilt(home) == []
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_the_manifest_of_a_daemons_run_is_completed_after_a_kill(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    configure(home, watch={"settle_seconds": 0})
    for number, name in enumerate(("b.png", "c.png")):
        draw(home / "inbox" / name, number)
    (home / "orders/c.png").write_text("slow")
    with Watch(home) as watch:
        watch.until_outputs("b-s.png")
        wait_until(lambda: (watch.status()["current"] or {}).get("content", "").endswith("c.png"))
        watch.process.kill()
    (path,) = (home / "outbox/manifests").iterdir()
    path.unlink()
    (home / "orders/c.png").unlink()
    with Watch(home) as watch:
        watch.until_outputs("b-s.png", "c-s.png")
        watch.until_idle()
    manifest = Manifest.model_validate_json(path.read_bytes())
    assert manifest.run.status == "stopped"
    assert [Path(job.content.path).name for job in manifest.jobs] == ["b.png"]


def test_a_name_of_a_byte_and_one_of_its_escape_are_two_records(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", watch={"settle_seconds": 0})
    names = [os.fsdecode(b"\xff.png"), "\\xff.png"]
    for number, name in enumerate(names):
        draw(home / "inbox" / name, number)
    done = program(home, "run")
    assert done.returncode == 0 and done.stdout.count("done  ") == 2
    (path,) = (home / "outbox/manifests").iterdir()
    jobs = Manifest.model_validate_json(path.read_bytes()).jobs
    assert [job.content.path for job in jobs] == [str(home / "inbox/\\xff.png")] * 2
    outputs = set()
    for job in jobs:
        raw = bytes.fromhex(job.content.raw) if job.content.raw else job.content.path.encode()
        assert bytes_digest(Path(os.fsdecode(raw)).read_bytes()) == job.content.sha256
        assert job.output
        outputs.add(job.output.place)
    assert len(outputs) == 2
    path.unlink()
    assert rebuilt(home) == [path]
    assert len(Manifest.model_validate_json(path.read_bytes()).jobs) == 2
