"""The file system's events: something happened in the inbox. What it was, a scan finds out."""

import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from watchdog.events import (
    DirAttribEvent,
    DirCreatedEvent,
    DirMovedEvent,
    FileAttribEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from nst_pipeline.files import shown
from nst_pipeline.inbox.mounts import filesystem, inbox_gone, is_network

log = logging.getLogger(__name__)

# Not those of reading a file, or our own scans would be events too.
EVENTS: list[type[FileSystemEvent]] = [
    FileCreatedEvent, FileModifiedEvent, FileMovedEvent, FileClosedEvent,
    DirCreatedEvent, DirMovedEvent,
    DirAttribEvent, FileAttribEvent,  # what may be read at last
]  # fmt: skip
ATTEMPTS = 5
"""At watching a folder whose subfolders come and go meanwhile."""


class _Handler(FileSystemEventHandler):
    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change

    def on_any_event(self, event: FileSystemEvent) -> None:
        self._on_change()


class FileWatcher:
    """Calls back when something changes in the inbox, as far as its file system reports it."""

    def __init__(
        self,
        folder: Path,
        polling: Literal["auto", "on", "off"],
        on_change: Callable[[], None],
        is_deep: bool = True,
    ) -> None:
        """Watch nothing yet.

        Args:
            folder: that is watched.
            polling: ``on``: never watch; ``auto``: not where the file system reports nothing.
            on_change: called for each event, from another thread.
            is_deep: whether all its subfolders are watched, too.
        """
        self._is_deep = is_deep
        self._folder, self._polling, self._on_change = folder, polling, on_change
        self._observer: BaseObserver | None = None
        self._root: tuple[int, int] | None = None
        self._closed: list[str] = []  # subfolders that could not be watched
        self._has_logged = False

    @property
    def has_events(self) -> bool:
        """Whether events come; otherwise somebody has to scan often."""
        return self._observer is not None

    def arm(self) -> None:
        """Watch the folder, unless all of it is watched already that can be.

        So it is watched anew after it went and came back, and once a subfolder may be read at last.

        Where that is impossible, `has_events` is False; a later call tries again.

        Raises:
            InboxGoneError: the folder is not there.
        """
        if self._polling == "on" or (self._polling == "auto" and is_network(self._folder)):
            self._log_once("%s: on %s; looked at every few seconds", filesystem(self._folder))
            return
        root = self._identity()
        if self._observer is not None and root == self._root and self._is_alive():
            if not any(os.access(path, os.R_OK | os.X_OK) for path in self._closed):
                return
            self._root = None  # nobody need hear of it
        self.close()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._observer = self._observe()
                break
            except (OSError, RecursionError) as error:
                root = self._identity()
                if attempt < ATTEMPTS and isinstance(error, FileNotFoundError | NotADirectoryError):
                    continue  # a subfolder went away while the folder was searched for them
                # The limit of inotify watches (fs.inotify.max_user_watches), or folders nested
                # deeper than calls: before Python 3.12, watchdog searches them with os.walk.
                message = "%s: events cannot be had (%s); looked at every few seconds"
                self._log_once(message, error)
                return
        if self._root is not None:
            log.warning("%s: watched anew", shown(self._folder))
        self._root, self._has_logged = root, False
        self._on_change()  # for what happened before

    def close(self) -> None:
        """Stop watching."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(timeout=5)
            self._observer = None

    def _identity(self) -> tuple[int, int]:
        """Return the device and inode of the folder, by which another in its place is known."""
        try:
            status = os.stat(f"{self._folder}/.")  # noqa: PTH116 - the dot: of a folder alone
        except OSError as error:
            raise inbox_gone(self._folder, error) from error
        return status.st_dev, status.st_ino

    def _observe(self) -> BaseObserver:
        """Return a running observer of the folder.

        Raises:
            OSError: there are no watches left, or the folder or a subfolder went away meanwhile.
            RecursionError: its subfolders are nested too deep.
        """
        observer = Observer()
        if self._is_deep:
            self._closed = _closed_folders(self._folder)
        try:
            observer.schedule(
                _Handler(self._on_change),
                str(self._folder),
                recursive=self._is_deep,
                event_filter=EVENTS,
            )
            observer.start()
        except (OSError, RecursionError):
            with contextlib.suppress(RuntimeError):  # that it never ran is no matter
                observer.stop()
            raise
        return observer

    def _is_alive(self) -> bool:
        # The observer outlives its emitters, which end with the folder they watch.
        assert self._observer is not None
        emitters = self._observer.emitters
        return bool(emitters) and all(emitter.is_alive() for emitter in emitters)

    def _log_once(self, message: str, detail: object) -> None:
        if not self._has_logged:
            log.info(message, shown(self._folder), detail)
        self._has_logged = True


def _closed_folders(root: Path) -> list[str]:
    """Return the folders below that may not be listed, which watchdog passes over."""
    errors: list[OSError] = []
    for _ in os.walk(root, onerror=errors.append):
        pass
    return [error.filename for error in errors if isinstance(error, PermissionError)]
