"""Files that appear whole or not at all, and paths as text."""

import contextlib
import errno
import functools
import os
import tempfile
from pathlib import Path

from nst_pipeline.errors import CannotCreateError, OutputError

CANNOT_CREATE = frozenset((errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST))


def shown(path: object) -> str:
    """Return a path as text that can be printed and stored, whatever bytes it is made of."""
    return os.fsencode(str(path)).decode("utf-8", "backslashreplace")


def publish(path: Path, data: bytes) -> None:
    """Make ``path`` hold ``data``: durably, and whole or not at all.

    Raises:
        CannotCreateError: its folder is missing and cannot be made, or is not writable.
        OutputError: the write failed, such as on a full disk; nothing is left behind.
    """
    ensure_folder(path.parent)
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".nst-", delete=False) as file:
            temporary = Path(file.name)
            os.fchmod(file.fileno(), 0o666 & ~_umask())
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _kind(error)(f"{shown(path)}: cannot be written: {error.strerror}") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


def ensure_folder(folder: Path) -> None:
    """Make ``folder`` and its parents, and see that files can be created in it.

    Raises:
        CannotCreateError: that is impossible.
        OutputError: the disk is full or broken.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _kind(error)(
            f"{shown(folder)}: no files can be created here: {error.strerror}; "
            "check its permissions and free space"
        ) from error


def _kind(error: OSError) -> type[CannotCreateError] | type[OutputError]:
    return CannotCreateError if error.errno in CANNOT_CREATE else OutputError


@functools.cache
def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
