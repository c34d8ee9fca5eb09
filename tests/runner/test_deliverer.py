"""The couriers: how long they wait, how often they try, and that nothing ends them."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import (
    TELL,
    FakeExecutor,
    SilentObserver,
    Watch,
    configure,
    draw,
    make_home,
    make_hook,
    program,
    told,
    wait_until,
)

from nst_pipeline.config.pipeline import Config
from nst_pipeline.errors import CannotCreateError
from nst_pipeline.jobs.ledger import Ledger, ledger_path
from nst_pipeline.runner import deliverer
from nst_pipeline.runner.deliverer import Deliverer, Outcome
from nst_pipeline.runner.runner import Runner

RECORD = """{"status": "failed", "content": {"path": "/inbox/a.png"},
    "style": {"name": "s", "path": "", "sha256": ""}}"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_home(tmp_path / "home")


@contextmanager
def delivering(config: Config, ledger: Ledger) -> Iterator[list[Outcome]]:
    """Deliver what waits; give what comes of the attempts."""
    outcomes: list[Outcome] = []
    one = Deliverer(config, lambda event, outcome, waiting: outcomes.append(outcome))
    one.begin(ledger)
    try:
        yield outcomes
    finally:
        one.close()


@pytest.mark.parametrize(("before", "seconds"), [(0, 100), (2, 400), (9, 3600), (90, 3600)])
def test_each_wait_is_twice_the_last_up_to_an_hour(home: Path, before: int, seconds: int) -> None:
    hook = {"command": make_hook(home, "exit 1"), "retry_seconds": 100, "max_attempts": 100}
    config = configure(home, on_failed=hook)
    with Ledger(ledger_path(config.state)) as ledger:
        table = ledger.deliveries
        table.note(None, "failed", ["command"], RECORD, None)
        for _ in range(before):
            table.begin(("failed", "command"))
        with delivering(config, ledger) as outcomes:
            wait_until(lambda: outcomes)
        due = table.next_try(("failed", "command"))
        assert outcomes == ["failed"] and due is not None
        assert seconds - 60 < due - table.now() <= seconds


def test_a_hook_that_ends_the_process_is_given_up_like_any_other(home: Path) -> None:
    draw(home / "inbox/a.png", 1)
    hook = {"command": make_hook(home, "echo x >> tries; kill -9 $PPID"), "max_attempts": 2}
    configure(home, on_done=hook)
    for _ in range(2):
        assert program(home, "run").returncode == -9
    done = program(home, "run")
    assert done.returncode == 0 and "the process ended during the last attempt" in done.stderr
    assert "given up for" in done.stderr and (home / "tries").read_text() == "x\nx\n"
    assert program(home, "run").stderr == ""


def test_a_courier_outlives_whatever_goes_wrong_with_the_ledger(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = configure(home, on_failed=make_hook(home, f"cd {home}; {TELL}"))
    again = CannotCreateError("no ledger")
    errors: list[Exception] = [again, again, KeyError("x")]

    def opened(*arguments: Any, **options: Any) -> Ledger:
        if errors:
            raise errors.pop(0)
        return Ledger(*arguments, **options)

    monkeypatch.setattr(deliverer, "Ledger", opened)
    monkeypatch.setattr(deliverer, "TROUBLE_SECONDS", 0.01)
    with Ledger(ledger_path(config.state)) as ledger:
        ledger.deliveries.note(None, "failed", ["command"], RECORD, None)
        with delivering(config, ledger) as outcomes:
            wait_until(lambda: outcomes)
    assert outcomes == ["delivered"] and len(told(home)) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "on_failed: no ledger; deliveries wait", "on_failed: KeyError: 'x'; deliveries wait",
    ]  # fmt: skip


def test_one_runner_delivers_in_each_of_its_runs(home: Path) -> None:
    draw(home / "inbox/a.png", 1)
    config = configure(home, on_done=make_hook(home, f"cd {home}; {TELL}"))
    with Runner(config, FakeExecutor(), SilentObserver()) as runner:
        for count in (1, 2):
            runner.run(force=True)
            assert len(told(home)) == count


def test_settings_that_are_read_again_change_the_hooks(home: Path) -> None:
    draw(home / "inbox/a.png", 1)
    configure(home, on_done={"command": ["no-such-program"], "retry_seconds": 0.1})
    with Watch(home) as watch:
        wait_until(lambda: "no such program" in watch.log.read_text())
        configure(home, on_done=make_hook(home, TELL))
        watch.send(signal.SIGHUP)
        wait_until(lambda: told(home))
        assert watch.stop() == 0
