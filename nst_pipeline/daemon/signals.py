"""What signals ask of a run and of a daemon."""

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Self

from nst_pipeline.errors import Abandoned

SAME_SECONDS = 2.0
"""Signals to end that come so soon one after the other are one: between them what is at work is put
back into the queue, and nothing may interrupt that."""


def end_on_signals() -> Callable[[], None]:
    """Have SIGINT and SIGTERM end the process in good order, with status 130 or 143.

    Returns:
        A check for every step of the work. It ends the process again if a signal came while
        nothing could be raised, such as in the middle of an import of compiled code.
    """
    came: list[int] = []
    last = -math.inf

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < SAME_SECONDS:
            return
        last = now
        came.append(number)
        raise SystemExit(128 + number)

    def check() -> None:
        if came:
            raise SystemExit(128 + came[0])

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    return check


NOTES = (signal.SIGHUP, signal.SIGUSR1)
"""What is only noted; by default it would end the process."""


def hold_notes() -> None:
    """Have what a daemon only notes wait until it takes it in, in all threads begun from now on."""
    signal.pthread_sigmask(signal.SIG_BLOCK, NOTES)


def has_terminal() -> bool:
    """Tell whether there is a terminal that the process belongs to."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


class Signals:
    """Takes in SIGHUP and SIGUSR1 while the block lasts, and holds them from then on.

    SIGHUP asks for the settings to be read again, unless it comes because the terminal is gone
    that the process was begun at: then it is to stop, except under nohup.

    Use it in the main thread, before any other is begun. A thread of its own waits for them:
    handlers in Python interrupt each other, and so many may come that the stack ends.

    Attributes:
        stopping: whether SIGTERM or SIGINT came.
        reload: whether SIGHUP came; whoever reads the settings again sets it back.
        stop_seconds: how long the job at work may go on after the first SIGTERM or SIGINT.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        """Take in nothing yet; ``wake`` is called for each signal and must be safe in a handler."""
        self.stopping = self.reload = False
        self.stop_seconds = 0.0
        self._deadline, self._abandoned = 0.0, -math.inf
        self._wake = wake
        is_nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        self._needs_terminal = has_terminal() and not is_nohup
        self._is_over = False
        self._taker = threading.Thread(target=self._take_notes, daemon=True)

    def __enter__(self) -> Self:
        """Begin to take them in."""
        hold_notes()
        self._taker.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Only hold them from now on: the process ends, and they shall not be what ends it."""
        self._is_over = True
        # To it alone: a thread begun before `hold_notes`, as by a library, would let it end us.
        signal.pthread_kill(self._taker.ident or 0, signal.SIGUSR1)
        self._taker.join()

    @contextlib.contextmanager
    def taking_stops(self) -> Iterator[None]:
        """Take in SIGTERM and SIGINT too, which end the process at once otherwise."""
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self._on_stop) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def check(self) -> None:
        """End the job at work when its time is over.

        Raises:
            Abandoned: it is.
        """
        if self.stopping and time.monotonic() >= self._deadline:
            raise Abandoned

    def left_seconds(self) -> float:
        """Return how long the work may still go on after SIGTERM or SIGINT; 0 or less: no more."""
        return self._deadline - time.monotonic()

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        self._wake()
        if not self.stopping:
            self.stop()
            return
        if time.monotonic() - self._abandoned >= SAME_SECONDS:
            self._deadline, self._abandoned = 0.0, time.monotonic()
            raise Abandoned  # at once: every state that this can interrupt is one a kill leaves

    def stop(self) -> None:
        """Do as for the first SIGTERM."""
        if not self.stopping:
            self._deadline = time.monotonic() + self.stop_seconds
            self.stopping = True
        self._wake()

    def _take_notes(self) -> None:
        while True:
            number = signal.sigwait(NOTES)
            if self._is_over:
                return
            if number == signal.SIGHUP and self._needs_terminal and not has_terminal():
                self.stop()
            else:
                self.reload |= number == signal.SIGHUP
            self._wake()
