"""What `status` tells, while a daemon works and without one."""

import json
from pathlib import Path

import pytest
from support import (
    Watch,
    draw,
    make_home,
    program,
)


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
