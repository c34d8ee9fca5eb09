"""What the ledger knows of files: their digests, what is finished, and sources on their way out."""

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from nst_pipeline.errors import ImageError, NotReadyError
from nst_pipeline.files import changed_ns, signature
from nst_pipeline.jobs.schema import durably, transaction

RACY_NS = 2_000_000_000
"""Within the clock's resolution a file can change again without its signature changing."""


class KnownFile(NamedTuple):
    """What is remembered of a file.

    Attributes:
        signature: that it had.
        sha256: of its bytes; empty if it is no picture.
        problem: why it is none; None: it is one, as far as anybody looked.
        terms: digest of all but the file that decided on the problem.
    """

    signature: str
    sha256: str
    problem: str | None
    terms: str


Known = dict[bytes, KnownFile]
"""What is remembered of files, by their paths."""


@dataclass(frozen=True)
class Move:
    """What is to become of a source.

    Attributes:
        source: the file.
        target: where it goes; with ``delete``, where it stands for the last moment.
        identity: of the file, as it was seen (`files.identity`).
        kind: whether it is moved, deleted, or given up (``fail``).
        report: of a failure, JSON.
    """

    source: Path
    target: Path
    identity: str
    kind: Literal["move", "delete", "fail"]
    report: str = ""


@dataclass(frozen=True)
class FailedSource:
    """A file that was given up.

    Attributes:
        source: where it was.
        place: where it is now.
        reason: why.
        time: when, in seconds since the epoch.
    """

    source: Path
    place: Path
    reason: str
    time: float


class FileTable:
    """What is known of files."""

    def __init__(self, database: sqlite3.Connection) -> None:
        """Work with the tables of ``database``."""
        self._database = database

    # Digests

    def known(self, paths: list[Path]) -> Known:
        """Return what is remembered of some files, for `digest`."""
        names = [os.fsencode(path) for path in paths]
        rows = self._database.execute(
            "SELECT path, facts, sha256, problem, terms FROM files WHERE path IN "
            f"({', '.join('?' * len(names))})",
            names,
        )
        return {name: KnownFile(*rest) for name, *rest in rows}

    def digest(
        self,
        path: Path,
        compute: Callable[[Path], str],
        seen: str | None = None,
        known: Known | None = None,
        terms: str | None = "",
    ) -> str:
        """Return the SHA-256 of a file, computed only if the file changed since the last time.

        Whatever ``compute`` raises is passed on. That a file is no picture is remembered for as
        long as the terms are the same, but not what may pass (`NotReadyError`).

        Args:
            path: the file.
            compute: computes it, of a file of the signature ``seen`` alone.
            seen: the signature that the file was seen with; by default the one that it has now.
            known: what `known` gave, where many files are asked for.
            terms: digest of all but the file that decides whether it is a picture; None: that it
                is none is neither remembered nor believed.
        """
        try:
            seen = seen or signature(path.stat())
        except OSError:
            return compute(path)  # it knows best how to say why the file cannot be read
        row = (self.known([path]) if known is None else known).get(os.fsencode(path))
        if row is not None and row.signature == seen:
            if row.problem is None:
                return row.sha256
            if terms is not None and row.terms == terms:
                raise ImageError(row.problem)
        sha256, problem = "", None
        try:
            sha256 = compute(path)
        except NotReadyError:
            raise
        except ImageError as error:
            problem = error
        is_told = problem is None or terms is not None
        if is_told and time.time_ns() - changed_ns(seen) > RACY_NS:
            self._remember(path, seen, sha256, str(problem) if problem else None, terms or "")
        if problem:
            raise problem
        return sha256

    def _remember(
        self, path: Path, seen: str, sha256: str, problem: str | None, terms: str
    ) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO files (path, facts, sha256, problem, terms) "
            "VALUES (?, ?, ?, ?, ?)",
            (os.fsencode(path), seen, sha256, problem, terms),
        )

    # What is finished

    def finished(self, plan: str) -> dict[str, str]:
        """Return the signatures, by path, of the files that ``plan`` has nothing left for."""
        rows = self._database.execute("SELECT path, facts FROM files WHERE settled = ?", (plan,))
        return {os.fsdecode(path): seen for path, seen in rows}

    def finish(self, files: Iterable[tuple[Path, str, str]]) -> None:
        """Record that nothing is left to do for files: each path, signature, and plan's digest.

        Where the signature is not in the ledger, as that of a file that has only just changed,
        nothing is recorded.
        """
        with transaction(self._database):
            self._database.executemany(
                "UPDATE files SET settled = ?1 "
                "WHERE path = ?2 AND facts = ?3 AND settled IS NOT ?1",
                ((plan, os.fsencode(path), seen) for path, seen, plan in files),
            )

    def reject(self, path: Path, seen: str, problem: str) -> None:
        """Remember why a file of a signature was given up, so that `finish` can leave it out.

        It may be for want of another file, so whoever looks at it again is not told that reason.
        """
        self._remember(path, seen, "", problem, "")

    def forget(self, path: Path) -> None:
        """Have a file looked at and read again."""
        self._database.execute("DELETE FROM files WHERE path = ?", (os.fsencode(path),))

    # Sources on their way out

    def intend(self, moves: Iterable[Move]) -> None:
        """Note moves before they are begun, all or none."""
        with durably(self._database), transaction(self._database):
            self._database.executemany(
                "INSERT OR REPLACE INTO moves VALUES (?, ?, ?, ?, ?)",
                ((os.fsencode(m.source), os.fsencode(m.target), m.identity, m.kind, m.report)
                 for m in moves),
            )  # fmt: skip

    def intended(self) -> list[Move]:
        """Return the moves that were begun and not completed."""
        rows = self._database.execute("SELECT source, target, facts, kind, report FROM moves")
        return [
            Move(Path(os.fsdecode(source)), Path(os.fsdecode(target)), seen, kind, report)
            for source, target, seen, kind, report in rows
        ]

    def end_move(self, source: Path) -> None:
        """Forget a move: it is complete, or was given up."""
        self._database.execute("DELETE FROM moves WHERE source = ?", (os.fsencode(source),))

    # Sources that were given up

    def fail(self, source: Path, place: Path, reason: str) -> None:
        """Record that a source was given up, and where its file is now."""
        self._database.execute(
            "INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?)",
            (os.fsencode(source), os.fsencode(place), reason, time.time()),
        )

    def fail_left(self, reasons: Mapping[Path, str]) -> None:
        """Record that sources failed and were left where they are, each with its reason."""
        with transaction(self._database):
            for source, reason in reasons.items():
                self.fail(source, source, reason)

    def failed(self) -> list[FailedSource]:
        """Return the sources that were given up and did not go away since, the oldest first."""
        rows = self._database.execute(
            "SELECT source, place, reason, failed FROM failures ORDER BY failed"
        )
        found = [
            FailedSource(Path(os.fsdecode(source)), Path(os.fsdecode(place)), *rest)
            for source, place, *rest in rows
        ]
        return [one for one in found if one.place != one.source or os.path.lexists(one.place)]

    def forgive_left(self, source: Path) -> None:
        """Forget that a source was given up, if it was left where it was: it is painted by now."""
        self._database.execute(
            "DELETE FROM failures WHERE source = ?1 AND place = ?1", (os.fsencode(source),)
        )

    def forgive(self, source: Path) -> None:
        """Forget that a source was given up."""
        self._database.execute("DELETE FROM failures WHERE source = ?", (os.fsencode(source),))
