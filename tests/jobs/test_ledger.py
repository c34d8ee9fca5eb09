"""The ledger's file."""

import os
import resource
import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest
from support import (
    as_nobody,
    observed_run,
)

from nst_pipeline.config.pipeline import Config
from nst_pipeline.errors import CannotCreateError
from nst_pipeline.jobs import schema
from nst_pipeline.jobs.ledger import Ledger, ledger_path


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
        observed_run(config)
    assert ledger_path(config.state).read_bytes() == b"no database" * 1000


def test_a_ledger_of_version_2_is_brought_up_to_date_and_forgets_no_job(config: Config) -> None:
    observed_run(config)
    path = ledger_path(config.state)
    with sqlite3.connect(path) as database:
        database.executescript("""
            CREATE TABLE old (path TEXT PRIMARY KEY, facts TEXT NOT NULL, sha256 TEXT NOT NULL,
                problem TEXT, settled TEXT) WITHOUT ROWID;
            INSERT INTO old SELECT CAST(path AS TEXT), facts, sha256, problem, settled FROM files;
            INSERT INTO old VALUES ('/refused.png', '1 1 1 1', '', 'refused', NULL);
            DROP TABLE files;
            ALTER TABLE old RENAME TO files;
            PRAGMA user_version = 2;
        """)
    database.close()
    there = Ledger.to_read(path)
    assert there is not None
    with there:
        assert [entry.state for entry in there.jobs.all()] == ["done"]
    with Ledger(path) as ledger:
        known = ledger.files.known([Path("/refused.png")])
        assert known[b"/refused.png"] == ("1 1 1 1", "", "refused", "")
    assert observed_run(config).records == []
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
    database.close()


def test_a_process_without_descriptors_does_not_blame_the_ledger(config: Config) -> None:
    observed_run(config)
    opened: list[int] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 50, hard)
    )
    try:
        with suppress(OSError):
            while True:
                opened.append(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(CannotCreateError) as raised:
            Ledger(ledger_path(config.state))
        with pytest.raises(CannotCreateError, match="Too many open files"):
            Ledger.to_read(ledger_path(config.state))
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "Too many open files" in str(raised.value) and "ulimit -n" in str(raised.value)
    assert "damaged" not in str(raised.value)


def test_a_ledger_of_another_user_is_told_to_be_so(anybodys_folder: Path) -> None:
    path = anybodys_folder / "ledger.sqlite"

    def write() -> None:
        with Ledger(path) as ledger:
            ledger.set_fact("clean", "no")

    write()
    said = as_nobody(write)
    assert "belongs to root" in said and "runs as nobody" in said and "damaged" not in said
    path.chmod(0o666)
    assert f"{anybodys_folder} belongs to root (mode 0755)" in as_nobody(write)


def test_a_name_is_not_taken_for_another_that_is_written_alike(ledger: Ledger) -> None:
    raw, alike = Path(os.fsdecode(b"/caf\xe9.png")), Path("/caf\\xe9.png")
    ledger.files.reject(raw, "1 1 1 1", "no picture")
    assert not ledger.files.known([alike])
    ledger.files.finish([(raw, "1 1 1 1", "plan")])
    assert ledger.files.finished("plan") == {str(raw): "1 1 1 1"}
