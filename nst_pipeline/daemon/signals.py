"""What signals ask of a run and of a daemon, and what wakes a daemon that waits."""

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

from nst_pipeline.errors import Abandoned


def end_on_signals() -> Callable[[], None]:
    """Have SIGINT and SIGTERM end the process in good order, with status 130 or 143.

    Returns:
        A check for every step of the work. It ends the process again if a signal came while
        nothing could be raised, such as in the middle of an import of compiled code.
    """
    came: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        came.append(number)
        raise SystemExit(128 + number)

    def check() -> None:
        if came:
            raise SystemExit(128 + came[0])

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    return check


class WakeUp:
    """An event that threads and signal handlers can set, where no lock is safe.

    Its methods are those of `threading.Event`.
    """

    def __init__(self) -> None:
        """Make the pipe that it consists of."""
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def set(self) -> None:
        """Wake whoever waits, now or as soon as somebody does."""
        with contextlib.suppress(OSError):  # the pipe is full: it is set already
            os.write(self._write, b"!")

    def is_set(self) -> bool:
        """Tell whether it was set since the last `clear`."""
        return self.wait(0)

    def wait(self, seconds: float) -> bool:
        """Wait until it is set; return whether it is."""
        return bool(select.select([self._read], [], [], max(0.0, seconds))[0])

    def clear(self) -> None:
        """Wait anew from now on."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._read, 65536):
                pass

    def close(self) -> None:
        """Free the pipe."""
        os.close(self._read)
        os.close(self._write)


class Signals:
    """Takes in signals while the block lasts; use it as a context manager in the main thread.

    Attributes:
        stopping: whether SIGTERM or SIGINT came.
        reload: whether SIGHUP came; whoever reads the settings again sets it back.
        stop_seconds: how long the job at work may go on after the first.
    """

    def __init__(self, wake: Callable[[], None], stop_seconds: float) -> None:
        """Take in nothing yet; ``wake`` is called for each signal and must be safe in a handler."""
        self.stopping = self.reload = False
        self.stop_seconds = stop_seconds
        self._deadline = 0.0
        self._wake = wake
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        """Begin to take them in."""
        handlers = {
            signal.SIGTERM: self._on_stop,
            signal.SIGINT: self._on_stop,
            signal.SIGHUP: self._on_reload,
            signal.SIGUSR1: self._on_wake,
        }
        self._before = {number: signal.signal(number, on) for number, on in handlers.items()}
        return self

    def __exit__(self, *_: object) -> None:
        """Handle them as before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """End the job at work when its time is over.

        Raises:
            Abandoned: it is.
        """
        if self.stopping and time.monotonic() >= self._deadline:
            raise Abandoned

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        self._wake()
        if self.stopping:
            self._deadline = 0.0
            raise Abandoned  # at once: every state that this can interrupt is one a kill leaves
        self.stopping = True
        self._deadline = time.monotonic() + self.stop_seconds

    def _on_reload(self, number: int, frame: FrameType | None) -> None:
        self.reload = True
        self._wake()

    def _on_wake(self, number: int, frame: FrameType | None) -> None:
        self._wake()
