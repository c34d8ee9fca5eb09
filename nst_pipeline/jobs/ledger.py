"""The ledger: every job's state, and what is known of files already read. SQLite, durable."""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Self

from nst_pipeline.errors import (
    CannotCreateError,
    DiskFullError,
    ImageError,
    NotReadyError,
    OutputError,
)
from nst_pipeline.files import changed_ns, shown, signature
from nst_pipeline.jobs import schema
from nst_pipeline.jobs.job import Job
from nst_pipeline.jobs.states import COLUMNS, Brief, Entry, State, entry

RACY_NS = 2_000_000_000
"""Within the clock's resolution a file can change again without its facts changing."""

Digests = dict[str, tuple[str, str, str | None]]
"""Facts, SHA-256, and why it is no picture, by path as text."""


class Ledger:
    """Remembers across runs; use it as a context manager."""

    def __init__(self, path: Path | None) -> None:
        """Open the ledger at ``path``, making it and its folder when missing; None: in memory.

        Raises:
            CannotCreateError: it cannot be opened, or a newer program wrote it.
            DiskFullError: there is no room for it.
        """
        try:
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
            self.database = sqlite3.connect(path or ":memory:", isolation_level=None, timeout=30)
            self.database.execute("PRAGMA journal_mode = WAL")
            self.database.execute("PRAGMA synchronous = FULL")
            version = schema.migrate(self.database)
        except (sqlite3.Error, OSError) as error:
            if "full" in str(error):
                raise DiskFullError(f"{shown(path)}: {error}") from error
            raise CannotCreateError(
                f"{shown(path)}: the ledger cannot be opened: {error}; check the permissions of "
                "the state folder, or move a damaged ledger away"
            ) from error
        if version > schema.VERSION:
            raise CannotCreateError(
                f"{shown(path)}: written by a newer nst-pipeline (ledger version {version})"
            )

    @classmethod
    def to_read(cls, path: Path) -> "Ledger | None":
        """Open a ledger to read it beside whoever writes it; None: there is none of our version.

        Raises:
            CannotCreateError: it cannot be opened.
        """
        if not path.is_file():
            return None
        ledger = cls.__new__(cls)
        try:
            uri = f"{path.absolute().as_uri()}?mode=ro"
            ledger.database = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=30)
            known = schema.version(ledger.database) == schema.VERSION
        except sqlite3.Error as error:
            raise CannotCreateError(f"{shown(path)}: cannot be read: {error}") from error
        if not known:
            ledger.database.close()
            return None
        return ledger

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Close the database.

        Raises:
            OutputError: the block ended because the database could not be written.
        """
        self.database.close()
        if isinstance(error, sqlite3.Error):
            kind = DiskFullError if "full" in str(error) else OutputError
            raise kind(f"the ledger cannot be written: {error}") from error

    # Jobs

    def entries(self, where: str = "1", *values: object) -> list[Entry]:
        """Return the jobs that an SQL condition describes, in the order they were queued in."""
        rows = self.database.execute(
            f"SELECT {COLUMNS} FROM jobs WHERE {where} ORDER BY id", values
        )
        return [entry(row) for row in rows]

    def of_source(self, source: Path) -> list[Entry]:
        """Return all jobs that a file was ever the content of."""
        return self.entries("source = ?", os.fsencode(source))

    def briefs(self, sources: list[Path]) -> dict[bytes, dict[tuple[str, str], Brief]]:
        """Return all jobs that some files were ever the content of: path, then style and key."""
        found: dict[bytes, dict[tuple[str, str], Brief]] = {os.fsencode(s): {} for s in sources}
        rows = self.database.execute(
            "SELECT source, style, key, id, state, final FROM jobs WHERE source IN "
            f"({', '.join('?' * len(found))})",
            list(found),
        )
        for source, style, key, *rest in rows:
            found[source][style, key] = Brief(*rest)
        return found

    def done_by_older(self, output: str, key: str) -> Brief | None:
        """Return what a program before version 2 recorded of a job, if it made it."""
        row = self.database.execute(
            "SELECT id, state, final FROM jobs WHERE output = ? AND key = ? AND source = X'' "
            "AND state = 'done'",
            (os.fsencode(output), key),
        ).fetchone()
        return row and Brief(*row)

    def twins(self, key: str) -> list[Entry]:
        """Return the jobs of a key that made their output."""
        return self.entries("key = ? AND state IN ('done', 'disposed')", key)

    def is_put_off(self, source: Path) -> bool:
        """Tell whether a job of this source waits for the time of its next attempt."""
        return bool(
            self.database.execute(
                "SELECT 1 FROM jobs WHERE source = ? AND state = 'queued' AND next_try > ?",
                (os.fsencode(source), time.time()),
            ).fetchone()
        )

    def enqueue(self, jobs: Iterable[Job], force: bool = False) -> list[Entry]:
        """Queue jobs that are new or to be done again; return their entries, in order.

        A job that waits in the queue already keeps its count of attempts. One that was
        cancelled meanwhile stays so, unless ``force`` is set.
        """
        jobs, now = list(jobs), time.time()
        names = [(os.fsencode(job.content.path), job.style.name, job.key) for job in jobs]
        values = [
            (*name, job.content.sha256, os.fsencode(job.output), now, force)
            for name, job in zip(names, jobs, strict=True)
        ]
        with self.transaction():
            self.database.executemany(
                """INSERT INTO jobs (source, style, key, content, output, state, queued)
                VALUES (?1, ?2, ?3, ?4, ?5, 'queued', ?6)
                ON CONFLICT (source, style, key) DO UPDATE SET state = 'queued',
                    output = excluded.output, next_try = 0, poison = 0, temporary = NULL,
                    attempts = CASE state WHEN 'queued' THEN attempts ELSE 0 END,
                    queued = CASE state WHEN 'queued' THEN queued ELSE excluded.queued END
                WHERE ?7 OR state <> 'cancelled'""",
                values,
            )
            return [
                self.entries("source = ? AND style = ? AND key = ?", *name)[0] for name in names
            ]

    def entry(self, job: int) -> Entry:
        """Return a job."""
        return self.entries("id = ?", job)[0]

    def state(self, job: int) -> State:
        """Return a job's state alone: it is asked for at every step."""
        (state,) = self.database.execute("SELECT state FROM jobs WHERE id = ?", (job,)).fetchone()
        return state  # type: ignore[no-any-return]

    def start(self, jobs: Iterable[int]) -> None:
        """Record, before the work, that jobs are at work for one time more."""
        self._each(
            "UPDATE jobs SET state = 'running', attempts = attempts + 1, started = ? WHERE id = ?",
            [(time.time(), job) for job in jobs],
        )

    def commit_begins(self, job: int, final: Path, temporary: Path, sha256: str) -> None:
        """Record that a result of this digest is whole in ``temporary`` and goes to ``final``."""
        self.database.execute(
            "UPDATE jobs SET state = 'committing', final = ?, temporary = ?, sha256 = ? "
            "WHERE id = ?",
            (os.fsencode(final), os.fsencode(temporary), sha256, job),
        )

    def done(self, job: int) -> None:
        """Record that a job's result stands where `commit_begins` said it goes."""
        with self.transaction():
            self.database.execute(
                """UPDATE jobs SET state = 'replaced' WHERE state IN ('done', 'disposed')
                AND id <> ?1 AND final = (SELECT final FROM jobs WHERE id = ?1)""",
                (job,),
            )
            self.database.execute(
                """UPDATE jobs SET state = 'done', temporary = NULL, reason = '', trace = '',
                poison = 0, finished = ? WHERE id = ?""",
                (time.time(), job),
            )

    def requeue(self, job: int, reason: str = "", trace: str = "", wait_seconds: float = 0) -> None:
        """Put a job back to try it again; one without a reason is as if never tried."""
        self.database.execute(
            """UPDATE jobs SET state = 'queued', temporary = NULL, next_try = ?, reason = ?,
            trace = ?, attempts = max(0, attempts - ?)
            WHERE id = ?""",
            (time.time() + wait_seconds, reason, trace, 0 if reason else 1, job),
        )

    def put_off(self, job: int, reason: str, wait_seconds: float) -> None:
        """Have a queued job wait; that is no attempt."""
        self.database.execute(
            "UPDATE jobs SET next_try = ?, reason = ? WHERE id = ? AND state = 'queued'",
            (time.time() + wait_seconds, reason, job),
        )

    def fail(self, job: int, reason: str, trace: str = "", poison: bool = False) -> None:
        """Give a job up."""
        self.database.execute(
            """UPDATE jobs SET state = 'failed', reason = ?, trace = ?, poison = ?,
            temporary = NULL, finished = ? WHERE id = ?""",
            (reason, trace, poison, time.time(), job),
        )

    def mark(self, state: State, jobs: Iterable[int]) -> None:
        """Set the state of jobs."""
        if values := [(state, job) for job in jobs]:
            self._each("UPDATE jobs SET state = ? WHERE id = ?", values)

    def next_try(self) -> float | None:
        """Return when the next job that waits for another attempt is due, or None."""
        (when,) = self.database.execute(
            "SELECT min(next_try) FROM jobs WHERE state = 'queued' AND next_try > 0"
        ).fetchone()
        return None if when is None else float(when)

    # Files

    def digests(self, names: list[str]) -> Digests:
        """Return what is remembered of some files (paths as text), for `file_digest`."""
        rows = self.database.execute(
            "SELECT path, facts, sha256, problem FROM files WHERE path IN "
            f"({', '.join('?' * len(names))})",
            names,
        )
        return {name: tuple(rest) for name, *rest in rows}

    def file_digest(
        self,
        path: Path,
        compute: Callable[[Path], str],
        known: str | None = None,
        digests: Digests | None = None,
    ) -> str:
        """Return the SHA-256 of a file, computed only if the file changed since the last time.

        Whatever ``compute`` raises is passed on. That a file is no picture is remembered, but
        not what may pass (`NotReadyError`).

        Args:
            path: the file.
            compute: computes it, of a file of the ``known`` facts alone.
            known: the facts that the file was seen with; by default those that it has now.
            digests: what `digests` gave, where many files are asked for.
        """
        try:
            known = known or signature(path.stat())
        except OSError:
            return compute(path)  # it knows best how to say why the file cannot be read
        name = shown(path)
        row = (self.digests([name]) if digests is None else digests).get(name)
        if row is not None and row[0] == known:
            if row[2] is not None:
                raise ImageError(row[2])
            return row[1]
        sha256, problem = "", None
        try:
            sha256 = compute(path)
        except NotReadyError:
            raise
        except ImageError as error:
            problem = error
        if time.time_ns() - changed_ns(known) > RACY_NS:
            self.database.execute(
                "INSERT OR REPLACE INTO files (path, facts, sha256, problem) VALUES (?, ?, ?, ?)",
                (name, known, sha256, problem and str(problem)),
            )
        if problem:
            raise problem
        return sha256

    def settled(self, plan: str) -> dict[str, str]:
        """Return the facts, by path as text, of the files that ``plan`` has nothing left for."""
        return dict(
            self.database.execute("SELECT path, facts FROM files WHERE settled = ?", (plan,))
        )

    def settle(self, path: Path, known: str, plan: str, problem: str | None = None) -> None:
        """Record that ``plan`` has nothing left for a file of these facts.

        Args:
            path: the file.
            known: its facts. Where they are not in the ledger, as those of a file that has only
                just changed, nothing is recorded.
            plan: digest of the plan.
            problem: why the file cannot be painted; recorded in any case.
        """
        if problem is not None:
            self.database.execute(
                "INSERT OR REPLACE INTO files (path, facts, sha256, problem) VALUES (?, ?, '', ?)",
                (shown(path), known, problem),
            )
        self.database.execute(
            "UPDATE files SET settled = ? WHERE path = ? AND facts = ?", (plan, shown(path), known)
        )

    def settle_all(self, files: Iterable[tuple[Path, str, str]]) -> None:
        """Record of files, by path and facts, that a plan of a digest has nothing left for them."""
        self._each(
            "UPDATE files SET settled = ?1 WHERE path = ?2 AND facts = ?3 AND settled IS NOT ?1",
            ((plan, shown(path), known) for path, known, plan in files),
        )

    def unsettle(self, path: Path) -> None:
        """Have a file looked at and read again."""
        self.database.execute("DELETE FROM files WHERE path = ?", (shown(path),))

    # Facts

    def fact(self, name: str) -> str | None:
        """Return a remembered fact."""
        row = self.database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def set_fact(self, name: str, value: str) -> None:
        """Remember a fact."""
        if self.fact(name) != value:
            self.database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def _each(self, statement: str, values: Iterable[tuple[object, ...]]) -> None:
        """Execute a statement for each of ``values`` in one transaction."""
        with self.transaction():
            self.database.executemany(statement, values)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Do all or nothing of the block, also when a signal's handler ends it."""
        self.database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.database.execute("COMMIT")
        except BaseException:
            if self.database.in_transaction:
                self.database.execute("ROLLBACK")
            raise
