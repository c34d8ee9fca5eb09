"""Files that appear whole or not at all, and paths as text."""

import contextlib
import ctypes
import errno
import functools
import hashlib
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

from nst_pipeline.errors import CannotCreateError, DiskFullError, OutputError

CANNOT_CREATE = frozenset((errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST))
NO_SPACE = frozenset((errno.ENOSPC, errno.EDQUOT))
TEMPORARY_PREFIX = ".nst-"
"""How the names of unfinished files begin; what a kill leaves of them may be deleted."""
NAME_BYTES = 255
"""The longest name that a file can have on the usual file systems."""
MOST_ROOM = 200
"""How many bytes of it `fitted_name` leaves free, at most."""
UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters, ends of lines, and what turns the direction of writing."""
AT_FDCWD, RENAME_NOREPLACE = -100, 1


def as_text(path: object) -> str:
    """Return a path as valid text, for programs (JSON), whatever bytes it is made of."""
    return os.fsencode(str(path)).decode("utf-8", "backslashreplace")


def shown(path: object) -> str:
    r"""Return a path as text for people, on one line: no name can pass for more than a name.

    Bytes that are no text and whatever moves the cursor, ends a line or turns the direction of
    writing are escaped, as in ``\x1b``. To show what was shown changes nothing.
    """
    return UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), as_text(path))


def signature(status: os.stat_result) -> str:
    """Return a file's signature, which changes when its bytes do: size, both times in ns, inode."""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def changed_ns(file_signature: str) -> int:
    """Return when the file of a `signature` was last changed or renamed, in ns since the epoch."""
    return int(file_signature.split()[2])


def publish(path: Path, data: bytes | Iterable[bytes], durably: bool = True) -> None:
    """Make ``path`` hold ``data``: durably, and whole or not at all.

    Args:
        path: the file.
        data: its bytes, or parts of them one after the other; an error of theirs is handed on.
        durably: whether it must outlive a loss of power.

    Raises:
        CannotCreateError: its folder is missing and cannot be made, or is not writable.
        OutputError: the write failed, such as on a full disk; nothing is left behind.
    """
    temporary = write_temporary(path, data, durably)
    try:
        temporary.replace(path)
        if durably:
            sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_temporary(path: Path, data: bytes | Iterable[bytes], durably: bool = True) -> Path:
    """Write ``data`` to a new hidden file beside ``path``, and return its path.

    Args:
        path: what it is to become.
        data: as `publish` takes it.
        durably: whether it must outlive a loss of power.

    Raises:
        CannotCreateError: the folder is missing and cannot be made, or is not writable.
        OutputError: the write failed, such as on a full disk; nothing is left behind.
    """
    temporary = None
    try:
        make_folder(path.parent)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=TEMPORARY_PREFIX, delete=False
        ) as file:
            temporary = Path(file.name)
            os.fchmod(file.fileno(), 0o666 & ~_umask())
            file.writelines([data] if isinstance(data, bytes) else data)
            file.flush()
            if durably:
                os.fsync(file.fileno())
        return temporary
    except BaseException as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()
        if isinstance(error, OSError):
            raise cannot_write(path, error) from error
        raise


def make_folder(folder: Path) -> None:
    """Make ``folder`` and its parents, each durably.

    Raises:
        OSError: that is impossible.
    """
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
        sync_folder(one.parent)


def ensure_folder(folder: Path) -> None:
    """Make ``folder`` and its parents, and see that files can be created in it.

    Raises:
        CannotCreateError: that is impossible.
        OutputError: the disk is full or broken.
    """
    try:
        make_folder(folder)
        with tempfile.TemporaryFile(dir=folder, prefix=TEMPORARY_PREFIX):
            pass
    except OSError as error:
        raise _error_class(error)(
            f"{shown(folder)}: no files can be created here: {error.strerror}; "
            "check its permissions and free space"
        ) from error


def cannot_write(path: Path, error: OSError) -> CannotCreateError | OutputError:
    """Return the error to raise when writing ``path`` failed with ``error``."""
    return _error_class(error)(f"{shown(path)}: cannot be written: {error.strerror}")


def _error_class(error: OSError) -> type[CannotCreateError] | type[OutputError]:
    if error.errno in NO_SPACE:
        return DiskFullError
    return CannotCreateError if error.errno in CANNOT_CREATE else OutputError


def rename_new(source: Path, target: Path) -> None:
    """Rename a file without ever replacing another, and make that durable.

    Raises:
        FileExistsError: ``target`` exists.
        OSError: anything else, such as EXDEV for another file system.
    """
    names = os.fsencode(source), os.fsencode(target)
    renameat2 = _renameat2()
    code = errno.ENOSYS
    if renameat2 is not None:
        done = renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_NOREPLACE)
        code = 0 if done == 0 else ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL):  # the kernel or the file system does not know how
        _link_over(source, target)
    elif code:
        raise OSError(code, os.strerror(code), str(source), None, str(target))
    sync_folder(target.parent)
    if source.parent != target.parent:
        sync_folder(source.parent)


def _link_over(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except FileExistsError:
        raise
    except OSError:  # no hard links either (FAT): the best that is left is to look first
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        source.rename(target)
    else:
        source.unlink()


@functools.cache
def _renameat2() -> "ctypes._NamedFuncPointer | None":
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    function.argtypes = (
        ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint,
    )  # fmt: skip
    return function


def fitted_name(stem: str, suffix: str, *, room: int = 0) -> str:
    """Return ``stem + suffix``, its stem shortened where a file could not have so long a name.

    A shortened stem ends in ``~`` and the first 8 hexadecimal digits of the whole stem's SHA-256,
    so that different stems give different names. A suffix that is itself too long is shortened
    along with the stem.

    Args:
        stem: any text that a file name may hold, of any length.
        suffix: kept as it is.
        room: how many of the 255 bytes to leave free, such as for a longer suffix; at most
            `MOST_ROOM`.
    """
    limit = NAME_BYTES - room
    # A character takes 4 bytes at most: most names need not be encoded to be measured.
    if 4 * len(stem + suffix) <= limit or len(os.fsencode(stem + suffix)) <= limit:
        return stem + suffix
    mark = f"~{hashlib.sha256(os.fsencode(stem)).hexdigest()[:8]}"
    left = limit - len(os.fsencode(mark + suffix))
    if left < 0:
        return fitted_name(stem + suffix, "", room=room)
    start = stem[:left]
    while len(os.fsencode(start)) > left:
        start = start[:-1]
    return start + mark + suffix


def numbered(path: Path, number: int) -> Path:
    """Return ``path`` for 1, and then ``name-2.suffix``, ``name-3.suffix`` and so on."""
    if number == 1:
        return path
    return path.with_name(fitted_name(path.stem, f"-{number}{path.suffix}"))


def is_numbered(path: Path, plain: Path) -> bool:
    """Tell whether ``path`` is ``plain``, or `numbered` of it."""
    number = re.search(r"-([1-9]\d*)$", path.stem)
    return path == plain or (number is not None and path == numbered(plain, int(number[1])))


def remove_temporaries(folder: Path) -> int:
    """Delete what a kill left of unfinished files below ``folder``; return how many."""
    removed, folders = 0, [str(folder)]
    while folders:  # not os.walk, which calls itself before Python 3.12: folders may be very deep
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.name.startswith(TEMPORARY_PREFIX):
                    with contextlib.suppress(OSError):
                        Path(entry.path).unlink()
                        removed += 1
    return removed


def free_bytes(folder: Path) -> int:
    """Return the free bytes of the file system of ``folder`` (or of its nearest parent)."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


@functools.cache
def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable.

    Raises:
        OSError: the disk failed.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot
            raise
    finally:
        os.close(descriptor)
