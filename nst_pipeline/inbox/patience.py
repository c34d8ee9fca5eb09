"""Patience: what could not be done for a file, and when it is tried again."""

import contextlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from nst_pipeline.errors import BeingWrittenError, ImageError, PipelineError, UnreadableError
from nst_pipeline.files import shown

LOOKS_NAME, STYLE_LOOKS_NAME = "looks.json", "style-looks.json"
"""Of the files in the state folder that outlive a process that ended at a file. Whoever does no
work, and may be there beside a run, has others.
"""
NOTHING = "[null, [], []]"
LONGEST_SECONDS = 300.0
"""The longest wait, unless the first is longer: what stands in the way goes without a sign."""


Kind = Literal["system", "refused", "error", "disposal"]
"""Why a file waits: the system did not let it be read, it was refused itself, an error came of it,
or it could not be moved to where it goes."""


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


class Listed(Protocol):
    """A file as it was listed."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def signatures(self) -> str:
        """What changes when the file does, or another that decides what becomes of it."""


class ListedImage(NamedTuple):
    """An image that is none to paint."""

    path: Path
    signatures: str


class LostError(ImageError):
    """A file that is to be given up, whatever its age."""


class Judged(NamedTuple):
    """What is to become of a file that is no content now.

    Attributes:
        fate: it may be one soon (``arriving``), was put off (``waits``), is none (``broken``), or
            is to be given up whatever its age (``lost``).
        reason: why, for people.
    """

    fate: Literal["arriving", "waits", "broken", "lost"]
    reason: str


@dataclass
class _Wait:
    signatures: str
    kind: Kind
    tries: int
    due: float | None
    reason: str


class Patience:
    """Puts files off, each for twice as long as the last time; one that changed waits no more."""

    def __init__(
        self,
        first_seconds: float,
        memory: Path | None = None,
        on_look: Callable[[], None] = lambda: None,
        also_known: tuple[Path, ...] = (),
        is_shared: bool = False,
    ) -> None:
        """Put off what is known to have ended a process, and nothing else yet.

        Args:
            first_seconds: the first wait.
            memory: a file that outlives the process, and need not outlive the machine: it holds
                which file is looked at, those that errors came of, and those that a process ended
                at. It is not there while there is none, nor where its folder is not there.
            on_look: called before each file that is looked at, which may take long.
            also_known: such files of others, which are only read.
            is_shared: others use the memory at the same time. What is looked at may then be by one
                that lives: it is suspect, and counts as no try.
        """
        self._first, self._memory, self._on_look = first_seconds, memory, on_look
        self._is_shared = is_shared
        self._waits: dict[Path, _Wait] = {}
        self._suspects: dict[Path, str] = {}
        self._remembered = ""  # so that a file left over goes as soon as there is nothing to hold
        self._recall()
        self._also_suspects: set[tuple[str, str]] = set()
        for other in also_known:
            looked_at, _, suspects = _notes(other)
            some = [looked_at, *suspects] if looked_at else suspects
            self._also_suspects |= {(path, signatures) for path, signatures in some}

    def put_off(
        self,
        found: Listed,
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

    def begin_look(self, found: Listed) -> None:
        """Note that a file is about to be looked at: should that end the process, it waits."""
        self._on_look()
        self._remember([str(found.path), found.signatures])

    def end_look(self) -> None:
        """Note that nothing is looked at."""
        self._remember(None)

    def _remember(self, looked_at: list[str] | None) -> None:
        if self._memory is None:
            return
        errors = [
            [str(path), wait.signatures, wait.tries, wait.reason]
            for path, wait in self._waits.items()
            if wait.kind == "error"
        ]
        suspects = [[str(path), signatures] for path, signatures in self._suspects.items()]
        if (text := json.dumps([looked_at, errors, suspects])) == self._remembered:
            return
        with contextlib.suppress(OSError):  # then a file may end one process more
            if text == NOTHING:
                self._memory.unlink(missing_ok=True)
            else:
                self._write(text.encode())
            self._remembered = text

    def _write(self, text: bytes) -> None:
        """Write over what is there: to cut a file off first has some file systems sync it."""
        assert self._memory
        descriptor = os.open(self._memory, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.ljust(os.fstat(descriptor).st_size))

    def _recall(self) -> None:
        """Put off what the process before had trouble with."""
        if self._memory is None:
            return
        looked_at, errors, suspects = _notes(self._memory)
        now = time.monotonic()
        for path, signatures, tries, reason in () if self._is_shared else errors:
            due = now + self._first
            self._waits[Path(path)] = _Wait(signatures, "error", tries, due, reason)
        self._suspects = {Path(path): signatures for path, signatures in suspects}
        if looked_at:
            path, signatures = Path(looked_at[0]), looked_at[1]
            self._suspects[path] = signatures
            if self._is_shared:
                return
            known = self._waits.get(path)
            tries = known.tries + 1 if known and known.signatures == signatures else 1
            reason = f"{shown(path)}: the process ended while it was looked at"
            self._waits[path] = _Wait(signatures, "error", tries, now + self._first, reason)
            self.end_look()

    def is_suspect(self, found: Listed) -> bool:
        """Tell whether a process ended when a file was looked at, as it is now."""
        is_own = self._suspects.get(found.path) == found.signatures
        return is_own or (str(found.path), found.signatures) in self._also_suspects

    def tries(self, found: Listed, kind: Kind) -> int:
        """Return how often in a row a file was put off for such a reason, as it is now."""
        wait = self._waits.get(found.path)
        is_same = wait is not None and (wait.signatures, wait.kind) == (found.signatures, kind)
        return wait.tries if wait and is_same else 0

    def check(self, found: Listed, max_attempts: int) -> None:
        """Refuse a file that errors came of too often, or that ended the process.

        Raises:
            LostError: it is one.
        """
        if (tries := self.tries(found, "error")) >= max_attempts:
            reason = self._waits[found.path].reason
            raise LostError(f"{reason}, {tries} times (killed, crashed or out of memory)")

    def take_up(self, found: Listed) -> bool:
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
        self._suspects.pop(path, None)

    def forget_all_but(self, paths: set[Path]) -> None:
        """Forget the files that are gone, or have nothing left to do."""
        for path in self._waits.keys() - paths:
            del self._waits[path]
        for path in self._suspects.keys() - paths:
            del self._suspects[path]

    def waiting(self) -> list[Waiting]:
        """Return what waits, the first to be due first."""
        now = time.monotonic()
        waits = (
            Waiting(path, wait.reason, wait.kind, max(0.0, wait.due - now))
            for path, wait in self._waits.items()
            if wait.due is not None
        )
        return sorted(waits, key=lambda wait: wait.seconds)


def _notes(memory: Path) -> tuple[Any, list[Any], list[Any]]:
    """Return which file was looked at, those that errors came of, and those that ended processes.

    What cannot be read is none.
    """
    try:
        looked_at, errors, suspects = json.loads(memory.read_text())
    except (OSError, ValueError, TypeError):
        return None, [], []
    return looked_at, errors, suspects


def judge(found: Listed, error: Exception, patience: Patience | None, max_attempts: int) -> Judged:
    """Return what is to become of a file after an error; it is put off if that may pass.

    Args:
        found: the file.
        error: what came of looking at it.
        patience: puts it off; None: nobody waits, and it is broken.
        max_attempts: how often an error that nobody foresaw may come of it.

    Raises:
        PipelineError: ``error``, which is not the file's.
    """
    if isinstance(error, PipelineError) and not isinstance(error, ImageError):
        raise error
    is_foreseen = isinstance(error, ImageError)
    reason = str(error) if is_foreseen else f"{shown(found.path)}: {type(error).__name__}: {error}"
    if patience is None:
        return Judged("broken", reason)
    if isinstance(error, BeingWrittenError):
        return Judged("arriving", reason)
    if isinstance(error, LostError):
        return Judged("lost", reason)
    if is_foreseen and not isinstance(error, UnreadableError):
        return Judged("broken", reason)
    if isinstance(error, ImageError | OSError):
        patience.put_off(found, reason)
        return Judged("waits", reason)
    if patience.tries(found, "error") + 1 < max_attempts:
        patience.put_off(found, reason, "error")
        return Judged("waits", reason)
    return Judged("lost", reason)
