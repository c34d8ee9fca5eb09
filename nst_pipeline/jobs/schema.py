"""The ledger's tables, and transactions on them."""

import contextlib
import sqlite3
from collections.abc import Iterator

VERSION = 4
MIGRATED = (2, 3, VERSION)
"""Versions whose tables are understood; those of an older one are brought up to date."""

DELIVERIES = """
CREATE TABLE deliveries (            -- what hooks are still to be told
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,               -- the same at each attempt, and no other's
    event TEXT NOT NULL,             -- done or failed
    kind TEXT NOT NULL,              -- command or url
    job INTEGER,                     -- nothing is told before that is known to be over
    record TEXT NOT NULL,            -- the job's, JSON
    manifest BLOB,                   -- path of the manifest that holds it
    attempts INTEGER NOT NULL DEFAULT 0,
    next_try REAL NOT NULL DEFAULT 0
);
CREATE INDEX deliveries_by_hook ON deliveries (event, kind, next_try);
"""

# Paths are blobs: the bytes of a name need not be text.
TABLES = f"""
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY,
    source BLOB NOT NULL,            -- the content's path
    style TEXT NOT NULL,
    key TEXT NOT NULL,
    content TEXT NOT NULL,           -- SHA-256 of the content
    output BLOB NOT NULL,            -- where the result is planned to go
    state TEXT NOT NULL,             -- a JobState
    attempts INTEGER NOT NULL DEFAULT 0,
    next_try REAL NOT NULL DEFAULT 0,
    poison INTEGER NOT NULL DEFAULT 0,  -- it failed by ending the process
    final BLOB,                      -- where the result went
    temporary BLOB,                  -- where it stands before it goes there
    sha256 TEXT,                     -- of the result
    reason TEXT NOT NULL DEFAULT '',
    trace TEXT NOT NULL DEFAULT '',
    queued REAL NOT NULL,
    started REAL,
    finished REAL,
    forced INTEGER NOT NULL DEFAULT 0,  -- to be painted again, though it was
    UNIQUE (source, style, key)
);
CREATE INDEX jobs_by_key ON jobs (key);
CREATE INDEX jobs_by_state ON jobs (state, next_try);
CREATE INDEX jobs_by_final ON jobs (final);
CREATE INDEX jobs_by_output ON jobs (output);
CREATE INDEX jobs_by_finished ON jobs (finished);

CREATE TABLE files (
    path BLOB PRIMARY KEY,
    facts TEXT NOT NULL,             -- the file's signature
    sha256 TEXT NOT NULL,
    problem TEXT,                    -- why it is no picture
    terms TEXT NOT NULL DEFAULT '',  -- digest of all but the file that decided that
    settled TEXT                     -- digest of the plan that has nothing left for it
) WITHOUT ROWID;

CREATE TABLE moves (                 -- what is being done with a source after its last job
    source BLOB PRIMARY KEY,
    target BLOB NOT NULL,
    facts TEXT NOT NULL,             -- the source's identity
    kind TEXT NOT NULL,              -- move, delete or fail
    report TEXT NOT NULL DEFAULT ''  -- of a failure, JSON
) WITHOUT ROWID;

CREATE TABLE failures (              -- sources that were given up
    source BLOB PRIMARY KEY,
    place BLOB NOT NULL,             -- where the file is now
    reason TEXT NOT NULL,
    failed REAL NOT NULL
) WITHOUT ROWID;

CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    started REAL NOT NULL,
    path BLOB NOT NULL,              -- of its manifest
    head TEXT NOT NULL,              -- the manifest without its jobs, JSON
    open INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE records (
    run TEXT NOT NULL,
    job TEXT NOT NULL,               -- content and style
    record TEXT NOT NULL,
    PRIMARY KEY (run, job)
) WITHOUT ROWID;

CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
{DELIVERIES}"""

FROM_3 = f"""
ALTER TABLE jobs ADD COLUMN forced INTEGER NOT NULL DEFAULT 0;
{DELIVERIES}"""
# What files of version 2 were called was text, and of two names one could be that of both.
FROM_2 = f"""
ALTER TABLE files RENAME TO old_files;
CREATE TABLE files (
    path BLOB PRIMARY KEY,
    facts TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    problem TEXT,
    terms TEXT NOT NULL DEFAULT '',
    settled TEXT
) WITHOUT ROWID;
INSERT INTO files (path, facts, sha256, problem, settled)
    SELECT CAST(path AS BLOB), facts, sha256, problem, settled FROM old_files;
DROP TABLE old_files;
{FROM_3}"""


def create(database: sqlite3.Connection) -> int:
    """Make the tables in an empty database, or bring older ones up to date; return their version.

    Raises:
        sqlite3.Error: the database cannot be used.
    """
    ways = {0: TABLES, 2: FROM_2, 3: FROM_3}
    if version(database) in ways:
        with transaction(database):
            if (found := version(database)) in ways:  # no other process was faster
                for statement in _statements(ways[found]):
                    database.execute(statement)
                database.execute(f"PRAGMA user_version = {VERSION}")
    return version(database)


def version(database: sqlite3.Connection) -> int:
    """Return the version of a ledger's tables; 0: it has none."""
    (found,) = database.execute("PRAGMA user_version").fetchone()
    return int(found)


@contextlib.contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Do all or nothing of the block, also when a signal's handler ends it.

    A block inside another is a part of that.
    """
    if database.in_transaction:
        yield
        return
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def durably(database: sqlite3.Connection) -> Iterator[None]:
    """Have what the block commits, and all that was committed before, outlive a loss of power.

    Inside a transaction that is up to whoever began it.
    """
    if database.in_transaction:
        yield
        return
    (before,) = database.execute("PRAGMA synchronous").fetchone()
    database.execute("PRAGMA synchronous = FULL")
    try:
        yield
    finally:
        database.execute(f"PRAGMA synchronous = {before}")


def _statements(script: str) -> list[str]:
    """Return the statements of a script (executescript would end the transaction)."""
    found, rest = [], ""
    for line in script.splitlines(keepends=True):
        rest += line
        if sqlite3.complete_statement(rest):
            found.append(rest)
            rest = ""
    return found
