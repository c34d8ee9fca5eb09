"""Temporary folders that whoever comes next removes, should their process be killed."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

PREFIX = "nst-pipeline-"
"""What the names of all of them begin with."""
LOCK_NAME = "in-use"

_held: dict[Path, int] = {}


def make_scratch(most_letters: int | None = None) -> Path:
    """Return a new folder below the system's for temporary files, of this process alone.

    Removes those whose processes are gone.

    Args:
        most_letters: of the system's folder; where its name is longer, it is below /tmp.
    """
    base = Path(tempfile.gettempdir())
    if most_letters and len(str(base)) > most_letters:
        base = Path("/tmp")
    _remove_left(base)
    made = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=base))  # found by nobody until locked
    descriptor = os.open(made / LOCK_NAME, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    folder = made.rename(made.with_name(made.name[1:]))
    _held[folder] = descriptor
    return folder


def remove_scratch(folder: Path) -> None:
    """Remove a folder of this process."""
    shutil.rmtree(folder, ignore_errors=True)
    if (descriptor := _held.pop(folder, None)) is not None:
        os.close(descriptor)


def _remove_left(base: Path) -> None:
    for folder in base.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's, or removed meanwhile
            descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)
