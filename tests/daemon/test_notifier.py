"""What systemd is told."""

import random
import signal
import socket
import time
from itertools import pairwise
from pathlib import Path

import pytest
from support import (
    Watch,
    configure,
    draw,
    make_home,
    program,
    wait_until,
)

from nst_pipeline.daemon.notifier import Notifier


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_home(tmp_path / "home")


def test_systemd_is_told_of_readiness_progress_reloads_and_the_end(home: Path) -> None:
    path = str(home / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(60)
        told: list[str] = []

        def until(text: str) -> None:
            while not any(text in message for message in told):
                told.append(manager.recv(4096).decode())

        draw(home / "inbox/a.png", 1)
        with Watch(home, NOTIFY_SOCKET=path, WATCHDOG_USEC="40000") as watch:
            until("READY=1")
            until("STATUS=painting: a.png in s")
            until("WATCHDOG=1")
            until("STATUS=idle")
            watch.send(signal.SIGHUP)
            until("RELOADING=1")
            watch.send(signal.SIGTERM)
            until("STOPPING=1")


@pytest.mark.parametrize("what", ["idle", "paused", "waiting", "waiting for room"])
def test_the_watchdog_hears_of_a_daemon_that_waits_however_rare_its_scans_are(
    home: Path, what: str
) -> None:
    configure(home, watch={"rescan_seconds": 86400})
    if what == "paused":
        assert program(home, "pause").returncode == 0
    if what == "waiting":
        (home / "outbox").write_text("no folder")
        draw(home / "inbox/a.png", 1)
    if what == "waiting for room":
        configure(home, limits={"min_free_bytes": 2**60})
    path = str(home / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(60)
        with Watch(home, NOTIFY_SOCKET=path, WATCHDOG_USEC="40000"):
            while not manager.recv(4096).startswith(f"STATUS={what.split()[0]}".encode()):
                pass
            for _ in range(50):  # far more than there are scans, and nothing else
                while (told := manager.recv(4096)) != b"WATCHDOG=1":
                    assert told.startswith((b"STATUS=waiting", b"READY=1"))


@pytest.mark.parametrize("seconds", [0.05, 1.0, 600.0])
def test_what_is_called_as_often_as_asked_never_lets_the_watchdog_bite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", str(int(seconds * 1e6)))
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    now, told = 1000.0, [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now)
    notifier, source = Notifier(), random.Random(1)
    monkeypatch.setattr(notifier, "tell", lambda **_: told.append(now))
    for _ in range(1000):
        now += source.uniform(0, notifier.alive_seconds)
        notifier.alive()
    gaps = [later - sooner for sooner, later in pairwise(told)]
    assert len(gaps) > 250 and max(gaps) <= seconds / 2


def test_no_value_can_pass_for_another_assignment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        Notifier().tell(STATUS="a\nSTOPPING=1\r\x85b", READY=1)
        assert manager.recv(4096) == b"STATUS=a\\nSTOPPING=1\\r\\x85b\nREADY=1"


def test_the_watchdog_hears_nothing_while_a_job_makes_no_step(home: Path) -> None:
    path = str(home / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        draw(home / "inbox/a.png", 1)
        (home / "orders/a.png").write_text("hang")
        with Watch(home, NOTIFY_SOCKET=path, WATCHDOG_USEC="40000") as watch:
            watch.until_painting()
            # Many watchdog times long the process is alive, and its job makes no step.
            manager.settimeout(1)

            def is_silent() -> bool:
                try:
                    manager.recv(4096)
                except TimeoutError:
                    return True
                return False

            wait_until(is_silent)
            (home / "orders/a.png").unlink()
            manager.settimeout(60)
            wait_until(lambda: b"WATCHDOG=1" in manager.recv(4096))


def test_the_watchdog_hears_of_every_new_file_that_is_read(home: Path) -> None:
    for number in range(100):
        draw(home / f"inbox/{number}.png", number)
    path = str(home / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(60)
        with Watch(home, NOTIFY_SOCKET=path, WATCHDOG_USEC="4"):
            told = []
            while (message := manager.recv(4096)) != b"READY=1":  # the first look is over
                told.append(message)
            assert told.count(b"WATCHDOG=1") >= 100
