"""What a plan holds, and what it costs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import (
    SilentObserver,
    draw,
    make_home,
    plan_of,
    run_once,
)

from nst_pipeline.config.pipeline import Config, load
from nst_pipeline.jobs import file_table, planning
from nst_pipeline.jobs.ledger import Ledger, ledger_path


@pytest.fixture
def config(tmp_path: Path) -> Config:
    home = make_home(tmp_path / "home", watch={"settle_seconds": 0})
    draw(home / "inbox/a.png", 1)
    return load(home / "pipeline.yaml")


@pytest.fixture
def ledger(config: Config) -> Iterator[Ledger]:
    with Ledger(ledger_path(config.state)) as ledger:
        yield ledger


def run(config: Config, **options: object) -> SilentObserver:
    observer = SilentObserver()
    run_once(config, None, observer, **options)  # type: ignore[arg-type]
    return observer


def home_of(config: Config) -> Path:
    return config.inbox.parent


def test_known_files_are_not_read_again(
    config: Config, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_table, "RACY_NS", 0)
    (config.inbox / "bad.png").write_text("hello")
    run(config)
    reads: list[str] = []
    monkeypatch.setattr(planning, "read", lambda path, *_: reads.append(path.name))
    plan = plan_of(config, ledger)
    assert reads == [] and len(plan.done) == 1 and "known format" in plan.broken[0].reason
