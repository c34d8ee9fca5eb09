"""The ledger's file."""

import functools
import os
import resource
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from support import (
    as_nobody,
    observed_run,
    plan_of,
)

from nst_pipeline.config.pipeline import Config
from nst_pipeline.errors import CannotCreateError
from nst_pipeline.jobs import schema
from nst_pipeline.jobs.file_table import Move
from nst_pipeline.jobs.ledger import Ledger, ledger_path
from nst_pipeline.jobs.state import JobState


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
            DROP TABLE deliveries;
            ALTER TABLE jobs DROP COLUMN forced;
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


def test_a_ledger_of_version_3_is_looked_at_as_it_is_and_brought_up_to_date(config: Config) -> None:
    observed_run(config)
    path = ledger_path(config.state)
    with sqlite3.connect(path) as database:
        database.executescript("""
            DROP TABLE deliveries;
            ALTER TABLE jobs DROP COLUMN forced;
            PRAGMA user_version = 3;
        """)
    database.close()
    for look in (Ledger.to_read, Ledger.to_try):  # beside a daemon that knows version 3
        there = look(path)
        assert there is not None
        with there:
            assert there.deliveries.summary() == {"waiting": 0, "last_failure": None}
            assert [entry.state for entry in there.jobs.all()] == ["done"]
        assert Ledger.is_older(path)
    with Ledger(path) as ledger:
        assert [entry.state for entry in ledger.jobs.all()] == ["done"]
        ledger.deliveries.note(None, "done", ["command", "url"], "{}", None)
        assert ledger.deliveries.summary()["waiting"] == 2


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


def statements(ledger: Ledger, work: Callable[[], object]) -> list[str]:
    """Return the first word of each statement that a call gives to the database, syncs told."""
    found: list[str] = []
    ledger._database.set_trace_callback(found.append)
    work()
    ledger._database.set_trace_callback(None)
    words = ("BEGIN", "UPDATE", "INSERT", "COMMIT", "PRAGMA synchronous = ")
    return [s.split("= ")[1] if s.startswith("PRAGMA") else s.split()[0]
            for s in found if s.startswith(words)]  # fmt: skip


def test_what_is_done_outside_is_noted_durably_before_and_all_else_in_passing(
    config: Config,
) -> None:
    durable = ["FULL", "BEGIN", "UPDATE", "COMMIT", "1"]
    with Ledger(ledger_path(config.state), is_relaxed=True) as ledger:
        plan_of(config, ledger)
        (entry,) = ledger.jobs.all()
        move = Move(entry.source, entry.source.with_name("x"), "1 2 3 4", "move")
        final = entry.output
        assert statements(ledger, lambda: ledger.jobs.start(entry.id)) == durable
        begin = functools.partial(ledger.jobs.begin_commit, entry.id, final, final, "0")
        assert statements(ledger, begin) == durable
        assert statements(ledger, lambda: ledger.files.intend([move])) == [
            "FULL", "BEGIN", "INSERT", "COMMIT", "1",
        ]  # fmt: skip
        assert statements(ledger, lambda: ledger.set_fact("clean", "no"))[0] == "FULL"
        assert "FULL" not in statements(ledger, lambda: ledger.jobs.finish(entry.id))


def test_a_ledger_notes_all_durably_unless_somebody_says_otherwise(config: Config) -> None:
    for is_relaxed, level in ((False, 2), (True, 1)):
        with Ledger(ledger_path(config.state), is_relaxed) as ledger:
            assert ledger._database.execute("PRAGMA synchronous").fetchone() == (level,)


def test_the_queue_is_as_long_as_there_are_jobs_to_do(config: Config, ledger: Ledger) -> None:
    plan_of(config, ledger)
    (entry,) = ledger.jobs.all()
    assert ledger.jobs.queue_length() == 1 and ledger.jobs.keys(JobState.QUEUED) == {entry.key}
    ledger.jobs.start(entry.id)
    assert ledger.jobs.queue_length() == 1 and not ledger.jobs.keys(JobState.QUEUED)
    ledger.jobs.fail(entry.id, "no luck")
    assert ledger.jobs.queue_length() == 0
