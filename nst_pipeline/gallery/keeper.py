"""Keeps the gallery up to date beside a run, in a thread of its own; no fault of it is a job's."""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from nst_pipeline.config.pipeline import Config
from nst_pipeline.errors import PipelineError
from nst_pipeline.files import free_bytes, shown
from nst_pipeline.folders import Folders
from nst_pipeline.gallery import site
from nst_pipeline.gallery.pictures import Pictures
from nst_pipeline.manifest.model import JobRecord

log = logging.getLogger(__name__)

EVERY_SECONDS = 3.0
"""The shortest time between two updates."""
SHARE = 5
"""No more than one part in so many of the time goes into updates."""
CLOSE_SECONDS = 5.0
"""How long the end of a process waits for the last update."""
AGAIN_SECONDS = 60.0
"""How long after one that failed the next update comes, if nobody asks for one."""
LOOK_SECONDS = 0.1
"""How often who waits looks after what else is asked of him."""


class _Closing(Exception):  # noqa: N818 - no error
    """Ends an update at once."""


class Keeper:
    """Updates the gallery after jobs; all its methods but the thread's are the runner's to call."""

    def __init__(self, config: Config) -> None:
        """Begin nothing yet."""
        self._config = config
        self._wanted, self._is_closing = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._noted = self._done = 0
        self._is_hurried, self._is_tidy, self._told = False, False, ""

    def note(self, record: JobRecord) -> None:
        """Have the gallery take in a job that is over; its source may go right after this."""
        if self._config.on_success == "delete" and record.status != "failed":
            self._keep_photograph(record)
        self.look()

    def look(self) -> None:
        """Have the gallery brought up to date soon."""
        self._noted += 1
        self._wanted.set()
        if self._thread is None or not self._thread.is_alive():
            thread = threading.Thread(target=self._run, name="gallery", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # no more threads are allowed now
                self._tell(f"{shown(self._config.gallery)}: {error}")
            else:
                self._thread = thread

    def finish(self, check: Callable[[], None]) -> None:
        """Wait until all that was noted is in the gallery; ``check`` may raise to end that."""
        wanted = self._noted
        self._is_hurried = True
        while self._thread and self._thread.is_alive() and self._done < wanted:
            check()
            self._thread.join(LOOK_SECONDS)
        self._is_hurried = False

    def close(self) -> None:
        """Take in what was noted last, if that is quick; else the next start does."""
        until = time.monotonic() + CLOSE_SECONDS

        def check() -> None:
            if time.monotonic() > until:
                raise _Closing

        with contextlib.suppress(_Closing):
            self.finish(check)
        self._is_closing.set()
        self._wanted.set()
        if self._thread:
            self._thread.join(CLOSE_SECONDS)

    def _keep_photograph(self, record: JobRecord) -> None:
        """Make the thumbnails of a source that is about to be deleted."""
        content = record.content
        path = Path(os.fsdecode(bytes.fromhex(content.raw)) if content.raw else content.path)
        with contextlib.suppress(Exception):
            if free_bytes(self._config.outbox) < self._config.limits.min_free_bytes:
                return
            folders = Folders(self._config.roots)
            pictures = Pictures(self._config, folders, {})
            pictures.sound.add(content.sha256 or "")
            pictures.make(path, content.sha256 or "")

    def _run(self) -> None:
        while not self._is_closing.is_set():
            self._wanted.wait(AGAIN_SECONDS if self._told else None)
            if self._is_closing.is_set():
                return
            self._wanted.clear()
            begun, noted = time.monotonic(), self._noted
            self._update()
            self._done = noted
            rest = max(EVERY_SECONDS, SHARE * (time.monotonic() - begun))
            until = time.monotonic() + rest
            while time.monotonic() < until and not self._is_hurried:
                if self._is_closing.wait(LOOK_SECONDS):
                    return

    def _update(self) -> None:
        try:
            if self._config.outbox.is_dir():  # else not mounted, or nothing is in it yet
                site.update(self._config, self._check, tidies=not self._is_tidy)
                self._is_tidy, self._told = True, ""
        except _Closing:
            return
        except PipelineError as error:
            self._tell(str(error))
        except Exception as error:  # noqa: BLE001 - a gallery ends neither a job nor a daemon
            self._tell(f"{shown(self._config.gallery)}: {type(error).__name__}: {error}")

    def _check(self) -> None:
        if self._is_closing.is_set():
            raise _Closing

    def _tell(self, reason: str) -> None:
        """Log why there was no update, once."""
        if reason != self._told:
            self._told = reason
            log.warning("%s; the gallery stays as it was until the next update", shown(reason))
