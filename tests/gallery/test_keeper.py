"""The gallery beside a run and a daemon: up to date, and no fault of it is theirs."""

import contextlib
import errno
import fcntl
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from exhibition import change, contents, make_exhibition, pieces, settings
from support import SilentObserver, Watch, draw, manifests, outputs, run_once, wait_until

from nst_pipeline.gallery import keeper, site
from nst_pipeline.gallery.keeper import Keeper

GALLERY = {"output": {"gallery": True}}


def shown(home: Path) -> list[str]:
    return sorted(contents(home)) if (home / "outbox/gallery/index.html").exists() else []


def test_a_run_ends_with_its_gallery_up_to_date(tmp_path: Path) -> None:
    home = make_exhibition(tmp_path / "home", is_hostile=False, **GALLERY)
    assert shown(home) == ["boat.png", "hill.png"]
    draw(home / "inbox/new.png", 7)
    run_once(settings(home))
    assert shown(home) == ["boat.png", "hill.png", "new.png"]
    assert all(piece["made"]["device"] == "fake" for piece in pieces(home).values())
    (home / "outbox/new-ink.png").unlink()
    (home / "inbox/new.png").unlink()
    run_once(settings(home))  # with nothing to do
    assert pieces(home)["new.png", "ink"]["status"] == "gone"


def test_a_daemon_keeps_it_up_to_date_while_it_works(tmp_path: Path) -> None:
    home = make_exhibition(tmp_path / "home", is_hostile=False, **GALLERY)
    with Watch(home) as watch:
        watch.until_idle()
        draw(home / "inbox/new.png", 7)
        wait_until(lambda: "new.png" in shown(home))
        draw(home / "inbox/late.png", 8)
        wait_until(lambda: any("late-oil" in name for name in outputs(home)))
        assert watch.stop() == 0
    assert "late.png" in shown(home)


def test_a_gallery_that_cannot_be_written_is_told_once_and_fails_no_job(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = make_exhibition(tmp_path / "home", is_hostile=False)
    (home / "outbox/gallery").write_text("in the way")
    path = home / "pipeline.yaml"
    path.write_text(json.dumps(json.loads(path.read_text()) | GALLERY))
    for number in range(3):
        draw(home / f"inbox/new{number}.png", 20 + number)
    observer = SilentObserver()
    with caplog.at_level(logging.WARNING):
        run_once(settings(home), observer=observer)
    assert [record.status for record in observer.records] == ["done"] * 6
    assert manifests(home)[-1]["run"]["status"] == "finished"
    told = [one for one in caplog.messages if "gallery" in one]
    assert len(told) == 1 and told[0].endswith("the gallery stays as it was until the next update")
    assert (home / "outbox/gallery").read_text() == "in the way"


def test_one_picture_that_cannot_be_shown_spoils_no_other(tmp_path: Path) -> None:
    home = make_exhibition(tmp_path / "home", is_hostile=False)
    (home / "outbox/boat-ink.png").write_bytes(b"no picture any more")
    (home / "inbox/trip/hill.png").write_bytes(b"nor this")
    path = home / "pipeline.yaml"
    path.write_text(json.dumps(json.loads(path.read_text()) | GALLERY))
    run_once(settings(home))
    found = pieces(home)
    assert "picture" not in found["boat.png", "ink"] and found["boat.png", "oil"]["picture"]


@contextlib.contextmanager
def held(home: Path) -> Iterator[None]:
    """Hold the gallery's lock, as another process would."""
    (home / "outbox/gallery").mkdir(exist_ok=True)
    with (home / "outbox/gallery/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test_whoever_holds_the_lock_keeps_no_process_from_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_exhibition(tmp_path / "home", is_hostile=False)
    monkeypatch.setattr(keeper, "CLOSE_SECONDS", 0.2)
    with held(home):
        beside = Keeper(settings(home))
        beside.look()
        closing = threading.Thread(target=beside.close, daemon=True)
        closing.start()
        closing.join(20)
        assert not closing.is_alive()


def test_a_run_does_not_wait_for_ever_for_who_holds_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    home = make_exhibition(tmp_path / "home", is_hostile=False)
    change(home, output={"gallery": True})
    monkeypatch.setattr(site, "WAIT_SECONDS", 0.2)
    with held(home):
        run_once(settings(home))
    assert "another process has held it" in caplog.text
    assert not (home / "outbox/gallery/index.html").exists()


def test_a_thread_that_cannot_be_started_is_no_jobs_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    home = make_exhibition(tmp_path / "home", is_hostile=False)
    change(home, output={"gallery": True})
    draw(home / "inbox/new.png", 7)
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "gallery":
            raise RuntimeError("can't start new thread")
        start(thread)

    observer = SilentObserver()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        run_once(settings(home), observer=observer)
    assert [record.status for record in observer.records] == ["done"] * 2
    assert caplog.text.count("can't start new thread") == 1
    run_once(settings(home))
    assert "new.png" in shown(home)


def test_an_update_that_failed_is_made_later_though_nobody_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    home = make_exhibition(tmp_path / "home", is_hostile=False)
    monkeypatch.setattr(keeper, "EVERY_SECONDS", 0.0)
    monkeypatch.setattr(keeper, "AGAIN_SECONDS", 0.1)
    config, is_barred = settings(home), threading.Event()
    is_dir = Path.is_dir

    def barred(path: Path) -> bool:
        if path == config.outbox and is_barred.is_set():
            raise PermissionError(errno.EACCES, "Permission denied")
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", barred)
    beside = Keeper(config)
    is_barred.set()
    beside.look()
    wait_until(lambda: "Permission denied" in caplog.text)
    is_barred.clear()
    wait_until(lambda: shown(home) == ["boat.png", "hill.png"])
    beside.close()


def test_the_end_of_a_process_begins_no_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_exhibition(tmp_path / "home", is_hostile=False)
    monkeypatch.setattr(keeper, "EVERY_SECONDS", 0.0)
    monkeypatch.setattr(keeper, "SHARE", 0)
    calls = []
    monkeypatch.setattr(site, "update", lambda *_, **__: calls.append(1))
    beside = Keeper(settings(home))
    beside.look()
    beside.close()
    assert calls == [1]


@pytest.mark.parametrize(("room", "kept"), [(0, True), (10**18, False)])
def test_no_photograph_is_kept_in_the_room_that_jobs_need(
    tmp_path: Path, room: int, kept: bool
) -> None:
    home = make_exhibition(tmp_path / "home", is_hostile=False, on_success="move")
    draw(home / "inbox/new.png", 7)
    observer = SilentObserver()
    run_once(settings(home), observer=observer)
    (home / "processed/new.png").rename(home / "inbox/new.png")
    change(home, on_success="delete", limits={"min_free_bytes": room})
    beside = Keeper(settings(home))
    beside._is_closing.set()  # no update makes what is not kept
    beside.note(observer.records[0])
    assert bool(list(home.glob("outbox/gallery/pictures/*/*.webp"))) == kept
