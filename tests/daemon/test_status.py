"""What `status` tells, while a daemon works and without one."""

import json
from pathlib import Path

import pytest
from support import (
    Watch,
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
        assert "passed     1 files that are no pictures by name, 1 links to folders" in text
        watch.until_idle()
    log = watch.log.read_text()
    assert log.count("inbox/b.png: a link") == 1 and "a.mov" not in log
    assert not (home / "failed").exists()
