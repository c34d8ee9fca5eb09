"""Reading a file once, whole, and only if nobody writes to it.

Of what a person named, every link is followed; of what a search found, only one to a file that
lies in the folder that was searched (`nst_pipeline.folders`).
"""

import errno
import fcntl
import os
import signal
import stat
from pathlib import Path

from nst_pipeline.errors import BeingWrittenError, ImageError, NotReadyError, UnreadableError
from nst_pipeline.files import identity, shown, signature
from nst_pipeline.folders import READING, Folders, LinkError

DEAD_ENDS = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
BEING_WRITTEN = "still being written; run again when it is complete"


def read(
    path: Path, max_bytes: int, expected: str | None = None, root: Path | None = None
) -> bytes:
    """Return the bytes of a regular file that nobody changed meanwhile.

    Args:
        path: the file.
        max_bytes: refused above this.
        expected: the identity that it was listed with; another file by now is refused.
        root: where the search started that found it; None: a person named it.

    Raises:
        BeingWrittenError: being written, or another file than was listed.
        NotReadyError: empty, or a link to nowhere.
        UnreadableError: the system does not let it be read now, whatever is in it.
        ImageError: not a regular file, or too large.
    """
    try:
        descriptor = _open(path, root)
    except OSError as error:
        raise _not_opened(path, error) from error
    try:
        before = os.fstat(descriptor)
        _check_kind(before, path, max_bytes)
        if expected not in (None, identity(before)) or _is_being_written(descriptor):
            raise BeingWrittenError(f"{shown(path)}: {BEING_WRITTEN}")
        data = _read_all(descriptor)
        after = os.fstat(descriptor)
    except OSError as error:
        raise UnreadableError(f"{shown(path)}: {error.strerror}") from error
    finally:
        os.close(descriptor)
    if len(data) != before.st_size or signature(after) != signature(before):
        raise BeingWrittenError(f"{shown(path)}: {BEING_WRITTEN}")
    return data


def status(path: Path, root: Path) -> os.stat_result:
    """Return what the file system says of a file that a search from ``root`` found.

    Raises:
        LinkError: it is, or lies behind, a link that is not followed.
        OSError: nobody can tell.
    """
    if path == root:
        return path.stat()
    folders, place = _followed(path, root)
    return folders.status(place)


def _open(path: Path, root: Path | None) -> int:
    if root is None or path == root:
        return os.open(path, READING)
    folders, place = _followed(path, root)
    return folders.open(place)


def _followed(path: Path, root: Path) -> tuple[Folders, Path]:
    """Return where a file that a search found really lies, and the folders to reach it in."""
    folders = Folders((root,))
    if not folders.is_link(path):
        return folders, path
    real = Path(os.path.realpath(folders.root(path.parent)))
    place = Path(os.path.realpath(path))
    if not place.is_relative_to(real):
        raise LinkError(path)
    return Folders((real,)), place


def _not_opened(path: Path, error: OSError) -> ImageError:
    """Return the error to raise for a file that cannot be opened."""
    if error.errno == errno.ENXIO:
        return ImageError(f"{shown(path)}: a socket or device, not an image file")
    # Not Path.exists and its like, which raise what they do not expect, such as no permission.
    if error.errno in DEAD_ENDS and os.path.islink(path) and not os.path.exists(path):  # noqa: PTH110, PTH114
        return NotReadyError(f"{shown(path)}: a link to nowhere")
    if isinstance(error, LinkError):
        return NotReadyError(f"{shown(path)}: {error.strerror}")
    return UnreadableError(f"{shown(path)}: {error.strerror}")


def _is_being_written(descriptor: int) -> bool:
    """Tell whether a process of this machine has the file open for writing.

    The kernel grants a read lease only where there is no writer; False where it cannot tell.
    """
    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    try:
        # A writer that comes in this very moment has the kernel signal us: with something
        # that is ignored unless somebody asked for it.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    return False


def _check_kind(status: os.stat_result, path: Path, max_bytes: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or device"
        raise ImageError(f"{shown(path)}: {kind}, not an image file")
    if status.st_size == 0:
        raise NotReadyError(f"{shown(path)}: empty; copy it again")
    if status.st_size > max_bytes:
        raise ImageError(
            f"{shown(path)}: {status.st_size:,} bytes; limits.max_bytes allows {max_bytes:,}"
        )


def _read_all(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        return file.read()
