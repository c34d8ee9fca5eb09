"""The ledger: which jobs are done, and the digests of files already read. SQLite, durable."""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from nst_pipeline.errors import CannotCreateError
from nst_pipeline.files import shown

SCHEMA_VERSION = 1
SCHEMA = """
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


class Ledger:
    """Remembers across runs; use it as a context manager."""

    def __init__(self, path: Path | None) -> None:
        """Open the ledger at ``path``, making it and its folder when missing; None: in memory.

        Raises:
            CannotCreateError: it cannot be opened, or a newer program wrote it.
        """
        try:
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path or ":memory:", isolation_level=None)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            (version,) = self._database.execute("PRAGMA user_version").fetchone()
            self._database.executescript(SCHEMA)
            self._database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        except (sqlite3.Error, OSError) as error:
            raise CannotCreateError(
                f"{shown(path)}: the ledger cannot be opened: {error}; check the permissions of "
                "the state folder, or move a damaged ledger away"
            ) from error
        if version > SCHEMA_VERSION:
            raise CannotCreateError(
                f"{shown(path)}: written by a newer nst-pipeline (ledger version {version})"
            )

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the database."""
        self._database.close()

    def is_done(self, key: str, output: Path) -> bool:
        """Tell whether the job made ``output`` and it is still there."""
        row = self._database.execute(
            "SELECT key FROM done WHERE output = ?", (shown(output),)
        ).fetchone()
        return row is not None and row[0] == key and output.is_file()

    def output_digest(self, output: Path) -> str | None:
        """Return the SHA-256 of ``output`` as it was published, if this ledger knows it."""
        row = self._database.execute(
            "SELECT sha256 FROM done WHERE output = ?", (shown(output),)
        ).fetchone()
        return row[0] if row else None

    def record_done(self, key: str, output: Path, sha256: str) -> None:
        """Record durably that a job made ``output``."""
        self._database.execute(
            "INSERT OR REPLACE INTO done VALUES (?, ?, ?, ?)",
            (shown(output), key, sha256, time.time()),
        )

    def file_digest(self, path: Path, compute: Callable[[Path], str]) -> str:
        """Return the SHA-256 of a file, computed only if the file changed since the last time.

        Whatever ``compute`` raises is passed on.
        """
        try:
            status = path.stat()
        except OSError:
            return compute(path)  # it knows best how to say why the file cannot be read
        facts = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
        row = self._database.execute(
            "SELECT facts, sha256 FROM files WHERE path = ?", (shown(path),)
        ).fetchone()
        if row is not None and row[0] == facts:
            return str(row[1])
        sha256 = compute(path)
        # Within the clock's resolution a file can change again without its facts changing.
        if time.time_ns() - status.st_ctime_ns > 2_000_000_000:
            self._database.execute(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?)", (shown(path), facts, sha256)
            )
        return sha256
