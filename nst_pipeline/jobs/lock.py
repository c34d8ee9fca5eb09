"""One process a state folder: an advisory lock that ends with its holder."""

import errno
import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from nst_pipeline.errors import CannotCreateError, LockedError, StateGoneError
from nst_pipeline.files import cause, shown
from nst_pipeline.folders import make_folder

LOCK_NAME = "lock"
LOOKERS = 10
"""How many lookers in a row a lock may meet before it counts as taken."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lock.

    Attributes:
        pid: its process.
        since: when it took the lock, in seconds since the epoch.
        command: ``run`` or ``watch``.
    """

    pid: int
    since: float
    command: str


class Lock:
    """The right to work with a state folder; use it as a context manager.

    The kernel frees it with the process, however that ends.

    Attributes:
        holder: we, once we have taken it.
    """

    holder: Holder

    def __init__(self, state: Path, command: str, wait: bool = False) -> None:
        """Take nothing yet.

        Args:
            state: the folder, made when missing.
            command: what we are, for others to read.
            wait: wait for the other process to end instead of giving up.
        """
        self._path, self._command, self._wait = state / LOCK_NAME, command, wait
        self._descriptor = -1

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            LockedError: somebody else has it, and we are not to wait.
            CannotCreateError: the state folder cannot be written to.
        """
        self._open_and_take()
        while not self.is_held():  # what we waited for was deleted meanwhile
            os.close(self._descriptor)
            self._open_and_take()
        self.holder = Holder(os.getpid(), time.time(), self._command)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(asdict(self.holder)).encode(), 0)
        return self

    def __exit__(self, *_: object) -> None:
        """Give it back."""
        os.close(self._descriptor)

    def is_held(self) -> bool:
        """Tell whether the file that we locked is still the one that others would lock."""
        mine = os.fstat(self._descriptor)
        try:
            found = self._path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:  # nobody else could take it now
            return True
        return os.path.samestat(mine, found)

    def check(self) -> None:
        """See that nobody took the right away.

        Raises:
            StateGoneError: the state folder or the lock in it was deleted or renamed.
        """
        if not self.is_held():
            raise StateGoneError(
                f"{shown(self._path)}: was deleted or renamed while this process worked with it, "
                "so another could begin beside it; stopped. Put the state folder back, or start "
                "again: a new one knows of nothing that was painted"
            )

    def _open_and_take(self) -> None:
        try:
            make_folder(self._path.parent)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise CannotCreateError(
                f"{shown(self._path)}: cannot be opened: {cause(self._path, error)}; "
                "check the permissions of the state folder"
            ) from error
        try:
            self._take()
        except BaseException:
            os.close(self._descriptor)
            raise

    def _take(self) -> None:
        for attempt in range(LOOKERS):
            try:
                flags = fcntl.LOCK_EX | (0 if self._wait else fcntl.LOCK_NB)
                fcntl.flock(self._descriptor, flags)
                return
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise CannotCreateError(f"{shown(self._path)}: {error.strerror}") from error
            # `status` takes the lock for an instant to see whether it is free.
            if attempt and holder(self._path.parent) is not None:
                break
            time.sleep(0.01)
        raise LockedError(_locked_message(self._path))


def holder(state: Path) -> Holder | None:
    """Return who holds the lock of a state folder, or None; disturbs nobody."""
    try:
        descriptor = os.open(state / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # Shared, so that two who only look do not see each other.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _read(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> Holder:
    try:
        return Holder(**json.loads(os.pread(descriptor, 4096, 0)))
    except (ValueError, TypeError):
        return Holder(0, 0.0, "?")  # it has only just taken the lock


def _locked_message(path: Path) -> str:
    other = holder(path.parent)
    if other is None or not other.pid:
        who = "another nst-pipeline"
    else:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(other.since))
        who = f"`nst-pipeline {other.command}`, process {other.pid}, since {since},"
    return (
        f"{shown(path.parent)}: {who} works with this state folder; stop it, give --wait, "
        "or give another `state` folder"
    )
