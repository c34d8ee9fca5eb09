"""Hooks of `run` and `watch`, as real processes: each job that is over is told of."""

import base64
import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import support
from conftest import Program
from receiver import receiving
from support import (
    LONG,
    TELL,
    Watch,
    configure,
    draw,
    make_due,
    make_home,
    make_hook,
    manifests,
    outputs,
    painted,
    program,
    told,
    wait_until,
)

from nst_pipeline.config.pipeline import load
from nst_pipeline.digests import file_digest
from nst_pipeline.runner.hooks import describe


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = make_home(tmp_path / "home")
    draw(home / "inbox/a.png", 1)
    return home


def hook(home: Path, script: str = TELL, **settings: Any) -> dict[str, Any]:
    """Return the settings of a hook whose command is a shell script."""
    return {"command": make_hook(home, script), "retry_seconds": 0.05} | settings


def environments(home: Path) -> list[dict[bytes, bytes]]:
    """Return the environment of each time the hook `TELL` was started."""
    texts = (path.read_bytes() for path in (home / "told").glob("*.env"))
    return [dict(one.split(b"=", 1) for one in text.split(b"\0") if one) for text in texts]  # type: ignore[misc]


def waiting(home: Path) -> int:
    return int(Watch(home).status()["deliveries"]["waiting"])


def last_failure(home: Path) -> str:
    return str(Watch(home).status()["deliveries"]["last_failure"]["reason"])


# What is told


def test_a_command_is_given_the_record_of_the_manifest_and_the_paths(home: Path) -> None:
    configure(home, on_done=hook(home))
    assert program(home, "run").returncode == 0
    (manifest,) = manifests(home)
    assert told(home) == manifest["jobs"]
    (values,) = environments(home)
    ours = {name: value for name, value in values.items() if name.startswith(b"NST_PIPELINE_")}
    (key,) = [path.stem for path in (home / "told").glob("*.json")]
    (place,) = (home / "outbox/manifests").iterdir()
    assert ours == {
        b"NST_PIPELINE_EVENT": b"done",
        b"NST_PIPELINE_CONTENT": os.fsencode(home / "inbox/a.png"),
        b"NST_PIPELINE_OUTPUT": os.fsencode(home / "outbox/a-s.png"),
        b"NST_PIPELINE_STYLE": b"s",
        b"NST_PIPELINE_MANIFEST": os.fsencode(place),
        b"NST_PIPELINE_RUN": manifest["run"]["id"].encode(),
        b"NST_PIPELINE_DELIVERY": key.encode(),
    }


def test_names_are_data_whatever_bytes_they_are_made_of(home: Path) -> None:
    (home / "inbox/a.png").unlink()
    name = b"--$(touch owned);\n'\xe9.png"
    draw(os.fsencode(home) + b"/inbox/" + name, 1)
    configure(home, on_done=hook(home, f'echo "$#" > words; {TELL}'))
    assert program(home, "run").returncode == 0
    (values,) = environments(home)
    assert values[b"NST_PIPELINE_CONTENT"].endswith(b"/inbox/" + name)
    assert values[b"NST_PIPELINE_OUTPUT"] == os.fsencode(home) + b"/outbox/" + name[:-4] + b"-s.png"
    assert Path(os.fsdecode(values[b"NST_PIPELINE_OUTPUT"])).is_file()
    assert (home / "words").read_text() == "0\n" and not (home / "owned").exists()


def test_what_is_done_already_is_not_told_and_what_is_the_same_bytes_is(home: Path) -> None:
    configure(home, on_done=hook(home))
    assert program(home, "run").returncode == 0
    (home / "inbox/b.png").write_bytes((home / "inbox/a.png").read_bytes())
    for _ in range(2):
        assert program(home, "run").returncode == 0
    assert [one["duplicate_of"] for one in told(home)] == [None, str(home / "outbox/a-s.png")]
    assert len(painted(home)) == 1


def test_a_run_tells_of_each_job_that_fails_and_of_a_broken_file_for_each_style(
    home: Path,
) -> None:
    (home / "inbox/broken.png").write_text("no picture")
    (home / "orders/a.png").write_text("fail")
    styles = {"s": "style.png", "t": "style2.png"}
    configure(home, styles=styles, on_failed=hook(home), on_done=["no-such-program"])
    assert program(home, "run").returncode == 1
    names = [(Path(one["content"]["path"]).name, one["style"]["name"]) for one in told(home)]
    assert names == [("a.png", "s"), ("a.png", "t"), ("broken.png", "s"), ("broken.png", "t")]
    assert [one["error"]["reason"] for one in told(home)[:2]] == ["a.png: told to fail"] * 2
    assert b"NST_PIPELINE_OUTPUT" not in environments(home)[0]


def test_watch_tells_of_what_is_given_up_for_good_and_not_of_each_attempt(home: Path) -> None:
    (home / "inbox/broken.png").write_text("no picture")
    (home / "orders/a.png").write_text("pass")
    configure(home, on_failed=hook(home), watch={"max_attempts": 2, "retry_seconds": 0.1})
    with Watch(home) as watch:
        wait_until(lambda: len(told(home)) == 2)
        watch.until_idle()
        assert watch.stop() == 0
    assert [Path(one["content"]["path"]).name for one in told(home)] == ["a.png", "broken.png"]
    assert all(one["error"]["reason"] for one in told(home))


def test_watch_tells_of_what_ended_the_process_too_often(home: Path) -> None:
    (home / "orders/a.png").write_text("die")
    configure(home, on_failed=hook(home), watch={"max_attempts": 2})
    for _ in range(2):
        with Watch(home) as watch:
            watch.process.wait(support.PATIENCE_SECONDS)
    assert told(home) == []
    with Watch(home) as watch:
        wait_until(lambda: told(home))
        watch.until_idle()
        assert watch.stop() == 0
    (record,) = told(home)
    assert "the process ended while it was painted, 2 times" in record["error"]["reason"]
    assert record["content"]["sha256"] and record["style"]["name"] == "s"


# What a hook does not get


def test_a_hook_does_not_see_what_the_service_manager_and_the_webhook_are_for(home: Path) -> None:
    settings = hook(home, url="http://127.0.0.1:9/", secret_env="HOOK_SECRET")
    configure(home, on_done=settings)
    with Watch(
        home, NOTIFY_SOCKET=str(home / "none"), WATCHDOG_USEC="99999999999", HOOK_SECRET="s3cret",
        NST_PIPELINE_OUTPUT="stale", NST_PIPELINE_CONFIG="pipeline.yaml",
    ) as watch:  # fmt: skip
        wait_until(lambda: told(home))
        assert watch.stop() == 0
    (values,) = environments(home)
    names = {b"NOTIFY_SOCKET", b"WATCHDOG_USEC", b"HOOK_SECRET"}
    assert not names & set(values) and values[b"NST_PIPELINE_CONFIG"] == b"pipeline.yaml"
    assert values[b"NST_PIPELINE_OUTPUT"] != b"stale"


# What goes wrong


def test_a_hook_that_fails_harms_no_result_and_is_given_up(home: Path) -> None:
    draw(home / "inbox/b.png", 2)
    script = f"echo x >> tries; echo first >&2; echo no luck >&2; {TELL}; exit 3"
    configure(home, on_done=hook(home, script, max_attempts=3))
    with Watch(home) as watch:
        wait_until(lambda: (home / "tries").exists() and (home / "tries").read_text() == 6 * "x\n")
        wait_until(lambda: not waiting(home))
        watch.until_outputs("a-s.png", "b-s.png")
        assert watch.stop() == 0
    assert support.states(home) == {"a.png": "done", "b.png": "done"}
    assert len(list((home / "told").glob("*.json"))) == 2  # the same key at each attempt
    log = watch.log.read_text()
    assert f"on_done: {home}/hook: exit status 3: first | no luck; attempt 1 of 3" in log
    assert log.count("attempt 1 of 3") == 1 and log.count("given up for") == 2
    given_up = f"given up for {home}/inbox/b.png in s after 3 attempts"
    assert given_up in log and last_failure(home).endswith("in s after 3 attempts")
    said = program(home, "status").stdout
    assert "0 deliveries waiting; last failure" in said and "no luck" in said


def test_a_run_says_how_many_wait_and_the_next_one_delivers(home: Path) -> None:
    configure(home, on_done=hook(home, "exit 1", retry_seconds=LONG))
    done = program(home, "run")
    assert done.returncode == 0 and "1 job done, 0 failed" in done.stdout
    assert "hooks    1 delivery left to the next run" in done.stdout
    assert "exit status 1; attempt 1 of 10" in done.stderr
    assert waiting(home) == 1 and "hooks      1 delivery waiting" in program(home, "status").stdout
    make_due(home)
    configure(home, on_done=hook(home))
    done = program(home, "run")
    assert "deliveries" not in done.stdout and len(told(home)) == 1
    assert waiting(home) == 0 and len(manifests(home)) == 1


def test_a_hook_that_hangs_holds_up_no_painting_and_no_other_hook(home: Path) -> None:
    with receiving() as server:
        script = f"echo x >> tries; {TELL}; while [ ! -e go ]; do sleep 0.05; done"
        configure(home, on_done=hook(home, script, url=server.url, timeout_seconds=LONG))
        with Watch(home) as watch:
            wait_until(lambda: told(home))
            for name in ("b.png", "c.png"):
                draw(home / "inbox" / name, ord(name[0]))
            watch.until_outputs("a-s.png", "b-s.png", "c-s.png")
            wait_until(lambda: len(server.requests) == 3)
            assert (home / "tries").read_text() == "x\n"
            (home / "go").touch()
            wait_until(lambda: len(told(home)) == 3)
            assert watch.stop() == 0


def test_a_hook_that_takes_too_long_is_ended_and_tried_again(home: Path) -> None:
    script = f"{TELL}; [ -e ended ] || {{ touch ended; sleep 1000; }}"
    configure(home, on_done=hook(home, script, timeout_seconds=0.5))
    with Watch(home) as watch:
        wait_until(lambda: (home / "ended").exists() and not waiting(home))
        assert watch.stop() == 0
    assert "took longer than 0.5 s, and was ended; attempt 1 of 10" in watch.log.read_text()
    assert len(told(home)) == 1


def test_hooks_that_are_taken_out_of_the_settings_are_forgotten_and_it_is_said(home: Path) -> None:
    settings = hook(home, "exit 1", url="http://127.0.0.1:9/", retry_seconds=LONG)
    configure(home, on_done=settings)
    program(home, "run")
    assert waiting(home) == 2
    make_due(home)
    configure(home, on_done=hook(home))
    done = program(home, "run")
    assert "on_done: 1 deliveries are dropped: the settings have no such url" in done.stderr
    configure(home, on_done=hook(home, "exit 1", retry_seconds=LONG))
    assert program(home, "run", "--force").returncode == 0 and waiting(home) == 1
    configure(home)
    done = program(home, "run")
    assert "on_done: 1 deliveries are dropped: the settings have no such command" in done.stderr
    assert waiting(home) == 0 and "hooks" not in program(home, "status").stdout


# What ends the process


KILLS = {
    # The result has its name; nothing says so yet.
    "renamed": "JobTable.finish = kill",
    # The ledger says so; no manifest does.
    "noted": "finish = JobTable.finish\nJobTable.finish = lambda *a: (finish(*a), kill())",
    # All is durable, and the hook is about to be started.
    "recorded": "deliverer.run_command = kill",
}


def run_to_kill(home: Path, patch: str) -> None:
    """Run until the patch kills the process (SIGKILL)."""
    code = (
        "import os, signal, sys, support\n"
        "from nst_pipeline.jobs.job_table import JobTable\n"
        "from nst_pipeline.runner import deliverer\n"
        "def kill(*_):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"{patch}\n"
        "sys.argv = ['nst-pipeline', 'run']\n"
        "support.main()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=home, env=environment, check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("kill", KILLS)
def test_a_kill_between_the_durable_result_and_the_hook_delays_it_to_the_next_start(
    home: Path, kill: str
) -> None:
    configure(home, on_done=hook(home))
    run_to_kill(home, KILLS[kill])
    assert outputs(home) == ["a-s.png"] and not told(home)
    assert program(home, "run").returncode == 0
    (record,) = told(home)
    assert record["status"] == "done" and record["losses"] and record["seconds"] == 0.5
    final = home / "outbox/a-s.png"
    size = record["output"]["size"]
    assert record["output"] == {
        "path": str(final), "raw": None, "sha256": file_digest(final), "size": size,
    }  # fmt: skip
    assert size and painted(home) == ["a.png"] and waiting(home) == 0
    (values,) = environments(home)
    assert values[b"NST_PIPELINE_OUTPUT"] == os.fsencode(final)


def test_a_copy_of_a_result_is_told_after_a_kill_too(home: Path) -> None:
    configure(home)
    assert program(home, "run").returncode == 0
    (home / "inbox/b.png").write_bytes((home / "inbox/a.png").read_bytes())
    configure(home, on_done=hook(home))
    run_to_kill(home, KILLS["renamed"])
    assert program(home, "run").returncode == 0
    (record,) = told(home)
    assert record["duplicate_of"] == str(home / "outbox/a-s.png")
    assert record["output"]["path"] == str(home / "outbox/b-s.png")


def test_what_was_prepared_for_a_result_that_never_was_is_not_told(home: Path) -> None:
    configure(home, on_done=hook(home))
    run_to_kill(home, "JobTable.begin_commit = kill")
    assert not (home / "outbox/a-s.png").exists()
    (home / "inbox/a.png").unlink()
    assert program(home, "run").returncode == 0
    assert told(home) == [] and waiting(home) == 0


def test_a_stop_ends_the_hook_at_work_in_time_and_the_next_start_delivers_again(
    home: Path,
) -> None:
    configure(home, on_done=hook(home, f"{TELL}; exec sleep 1000"), watch={"stop_seconds": 0.2})
    with Watch(home) as watch:
        wait_until(lambda: told(home))
        assert watch.stop() == 0
    assert waiting(home) == 1
    (home / "told").rename(home / "before")
    configure(home, on_done=hook(home))
    with Watch(home) as watch:
        wait_until(lambda: told(home))
        wait_until(lambda: not waiting(home))
        assert watch.stop() == 0
    names = [{path.name for path in (home / one).glob("*.json")} for one in ("before", "told")]
    assert names[0] == names[1]


def test_a_stop_lets_the_hook_at_work_end_if_it_can(home: Path) -> None:
    script = f"touch begun; while [ ! -e go ]; do sleep 0.05; done; {TELL}"
    configure(home, on_done=hook(home, script))
    with Watch(home) as watch:
        wait_until((home / "begun").exists)
        watch.send(signal.SIGTERM)
        watch.until_state("stopping")
        (home / "go").touch()
        assert watch.process.wait(support.PATIENCE_SECONDS) == 0
    assert len(told(home)) == 1 and waiting(home) == 0


def test_deliveries_go_on_while_the_daemon_is_paused(home: Path) -> None:
    configure(home, on_done=hook(home, "exit 1", retry_seconds=LONG))
    program(home, "run")
    make_due(home)
    program(home, "pause")
    configure(home, on_done=hook(home))
    with Watch(home) as watch:
        watch.until_state("paused")
        wait_until(lambda: told(home))
        assert watch.stop() == 0


# Webhooks


def test_a_webhook_is_tried_again_with_the_same_key_and_its_secret_stands_nowhere(
    home: Path,
) -> None:
    (home / "secret").write_text("s3cret-word\n")
    with receiving() as server:
        server.statuses = [503, 500]
        configure(
            home,
            on_done={
                "url": server.url, "secret_file": str(home / "secret"), "retry_seconds": 0.05,
            },
            metrics={"textfile": str(home / "nst.prom")},
        )  # fmt: skip
        with Watch(home, "--log-level", "debug") as watch:
            wait_until(lambda: len(server.requests) == 3)
            wait_until(lambda: not waiting(home))
            text = json.dumps(watch.status())
            assert watch.stop() == 0
    keys = {headers["webhook-id"] for _, headers, _ in server.requests}
    assert len(keys) == 1 and {path for path, _, _ in server.requests} == {"/hook/s3cretpath"}
    for _, headers, body in server.requests:
        assert [json.loads(body)] == manifests(home)[0]["jobs"]
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        mac = hmac.new(b"s3cret-word", signed, hashlib.sha256).digest()
        assert headers["webhook-signature"] == f"v1,{base64.b64encode(mac).decode()}"
    metrics = (home / "nst.prom").read_text()
    assert 'deliveries_total{event="done",outcome="failed"} 2.0' in metrics
    assert 'deliveries_total{event="done",outcome="delivered"} 1.0' in metrics
    assert "nst_pipeline_deliveries_waiting 0.0" in metrics
    text += watch.log.read_text() + metrics + last_failure(home)
    assert "answered with status 500; attempt 2 of 10" in text
    kept = [path for folder in ("outbox", "state") for path in (home / folder).rglob("*")]
    texts = [text.encode(), *(path.read_bytes() for path in kept if path.is_file())]
    assert not any(b"s3cret" in one for one in texts)


# What `check` tells


def test_check_tells_of_a_hook_that_could_not_be_told_anything(home: Path, here: Program) -> None:
    (home / "secret").write_text("x")
    (home / "secret").chmod(0o644)
    url = "https://example.org/s3cretpath"
    signed = hook(home, url=url, secret_file=str(home / "secret"))
    configure(home, on_done=signed, on_failed={"command": ["no-such-program"], "url": url})
    done = here("check", cwd=home)
    assert done.returncode == 69 and "s3cret" not in done.stdout
    assert f"on_done    starts {home}/hook\n" in done.stdout
    open_to_all = f"; everybody may read the secret: chmod o-r {home}/secret\n"
    assert f"on_done    sends to https://example.org, signed{open_to_all}" in done.stdout
    assert "on_failed  no-such-program: no such program, or not executable; install" in done.stdout
    assert "on_failed  sends to https://example.org, not signed" in done.stdout
    (home / "secret").unlink()
    _, (event, text, is_fine), *_ = describe(load(home / "pipeline.yaml"))
    assert event == "done" and not is_fine
    assert text == f"https://example.org: secret_file {home}/secret: No such file or directory"
