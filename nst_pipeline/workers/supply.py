"""What a worker is supplied with: its files, and a place for work in the middle."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from nst_pipeline.config.pipeline import Config
from nst_pipeline.digests import bytes_digest
from nst_pipeline.errors import BeingWrittenError
from nst_pipeline.files import shown
from nst_pipeline.inbox import reading
from nst_pipeline.workers import checkpoints


class Supply(Protocol):
    """Where a worker has the files of its tasks from, and keeps its checkpoints.

    Attributes:
        targets: folder for style targets; None: they are kept in memory alone.
    """

    targets: Path | None

    def read(self, path: Path, sha256: str, root: Path | None = None) -> bytes:
        """Return the bytes of a file that was planned with this digest.

        Args:
            path: the file.
            sha256: the digest.
            root: as `reading.read` takes it.

        Raises:
            BeingWrittenError: it is another one by now.
            ImageError: it cannot be read.
        """

    def keep(self, keys: Sequence[str], data: bytes) -> None:
        """Keep a checkpoint of the jobs with these keys, which are painted together."""

    def find(self, keys: Sequence[str]) -> bytes | None:
        """Return the last checkpoint of these jobs, if there is one."""


class Disk:
    """The supply of a worker that reaches the folders itself."""

    def __init__(self, config: Config) -> None:
        """Take what is in the settings' folders."""
        self._state, self._max_bytes = config.state, config.limits.max_bytes
        self.targets: Path | None = config.state / "targets"

    def read(self, path: Path, sha256: str, root: Path | None = None) -> bytes:
        """Read a file; see `Supply.read`."""
        data = reading.read(path, self._max_bytes, root=root)
        if bytes_digest(data) != sha256:
            raise BeingWrittenError(f"{shown(path)}: changed since it was listed; run again")
        return data

    def keep(self, keys: Sequence[str], data: bytes) -> None:
        """Keep a checkpoint in the state folder."""
        checkpoints.keep(self._state, keys, data)

    def find(self, keys: Sequence[str]) -> bytes | None:
        """Return the checkpoint that an earlier process kept."""
        return checkpoints.find(self._state, keys)
