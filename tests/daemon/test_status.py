"""What `status` tells, while a daemon works and without one."""

import json
import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest
from support import (
    Watch,
    command,
    draw,
    make_home,
    program,
    wait_until,
)

from nst_pipeline.config.pipeline import load
from nst_pipeline.daemon.notifier import Notifier
from nst_pipeline.daemon.reporter import Reporter
from nst_pipeline.daemon.status import STATUS_NAME


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_home(tmp_path / "home")


def test_status_tells_the_job_at_work_and_that_nobody_works(home: Path) -> None:
    draw(home / "inbox/a.png", 1)
    (home / "orders/a.png").write_text("slow")
    with Watch(home) as watch:
        watch.until_painting()
        done = program(home, "status")
        assert done.returncode == 0
        assert "job        a.png in s: iteration" in done.stdout and "alive" in done.stdout
        plain = json.loads(program(home, "status", "--json").stdout)
        assert plain["alive"] and plain["queue"] == 1 and plain["current"]["loss"] == 2.0
    done = program(home, "status")
    assert "not running" in done.stdout


def test_who_lost_the_state_folder_leaves_the_report_of_who_has_it_now(home: Path) -> None:
    config = load(home / "pipeline.yaml")
    config.state.mkdir()
    for is_ours in (False, True):
        reporter = Reporter(config, Notifier())
        reporter.state("idle")
        reporter.close(is_ours)
        assert (config.state / STATUS_NAME).exists() != is_ours


def test_status_counts_what_is_passed_over(home: Path) -> None:
    draw(home / "inbox/a.png", 1)
    draw(home / "outside.png", 2)
    (home / "inbox/b.png").symlink_to(home / "outside.png")
    with Watch(home) as watch:
        watch.until_outputs("a-s.png")
        watch.until_idle()
        (home / "inbox/a.mov").write_text("no picture")
        wait_until(lambda: watch.status()["passed_over"].get("by_name") == 1)
        text = program(home, "status").stdout
        assert "passed     1 file by its name, 1 link to a folder" in text
        watch.until_idle()
    log = watch.log.read_text()
    assert log.count("inbox/b.png: a link") == 1 and "a.mov" not in log
    assert not (home / "failed").exists()


def test_status_tells_what_failed_in_a_run_until_it_is_painted_or_gone(home: Path) -> None:
    names = ["a.png", "b.png", "c.png"]
    for name in names:
        (home / "inbox" / name).write_text("no picture")
    draw(home / "inbox/d.png", 4)
    (home / "orders/d.png").write_text("fail")
    assert program(home, "run").returncode == 1
    text = program(home, "status").stdout
    assert "jobs       0 done, 4 failed (4 files)" in text
    assert "inbox/b.png: not an image" in text and text.count("; left there\n") == 4
    draw(home / "inbox/a.png", 1)
    (home / "inbox/b.png").unlink()
    (home / "orders/d.png").unlink()
    program(home, "run")
    failures = json.loads(program(home, "status", "--json").stdout)["failures"]
    assert [Path(one["source"]).name for one in failures] == ["c.png"]
    # What was there before and came back was painted long ago.
    whole = (home / "inbox/d.png").read_bytes()
    for data in (b"no picture", whole):
        (home / "inbox/d.png").write_bytes(data)
        program(home, "run")
    assert "1 failed (1 file)," in program(home, "status").stdout


def test_status_tells_the_last_failures_and_how_many_more_there_are(home: Path) -> None:
    for number in range(7):
        (home / "inbox" / f"{number}.png").write_text("no picture")
    program(home, "run")
    text = program(home, "status").stdout
    assert text.count("not an image") == 6 and "failed     2 more before them; --json" in text
    assert len(json.loads(program(home, "status", "--json").stdout)["failures"]) == 7


def test_a_run_of_other_files_than_the_inbox_leaves_the_status_alone(home: Path) -> None:
    (home / "else.png").write_text("no picture")
    assert program(home, "run", "else.png").returncode == 1
    assert " done, 0 failed, " in program(home, "status").stdout


def test_status_and_cancel_know_what_waits_behind_a_pause_and_behind_a_long_job(home: Path) -> None:
    with Watch(home) as watch:
        watch.until_idle()
        assert program(home, "pause").returncode == 0
        watch.until_state("paused")
        for name in ("a.png", "b.png", "c.png"):
            draw(home / "inbox" / name, ord(name[0]))
        assert "queue      3 jobs, " in program(home, "status").stdout
        assert program(home, "cancel", "b.png").returncode == 0
        assert "queue      2 jobs, " in program(home, "status").stdout
        (home / "orders/a.png").write_text("slow")
        assert program(home, "resume").returncode == 0
        watch.until_painting()
        draw(home / "inbox/d.png", 4)
        assert "queue      3 jobs, " in program(home, "status").stdout
        assert program(home, "cancel", "d.png").returncode == 0
        (home / "orders/a.png").unlink()
        watch.until_outputs("a-s.png", "c-s.png")
        watch.until_idle()


def test_the_status_is_followed_in_one_place_of_a_terminal(home: Path) -> None:
    primary, secondary = pty.openpty()
    process = subprocess.Popen(
        command("status", "--follow"),
        cwd=home,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # as at a terminal
        stdout=secondary,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(secondary)
    shown = b""
    while shown.count(b"not running") < 4:  # twice in each of two
        shown += os.read(primary, 4096)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0 and b"\x1b[1A" in shown
    os.close(primary)


def test_status_tells_what_each_of_several_workers_does(home: Path) -> None:
    for number in range(3):
        draw(home / f"inbox/{number}.png", number)
        (home / f"orders/{number}.png").write_text("slow")
    with Watch(home, FAKE_WORKERS="20") as watch:
        wait_until(lambda: sum(one["job"] is not None for one in watch.status()["workers"]) == 3)
        workers = json.loads(program(home, "status", "--json").stdout)["workers"]
        at_work = [one for one in workers if one["job"]]
        assert len(workers) == 20 and {one["node"] for one in workers} == {"n0", "n1"}
        assert {Path(one["job"]["content"]).name for one in at_work} == {
            f"{n}.png" for n in range(3)
        }
        assert all(one["iterations"] == 2 and one["memory_bytes"] == 1000 for one in at_work)
        text = program(home, "status").stdout
        assert "state      painting: with 20 workers" in text
        assert "workers    20 on 2 nodes, 3 at work" in text and "and 4 more" in text
        assert "0.png in s: iteration" in text and "device  " not in text
        for number in range(3):
            (home / f"orders/{number}.png").unlink()
        watch.until_idle()
        wait_until(lambda: sum(one["jobs_done"] for one in watch.status()["workers"]) == 3)
        assert not any(one["job"] for one in watch.status()["workers"])


def test_the_one_worker_of_the_daemon_is_listed_for_programs_alone(home: Path) -> None:
    draw(home / "inbox/a.png", 1)
    with Watch(home) as watch:
        watch.until_outputs("a-s.png")
        watch.until_idle()
        text = program(home, "status").stdout
        assert "workers" not in text and "device     fake" in text
        assert [one["name"] for one in watch.status()["workers"]] == ["fake"]
