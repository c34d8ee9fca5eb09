"""Commands of hooks as real processes: what they inherit, and that they end."""

import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from support import make_hook, wait_until

from nst_pipeline.errors import HookError
from nst_pipeline.runner import commands
from nst_pipeline.runner.commands import run_command

ENVIRONMENT = {b"PATH": os.environb[b"PATH"]}


def run(command: list[str], data: bytes = b"", seconds: float = 60, **more: bytes) -> bool:
    environment = ENVIRONMENT | {name.encode(): value for name, value in more.items()}
    return run_command(command, environment, data, seconds, lambda: False)


def is_alive(pid: int) -> bool:
    """Tell whether a process does anything; one that nobody waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_command_is_given_its_arguments_its_input_and_its_environment_as_they_are(
    tmp_path: Path,
) -> None:
    hook = make_hook(
        tmp_path, f'cd {tmp_path}; cat > input; printf "%s\\n" "$@" > words; env -0 > e'
    )
    data = b"x" * 300_000  # more than a pipe holds
    assert run([*hook, "$(touch owned)", "; touch owned", "a b"], data, NAME=b"caf\xe9\n; x")
    assert (tmp_path / "input").read_bytes() == data
    assert (tmp_path / "words").read_text() == "$(touch owned)\n; touch owned\na b\n"
    assert b"NAME=caf\xe9\n; x\0" in (tmp_path / "e").read_bytes()
    assert not (tmp_path / "owned").exists()


SEEN = """
import os, sys
with open(sys.argv[1], "w") as file:
    file.write(" ".join(sorted(os.listdir("/proc/self/fd"))))
    file.write(open("/proc/self/status").read())
"""


def test_a_command_inherits_no_descriptor_and_no_blocked_signal(tmp_path: Path) -> None:
    ours = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(ours, True)  # as a library's may be
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP, signal.SIGUSR1])
    try:
        assert run([sys.executable, "-c", SEEN, str(tmp_path / "seen")])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(ours)
    seen = (tmp_path / "seen").read_text()
    assert seen.startswith("0 1 2 3 4Name:")  # 3 and 4 are its own
    assert "\nSigBlk:\t0000000000000000\n" in seen


def test_a_command_may_end_by_a_broken_pipe_as_from_a_shell(tmp_path: Path) -> None:
    hook = make_hook(tmp_path, f"yes 2> {tmp_path}/said | true")
    assert run(hook)
    assert (tmp_path / "said").read_text() == ""  # it would complain, were SIGPIPE ignored


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo one >&2; echo two >&2; exit 3", "exit status 3: one | two"),
        ("kill -KILL $$", "ended by SIGKILL"),
        ("i=0; while [ $i -lt 9999 ]; do echo line $i >&2; i=$((i+1)); done; exit 1", "line 9998$"),
        ("printf '\\033[2J\\342\\200\\256x\\n' >&2; exit 1", r"1: \\x1b\[2J\\u202ex$"),
    ],
)
def test_a_command_that_fails_is_told_with_the_end_of_what_it_said(
    tmp_path: Path, script: str, message: str
) -> None:
    with pytest.raises(HookError, match=message.replace("|", r"\|")):
        run(make_hook(tmp_path, script))


def test_what_cannot_be_started_is_told(tmp_path: Path) -> None:
    with pytest.raises(HookError, match="no such program"):
        run(["no-such-program-anywhere"])
    (tmp_path / "plain").write_text("#!/bin/sh\n")
    with pytest.raises(HookError, match="not executable"):
        run([str(tmp_path / "plain")])
    (tmp_path / "odd").write_text("#!/no/such/shell\n")
    (tmp_path / "odd").chmod(0o755)
    with pytest.raises(HookError, match="cannot be started: No such file"):
        run([str(tmp_path / "odd")])
    (tmp_path / "text").write_text("no program")
    (tmp_path / "text").chmod(0o755)
    with pytest.raises(HookError, match="cannot be started: Exec format error"):
        run([str(tmp_path / "text")])


@pytest.mark.parametrize("ignored", ["", "trap '' TERM;"])
def test_a_command_that_takes_too_long_is_ended_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ignored: str
) -> None:
    pids, asked = tmp_path / "pids", []

    def leaping() -> float:
        """Tell the time; once the command is well begun, and its end set, that has come."""
        asked.append(time.monotonic() + (1000 if asked and pids.exists() else 0))
        return asked[-1]

    monkeypatch.setattr(commands, "time", SimpleNamespace(monotonic=leaping, sleep=time.sleep))
    monkeypatch.setattr(commands, "KILL_SECONDS", 0.3)
    script = (
        f"{ignored} cd {tmp_path}; sleep 1000 & echo $$ $! > p.part; mv p.part pids; wait; wait"
    )
    with pytest.raises(HookError, match="longer than 900 s"):
        run(make_hook(tmp_path, script), seconds=900)
    both = list(map(int, pids.read_text().split()))
    assert len(both) == 2
    wait_until(lambda: not any(map(is_alive, both)))


def test_a_command_is_ended_when_somebody_says_so_and_that_is_no_failure(tmp_path: Path) -> None:
    hook = make_hook(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 1000")
    pid = tmp_path / "pid"
    is_over = lambda: pid.exists() and pid.read_text() != ""  # noqa: E731
    assert not run_command(hook, ENVIRONMENT, b"", 600, is_over)
    assert not is_alive(int(pid.read_text()))


def test_what_a_command_leaves_running_holds_up_nobody(tmp_path: Path) -> None:
    hook = make_hook(tmp_path, f"sleep 1000 & echo $! > {tmp_path}/pid; exit 0")
    begun = time.monotonic()
    try:
        assert run(hook, seconds=900)
        assert time.monotonic() - begun < 600  # which has its standard error to this moment
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
