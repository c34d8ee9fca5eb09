"""What people ask of the queue, beside a daemon at work."""

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from support import (
    Watch,
    command,
    configure,
    draw,
    make_home,
    outputs,
    program,
    states,
    wait_until,
)

from nst_pipeline.config.pipeline import load
from nst_pipeline.daemon.status import read_status
from nst_pipeline.jobs.ledger import Ledger, ledger_path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_home(tmp_path / "home")


def test_a_failed_file_that_stays_is_not_looked_at_again_until_retried(home: Path) -> None:
    configure(home, on_failure="keep")
    draw(home / "inbox/a.png", 1)
    (home / "orders/a.png").write_text("fail")
    with Watch(home) as watch:
        wait_until(lambda: watch.status()["failed"] == 1)
        watch.until_idle()
        draw(home / "inbox/b.png", 2)
        watch.until_outputs("b-s.png")
        (home / "orders/a.png").unlink()
        assert states(home)["a.png"] == "failed"
        assert program(home, "retry", "a.png").returncode == 0
        watch.until_outputs("a-s.png", "b-s.png")
        wait_until(lambda: watch.status()["failed"] == 0)


@pytest.mark.parametrize("bad", ["a.png", "a.mask.png"])
def test_what_was_given_up_and_stays_is_painted_once_the_limits_allow_it(
    home: Path, bad: str
) -> None:
    keep = {"on_failure": "keep"}
    configure(home, limits={"max_pixels": 64 * 48}, **keep)
    draw(home / "inbox/a.png", 1)
    Image.new("RGB", (68, 51)).save(home / "inbox" / bad)
    with Watch(home) as watch:
        wait_until(lambda: watch.status()["failed"] == 1)
        watch.until_idle()
        assert "limits.max_pixels" in watch.status()["failures"][0]["reason"]
        configure(home, **keep)
        watch.send(signal.SIGHUP)
        watch.until_outputs("a-s.png")
        wait_until(lambda: watch.status()["failed"] == 0)


def test_a_mask_that_was_given_up_alone_is_taken_when_its_picture_comes(home: Path) -> None:
    configure(home, on_failure="keep")
    draw(home / "inbox/a.mask.png", 2)
    with Watch(home) as watch:
        wait_until(lambda: watch.status()["failed"] == 1)
        watch.until_idle()
        draw(home / "inbox/a.png", 1)
        watch.until_outputs("a-s.png")


def test_retry_puts_failed_files_back(home: Path) -> None:
    for name in ("a.png", "b.png"):
        draw(home / "inbox" / name, ord(name[0]))
        (home / "orders" / name).write_text("fail")
    with Watch(home) as watch:
        wait_until((home / "failed/a.png").exists)
        wait_until((home / "failed/b.png").exists)
        for name in ("a.png", "b.png"):
            (home / "orders" / name).unlink()
        watch.until_idle()
        assert program(home, "retry", "--all-failed").returncode == 0
        watch.until_outputs("a-s.png", "b-s.png")
    assert not list((home / "failed").iterdir())


def give_up(home: Path, *names: str) -> None:
    """Have some pictures fail for good."""
    for name in names:
        draw(home / "inbox" / name, ord(name[0]))
        (home / "orders" / name).write_text("fail")
    with Watch(home) as watch:
        wait_until(lambda: watch.status()["failed"] == len(names))
        watch.until_idle()
        assert watch.stop() == 0
    for name in names:
        (home / "orders" / name).unlink(missing_ok=True)


def test_retry_goes_on_past_a_name_that_is_taken(home: Path) -> None:
    give_up(home, "a.png", "b.png", "c.png")
    draw(home / "inbox/a.png", 99)
    done = program(home, "retry", "--all-failed")
    assert done.returncode == 64 and "a.png: another file has its name" in done.stderr
    assert done.stdout.count("queued again") == 2
    assert (home / "failed/a.png").exists() and (home / "failed/a.png.error.json").exists()
    with Watch(home) as watch:
        watch.until_outputs("a-s.png", "b-s.png", "c-s.png")  # the other a.png
        assert watch.status()["failed"] == 1


def test_a_picture_does_not_come_back_without_its_mask(home: Path) -> None:
    draw(home / "inbox/a.mask.png", 5)
    draw(home / "inbox/a.png", 1)
    (home / "orders/a.png").write_text("fail")
    with Watch(home) as watch:
        wait_until(lambda: watch.status()["failed"] == 2)
        assert watch.stop() == 0
    draw(home / "inbox/a.mask.png", 6)
    assert program(home, "retry", "--all-failed").returncode == 64
    assert (home / "failed/a.png").exists() and (home / "failed/a.mask.png").exists()
    (home / "inbox/a.mask.png").unlink()
    assert program(home, "retry", "--all-failed").returncode == 0
    assert (home / "inbox/a.png").exists() and (home / "inbox/a.mask.png").exists()


def test_a_failure_whose_file_is_gone_is_told_no_more(home: Path) -> None:
    give_up(home, "a.png", "b.png")
    (home / "failed/a.png").unlink()
    (failure,) = read_status(load(home / "pipeline.yaml")).failures
    assert failure["source"].endswith("b.png")
    assert program(home, "retry", "--all-failed").stdout.count("queued again") == 1
    gone = program(home, "retry", "a.png")
    assert gone.returncode == 64 and "a.png: is gone" in gone.stderr
    assert "nothing has failed" in program(home, "retry", "--all-failed").stdout


@pytest.fixture
def other_disk(home: Path) -> Iterator[Path]:
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == home.stat().st_dev:
        pytest.skip("needs a second file system in /dev/shm")
    with tempfile.TemporaryDirectory(dir=shm) as folder:
        yield Path(folder)


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("kill", ["utimensat:1", "renameat2:2", "unlink:2", "unlink:3"])
def test_a_retry_that_was_killed_between_two_disks_is_completed_by_the_next(
    home: Path, other_disk: Path, kill: str
) -> None:
    configure(home, failed=str(other_disk / "failed"))
    give_up(home, "a.png")
    data = (other_disk / "failed/a.png").read_bytes()
    call, when = kill.split(":")
    killed = subprocess.run(
        ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}",
         "-e", f"inject={call}:signal=KILL:when={when}", *command("retry", "--all-failed")],
        cwd=home, capture_output=True,
    )  # fmt: skip
    assert killed.returncode != 0
    done = program(home, "retry", "--all-failed")
    assert done.returncode == 0, done.stderr
    assert (home / "inbox/a.png").read_bytes() == data
    assert [path.name for path in (home / "inbox").iterdir()] == ["a.png"]
    assert not list((other_disk / "failed").iterdir())
    assert not read_status(load(home / "pipeline.yaml")).failures
    with Watch(home) as watch:
        watch.until_outputs("a-s.png")


def test_a_pause_lasts_until_resume_also_over_a_restart(home: Path) -> None:
    with Watch(home) as watch:
        watch.until_idle()
        assert program(home, "pause").returncode == 0
        watch.until_state("paused")
        draw(home / "inbox/a.png", 1)
        assert watch.stop() == 0
    with Watch(home) as watch:
        watch.until_state("paused")
        assert not outputs(home)
        assert program(home, "resume").returncode == 0
        watch.until_outputs("a-s.png")


def test_cancel_stops_the_job_at_work_and_retry_brings_it_back(home: Path) -> None:
    draw(home / "inbox/a.png", 1)
    (home / "orders/a.png").write_text("slow")
    with Watch(home) as watch:
        watch.until_painting()
        assert program(home, "cancel", "a.png").returncode == 0
        watch.until_idle()
        assert states(home) == {"a.png": "cancelled"} and (home / "inbox/a.png").exists()
        (home / "orders/a.png").unlink()
        assert program(home, "retry", "a.png").returncode == 0
        watch.until_outputs("a-s.png")


def test_files_that_no_plan_has_come_to_yet_can_be_cancelled(home: Path) -> None:
    (home / "inbox/sub").mkdir()
    draw(home / "inbox/sub/a.png", 1)
    draw(home / "inbox/b.png", 2)
    done = program(home, "pause")
    assert done.returncode == 0
    with Watch(home) as watch:
        watch.until_state("paused")
        assert watch.stop() == 0
    with Ledger(ledger_path(home / "state")):
        pass
    done = program(home, "cancel", "sub/a.png")
    assert done.returncode == 0, done.stderr
    assert program(home, "resume").returncode == 0
    with Watch(home) as watch:
        watch.until_outputs("b-s.png")
        watch.until_idle()
        assert program(home, "retry", "sub/a.png").returncode == 0
        watch.until_outputs("b-s.png", "sub/a-s.png")
    assert "known" in program(home, "cancel", "nothing.png").stderr


def test_a_run_says_what_is_cancelled_and_how_it_comes_back(home: Path) -> None:
    draw(home / "inbox/a.png", 1)
    draw(home / "inbox/b.png", 2)
    with Ledger(ledger_path(home / "state")):
        pass
    assert program(home, "cancel", "a.png", "b.png").returncode == 0
    assert "2 are cancelled; `nst-pipeline retry`" in program(home, "run").stdout
    listed = program(home, "run", "--dry-run").stdout
    assert listed.count("hold ") == 3 and "cancelled; `nst-pipeline retry` puts it back" in listed
