"""What wakes a daemon that waits: signals, threads, and other processes."""

import contextlib
import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

from nst_pipeline.errors import CannotCreateError
from nst_pipeline.files import shown

SOCKET_NAME = "wake"


class WakeUp:
    """An event that threads and signal handlers can set, where no lock is safe, and `wake`.

    Its methods are those of `threading.Event`.
    """

    def __init__(self) -> None:
        """Make the pipe that it consists of."""
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._socket: socket.socket | None = None

    def listen(self, state: Path) -> None:
        """Be set by `wake` too; only for who holds the lock of the state folder.

        Raises:
            CannotCreateError: there can be no socket in the folder.
        """
        listener = _socket()
        try:
            with _address(state) as address:
                (state / SOCKET_NAME).unlink(missing_ok=True)  # of a daemon that is no more
                listener.bind(address)
        except OSError as error:
            listener.close()
            raise CannotCreateError(
                f"{shown(state / SOCKET_NAME)}: no socket can be made here: {error.strerror}; "
                "`pause`, `retry` and the like are heard at the next look"
            ) from error
        self._socket = listener

    def set(self) -> None:
        """Wake whoever waits, now or as soon as somebody does."""
        with contextlib.suppress(OSError):  # the pipe is full: it is set already
            os.write(self._write, b"!")

    def is_set(self) -> bool:
        """Tell whether it was set since the last `clear`."""
        return self.wait(0)

    def wait(self, seconds: float) -> bool:
        """Wait until it is set; return whether it is."""
        sources = [self._read, *([self._socket.fileno()] if self._socket else [])]
        return bool(select.select(sources, [], [], max(0.0, seconds))[0])

    def clear(self) -> None:
        """Wait anew from now on."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._read, 65536):
                pass
        with contextlib.suppress(BlockingIOError):
            while self._socket:
                self._socket.recv(1)

    def close(self) -> None:
        """Free everything; the socket's name stays, for it may be another's by now."""
        os.close(self._read)
        os.close(self._write)
        if self._socket:
            self._socket.close()


def wake(state: Path) -> None:
    """Have the daemon of a state folder look at once; nothing happens if there is none.

    Whoever listens is who made the socket, in whichever namespace; a number that was a process's
    is never asked.
    """
    with contextlib.suppress(OSError), _socket() as sender, _address(state) as address:
        sender.sendto(b"", address)


def _socket() -> socket.socket:
    sort = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    return socket.socket(socket.AF_UNIX, sort)


@contextlib.contextmanager
def _address(state: Path) -> Iterator[str]:
    """Give the socket's address; the path itself may be longer than an address can be."""
    folder = os.open(state, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{SOCKET_NAME}"
    finally:
        os.close(folder)
