"""The doorbell: something happened in the inbox, or a signal came. What it was, a scan tells."""

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
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
from nst_pipeline.inbox.mounts import filesystem, is_network

log = logging.getLogger(__name__)

# Not those of reading a file, or our own scans would ring.
EVENTS: list[type[FileSystemEvent]] = [
    FileCreatedEvent, FileModifiedEvent, FileMovedEvent, FileClosedEvent,
    DirCreatedEvent, DirMovedEvent,
]  # fmt: skip


class _Ringer(FileSystemEventHandler):
    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring

    def on_any_event(self, event: FileSystemEvent) -> None:
        self._ring()


class FileWatcher:
    """Rings when the inbox changes, as far as its file system tells."""

    def __init__(
        self, folder: Path, polling: Literal["auto", "on", "off"], ring: Callable[[], None]
    ) -> None:
        """Watch nothing yet.

        Args:
            folder: with all its subfolders.
            polling: ``on``: never; ``auto``: not on file systems that tell nothing.
            ring: called for each event, from another thread.
        """
        self._folder, self._polling, self._ring = folder, polling, ring
        self._observer: BaseObserver | None = None
        self._root: tuple[int, int] | None = None
        self._told = False

    @property
    def has_events(self) -> bool:
        """Whether events come; otherwise somebody has to look often."""
        return self._observer is not None

    def arm(self) -> None:
        """See that the folder is being watched, also after it went away and came back."""
        if self._polling == "on" or (self._polling == "auto" and is_network(self._folder)):
            self._tell("%s: on %s; looked at every few seconds", filesystem(self._folder))
            return
        status = self._folder.stat()
        root = status.st_dev, status.st_ino
        if self._observer is not None and root == self._root and self._is_alive():
            return
        self.close()
        observer = Observer()
        try:
            observer.schedule(
                _Ringer(self._ring), str(self._folder), recursive=True, event_filter=EVENTS
            )
            observer.start()
        except OSError as error:
            # Most likely the limit of inotify watches (fs.inotify.max_user_watches).
            self._tell("%s: events cannot be had (%s); looked at every few seconds", error)
            with contextlib.suppress(RuntimeError):
                observer.stop()
            return
        if self._root is not None:
            log.warning("%s: watched anew", shown(self._folder))
        self._observer, self._root, self._told = observer, root, False
        self._ring()  # for what happened before

    def close(self) -> None:
        """Stop watching."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(timeout=5)
            self._observer = None

    def _is_alive(self) -> bool:
        # The observer outlives its emitters, which end with the folder they watch.
        assert self._observer is not None
        emitters = self._observer.emitters
        return bool(emitters) and all(emitter.is_alive() for emitter in emitters)

    def _tell(self, message: str, detail: object) -> None:
        if not self._told:
            log.info(message, shown(self._folder), detail)
        self._told = True
