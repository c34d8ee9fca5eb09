"""The ledger: the durable memory of all runs. SQLite, one file, four groups of tables."""

import contextlib
import errno
import os
import secrets
import sqlite3
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, Self

from nst_pipeline.errors import CannotCreateError, DiskFullError, OutputError
from nst_pipeline.files import cause, shown
from nst_pipeline.folders import make_folder
from nst_pipeline.jobs import schema
from nst_pipeline.jobs.clock import set_clock
from nst_pipeline.jobs.delivery_table import DeliveryTable
from nst_pipeline.jobs.file_table import FileTable
from nst_pipeline.jobs.job_table import JobTable
from nst_pipeline.jobs.run_table import RunTable

DatabaseError = sqlite3.Error
"""What any call on a ledger may raise; `Ledger.__exit__` makes an `OutputError` of it."""

LEDGER_NAME = "ledger.sqlite"

Fact = Literal["clean", "changed_by_hand", "owner", "pace", "workers"]
"""``clean``: ``no`` while a run is open; ``changed_by_hand``: when a person changed the queue;
``owner``: see `Ledger.owner`; ``pace``: see `pace`; ``workers``: ``apart`` while a job cannot end
the process, for it is painted by workers that die alone, else ``here``."""


class Ledger:
    """The ledger of a state folder; use it as a context manager.

    Attributes:
        jobs: every job and its state.
        files: what is known of files.
        runs: the last runs' records.
        deliveries: what hooks are still to be told.
    """

    def __init__(
        self,
        path: Path | None,
        is_relaxed: bool = False,
        start: sqlite3.Connection | None = None,
    ) -> None:
        """Open the ledger at ``path``, making it and its folder when missing; None: in memory.

        Args:
            path: the file.
            is_relaxed: a loss of power may take what was noted last, as if it had come a moment
                before; but never what anything outside of the ledger is done upon.
            start: what one in memory begins with.

        Raises:
            CannotCreateError: it cannot be opened, or a program of another version wrote it.
            DiskFullError: there is no room for it.
        """
        try:
            if path:
                make_folder(path.parent)
            database = sqlite3.connect(path or ":memory:", isolation_level=None, timeout=30)
            if start:
                start.backup(database)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute(f"PRAGMA synchronous = {'NORMAL' if is_relaxed else 'FULL'}")
            version = schema.create(database)
            if version == schema.VERSION:
                set_clock(database)
        except (sqlite3.Error, OSError) as error:
            if "full" in str(error):
                raise DiskFullError(f"{shown(path)}: {error}") from error
            if path and (barrier := _barrier(path)):
                raise CannotCreateError(f"{shown(path)}: cannot be opened: {barrier}") from error
            raise CannotCreateError(
                f"{shown(path)}: the ledger cannot be opened: {error}; move a damaged ledger away"
            ) from error
        if version != schema.VERSION:
            database.close()
            raise CannotCreateError(
                f"{shown(path)}: written by another nst-pipeline (ledger version {version}, this "
                f"one has {schema.VERSION}); use that one, or move the ledger away"
            )
        self._use(database, path)

    def _use(self, database: sqlite3.Connection, path: Path | None) -> None:
        self._database, self._path = database, path
        self.jobs = JobTable(database)
        self.files = FileTable(database)
        self.runs = RunTable(database)
        self.deliveries = DeliveryTable(database)

    @classmethod
    def to_try(cls, path: Path) -> Self:
        """Open a ledger to change it beside whoever works with it; there is none: one in memory.

        Raises:
            CannotCreateError: see `Ledger`.
        """
        if not path.is_file():
            return cls(None)
        return cls._copy(path) if cls.is_older(path) else cls(path)

    @classmethod
    def to_read(cls, path: Path) -> Self | None:
        """Open a ledger to read it beside whoever writes it; None: there is none we understand.

        Raises:
            CannotCreateError: it cannot be opened.
        """
        if not path.is_file():
            return None
        try:
            if cls.is_older(path):
                return cls._copy(path)
            database = _to_read(path)
            version = schema.version(database)
        except sqlite3.Error as error:
            reason = _barrier(path, os.R_OK) or error
            raise CannotCreateError(f"{shown(path)}: cannot be read: {reason}") from error
        if version != schema.VERSION:
            database.close()
            return None
        ledger = cls.__new__(cls)
        ledger._use(database, path)
        return ledger

    @staticmethod
    def is_older(path: Path) -> bool:
        """Tell whether a ledger is of a version that opening it would bring up to date."""
        try:
            with contextlib.closing(_to_read(path)) as database:
                return schema.version(database) in schema.MIGRATED[:-1]
        except sqlite3.Error:
            return False  # whoever opens it tells what is wrong

    @classmethod
    def _copy(cls, path: Path) -> Self:
        """Return an older ledger as of now, in memory, where it is brought up to date."""
        with contextlib.closing(_to_read(path)) as old:
            return cls(None, start=old)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Close the database.

        Raises:
            OutputError: the block ended because the database could not be written.
        """
        self._database.close()
        if isinstance(error, sqlite3.Error):
            kind = DiskFullError if "full" in str(error) else OutputError
            barrier = _barrier(self._path) if self._path else ""
            raise kind(f"the ledger cannot be written: {barrier or error}") from error

    def transaction(self) -> AbstractContextManager[None]:
        """Do all or nothing of a block, also when a signal's handler ends it."""
        return schema.transaction(self._database)

    def durably(self) -> AbstractContextManager[None]:
        """Have what a block commits, and all that was before, outlive a loss of power."""
        return schema.durably(self._database)

    def owner(self) -> str:
        """Return what the names of this pipeline's unfinished files tell them from others' by."""
        with self.durably():
            self._database.execute(
                "INSERT OR IGNORE INTO facts VALUES ('owner', ?)", (secrets.token_hex(4),)
            )
        return self.fact("owner") or ""

    def fact(self, name: Fact) -> str | None:
        """Return a remembered fact."""
        row = self._database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def set_fact(self, name: Fact, value: str) -> None:
        """Remember a fact."""
        if self.fact(name) != value:
            with self.durably():
                self._database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))


def _to_read(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=30)


def _barrier(path: Path, wanted: int = os.W_OK) -> str:
    """Return why the system keeps the ledger's files from us, which SQLite does not tell.

    They are not opened for that: to close one would free SQLite's locks.
    """
    folder = path.parent
    try:
        os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        is_fixed = os.statvfs(folder).f_flag & os.ST_RDONLY
    except OSError as error:
        return cause(folder, error)
    code = errno.EROFS if is_fixed else errno.EACCES
    for place in (path, path.with_name(f"{path.name}-wal"), folder):
        if place.exists() and not os.access(place, wanted):
            return cause(place, OSError(code, os.strerror(code)))
    return ""


def ledger_path(state: Path) -> Path:
    """Return where a state folder's ledger stands."""
    return state / LEDGER_NAME
