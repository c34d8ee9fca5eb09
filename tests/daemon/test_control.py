"""What people ask of the queue, beside a daemon at work."""

import fcntl
import json
import os
import pty
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from conftest import Program
from PIL import Image
from support import (
    FakeExecutor,
    Watch,
    command,
    configure,
    draw,
    make_home,
    outputs,
    painted,
    program,
    states,
    wait_until,
)

from nst_pipeline.config.pipeline import load
from nst_pipeline.daemon import control
from nst_pipeline.daemon.status import read_status
from nst_pipeline.errors import UsageError
from nst_pipeline.jobs.ledger import Ledger, ledger_path
from nst_pipeline.jobs.lock import LOCK_NAME
from nst_pipeline.workers import local


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_home(tmp_path / "home")


def test_a_failed_file_that_stays_is_not_looked_at_again_until_retried(home: Path) -> None:
    configure(home, on_failure="keep")
    draw(home / "inbox/a.png", 1)
    (home / "orders/a.png").write_text("fail")
    with Watch(home) as watch:
        wait_until(lambda: watch.status()["failed"] == 1)
        watch.until_idle()
        draw(home / "inbox/b.png", 2)
        watch.until_outputs("b-s.png")
        (home / "orders/a.png").unlink()
        assert states(home)["a.png"] == "failed"
        assert program(home, "retry", "a.png").returncode == 0
        watch.until_outputs("a-s.png", "b-s.png")
        wait_until(lambda: watch.status()["failed"] == 0)


@pytest.mark.parametrize("bad", ["a.png", "a.mask.png"])
def test_what_was_given_up_and_stays_is_painted_once_the_limits_allow_it(
    home: Path, bad: str
) -> None:
    keep = {"on_failure": "keep"}
    configure(home, limits={"max_pixels": 64 * 48}, **keep)
    draw(home / "inbox/a.png", 1)
    Image.new("RGB", (68, 51)).save(home / "inbox" / bad)
    with Watch(home) as watch:
        wait_until(lambda: watch.status()["failed"] == 1)
        watch.until_idle()
        assert "limits.max_pixels" in watch.status()["failures"][0]["reason"]
        configure(home, **keep)
        watch.send(signal.SIGHUP)
        watch.until_outputs("a-s.png")
        wait_until(lambda: watch.status()["failed"] == 0)


def test_a_mask_that_was_given_up_alone_is_taken_when_its_picture_comes(home: Path) -> None:
    configure(home, on_failure="keep")
    draw(home / "inbox/a.mask.png", 2)
    with Watch(home) as watch:
        wait_until(lambda: watch.status()["failed"] == 1)
        watch.until_idle()
        draw(home / "inbox/a.png", 1)
        watch.until_outputs("a-s.png")


def test_retry_puts_failed_files_back(home: Path) -> None:
    for name in ("a.png", "b.png"):
        draw(home / "inbox" / name, ord(name[0]))
        (home / "orders" / name).write_text("fail")
    with Watch(home) as watch:
        wait_until((home / "failed/a.png").exists)
        wait_until((home / "failed/b.png").exists)
        for name in ("a.png", "b.png"):
            (home / "orders" / name).unlink()
        watch.until_idle()
        assert program(home, "retry", "--all-failed").returncode == 0
        watch.until_outputs("a-s.png", "b-s.png")
    assert not list((home / "failed").iterdir())


def test_the_command_of_a_report_puts_back_a_file_of_any_name(home: Path) -> None:
    names = ("-x.png", "$(touch forged) 'b.png", "c\nd.png")
    for number, name in enumerate(names):
        draw(home / "inbox" / name, number)
        (home / "orders" / name).write_text("fail")
    with Watch(home) as watch:
        wait_until(lambda: all((home / f"failed/{name}.error.json").exists() for name in names))
        watch.until_idle()
        for name in names:
            (home / "orders" / name).unlink()
            asked = json.loads((home / f"failed/{name}.error.json").read_text())["retry"]
            done = program(home, *shlex.split(asked)[1:])
            assert done.returncode == 0, done.stderr
        watch.until_outputs(*(f"{Path(name).stem}-s.png" for name in names))


def give_up(home: Path, *names: str) -> None:
    """Have some pictures fail for good."""
    for name in names:
        draw(home / "inbox" / name, ord(name[0]))
        (home / "orders" / name).write_text("fail")
    with Watch(home) as watch:
        wait_until(lambda: watch.status()["failed"] == len(names))
        watch.until_idle()
        assert watch.stop() == 0
    for name in names:
        (home / "orders" / name).unlink(missing_ok=True)


def test_retry_goes_on_past_a_name_that_is_taken(home: Path) -> None:
    give_up(home, "a.png", "b.png", "c.png")
    draw(home / "inbox/a.png", 99)
    done = program(home, "retry", "--all-failed")
    assert done.returncode == 64 and "a.png: another file has its name" in done.stderr
    assert done.stdout.count("queued again") == 2
    assert (home / "failed/a.png").exists() and (home / "failed/a.png.error.json").exists()
    with Watch(home) as watch:
        watch.until_outputs("a-s.png", "b-s.png", "c-s.png")  # the other a.png
        assert watch.status()["failed"] == 1


def test_a_picture_does_not_come_back_without_its_mask(home: Path) -> None:
    draw(home / "inbox/a.mask.png", 5)
    draw(home / "inbox/a.png", 1)
    (home / "orders/a.png").write_text("fail")
    with Watch(home) as watch:
        wait_until(lambda: watch.status()["failed"] == 2)
        assert watch.stop() == 0
    draw(home / "inbox/a.mask.png", 6)
    assert program(home, "retry", "--all-failed").returncode == 64
    assert (home / "failed/a.png").exists() and (home / "failed/a.mask.png").exists()
    (home / "inbox/a.mask.png").unlink()
    assert program(home, "retry", "--all-failed").returncode == 0
    assert (home / "inbox/a.png").exists() and (home / "inbox/a.mask.png").exists()


def test_a_failure_whose_file_is_gone_is_told_no_more(home: Path) -> None:
    give_up(home, "a.png", "b.png")
    (home / "failed/a.png").unlink()
    (failure,) = read_status(load(home / "pipeline.yaml")).failures
    assert failure["source"].endswith("b.png")
    assert program(home, "retry", "--all-failed").stdout.count("queued again") == 1
    gone = program(home, "retry", "a.png")
    assert gone.returncode == 64 and "a.png: is gone" in gone.stderr
    assert "nothing has failed" in program(home, "retry", "--all-failed").stdout


@pytest.fixture
def other_disk(home: Path) -> Iterator[Path]:
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == home.stat().st_dev:
        pytest.skip("needs a second file system in /dev/shm")
    with tempfile.TemporaryDirectory(dir=shm) as folder:
        yield Path(folder)


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("kill", ["utimensat:1", "renameat2:2", "unlinkat:2", "unlinkat:3"])
def test_a_retry_that_was_killed_between_two_disks_is_completed_by_the_next(
    home: Path, other_disk: Path, kill: str
) -> None:
    configure(home, failed=str(other_disk / "failed"))
    give_up(home, "a.png")
    data = (other_disk / "failed/a.png").read_bytes()
    call, when = kill.split(":")
    killed = subprocess.run(
        ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}",
         "-e", f"inject={call}:signal=KILL:when={when}", *command("retry", "--all-failed")],
        cwd=home, capture_output=True,
    )  # fmt: skip
    assert killed.returncode != 0
    done = program(home, "retry", "--all-failed")
    assert done.returncode == 0, done.stderr
    assert (home / "inbox/a.png").read_bytes() == data
    assert [path.name for path in (home / "inbox").iterdir()] == ["a.png"]
    assert not list((other_disk / "failed").iterdir())
    assert not read_status(load(home / "pipeline.yaml")).failures
    with Watch(home) as watch:
        watch.until_outputs("a-s.png")


def test_a_pause_lasts_until_resume_also_over_a_restart(home: Path) -> None:
    with Watch(home) as watch:
        watch.until_idle()
        assert program(home, "pause").returncode == 0
        watch.until_state("paused")
        draw(home / "inbox/a.png", 1)
        assert watch.stop() == 0
    with Watch(home) as watch:
        watch.until_state("paused")
        assert not outputs(home)
        assert program(home, "resume").returncode == 0
        watch.until_outputs("a-s.png")


def test_cancel_stops_the_job_at_work_and_retry_brings_it_back(home: Path) -> None:
    draw(home / "inbox/a.png", 1)
    (home / "orders/a.png").write_text("slow")
    with Watch(home) as watch:
        watch.until_painting()
        assert program(home, "cancel", "a.png").returncode == 0
        watch.until_idle()
        assert states(home) == {"a.png": "cancelled"} and (home / "inbox/a.png").exists()
        (home / "orders/a.png").unlink()
        assert program(home, "retry", "a.png").returncode == 0
        watch.until_outputs("a-s.png")


def test_files_that_no_plan_has_come_to_yet_can_be_cancelled(home: Path) -> None:
    (home / "inbox/sub").mkdir()
    draw(home / "inbox/sub/a.png", 1)
    draw(home / "inbox/b.png", 2)
    done = program(home, "pause")
    assert done.returncode == 0
    with Watch(home) as watch:
        watch.until_state("paused")
        assert watch.stop() == 0
    with Ledger(ledger_path(home / "state")):
        pass
    done = program(home, "cancel", "sub/a.png")
    assert done.returncode == 0, done.stderr
    assert program(home, "resume").returncode == 0
    with Watch(home) as watch:
        watch.until_outputs("b-s.png")
        watch.until_idle()
        assert program(home, "retry", "sub/a.png").returncode == 0
        watch.until_outputs("b-s.png", "sub/a-s.png")
    assert "known" in program(home, "cancel", "nothing.png").stderr


# No harm to anybody


@contextmanager
def asked_all_the_time(home: Path) -> Iterator[None]:
    """Have somebody pause, resume, retry and cancel without a rest while the block lasts."""
    config, over = load(home / "pipeline.yaml"), threading.Event()
    asked: list[Callable[[], object]] = [
        lambda: control.pause(config),
        lambda: control.resume(config),
        lambda: control.retry(config, []),
        lambda: control.cancel(config, ["a.png"]),
    ]

    def ask() -> None:
        while not over.is_set():
            for one in asked:
                with suppress(UsageError):
                    one()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_nothing_that_is_asked_at_the_start_or_at_the_stop_ends_the_daemon(home: Path) -> None:
    draw(home / "inbox/a.png", 1)
    with Ledger(ledger_path(home / "state")):
        pass
    for _ in range(5):
        with asked_all_the_time(home), Watch(home) as watch:
            wait_until(lambda: watch.status()["state"] in ("idle", "paused", "painting"))
            assert watch.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_that_is_only_noted_ends_the_daemon_at_no_time(
    home: Path, number: signal.Signals
) -> None:
    with Watch(home) as first:
        first.until_idle()
        with Watch(home, "--wait") as watch:  # which is long at its start
            # Since it began to import what it needs:
            wait_until(lambda: is_held(watch.process.pid, number))
            for _ in range(100):
                watch.send(number)
            assert first.stop() == 0
            watch.until_idle()
            over = threading.Event()

            def send() -> None:
                while not over.is_set() and watch.process.poll() is None:
                    watch.send(number)

            thread = threading.Thread(target=send)
            thread.start()
            assert watch.stop() == 0
            over.set()
            thread.join()


def is_held(pid: int, number: signal.Signals) -> bool:
    """Tell whether a process lets a signal wait."""
    status = Path(f"/proc/{pid}/status").read_text()
    masks = [int(line.split()[1], 16) for line in status.splitlines() if line[:6] == "SigBlk"]
    return any(mask >> (number - 1) & 1 for mask in masks)


@pytest.mark.parametrize("arguments", [["pause"], ["resume"], ["retry", "--all-failed"]])
def test_no_process_is_signalled_for_its_number(home: Path, arguments: list[str]) -> None:
    with Ledger(ledger_path(home / "state")):
        pass
    # The daemon may be one of another namespace, and the number here that of anybody.
    with (
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as anybody,
        (home / "state" / LOCK_NAME).open("w") as lock,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        json.dump({"pid": anybody.pid, "since": 0, "command": "watch"}, lock)
        lock.flush()
        done = program(home, *arguments)
        assert done.returncode == 0, done.stderr
        anybody.communicate(b"\n")
        assert anybody.returncode == 0


def test_cancel_says_for_which_styles_it_is_too_late(home: Path) -> None:
    configure(home, styles={"s": "style.png", "t": "style2.png"})
    draw(home / "inbox/a.png", 1)
    with Watch(home) as watch:
        watch.until_outputs("a-s.png", "a-t.png")
        watch.until_idle()
        done = program(home, "cancel", "a.png")
        assert done.returncode == 64
        assert "too late" in done.stdout and "inbox/a.png in s, t: done" in done.stdout
        (home / "orders/b.png").write_text("slow")
        draw(home / "inbox/b.png", 2)
        watch.until_painting()
        done = program(home, "cancel", "a.png", "b.png")
        assert done.returncode == 64
        assert "inbox/a.png in s, t: done" in done.stdout
        assert f"inbox/b.png; `nst-pipeline retry {home}/inbox/b.png` puts it back" in done.stdout
        watch.until_idle()
    assert outputs(home) == ["a-s.png", "a-t.png"]


def test_what_cancel_says_is_what_happens_whenever_it_comes(home: Path) -> None:
    configure(home, styles={"s": "style.png", "t": "style2.png"})
    config, source = load(home / "pipeline.yaml"), random.Random(2)
    said: dict[str, control.Cancellation] = {}
    with Watch(home) as watch:
        watch.until_idle()
        for number in range(40):
            name = f"{number:02}.png"
            draw(home / "inbox" / name, number)
            threading.Event().wait(source.uniform(0, 0.4))
            if number % 2:  # what is at work goes back into the queue
                watch.send(signal.SIGHUP)
            with suppress(UsageError):
                (said[name],) = control.cancel(config, [name])
        wait_until(lambda: not {"queued", "running", "committing"} & set(states(home).values()))
        watch.until_idle()
        assert watch.stop() == 0
    for name, one in said.items():
        assert sorted(one.cancelled + one.late) == ["s", "t"]
        stem = Path(name).stem
        made = [path for path in outputs(home) if path.startswith(stem)]
        assert made == [f"{stem}-{style}.png" for style in one.late]
    assert len(said) == 40


def test_a_run_says_what_is_cancelled_and_how_it_comes_back(home: Path, here: Program) -> None:
    draw(home / "inbox/a.png", 1)
    draw(home / "inbox/b.png", 2)
    with Ledger(ledger_path(home / "state")):
        pass
    assert program(home, "cancel", "a.png", "b.png").returncode == 0
    said = program(home, "run").stdout
    assert (
        f"held     inbox/a.png in s: cancelled; `nst-pipeline retry {home}/inbox/a.png` puts"
        in said
    )
    assert "nothing to do: 0 jobs done before, 2 cancelled; --force" in said
    listed = here("run", "--dry-run", cwd=home).stdout
    assert listed.count("hold ") == 3 and "inbox/a.png in s: cancelled\n" in listed
    assert (
        f"a.png in s: cancelled; `nst-pipeline retry {home}/inbox/a.png`"
        in here("check", cwd=home).stdout
    )


def test_of_two_names_that_look_alike_the_one_that_was_given_is_meant(home: Path) -> None:
    raw, text = os.fsdecode(b"\xff.png"), "\\xff.png"
    for number, name in enumerate((raw, text)):
        draw(home / "inbox" / name, number)
    with Ledger(ledger_path(home / "state")):
        pass
    assert program(home, "cancel", raw).returncode == 0
    assert states(home)[raw] == "cancelled" and states(home).get(text) != "cancelled"
    assert program(home, "cancel", text).returncode == 0
    assert states(home) == {raw: "cancelled", text: "cancelled"}
    assert program(home, "retry", text).returncode == 0
    assert states(home) == {raw: "cancelled", text: "queued"}


def test_stop_ends_the_daemon_in_good_order_and_no_daemon_after_it(home: Path) -> None:
    assert program(home, "stop").stdout == "no daemon works with these settings\n"
    (home / "orders/a.png").write_text("slow")
    draw(home / "inbox/a.png", 1)
    with Watch(home) as watch:
        watch.until_painting()
        stopping = subprocess.Popen(command("stop"), cwd=home, stdout=subprocess.PIPE, text=True)
        watch.until_state("stopping")
        (home / "orders/a.png").unlink()  # the job at work may end
        said, _ = stopping.communicate(timeout=60)
        assert said.endswith("the job at work may go on for 30 s\nstopped\n")
        assert watch.process.wait(30) == 0
    assert outputs(home) == ["a-s.png"]
    with Watch(home) as watch:  # what was asked of the one before is over
        watch.until_idle()
        assert watch.stop() == 0


def test_stop_leaves_a_run_to_who_began_it(home: Path) -> None:
    (home / "orders/a.png").write_text("slow")
    draw(home / "inbox/a.png", 1)
    run = subprocess.Popen(command("run"), cwd=home, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: read_status(load(home / "pipeline.yaml")).alive)
        done = program(home, "stop")
        assert done.returncode == 64 and f"process {run.pid}, works with it" in done.stderr
        assert run.poll() is None
    finally:
        run.kill()
        run.wait()


@pytest.mark.parametrize("ignores", [False, True])
def test_a_daemon_stops_when_its_terminal_goes_unless_told_to_ignore_that(
    home: Path, ignores: bool
) -> None:
    nohup = ["nohup"] if ignores else []
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(home)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as at a terminal
        arguments = [*nohup, *command("watch")]
        os.execvp(arguments[0], arguments)
    try:
        wait_until(lambda: read_status(load(home / "pipeline.yaml")).state == "idle")
        os.close(terminal)
        if ignores:
            draw(home / "inbox/a.png", 1)
            wait_until(lambda: outputs(home) == ["a-s.png"])
        else:
            wait_until(lambda: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT))
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == (-signal.SIGKILL if ignores else 0)


def test_who_only_asks_the_daemon_needs_no_style(home: Path) -> None:
    draw(home / "inbox/a.png", 1)
    draw(home / "inbox/b.png", 2)
    (home / "orders/a.png").write_text("slow")
    with Watch(home) as watch:
        watch.until_painting()
        (home / "style.png").rename(home / "away.png")
        assert "a.png in s" in program(home, "status").stdout
        for arguments in (["pause"], ["cancel", "b.png"], ["retry", "b.png"], ["resume"], ["stop"]):
            if arguments == ["stop"]:
                (home / "orders/a.png").unlink()
            done = program(home, *arguments)
            assert done.returncode == 0, done.stderr
    done = program(home, "run")
    assert done.returncode == 78 and "style.png: no such file" in done.stderr


def test_retry_takes_whatever_names_a_failed_file(home: Path) -> None:
    (home / "orders/sub").mkdir()
    (home / "inbox/sub").mkdir()
    draw(home / "inbox/sub/a.png", 1)
    (home / "orders/a.png").write_text("fail")
    names = ["a.png", "sub/a.png", "inbox/sub/a.png", "failed/sub/a.png", home / "failed/sub/a.png",
             "failed/sub/a.png.error.json", "a.png.error.json"]  # fmt: skip
    with Watch(home) as watch:
        for name in names:
            wait_until((home / "failed/sub/a.png.error.json").exists)
            watch.until_idle()
            done = program(home, "retry", name)
            assert done.returncode == 0, done.stderr
            assert done.stdout == f"queued again  {home}/inbox/sub/a.png\n"
            wait_until(lambda: states(home)["a.png"] == "failed")


def test_who_retries_what_is_done_hears_how_it_is_painted_again(home: Path) -> None:
    draw(home / "inbox/a b.png", 1)
    program(home, "run")
    done = program(home, "retry", "a b.png")
    assert done.returncode == 64
    assert f"`nst-pipeline retry '{home}/inbox/a b.png' --force` paints it again" in done.stderr
    assert program(home, "retry", "a b.png", "--force").returncode == 0
    assert program(home, "run").stdout.count("done     inbox/a b.png") == 1
    assert painted(home) == ["a", "a"] and outputs(home) == ["a b-s.png"]
    assert "nothing to do" in program(home, "run").stdout


@pytest.mark.parametrize(
    "wrong",
    ["", "styles: 3", "styles: [", "styles: &a\n  x: *a\n", "styles: {s: ~nosuchuser/style.png}"],
)
def test_wrong_settings_are_told_until_they_are_mended_and_the_old_ones_stay(
    home: Path, wrong: str
) -> None:
    right = (home / "pipeline.yaml").read_text()
    with Watch(home) as watch:
        watch.until_idle()
        (home / "pipeline.yaml").write_text(wrong)
        watch.send(signal.SIGHUP)
        wait_until(lambda: "stay as they were" in (home / "state/status.json").read_text())
        draw(home / "inbox/a.png", 1)
        watch.until_outputs("a-s.png")
        (home / "pipeline.yaml").write_text(right)
        watch.send(signal.SIGHUP)
        wait_until(lambda: not watch.status()["last_error"])


def test_every_command_that_a_message_names_can_be_run_as_it_stands(
    tmp_path: Path, here: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "LocalExecutor", FakeExecutor(limit=1))
    home = make_home(tmp_path / "my 'own' pictures")
    shell = tmp_path / "bin/nst-pipeline"
    shell.parent.mkdir()
    shell.write_text(f'#!/bin/sh\nexec {shlex.join(command())} "$@"\n')
    shell.chmod(0o755)
    settings = ("-c", f"{home}/pipeline.yaml")
    said: list[str] = []

    def say(*arguments: object) -> None:
        done = here(*arguments)
        said.append(done.stdout + done.stderr)

    say("run")  # there are no settings here
    say("check", "-c", tmp_path / "gone/pipeline.yaml")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/pipeline.yaml").write_text("")
    say("check", "-c", tmp_path / "empty/pipeline.yaml")
    (tmp_path / "empty/pipeline.yaml").unlink()  # as the message says
    say("init", tmp_path / "a new one")
    for number, name in enumerate(("done.png", "-bad one.png", "off.png")):
        draw(home / "inbox" / name, number)
    (home / "orders/-bad one.png").write_text("fail")
    with Ledger(ledger_path(home / "state")):
        pass
    say("cancel", "off.png", *settings)
    with Watch(home) as watch:
        wait_until((home / "failed/-bad one.png.error.json").exists)
        watch.until_idle()
        say("pause", *settings)
        watch.until_state("paused")
        say("status", *settings)
        assert watch.stop() == 0
    said.append(watch.log.read_text())
    said.append(
        "`" + json.loads((home / "failed/-bad one.png.error.json").read_text())["retry"] + "`"
    )
    say("retry", "done.png", *settings)
    say("run", *settings)
    say("check", *settings)
    found = {one for text in said for one in re.findall(r"`(nst-pipeline [^`]*)`", text)}
    found |= {line.strip() for text in said for line in re.findall(r"\n  (nst-pipeline .*)", text)}
    assert {one.split()[1] for one in found} == {"init", "run", "resume", "retry"}
    draw(tmp_path / "photo.jpg", 9)
    draw(tmp_path / "style.jpg", 8)
    for one in sorted(found):
        where = {**os.environ, "PATH": f"{shell.parent}:{os.environ['PATH']}"}
        done = subprocess.run(
            one, shell=True, cwd=tmp_path, env=where, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (one, done.stderr)


def test_a_daemon_ends_in_good_order_whatever_threads_its_libraries_began(home: Path) -> None:
    # The program of the tests imports numpy, whose threads then come before the daemon's own.
    with Watch(home, OMP_NUM_THREADS="2", OPENBLAS_NUM_THREADS="2") as watch:
        watch.until_idle()
        assert watch.stop() == 0
