"""Folders that others may write to as well: reached by descriptors, and never through a link.

What a person names, such as the inbox and the outbox, is trusted, and may lie behind links. What is
in it is not: between a look at a path and its use, somebody may put a link to another folder in its
way. So whoever works there opens the folders on the way, none of them through a link, and works in
the last of them by its descriptor.
"""

import contextlib
import ctypes
import errno
import functools
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import NamedTuple

TEMPORARY_PREFIX = ".nst-"
"""How the names of unfinished files begin; what a kill leaves of them may be deleted."""
PATH_BYTES = 4096
"""The longest path, as the kernel has it; deeper folders are not searched."""
# A folder that may be passed through, but not be listed, is good enough (O_PATH, of Linux alone).
FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
LISTING = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: a FIFO without a writer must not hang the run.
READING = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
CREATING = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
RENAME_NOREPLACE = 1
OPENAT2, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH = 437, 4, 8


class LinkError(OSError):
    """There is a link where none is followed."""

    def __init__(self, path: object) -> None:
        """Say so; ``path`` is where the link stands."""
        text = "it is, or lies behind, a link where none is followed; put a real folder there"
        super().__init__(errno.ELOOP, text, str(path))


@dataclass(frozen=True)
class Folders:
    """The folders that a pipeline works in.

    Every path may be one below a root, of which the part below is not trusted; the outermost root
    counts. Of a path below none, the folder is trusted, and not the name in it. All methods raise
    OSError; it is a `LinkError` for a link on the way.

    Attributes:
        roots: the folders that are trusted.
        owner: whose the unfinished files are, in their names, so that pipelines can share a folder;
            empty: it is shared with nobody.
    """

    roots: tuple[Path, ...] = ()
    owner: str = ""

    def root(self, folder: Path) -> Path:
        """Return the part of a folder's path that is trusted."""
        around = [root for root in self.roots if folder.is_relative_to(root)]
        return min(around, key=lambda root: len(root.parts), default=folder)

    @contextlib.contextmanager
    def opened(self, folder: Path, make: bool = False) -> Iterator[int]:
        """Give a descriptor of a folder to work in, for the ``dir_fd`` of the functions of os.

        Args:
            folder: its path.
            make: make what is missing of it, durably.
        """
        root = self.root(folder)
        names = folder.relative_to(root).parts
        if ".." in names or len(os.fsencode(folder)) >= PATH_BYTES:
            code = errno.EINVAL if ".." in names else errno.ENAMETOOLONG
            raise OSError(code, os.strerror(code), str(folder))
        if make:
            make_folder(root)
        descriptor = os.open(root, FOLDER)
        try:
            if len(names) > 1 and (whole := _beneath(descriptor, "/".join(names))) is not None:
                os.close(descriptor)
                descriptor, names = whole, ()
            for name in names:
                outer, descriptor = descriptor, _enter(descriptor, name, make)
                os.close(outer)
            yield descriptor
        finally:
            os.close(descriptor)

    def make(self, folder: Path) -> None:
        """Make a folder and its parents, as far as they are missing, each durably."""
        with self.opened(folder, make=True):
            pass

    def status(self, path: Path) -> os.stat_result:
        """Return what is said of a file, or of a link itself."""
        with self.opened(path.parent) as folder:
            return os.stat(path.name, dir_fd=folder, follow_symlinks=False)

    def exists(self, path: Path) -> bool:
        """Tell whether there is something of this name."""
        try:
            self.status(path)
        except FileNotFoundError:
            return False
        return True

    def is_link(self, path: Path) -> bool:
        """Tell whether something is a link; what cannot be looked at is none."""
        with contextlib.suppress(OSError):
            return stat.S_ISLNK(self.status(path).st_mode)
        return False

    def open(self, path: Path) -> int:
        """Return a descriptor of a file to read."""
        with self.opened(path.parent) as folder:
            return os.open(path.name, READING | os.O_NOFOLLOW, dir_fd=folder)

    def reader(self, path: Path) -> BufferedReader:
        """Open a file to read."""
        descriptor = self.open(path)
        try:
            return os.fdopen(descriptor, "rb")
        except OSError:  # it is a folder
            os.close(descriptor)
            raise

    def create(self, path: Path, mode: int = 0o666) -> BufferedWriter:
        """Make a new file to write to, and its folder; the umask is taken off ``mode``."""
        with self.opened(path.parent, make=True) as folder:
            return os.fdopen(os.open(path.name, CREATING, mode, dir_fd=folder), "wb")

    def unlink(self, path: Path, missing_ok: bool = False) -> None:
        """Delete a file."""
        with (
            contextlib.suppress(*([FileNotFoundError] if missing_ok else [])),
            self.opened(path.parent) as folder,
        ):
            os.unlink(path.name, dir_fd=folder)

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name, and make the folder for it."""
        with self.opened(source.parent) as old, self.opened(target.parent, make=True) as new:
            os.link(source.name, target.name, src_dir_fd=old, dst_dir_fd=new, follow_symlinks=False)

    def replace(self, source: Path, target: Path, durably: bool = True) -> None:
        """Rename a file, in place of another if there is one, and make that durable."""
        with self.opened(source.parent) as old, self.opened(target.parent) as new:
            os.replace(source.name, target.name, src_dir_fd=old, dst_dir_fd=new)
            if durably:
                _sync(new)

    def rename_new(self, source: Path, target: Path, durably: bool = True) -> None:
        """Rename a file without ever replacing another, and make that durable.

        Raises:
            FileExistsError: ``target`` exists.
        """
        with self.opened(source.parent) as old, self.opened(target.parent) as new:
            _rename_new(old, source.name, new, target.name)
            if durably:
                _sync(new)
            if durably and source.parent != target.parent:
                _sync(old)

    def sync(self, folder: Path) -> None:
        """Make the names in a folder durable."""
        with self.opened(folder) as descriptor:
            _sync(descriptor)

    def sync_all(self, folder: Path) -> None:
        """Make all that was written to a folder's file system durable."""
        libc = _libc()
        if libc is None or not hasattr(libc, "syncfs"):  # Linux alone has it
            os.sync()
            return
        with self.opened(folder) as descriptor:
            listing = os.open(".", LISTING, dir_fd=descriptor)
        try:
            if libc.syncfs(listing):
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code), str(folder))
        finally:
            os.close(listing)

    def names(self, folder: Path) -> list[str]:
        """Return the names in a folder, in the order of their bytes."""
        with self.opened(folder) as descriptor:
            return [entry.name for entry in entries(descriptor)]

    def temporary(self, path: Path, name: str = "") -> Path:
        """Return a hidden name beside a file, for one that is not finished; no other has it.

        Args:
            path: the file.
            name: what tells it from others of the owner's; by default that is random.
        """
        return path.with_name(f"{self._mark()}{name or secrets.token_hex(6)}")

    def remove_temporaries(self, folder: Path) -> int:
        """Delete what a kill left of the owner's unfinished files below a folder; return how many.

        What cannot be searched or deleted is left.
        """
        removed, rest = 0, [folder]
        while rest:
            place = rest.pop()
            with contextlib.suppress(OSError), self.opened(place) as descriptor:
                for entry in entries(descriptor):
                    if entry.is_folder:
                        rest.append(place / entry.name)
                    elif entry.name.startswith(self._mark()):
                        with contextlib.suppress(OSError):
                            os.unlink(entry.name, dir_fd=descriptor)
                            removed += 1
        return removed

    def _mark(self) -> str:
        return f"{TEMPORARY_PREFIX}{self.owner}-" if self.owner else TEMPORARY_PREFIX


PRIVATE = Folders()
"""For folders that nobody else writes to."""


class Entry(NamedTuple):
    """A name in a folder, and what stands behind it; a link is no folder."""

    name: str
    is_folder: bool
    is_link: bool


def entries(folder: int) -> list[Entry]:
    """Return what is in a folder, given its descriptor, in the order of the names' bytes.

    Raises:
        OSError: it cannot be listed.
    """
    descriptor = os.open(".", LISTING, dir_fd=folder)
    try:
        with os.scandir(descriptor) as scan:
            found = [Entry(e.name, e.is_dir(follow_symlinks=False), e.is_symlink()) for e in scan]
    finally:
        os.close(descriptor)
    return sorted(found, key=lambda entry: os.fsencode(entry.name))


def make_folder(folder: Path) -> None:
    """Make a folder that is trusted, and its parents, each durably.

    Raises:
        OSError: that is impossible.
    """
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
        PRIVATE.sync(one.parent)


def _enter(folder: int, name: str, make: bool) -> int:
    try:
        return os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        if not make:
            raise
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=folder)
        _sync(folder)
        return _enter(folder, name, make=False)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                raise LinkError(name) from error
        raise


def _beneath(folder: int, path: str) -> int | None:
    """Open a folder below another by one call, with no link on the way.

    None: that is impossible, or the kernel does not know how (before Linux 5.6); to go step by step
    tells which.
    """
    libc = _libc()
    if libc is None or not hasattr(os, "O_PATH"):
        return None
    how = (ctypes.c_uint64 * 3)(FOLDER, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
    found = libc.syscall(
        ctypes.c_long(OPENAT2), ctypes.c_int(folder), os.fsencode(path), how,
        ctypes.c_size_t(ctypes.sizeof(how)),
    )  # fmt: skip
    return found if found >= 0 else None


def _sync(folder: int) -> None:
    descriptor = os.open(".", LISTING, dir_fd=folder)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot
            raise
    finally:
        os.close(descriptor)


def _rename_new(old: int, source: str, new: int, target: str) -> None:
    renameat2, code = _renameat2(), errno.ENOSYS
    if renameat2 is not None:
        names = os.fsencode(source), os.fsencode(target)
        done = renameat2(old, names[0], new, names[1], RENAME_NOREPLACE)
        code = 0 if done == 0 else ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL):  # the kernel or the file system does not know how
        _link_over(old, source, new, target)
    elif code:
        raise OSError(code, os.strerror(code), source, None, target)


def _link_over(old: int, source: str, new: int, target: str) -> None:
    try:
        os.link(source, target, src_dir_fd=old, dst_dir_fd=new, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:  # no hard links either (FAT): the best that is left is to look first
        with contextlib.suppress(FileNotFoundError):
            os.stat(target, dir_fd=new, follow_symlinks=False)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from None
        os.rename(source, target, src_dir_fd=old, dst_dir_fd=new)
    else:
        os.unlink(source, dir_fd=old)


@functools.cache
def _libc() -> ctypes.CDLL | None:
    with contextlib.suppress(OSError):
        return ctypes.CDLL(None, use_errno=True)
    return None


@functools.cache
def _renameat2() -> "ctypes._NamedFuncPointer | None":
    libc = _libc()
    if libc is None or not hasattr(libc, "renameat2"):
        return None
    function = libc.renameat2
    function.argtypes = (
        ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint,
    )  # fmt: skip
    return function
