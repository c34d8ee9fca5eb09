"""What systemd is told (sd_notify): nothing where there is no systemd to tell."""

import contextlib
import math
import os
import socket
import time

from nst_pipeline.files import shown

EXTENSION_SECONDS = 120
"""How long a slow start or stop may be silent."""


class Notifier:
    """Tells the service manager how the service is.

    Attributes:
        alive_seconds: how often `alive` is to be called, at least: a quarter of the time after
            which the watchdog bites; infinite without one.
    """

    def __init__(self) -> None:
        """Find out whom to tell, and how often it wants to hear."""
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        usec = os.environ.get("WATCHDOG_USEC", "")
        pid = os.environ.get("WATCHDOG_PID", str(os.getpid()))
        wanted = usec.isdecimal() and pid == str(os.getpid())
        self.alive_seconds = int(usec) / 4e6 if wanted and int(usec) else math.inf
        self._last = self._extended = 0.0

    def tell(self, **assignments: object) -> None:
        """Send some assignments, such as ``READY=1``; no value can pass for another assignment."""
        if not self._address:
            return
        text = "\n".join(f"{name}={shown(value)}" for name, value in assignments.items())
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.sendto(text.encode("utf-8", "backslashreplace"), self._address)

    def status(self, text: str) -> None:
        """Say in one line what the service does."""
        self.tell(STATUS=text)

    def extend(self) -> None:
        """Ask for more time to start or to stop: `EXTENSION_SECONDS` from now."""
        now = time.monotonic()
        if not self._extended or now - self._extended >= EXTENSION_SECONDS / 4:
            self._extended = now
            self.tell(EXTEND_TIMEOUT_USEC=EXTENSION_SECONDS * 1_000_000)

    def alive(self) -> None:
        """Tell of a step, a finished scan, or a wait: as often as the watchdog wants to hear it."""
        now = time.monotonic()
        if now - self._last >= self.alive_seconds:
            self._last = now
            self.tell(WATCHDOG=1)

    def reloading(self) -> None:
        """Tell that the settings are being read again; `tell` READY afterwards."""
        self.tell(RELOADING=1, MONOTONIC_USEC=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)
