"""The ledger's file."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import (
    SilentObserver,
    draw,
    make_home,
    run_once,
)

from nst_pipeline.config.pipeline import Config, load
from nst_pipeline.errors import CannotCreateError
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


def test_a_ledger_of_another_version_is_refused(config: Config, ledger: Ledger) -> None:
    for version in (1, 99):
        database = sqlite3.connect(ledger_path(config.state))
        database.execute(f"PRAGMA user_version = {version}")
        database.close()
        with pytest.raises(CannotCreateError, match=f"ledger version {version}"):
            Ledger(ledger_path(config.state))


def test_a_damaged_ledger_is_told_not_overwritten(config: Config) -> None:
    config.state.mkdir(exist_ok=True)
    ledger_path(config.state).write_bytes(b"no database" * 1000)
    with pytest.raises(CannotCreateError, match="damaged"):
        run(config)
    assert ledger_path(config.state).read_bytes() == b"no database" * 1000
