"""The ledger's tables, and how older ledgers become new ones."""

import sqlite3

VERSION = 2

VERSION_1 = """
CREATE TABLE IF NOT EXISTS done (
    output TEXT PRIMARY KEY,
    key TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    finished REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY,
    facts TEXT NOT NULL,
    sha256 TEXT NOT NULL
) WITHOUT ROWID;
"""

# Paths are blobs: the bytes of a name need not be text.
VERSION_2 = """
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY,
    source BLOB NOT NULL,            -- the content's path; empty: made before version 2
    style TEXT NOT NULL,
    key TEXT NOT NULL,
    content TEXT NOT NULL,           -- SHA-256 of the content
    output BLOB NOT NULL,            -- where the result was planned to go
    state TEXT NOT NULL,
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
    UNIQUE (source, style, key)
);
CREATE INDEX jobs_by_key ON jobs (key);
CREATE INDEX jobs_by_state ON jobs (state, next_try);
CREATE INDEX jobs_by_final ON jobs (final);
CREATE INDEX jobs_by_output ON jobs (output);
CREATE INDEX jobs_by_finished ON jobs (finished);

ALTER TABLE files ADD COLUMN problem TEXT;   -- why it is no picture
ALTER TABLE files ADD COLUMN settled TEXT;   -- digest of the plan that has nothing left for it

CREATE TABLE moves (                 -- what is being done with a source after its last job
    source BLOB PRIMARY KEY,
    target BLOB NOT NULL,
    facts TEXT NOT NULL,
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

INSERT INTO jobs (source, style, key, content, output, final, sha256, state, queued, finished)
SELECT X'', output, key, '', CAST(output AS BLOB), CAST(output AS BLOB), sha256, 'done',
       finished, finished
FROM done;
DROP TABLE done;
"""


def migrate(database: sqlite3.Connection) -> int:
    """Bring a ledger to the present version in one transaction; return the version it had.

    A ledger of a newer version is left as it is.

    Raises:
        sqlite3.Error: the database cannot be used.
    """
    found = version(database)
    if found >= VERSION:
        return found
    database.execute("BEGIN IMMEDIATE")
    try:
        found = version(database)  # another process may have been faster
        for step in (VERSION_1, VERSION_2)[min(found, 1) :] if found < VERSION else ():
            for statement in statements(step):
                database.execute(statement)
        database.execute(f"PRAGMA user_version = {VERSION}")
        database.execute("COMMIT")
    except BaseException:
        database.execute("ROLLBACK")
        raise
    return found


def version(database: sqlite3.Connection) -> int:
    """Return a ledger's version; 0: it is empty."""
    (found,) = database.execute("PRAGMA user_version").fetchone()
    return int(found)


def statements(script: str) -> list[str]:
    """Return the statements of a script (executescript would end the transaction)."""
    found, rest = [], ""
    for line in script.splitlines(keepends=True):
        rest += line
        if sqlite3.complete_statement(rest):
            found.append(rest)
            rest = ""
    return found
