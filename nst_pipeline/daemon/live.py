"""What a daemon does at this moment, in a small file that `status` reads."""

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

LIVE_NAME = "status.json"
PAUSED_NAME = "paused"
EVERY_SECONDS = 1.0


class Live:
    """Keeps the file; a change of what the daemon does is written at once, progress now and then.

    The file is replaced whole, and not made durable: it says nothing that outlives the process.
    """

    def __init__(self, state: Path) -> None:
        """Write to the state folder, from the first change on."""
        self._path = state / LIVE_NAME
        self._facts: dict[str, Any] = {"pid": os.getpid(), "started": time.time()}
        self._written = 0.0

    def set(self, now: bool = True, **facts: Any) -> None:
        """Change some facts; written at once, or within a second if that is not asked for."""
        self._facts |= facts
        if now or time.monotonic() - self._written >= EVERY_SECONDS:
            self.write()

    def write(self) -> None:
        """Write the file; a disk that is full does not stop anybody."""
        self._written = time.monotonic()
        self._facts["updated"] = time.time()
        temporary = self._path.with_name(f".nst-{LIVE_NAME}")
        with contextlib.suppress(OSError):
            temporary.write_text(json.dumps(self._facts), encoding="utf-8")
            temporary.replace(self._path)

    def remove(self) -> None:
        """Delete the file."""
        with contextlib.suppress(OSError):
            self._path.unlink()


def read_live(state: Path) -> dict[str, Any]:
    """Return what a daemon said last; empty if there was none."""
    try:
        found = json.loads((state / LIVE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def is_paused(state: Path) -> bool:
    """Tell whether somebody asked for a pause."""
    return (state / PAUSED_NAME).exists()
