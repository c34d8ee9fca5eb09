"""Patience: what could not be done for a file, and when it is tried again."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from nst_pipeline.inbox.scanner import SourceFile

LONGEST_SECONDS = 300.0
"""The longest wait, unless the first is longer: what stands in the way goes without a sign."""


Kind = Literal["system", "refused", "error"]
"""Why a file waits: the machine refused something, the file was refused, or an error came of it."""


class Waiting(NamedTuple):
    """A file that something is to be done for later.

    Attributes:
        path: the file.
        reason: what it waits for, for people.
        kind: of the reason.
        seconds: until then, at least 0.
    """

    path: Path
    reason: str
    kind: Kind
    seconds: float


@dataclass
class _Wait:
    signatures: str
    kind: Kind
    tries: int
    due: float | None
    reason: str


class Patience:
    """Puts files off, each for twice as long as the last time; one that changed waits no more."""

    def __init__(self, first_seconds: float) -> None:
        """Put nothing off yet; the first wait is of ``first_seconds``."""
        self._first = first_seconds
        self._waits: dict[Path, _Wait] = {}

    def put_off(
        self,
        found: SourceFile,
        reason: str,
        kind: Kind = "system",
        seconds: float | None = None,
    ) -> float:
        """Have a file wait.

        Args:
            found: the file, as it was listed.
            reason: what it waits for, for people.
            kind: what kind of reason that is.
            seconds: how long; by default twice as long as the last time for such a reason.

        Returns:
            How long, in seconds.
        """
        tries = self.tries(found, kind) + 1
        if seconds is None:
            seconds = min(self._first * 2 ** min(tries - 1, 30), max(self._first, LONGEST_SECONDS))
        due = time.monotonic() + seconds
        self._waits[found.path] = _Wait(found.signatures, kind, tries, due, reason)
        return seconds

    def tries(self, found: SourceFile, kind: Kind) -> int:
        """Return how often in a row a file was put off for such a reason, as it is now."""
        wait = self._waits.get(found.path)
        is_same = wait is not None and (wait.signatures, wait.kind) == (found.signatures, kind)
        return wait.tries if wait and is_same else 0

    def take_up(self, found: SourceFile) -> bool:
        """Return whether a file's time has come; if it has, the file waits no more."""
        wait = self._waits.get(found.path)
        if wait is None or wait.due is None:
            return True
        if wait.signatures == found.signatures and time.monotonic() < wait.due:
            return False
        wait.due = None
        return True

    def forget(self, path: Path) -> None:
        """Note that nothing is in a file's way any more."""
        self._waits.pop(path, None)

    def forget_all_but(self, paths: set[Path]) -> None:
        """Forget the files that are gone, or have nothing left to do."""
        for path in self._waits.keys() - paths:
            del self._waits[path]

    def waiting(self) -> list[Waiting]:
        """Return what waits, the first to be due first."""
        now = time.monotonic()
        waits = (
            Waiting(path, wait.reason, wait.kind, max(0.0, wait.due - now))
            for path, wait in self._waits.items()
            if wait.due is not None
        )
        return sorted(waits, key=lambda wait: wait.seconds)
