"""The ledger's jobs: queued when they are planned, and every change of their state."""

import contextlib
import os
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from nst_pipeline.jobs.clock import LONGEST_WAIT_SECONDS, clock_of
from nst_pipeline.jobs.job import Job
from nst_pipeline.jobs.schema import durably, transaction
from nst_pipeline.jobs.state import (
    AT_WORK,
    COLUMNS,
    FINISHED,
    IN_QUEUE,
    Ended,
    Entry,
    EntrySummary,
    JobState,
    before,
    entry,
)

Key = tuple[str, str]
"""A style's name and a job's key: what tells the jobs of one source apart."""


class JobTable:
    """Every job that was ever planned.

    Attributes:
        now: gives the time that `next_try` is meant by, in seconds since the epoch.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        """Work with the tables of ``database``."""
        self._database = database
        self.now = clock_of(database)

    # What there is

    def get(self, job: int) -> Entry:
        """Return a job."""
        return self._entries("id = ?", job)[0]

    def of_source(self, source: Path) -> dict[Key, Entry]:
        """Return all jobs that a file was ever the content of."""
        found = self._entries("source = ?", os.fsencode(source))
        return {(one.style, one.key): one for one in found}

    def in_state(self, *states: JobState) -> list[Entry]:
        """Return the jobs in some states, in the order they were queued in."""
        return self._entries(f"state IN ({_marks(states)})", *states)

    def all(self) -> list[Entry]:
        """Return every job."""
        return self._entries("1")

    def finished_with(self, key: str) -> list[Entry]:
        """Return the jobs of a key that made their output."""
        return self._entries(f"key = ? AND state IN ({_marks(FINISHED)})", key, *FINISHED)

    def summaries(self, sources: list[Path]) -> dict[bytes, dict[Key, EntrySummary]]:
        """Return all jobs that some files were ever the content of, by the files' names."""
        found: dict[bytes, dict[Key, EntrySummary]] = {os.fsencode(s): {} for s in sources}
        rows = self._database.execute(
            "SELECT source, style, key, id, content, state, attempts, next_try, poison, output, "
            f"final FROM jobs WHERE source IN ({_marks(found)})",
            list(found),
        )
        for source, style, key, job, content, state, *rest in rows:
            found[source][style, key] = EntrySummary(job, content, JobState(state), *rest)
        return found

    def results(self) -> list[tuple[Path, Path]]:
        """Return where the outputs of all jobs went that ever made one, each with its source."""
        rows = self._database.execute("SELECT final, source FROM jobs WHERE final IS NOT NULL")
        return [(Path(os.fsdecode(final)), Path(os.fsdecode(source))) for final, source in rows]

    def ended(self) -> list[Ended]:
        """Return the jobs that made their output or failed, in the order they were planned in.

        One whose output is there stays among them while it is painted again.
        """
        wanted = (*FINISHED, JobState.FAILED)
        rows = self._database.execute(
            "SELECT source, style, key, content, state, final, sha256, reason, finished FROM jobs "
            f"WHERE finished IS NOT NULL AND (state IN ({_marks(wanted)}) "
            f"OR (final IS NOT NULL AND state IN ({_marks(IN_QUEUE)}))) ORDER BY id",
            [*wanted, *IN_QUEUE],
        )
        return [
            Ended(source, style, key, content, JobState(state), *rest)
            for source, style, key, content, state, *rest in rows
        ]

    def queued_sources(self, sources: list[Path]) -> set[Path]:
        """Return those of some files that have a job in the queue."""
        names = {os.fsencode(source): source for source in sources}
        rows = self._database.execute(
            f"SELECT DISTINCT source FROM jobs WHERE source IN ({_marks(names)}) "
            f"AND state IN ({_marks(IN_QUEUE)})",
            [*names, *IN_QUEUE],
        )
        return {names[source] for (source,) in rows}

    def sources(self, *states: JobState) -> list[Path]:
        """Return the files that have a job in one of some states."""
        rows = self._database.execute(
            f"SELECT source FROM jobs WHERE state IN ({_marks(states)}) "
            "GROUP BY source ORDER BY min(id)",
            states,
        )
        return [Path(os.fsdecode(source)) for (source,) in rows]

    def keys(self, *states: JobState) -> set[str]:
        """Return the keys of the jobs in some states."""
        rows = self._database.execute(
            f"SELECT key FROM jobs WHERE state IN ({_marks(states)})", states
        )
        return {key for (key,) in rows}

    def state(self, job: int) -> JobState:
        """Return a job's state alone: it is asked for at every step."""
        (state,) = self._database.execute("SELECT state FROM jobs WHERE id = ?", (job,)).fetchone()
        return JobState(state)

    def queue_length(self) -> int:
        """Return the number of jobs that are still to be done."""
        (count,) = self._database.execute(
            f"SELECT count(*) FROM jobs WHERE state IN ({_marks(IN_QUEUE)})", IN_QUEUE
        ).fetchone()
        return int(count)

    def counts(self) -> dict[JobState, int]:
        """Return the number of jobs in each state that there are any in."""
        rows = self._database.execute("SELECT state, count(*) FROM jobs GROUP BY state")
        return {JobState(state): count for state, count in rows}

    def finished_since(self, when: float) -> int:
        """Return how many jobs made their output since ``when``, in seconds since the epoch."""
        (count,) = self._database.execute(
            "SELECT count(*) FROM jobs WHERE finished > ? AND state <> ?", (when, JobState.FAILED)
        ).fetchone()
        return int(count)

    def latest(self, count: int) -> list[tuple[Entry, float]]:
        """Return the jobs that made their output last, the last first, each with when it did."""
        # The plus keeps SQLite from sorting all that was ever done.
        rows = self._database.execute(
            f"SELECT finished, {COLUMNS} FROM jobs WHERE finished IS NOT NULL "
            f"AND +state IN ({_marks(FINISHED)}) ORDER BY finished DESC LIMIT ?",
            (*FINISHED, count),
        )
        return [(entry(tuple(row)), float(when)) for when, *row in rows]

    def has_made(self, output: Path) -> bool:
        """Tell whether what stands under a name is some job's output."""
        row = self._database.execute(
            f"SELECT 1 FROM jobs WHERE final = ? AND state IN ({_marks(FINISHED)})",
            (os.fsencode(output), *FINISHED),
        ).fetchone()
        return row is not None

    def waiting(self) -> list[Entry]:
        """Return the jobs that wait for another attempt, the first to be due first."""
        found = self._entries("state = 'queued' AND next_try > ? AND reason <> ''", self.now())
        return sorted(found, key=lambda one: one.next_try)

    def next_try(self, after: float = 0) -> float | None:
        """Return when, by `now`, the next job that waits for another attempt is due, or None.

        Args:
            after: those that were due by then do not count.
        """
        (when,) = self._database.execute(
            "SELECT min(next_try) FROM jobs WHERE state = ? AND next_try > ?",
            (JobState.QUEUED, after),
        ).fetchone()
        return None if when is None else float(when)

    # What becomes of it

    @contextlib.contextmanager
    def together(self, is_durable: bool = False) -> Iterator[None]:
        """Note all that a block changes at once, or nothing.

        Args:
            is_durable: whether it must outlive a loss of power.
        """
        outer = durably(self._database) if is_durable else contextlib.nullcontext()
        with outer, transaction(self._database):
            yield

    def add(self, jobs: Iterable[Job], force: bool = False) -> None:
        """Queue planned jobs: those that are new, and those that are to be done again.

        A job that waits in the queue already keeps its count of attempts. One that was cancelled
        stays so, unless ``force`` is set.
        """
        over = [state for state in before(JobState.QUEUED) if state not in IN_QUEUE]
        again = [state for state in over if force or state != JobState.CANCELLED]
        now = time.time()
        values = (
            (
                os.fsencode(job.content.path), job.style.name, job.key, job.content.sha256,
                os.fsencode(job.output), now,
            )
            for job in jobs
        )  # fmt: skip
        with transaction(self._database):
            self._database.executemany(
                f"""INSERT INTO jobs (source, style, key, content, output, state, queued)
                VALUES (?, ?, ?, ?, ?, 'queued', ?)
                ON CONFLICT (source, style, key) DO UPDATE SET state = 'queued',
                    output = excluded.output, temporary = NULL,
                    next_try = CASE state WHEN 'queued' THEN next_try ELSE 0 END,
                    poison = CASE state WHEN 'queued' THEN poison ELSE 0 END,
                    attempts = CASE WHEN state IN ('queued', 'gone') THEN attempts ELSE 0 END,
                    queued = CASE state WHEN 'queued' THEN queued ELSE excluded.queued END
                WHERE state IN ({", ".join(f"'{state}'" for state in again)})
                    OR (state = 'queued' AND output <> excluded.output)""",
                values,
            )

    def start(self, job: int) -> bool:
        """Record, before the work, that a job is at work for one time more.

        Returns:
            False: it is not queued any more, such as when somebody cancelled it.
        """
        change = "attempts = attempts + 1, started = ?"
        with durably(self._database):
            return self._go([job], JobState.RUNNING, change, time.time())

    def begin_commit(self, job: int, final: Path, temporary: Path, sha256: str) -> bool:
        """Record that a result of this digest is whole in ``temporary`` and goes to ``final``.

        Returns:
            False: the job was cancelled meanwhile.
        """
        with durably(self._database):
            return self._go(
                [job], JobState.COMMITTING,
                "final = ?, temporary = ?, sha256 = ?, "
                "attempts = CASE state WHEN 'queued' THEN attempts + 1 ELSE attempts END",
                os.fsencode(final), os.fsencode(temporary), sha256,
            )  # fmt: skip

    def finish(self, job: int) -> None:
        """Record that a job's result stands where `begin_commit` said it goes."""
        with transaction(self._database):
            rows = self._database.execute(
                """SELECT id FROM jobs WHERE id <> ?1
                AND final = (SELECT final FROM jobs WHERE id = ?1)""",
                (job,),
            ).fetchall()
            self._go([other for (other,) in rows], JobState.REPLACED)
            self._go(
                [job], JobState.DONE,
                "temporary = NULL, reason = '', trace = '', poison = 0, forced = 0, finished = ?",
                time.time(),
            )  # fmt: skip

    def dispose(self, source: Path) -> None:
        """Record that the source of finished jobs was moved away or deleted."""
        self._go(self._ids(source, JobState.DONE), JobState.DISPOSED)

    def requeue(
        self,
        job: int,
        reason: str = "",
        trace: str = "",
        wait_seconds: float = 0,
        is_attempt: bool = True,
    ) -> bool:
        """Put a job at work back to try it again.

        Args:
            job: its number.
            reason: why it is not done, for people.
            trace: of Python, likewise.
            wait_seconds: how long it is to wait.
            is_attempt: whether what was begun counts; not if that ended for no reason of the job's.

        Returns:
            False: it is not at work any more, such as when somebody cancelled it.
        """
        return self._go(
            [job], JobState.QUEUED,
            "temporary = NULL, next_try = ?, reason = ?, trace = ?, "
            "attempts = max(0, attempts - ?)",
            self._after(wait_seconds), reason, trace, 0 if is_attempt else 1, only=AT_WORK,
        )  # fmt: skip

    def postpone(self, job: int, reason: str, wait_seconds: float) -> None:
        """Have a queued job wait; that is no attempt."""
        self._database.execute(
            "UPDATE jobs SET next_try = ?, reason = ? WHERE id = ? AND state = 'queued'",
            (self._after(wait_seconds), reason, job),
        )

    def _after(self, seconds: float) -> float:
        return self.now() + min(seconds, LONGEST_WAIT_SECONDS)

    def fail(self, job: int, reason: str, trace: str = "", poison: bool = False) -> bool:
        """Give a job up; ``poison``: it ended the process.

        Returns:
            False: somebody cancelled it meanwhile.
        """
        return self._go(
            [job], JobState.FAILED,
            "reason = ?, trace = ?, poison = ?, temporary = NULL, finished = ?",
            reason, trace, poison, time.time(),
        )  # fmt: skip

    def drop(self, jobs: Iterable[int]) -> None:
        """Take jobs out of the queue that are none any more."""
        self._go(jobs, JobState.GONE)

    def cancel(self, source: Path) -> tuple[list[str], list[str]]:
        """Take a file's jobs out of the queue, also those at work, in one transaction.

        Returns:
            The styles of the jobs that were cancelled, and those for which it was too late: whose
            result is there or about to be. Those of older bytes of the file count only if there
            was nothing to cancel.
        """
        with transaction(self._database):
            entries = self._entries("source = ?", os.fsencode(source))
            jobs = [one for one in entries if one.state in before(JobState.CANCELLED)]
            self._go([job.id for job in jobs], JobState.CANCELLED)
        styles, contents = [job.style for job in jobs], {job.content for job in jobs}
        late = {
            one.style
            for one in entries
            if one.state in (JobState.COMMITTING, *FINISHED)
            and (one.content in contents or not contents)
        }
        return styles, sorted(late.difference(styles))

    def retry(self, source: Path, force: bool = False) -> None:
        """Queue a file's failed and cancelled jobs as if they were new, and wait for none.

        Args:
            source: the file.
            force: have those that are done painted again, too.
        """
        done = FINISHED if force else ()
        with transaction(self._database):
            self._go(
                self._ids(source, JobState.FAILED, JobState.CANCELLED, *done), JobState.QUEUED,
                "attempts = 0, poison = 0, forced = ?, queued = ?", force, time.time(),
            )  # fmt: skip
            self._database.execute(
                "UPDATE jobs SET next_try = 0 WHERE source = ? AND state = 'queued'",
                (os.fsencode(source),),
            )

    def _go(
        self,
        jobs: Iterable[int],
        state: JobState,
        change: str = "",
        *values: object,
        only: tuple[JobState, ...] = tuple(JobState),
    ) -> bool:
        """Take jobs to a state, as far as `TRANSITIONS` has a way there; return whether all went.

        Args:
            jobs: their numbers.
            state: where they go.
            change: SQL of what else is set.
            *values: of the parameters in ``change``.
            only: from these states, and no others from which there is a way.
        """
        jobs, ways = list(jobs), [one for one in before(state) if one in only]
        if not jobs:
            return True
        with transaction(self._database):
            went = self._database.executemany(
                f"UPDATE jobs SET state = ?{', ' if change else ''}{change} "
                f"WHERE id = ? AND state IN ({_marks(ways)})",
                ((state, *values, job, *ways) for job in jobs),
            ).rowcount
        return went == len(jobs)

    def _ids(self, source: Path, *states: JobState) -> list[int]:
        rows = self._database.execute(
            f"SELECT id FROM jobs WHERE source = ? AND state IN ({_marks(states)})",
            (os.fsencode(source), *states),
        )
        return [job for (job,) in rows]

    def _entries(self, where: str, *values: object) -> list[Entry]:
        rows = self._database.execute(
            f"SELECT {COLUMNS} FROM jobs WHERE {where} ORDER BY id", values
        )
        return [entry(row) for row in rows]


def _marks(values: Collection[object]) -> str:
    return ", ".join("?" * len(values))
