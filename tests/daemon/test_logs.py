"""Logs for programs and for the journal."""

import json
import logging
import os
import re
import signal
import socket
from pathlib import Path

import pytest
from conftest import Program
from support import (
    FakeExecutor,
    Watch,
    configure,
    draw,
    make_home,
    manifests,
    program,
    wait_until,
)

from nst_pipeline.daemon import logs
from nst_pipeline.errors import ConfigError
from nst_pipeline.workers import local


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


# Names that pretend to be more than names

FORGED = (
    "\n<0>2026-01-01 00:00:00 ERROR   forged\x1b[2J\u202e\x85READY=1\rSTATUS=forged"
    "\nWATCHDOG=trigger\nSTOPPING=1\n "
)
ACTING = re.compile(
    r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]"
    r"|^(<0>|STATUS=f|READY=1$|WATCHDOG=t|STOPPING)",
    re.M,
)
"""What may stand in no text for people."""


@pytest.fixture
def forged(tmp_path: Path) -> Path:
    """A home with settings, pictures, and failures whose every path is forged."""
    home = make_home(tmp_path / f"home{FORGED}", on_failure="keep")
    draw(os.fsencode(home / "inbox") + b"/" + FORGED.encode() + b"\xff.png", 1)
    (home / "inbox" / f"{FORGED}bad.png").write_text("no picture")
    (home / "inbox" / f"{FORGED}link.png").symlink_to(home / "style.png")
    (home / "inbox" / f"{FORGED}.mask.png").write_text("no picture's mask")
    draw(home / "inbox" / f"{FORGED}fail.png", 2)
    (home / "orders" / f"{FORGED}fail.png").write_text("fail")
    draw(home / "inbox" / f"style{FORGED}.png", 3)
    return home


def check_harmless(text: str) -> None:
    assert text and not ACTING.search(text), ascii(text)


def test_no_command_prints_a_name_that_is_more_than_a_name(
    forged: Path, here: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "LocalExecutor", FakeExecutor(limit=1))
    style = f"inbox/style{FORGED}.png"
    for arguments in (
        ["check"],
        ["run", "--dry-run"],
        ["run"],
        ["run"],
        ["run", "--force", "-s", style],
        ["run", "inbox", "--outbox", f"out{FORGED}"],
        ["run", f"gone{FORGED}"],
        ["run", "-s", f"gone{FORGED}"],
        ["check", "-c", f"gone{FORGED}"],
        ["status"],
        ["retry", f"gone{FORGED}"],
        ["cancel", f"gone{FORGED}"],
        ["init", "."],
        ["init", f"new{FORGED}"],
        ["weights"],
    ):
        done = here(*arguments, cwd=forged)
        assert "Traceback" not in done.stderr
        check_harmless(done.stdout + done.stderr)
    configure_text = (forged / "pipeline.yaml").read_text()
    (forged / "pipeline.yaml").write_text(configure_text.replace("style.png", "gone.png"))
    check_harmless(here("check", cwd=forged).stderr)


@pytest.mark.parametrize("kind", ["human", "journald"])
def test_no_log_line_and_no_status_is_forged_by_a_name(
    forged: Path, kind: str, tmp_path: Path
) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(60)
        told: list[str] = []
        with Watch(forged, "--log-format", kind, NOTIFY_SOCKET=address) as watch:
            while not any(message.startswith("STATUS=idle") for message in told):
                told.append(manager.recv(65536).decode())
            wait_until(lambda: watch.status()["failed"] == 3)
            text = program(forged, "status").stdout
            (name,) = re.findall(r"^failed +(\S.*fail\.png): told to fail", text, re.M)
            draw(forged / "inbox" / f"{FORGED}more.png", 5)
            watch.send(signal.SIGHUP)
            wait_until(lambda: len(list((forged / "outbox").glob("*.png"))) == 3)
            (forged / "orders" / f"{FORGED}fail.png").unlink()
            done = program(forged, "retry", name)  # as it was printed
            assert done.returncode == 0, done.stderr
            wait_until(lambda: len(list((forged / "outbox").glob("*.png"))) == 4)
            assert watch.stop() == 0
    for line in watch.log.read_text().split("\n")[:-1]:
        check_harmless(line)
        assert re.match(r"<[3467]>" if kind == "journald" else r"\d{4}-\d\d-\d\d ", line)
    check_harmless(text)
    assert any("STATUS=painting: " in message for message in told)
    for message in told:
        if message not in ("READY=1", "STOPPING=1"):
            assert len(message.split("\n")) == 1 + message.startswith("RELOADING=1")
            check_harmless(message)


def test_programs_get_a_name_as_it_is(forged: Path, here: Program) -> None:
    program(forged, "run")
    paths = [job["content"]["path"] for job in manifests(forged)[0]["jobs"]]
    assert any(path.endswith(f"{FORGED}\\xff.png") for path in paths)
    plan = json.loads(here("run", "--dry-run", "--json", cwd=forged).stdout)
    assert str(forged / "inbox" / f"{FORGED}fail.png") in [row["content"] for row in plan]


@pytest.mark.parametrize("name", ["a\x1bb", "a\u202eb", "a\nb", "\x85"])
def test_a_style_or_region_has_no_such_name(tmp_path: Path, name: str) -> None:
    home = make_home(tmp_path / "home")
    with pytest.raises(ConfigError, match="cannot be a style's name"):
        configure(home, styles={name: "style.png"})
    with pytest.raises(ConfigError, match="cannot be a region's name"):
        configure(home, styles={"s": {"regions": {name: "style.png"}}})


def test_a_line_within_a_message_is_no_line_of_the_log() -> None:
    try:
        raise ValueError("x\n2026-01-01 00:00:00 ERROR   forged\x1b[2J")
    except ValueError as error:
        what = (ValueError, error, error.__traceback__)
        record = logging.LogRecord("x", logging.ERROR, "", 0, "a\nb", (), what)
    first, *others = logs._Human().format(record).split("\n")
    assert first.endswith("ERROR   a") and others[0] == "  b"
    assert others[-1] == "  2026-01-01 00:00:00 ERROR   forged\\x1b[2J"
    assert all(line.startswith("  ") for line in others)


def test_what_a_library_says_acts_no_more_than_a_name() -> None:
    said = "a\x1b[2J\u2028<0>b\nc"
    record = logging.LogRecord("x", logging.ERROR, "", 0, "%s", (said,), None)
    assert logs._Journald().format(record) == "<3>a\\x1b[2J\\u2028<0>b\n<3>  c"
    assert logs._Human().format(record).endswith("ERROR   a\\x1b[2J\\u2028<0>b\n  c")
