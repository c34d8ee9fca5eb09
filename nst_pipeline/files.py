"""Files that appear whole or not at all, and paths as text."""

import contextlib
import errno
import hashlib
import os
import pwd
import re
import resource
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

from nst_pipeline.errors import CannotCreateError, DiskFullError, OutputError
from nst_pipeline.folders import PRIVATE, TEMPORARY_PREFIX, Folders, make_folder

CANNOT_CREATE = frozenset(
    (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ELOOP)
)
NO_SPACE = frozenset((errno.ENOSPC, errno.EDQUOT))
NAME_BYTES = 255
"""The longest name that a file can have on the usual file systems."""
MOST_ROOM = 200
"""How many bytes of it `fitted_name` leaves free, at most."""
UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters, ends of lines, and what turns the direction of writing."""


def as_text(path: object) -> str:
    """Return a path as valid text, for programs (JSON), whatever bytes it is made of."""
    return os.fsencode(str(path)).decode("utf-8", "backslashreplace")


def raw_bytes(path: object) -> str | None:
    """Return a path's bytes in hexadecimal; None: they are text, and `as_text` has them all.

    Two paths of one text, such as of a file named with a byte and one named with its escape, so
    can be told apart.
    """
    raw = os.fsencode(str(path))
    try:
        raw.decode()
    except UnicodeDecodeError:
        return raw.hex()
    return None


def shown(path: object) -> str:
    r"""Return a path as text for people, on one line: no name can pass for more than a name.

    Bytes that are no text and whatever moves the cursor, ends a line or turns the direction of
    writing are escaped, as in ``\x1b``. To show what was shown changes nothing.
    """
    return UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), as_text(path))


def counted(number: int, noun: str) -> str:
    """Return a number of things for people, such as *1 job*, *12 jobs* or *2 deliveries*."""
    several = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number} {noun if number == 1 else several}"


def signature(status: os.stat_result) -> str:
    """Return a file's signature, which changes when its bytes do: size, both times in ns, inode."""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def changed_ns(file_signature: str) -> int:
    """Return when the file of a `signature` was last changed or renamed, in ns since the epoch."""
    return int(file_signature.split()[2])


def identity(status: os.stat_result) -> str:
    """Return what is the same for no other file: the `signature` and the device.

    The numbers of devices end with the machine's start; so the ledger remembers signatures.
    """
    return f"{signature(status)} {status.st_dev}"


def publish(
    path: Path,
    data: bytes | Iterable[bytes],
    folders: Folders = PRIVATE,
    mode: int = 0o666,
    durably: bool = True,
) -> None:
    """Make ``path`` hold ``data``: durably, and whole or not at all.

    Args:
        path: the file.
        data: its bytes, or parts of them one after the other; an error of theirs is handed on.
        folders: to reach it in.
        mode: its permissions, of which the umask is taken off.
        durably: whether it must outlive a loss of power.

    Raises:
        CannotCreateError: its folder is missing and cannot be made, or is not writable.
        OutputError: the write failed, such as on a full disk; nothing is left behind.
    """
    temporary = write_temporary(path, data, folders, mode, durably)
    try:
        folders.replace(temporary, path, durably)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            folders.unlink(temporary)


def write_temporary(
    path: Path,
    data: bytes | Iterable[bytes],
    folders: Folders = PRIVATE,
    mode: int = 0o666,
    durably: bool = True,
) -> Path:
    """Write ``data`` to a new hidden file beside ``path``, and return its path.

    All arguments are as `publish` takes them.

    Raises:
        CannotCreateError: the folder is missing and cannot be made, or is not writable.
        OutputError: the write failed, such as on a full disk; nothing is left behind.
    """
    temporary = folders.temporary(path)
    try:
        with folders.create(temporary, mode) as file:
            file.writelines([data] if isinstance(data, bytes) else data)
            file.flush()
            if durably:
                os.fsync(file.fileno())
    except BaseException as error:
        with contextlib.suppress(OSError):
            folders.unlink(temporary)
        if isinstance(error, OSError):
            raise cannot_write(path, error) from error
        raise
    return temporary


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
            f"{shown(folder)}: no files can be created here: {cause(folder, error)}; "
            "check its permissions and free space"
        ) from error


def cannot_write(path: Path, error: OSError) -> CannotCreateError | OutputError:
    """Return the error to raise when writing ``path`` failed with ``error``."""
    return _error_class(error)(f"{shown(path)}: cannot be written: {cause(path, error)}")


def cause(path: Path, error: OSError) -> str:
    """Return why a path cannot be written, made or removed: with whose it is, if that is why."""
    text = error.strerror or str(error)
    if error.errno in (errno.EMFILE, errno.ENFILE):
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return f"{text} ({limit} are allowed; `ulimit -n` and LimitNOFILE= raise that)"
    there = [place for place in (path, *path.parents) if os.path.lexists(place)]
    places = there[: 2 if path in there else 1]
    barred = next((place for place in places if not os.access(place, os.W_OK)), None)
    if error.errno not in (errno.EACCES, errno.EPERM) or barred is None:
        return text
    mode = f"(mode {stat.S_IMODE(barred.stat().st_mode):04o})"
    theirs, ours = owner(barred), _user(os.geteuid())
    end = "" if theirs == ours else f", and this process runs as {ours}: `chown` gives it away"
    return f"{text}: {shown(barred)} belongs to {theirs} {mode}{end}"


def owner(path: Path) -> str:
    """Return the name, else the number, of whom a file belongs to."""
    return _user(path.stat().st_uid)


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _error_class(error: OSError) -> type[CannotCreateError] | type[OutputError]:
    if error.errno in NO_SPACE:
        return DiskFullError
    return CannotCreateError if error.errno in CANNOT_CREATE else OutputError


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


def is_gone(path: Path) -> bool:
    """Tell whether there is no such file; False where the system does not say."""
    try:
        path.lstat()
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ENOTDIR)
    return False


def free_bytes(folder: Path) -> int:
    """Return the free bytes of the file system of ``folder`` (or of its nearest parent)."""
    # Not Path.exists, which raises for a folder whose parent may not be searched.
    while not os.path.exists(folder) and folder != folder.parent:  # noqa: PTH110
        folder = folder.parent
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize
