"""Logs for programs and for the journal."""

import json
from pathlib import Path

import pytest
from support import (
    Watch,
    draw,
    make_home,
    wait_until,
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_home(tmp_path / "home")


def test_logs_are_json_where_asked_and_name_the_job(home: Path) -> None:
    draw(home / "inbox/a.png", 1)
    with Watch(home, "--log-format", "json") as watch:
        watch.until_outputs("a-s.png")
        assert watch.stop() == 0
        lines = [json.loads(line) for line in watch.log.read_text().splitlines()]
    (done,) = [line for line in lines if line["message"].startswith("done")]
    assert done["content"].endswith("a.png") and done["style"] == "s" and len(done["job"]) == 12


def test_lines_for_the_journal_carry_their_priority(home: Path) -> None:
    (home / "inbox/bad.png").write_text("hello")
    with Watch(home, "--log-format", "journald") as watch:
        wait_until((home / "failed/bad.png").exists)
        assert watch.stop() == 0
    lines = watch.log.read_text().splitlines()
    assert all(line.startswith("<") for line in lines)
    assert any(line.startswith("<3>") and "bad.png" in line for line in lines)
