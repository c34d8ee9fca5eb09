"""What wakes the daemon when the inbox changes, and what it does where nothing can."""

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import pytest
from support import as_nobody, nest, wait_until
from watchdog.observers import Observer

from nst_pipeline.errors import InboxGoneError
from nst_pipeline.inbox import file_watcher
from nst_pipeline.inbox.file_watcher import ATTEMPTS, FileWatcher

Watch = Callable[..., FileWatcher]


@pytest.fixture
def wake_up() -> Event:
    return Event()


@pytest.fixture
def watch(wake_up: Event) -> Iterator[Watch]:
    """Return a function that makes a watcher of a folder, not armed yet."""
    watchers: list[FileWatcher] = []

    def make(folder: Path, polling: str = "off") -> FileWatcher:
        watchers.append(FileWatcher(folder, polling, wake_up.set))  # type: ignore[arg-type]
        return watchers[-1]

    yield make
    for watcher in watchers:
        watcher.close()


def until_quiet(wake_up: Event) -> None:
    """Wait until the events of what was done before have all come."""

    def is_quiet() -> bool:
        wake_up.clear()
        return not wake_up.wait(0.3)

    wait_until(is_quiet)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_changes_wake_and_reading_does_not(tmp_path: Path, watch: Watch, wake_up: Event) -> None:
    watcher = watch(tmp_path)
    watcher.arm()
    assert watcher.has_events and wake_up.is_set()  # for what was there before
    wake_up.clear()
    (tmp_path / "sub").mkdir()
    assert wake_up.wait(60)
    path = tmp_path / "a.png"
    path.write_text("x")
    wait_until(wake_up.is_set)
    until_quiet(wake_up)
    list(tmp_path.iterdir())
    path.read_text()
    assert not wake_up.wait(0.3)


@pytest.mark.parametrize("name", ["sub", "a.png"])
def test_a_change_of_permissions_wakes(
    name: str, tmp_path: Path, watch: Watch, wake_up: Event
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.png").write_text("x")
    (tmp_path / name).chmod(0)
    watch(tmp_path).arm()
    until_quiet(wake_up)
    (tmp_path / name).chmod(0o755)
    assert wake_up.wait(60)


def test_a_folder_that_may_be_read_at_last_is_watched_from_then_on(anybodys_folder: Path) -> None:
    def act() -> None:
        wake_up, closed = Event(), anybodys_folder / "own" / "closed"
        closed.mkdir()
        closed.chmod(0)
        watcher = FileWatcher(closed.parent, "off", wake_up.set)
        watcher.arm()
        until_quiet(wake_up)
        closed.chmod(0o755)
        assert wake_up.wait(60), "the folder"
        watcher.arm()
        until_quiet(wake_up)
        (closed / "a.png").write_text("x")
        assert wake_up.wait(60), "the file"
        watcher.close()

    (anybodys_folder / "own").mkdir()
    (anybodys_folder / "own").chmod(0o777)
    assert as_nobody(act) == ""


def test_a_folder_that_was_replaced_is_watched_anew(
    tmp_path: Path, watch: Watch, wake_up: Event
) -> None:
    root = tmp_path / "inbox"
    root.mkdir()
    watcher = watch(root)
    watcher.arm()
    root.rename(tmp_path / "away")
    root.mkdir()
    watcher.arm()
    until_quiet(wake_up)
    (root / "a.png").write_text("x")
    assert wake_up.wait(60)


def test_an_observer_whose_emitters_ended_is_replaced(
    tmp_path: Path, watch: Watch, wake_up: Event
) -> None:
    watcher = watch(tmp_path)
    watcher.arm()
    assert watcher._observer is not None
    for emitter in list(watcher._observer.emitters):
        emitter.stop()
        emitter.join()
    watcher.arm()
    until_quiet(wake_up)
    (tmp_path / "a.png").write_text("x")
    assert wake_up.wait(60)


@pytest.mark.parametrize("polling", ["on", "auto"])
def test_polling_is_chosen_by_setting_and_by_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watch: Watch, polling: str
) -> None:
    monkeypatch.setattr(file_watcher, "is_network", lambda _: polling == "auto")
    watcher = watch(tmp_path, polling)
    watcher.arm()
    assert not watcher.has_events


@pytest.mark.parametrize("kind", ["gone", "file", "below a file"])
def test_an_inbox_that_is_gone_is_an_error_of_its_own_before_and_after(
    tmp_path: Path, watch: Watch, kind: str
) -> None:
    root = tmp_path / "inbox/sub"
    root.mkdir(parents=True)
    watcher = watch(root)
    watcher.arm()
    root.rmdir()
    if kind == "file":
        root.touch()
    if kind == "below a file":
        root.parent.rmdir()
        root.parent.touch()
    for each in (watcher, watch(root)):
        with pytest.raises(
            InboxGoneError, match=r"inbox/sub: (no such folder|Not a directory); mount"
        ):
            each.arm()


def interrupt(monkeypatch: pytest.MonkeyPatch, change: Callable[[], None]) -> None:
    """Have something happen each time when the folder was seen and is not watched yet."""

    class Interrupted(Observer):  # type: ignore[misc, valid-type]
        def start(self) -> None:
            change()
            super().start()

    monkeypatch.setattr(file_watcher, "Observer", Interrupted)


def test_an_inbox_that_goes_while_it_is_armed_is_gone_and_leaves_no_file_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watch: Watch
) -> None:
    root = tmp_path / "inbox"
    watcher = watch(root)
    interrupt(monkeypatch, root.rmdir)
    before = open_files()
    for _ in range(3):
        root.mkdir()
        with pytest.raises(InboxGoneError, match="inbox: no such folder"):
            watcher.arm()
        assert not watcher.has_events and open_files() == before


@pytest.mark.parametrize("kind", [FileNotFoundError, NotADirectoryError])
def test_a_subfolder_that_goes_while_the_inbox_is_armed_is_no_matter(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    watch: Watch,
    wake_up: Event,
    kind: type[OSError],
) -> None:
    left = [kind(errno.ENOENT, "it went away")] * (ATTEMPTS - 1)

    def fail_at_first() -> None:
        if left:
            raise left.pop()

    interrupt(monkeypatch, fail_at_first)
    watcher = watch(tmp_path)
    watcher.arm()
    assert watcher.has_events and not left
    until_quiet(wake_up)
    (tmp_path / "a.png").write_text("x")
    assert wake_up.wait(60)


def test_folders_nested_deeper_than_calls_are_scanned_at_least(
    deep_tmp_path: Path, watch: Watch, wake_up: Event
) -> None:
    nest(deep_tmp_path)
    watcher = watch(deep_tmp_path)
    watcher.arm()
    if watcher.has_events:  # from Python 3.12 on
        until_quiet(wake_up)
        (deep_tmp_path / "a.png").write_text("x")
        assert wake_up.wait(60)


@pytest.mark.parametrize("error", [
    FileNotFoundError(errno.ENOENT, "they come and go"),
    OSError(errno.ENOSPC, "inotify watch limit reached"),
    OSError(errno.EMFILE, "inotify instance limit reached"),
    RecursionError("nested too deep"),
])  # fmt: skip
@pytest.mark.parametrize("method", ["__init__", "schedule", "start"])
def test_where_no_events_can_be_had_the_folder_is_to_be_scanned_and_one_line_says_so(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    watch: Watch,
    method: str,
    error: Exception,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(file_watcher.Observer, method, refuse)
        watcher = watch(tmp_path)
        caplog.set_level("INFO")
        for _ in range(2):
            watcher.arm()
        assert not watcher.has_events
    (record,) = caplog.records
    assert "events cannot be had" in record.getMessage() and str(error) in record.getMessage()
    watcher.arm()
    assert watcher.has_events
