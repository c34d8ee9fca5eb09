"""The command of a hook: a process group of its own, which ends in time, with all it started."""

import contextlib
import os
import select
import shutil
import signal
import time
from collections.abc import Callable, Sequence

from nst_pipeline.errors import HookError
from nst_pipeline.files import shown

POLL_SECONDS = 0.03
"""How often is looked whether the command has ended, or has to."""
KILL_SECONDS = 5.0
"""How long a command may take to end after SIGTERM; then SIGKILL ends it."""
TAIL_BYTES, TAIL_LINES = 2000, 5
"""What is told of a failed command's standard error: its end."""
DESCRIPTORS = "/proc/self/fd"
RESTORED = (signal.SIGPIPE, signal.SIGXFSZ)
"""What Python ignores, and a program expects not to be ignored."""


def find(program: str) -> str | None:
    """Return the path of a program that can be started; None: there is none."""
    return shutil.which(program)


def run_command(
    command: Sequence[str],
    environment: dict[bytes, bytes],
    data: bytes,
    timeout_seconds: float,
    is_over: Callable[[], bool],
) -> bool:
    """Run a command with ``data`` on its standard input; return whether it came to its end.

    It inherits no descriptor and no blocked signal. What it prints is not shown.

    Args:
        command: the program and its arguments.
        environment: all of its environment.
        data: for its standard input.
        timeout_seconds: how long it may take; then it is ended, with all that it started.
        is_over: asked again and again; the command is ended too when it says so.

    Raises:
        HookError: it cannot be started, took too long, or says by its exit status that it failed.
    """
    program = find(command[0])
    if program is None:
        raise HookError("no such program, or not executable; see `nst-pipeline check`")
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(writing, True)
    try:
        try:
            pid = _start(program, command, environment, data, writing)
        except (OSError, ValueError) as error:
            raise HookError(f"cannot be started: {getattr(error, 'strerror', error)}") from error
        finally:
            os.close(writing)
        return _follow(pid, reading, timeout_seconds, is_over)
    finally:
        os.close(reading)


def _start(
    program: str,
    command: Sequence[str],
    environment: dict[bytes, bytes],
    data: bytes,
    errors: int,
) -> int:
    """Start a command; return its process, which leads a group and a session."""
    with open(os.memfd_create("record"), "w+b") as record:  # noqa: PTH123 - a descriptor
        record.write(data)
        record.seek(0)
        actions = [
            (os.POSIX_SPAWN_DUP2, record.fileno(), 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, errors, 2),
            *((os.POSIX_SPAWN_CLOSE, other) for other in _descriptors()),
        ]
        # Not `subprocess`, which cannot unblock the signals that a daemon blocks in all threads.
        return os.posix_spawn(
            program, list(command), environment, file_actions=actions,
            setsid=True, setsigmask=(), setsigdef=RESTORED,
        )  # fmt: skip


def _descriptors() -> list[int]:
    """Return our descriptors but the first three: ours close by themselves, a library's may not."""
    with contextlib.suppress(OSError):
        return [int(name) for name in os.listdir(DESCRIPTORS) if int(name) > 2]  # noqa: PTH208
    return []


def _follow(pid: int, errors: int, timeout_seconds: float, is_over: Callable[[], bool]) -> bool:
    """Wait for a command's end, or bring it about; return whether it ended by itself.

    Raises:
        HookError: it took too long, or failed.
    """
    tail, deadline = b"", time.monotonic() + timeout_seconds
    is_late = is_ended = False
    while not (is_ended := _has_ended(pid)):
        is_late = time.monotonic() >= deadline
        if is_late or is_over():
            _end(pid)
            break
        tail = (tail + _read(errors, POLL_SECONDS))[-TAIL_BYTES:]
    said = _last_lines((tail + _read(errors, 0))[-TAIL_BYTES:])
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if is_late:
        raise HookError(f"took longer than {timeout_seconds:g} s, and was ended{said}")
    if is_ended and status:
        what = f"exit status {status}" if status > 0 else f"ended by {_signal_name(-status)}"
        raise HookError(f"{what}{said}")
    return is_ended


def _has_ended(pid: int) -> bool:
    """Tell whether a process has ended; its number stays its own until it is waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end(pid: int) -> None:
    """End a process group, in good order if that takes no more than `KILL_SECONDS`."""
    _signal_group(pid, signal.SIGTERM)
    deadline = time.monotonic() + KILL_SECONDS
    while not _has_ended(pid) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    _signal_group(pid, signal.SIGKILL)  # also what the first of them left behind


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(OSError):
        os.killpg(group, number)


def _read(errors: int, seconds: float) -> bytes:
    """Return what a command wrote, waiting for it a moment."""
    poller = select.poll()
    poller.register(errors, select.POLLIN)
    if not poller.poll(1000 * seconds):
        return b""
    with contextlib.suppress(BlockingIOError):
        if data := os.read(errors, 65536):
            return data
    time.sleep(seconds)  # nobody has the other end any more
    return b""


def _last_lines(tail: bytes) -> str:
    """Return the end of what a command wrote, on one line, to be put after its failure."""
    lines = [line.strip() for line in tail.decode("utf-8", "backslashreplace").splitlines()]
    last = [line for line in lines if line][-TAIL_LINES:]
    return f": {shown(' | '.join(last))}" if last else ""


def _signal_name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"
