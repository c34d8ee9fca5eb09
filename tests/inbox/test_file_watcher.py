"""The doorbell."""

from pathlib import Path

import pytest
from support import wait_until

from nst_pipeline.inbox import file_watcher
from nst_pipeline.inbox.file_watcher import FileWatcher, WakeUp


def test_a_bell_is_heard_until_it_is_quieted() -> None:
    bell = WakeUp()
    assert not bell.is_rung()
    for _ in range(100_000):
        bell.ring()  # more than a pipe holds
    assert bell.is_rung() and bell.wait(60)
    bell.quiet()
    assert not bell.is_rung() and not bell.wait(0)
    bell.close()


def test_changes_ring_and_reading_does_not(tmp_path: Path) -> None:
    bell = WakeUp()
    watching = FileWatcher(tmp_path, "off", bell.ring)
    watching.arm()
    assert watching.has_events and bell.is_rung()  # for what was there before
    bell.quiet()
    (tmp_path / "sub").mkdir()
    assert bell.wait(60)
    path = tmp_path / "a.png"
    path.write_text("x")
    wait_until(bell.is_rung)
    wait_until(lambda: _is_silent(bell))
    list(tmp_path.iterdir())
    path.read_text()
    assert not bell.wait(0.3)
    watching.close()
    bell.close()


def _is_silent(bell: WakeUp) -> bool:
    bell.quiet()
    return not bell.wait(0.3)


def test_a_folder_that_was_replaced_is_watched_anew(tmp_path: Path) -> None:
    root = tmp_path / "inbox"
    root.mkdir()
    bell = WakeUp()
    watching = FileWatcher(root, "off", bell.ring)
    watching.arm()
    root.rename(tmp_path / "away")
    root.mkdir()
    watching.arm()
    wait_until(lambda: _is_silent(bell))
    (root / "a.png").write_text("x")
    assert bell.wait(60)
    watching.close()
    bell.close()


def test_an_observer_whose_emitters_ended_is_replaced(tmp_path: Path) -> None:
    bell = WakeUp()
    watching = FileWatcher(tmp_path, "off", bell.ring)
    watching.arm()
    assert watching._observer is not None
    for emitter in list(watching._observer.emitters):
        emitter.stop()
        emitter.join()
    watching.arm()
    wait_until(lambda: _is_silent(bell))
    (tmp_path / "a.png").write_text("x")
    assert bell.wait(60)
    watching.close()
    bell.close()


@pytest.mark.parametrize("polling", ["on", "auto"])
def test_polling_is_chosen_by_setting_and_by_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, polling: str
) -> None:
    monkeypatch.setattr(file_watcher, "is_network", lambda _: True)
    watching = FileWatcher(tmp_path, polling, lambda: None)  # type: ignore[arg-type]
    watching.arm()
    assert not watching.has_events


def test_without_watches_left_the_folder_is_read_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr(file_watcher.Observer, "schedule", refuse)
    watching = FileWatcher(tmp_path, "off", lambda: None)
    watching.arm()
    assert not watching.has_events
