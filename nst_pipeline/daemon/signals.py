"""What signals ask of a run and of a daemon."""

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


class Signals:
    """Takes in signals while the block lasts; use it as a context manager in the main thread.

    Attributes:
        stopping: whether SIGTERM or SIGINT came.
        reload: whether SIGHUP came; whoever reads the settings again sets it back.
        stop_seconds: how long the job at work may go on after the first.
    """

    def __init__(self, ring: Callable[[], None], stop_seconds: float) -> None:
        """Take in nothing yet; ``ring`` is called for each signal and must be safe in a handler."""
        self.stopping = self.reload = False
        self.stop_seconds = stop_seconds
        self._deadline = 0.0
        self._ring = ring
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        """Begin to take them in."""
        handlers = {
            signal.SIGTERM: self._on_stop,
            signal.SIGINT: self._on_stop,
            signal.SIGHUP: self._on_reload,
            signal.SIGUSR1: self._on_nudge,
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
        self._ring()
        if self.stopping:
            self._deadline = 0.0
            raise Abandoned  # at once: every state that this can interrupt is one a kill leaves
        self.stopping = True
        self._deadline = time.monotonic() + self.stop_seconds

    def _on_reload(self, number: int, frame: FrameType | None) -> None:
        self.reload = True
        self._ring()

    def _on_nudge(self, number: int, frame: FrameType | None) -> None:
        self._ring()
