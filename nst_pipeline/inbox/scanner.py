"""Which files of the inbox are settled: complete as far as anybody can tell without reading."""

import contextlib
import gc
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from nst_pipeline.errors import InboxGoneError, UsageError
from nst_pipeline.files import facts, shown
from nst_pipeline.inbox import companions
from nst_pipeline.inbox.reading import Found, walk

NETWORK_SYSTEMS = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "9p", "afs", "ceph", "glusterfs", "vboxsf",
     "vmhgfs", "virtiofs", "drvfs", "davfs", "lustre", "beegfs", "gpfs", "orangefs", "prl_fs")
)  # fmt: skip
"""File systems that other machines write to: without events, and with clocks of their own."""


@dataclass(frozen=True)
class Scan:
    """What a look at the folders found.

    Attributes:
        settled: files that are ready and have something left to do, the first to do first.
        waiting: files that changed too recently.
        finished: folder and name of the files that nothing is left to do for.
        wait_seconds: when the next of ``waiting`` may be settled; None: there is none.
    """

    settled: list[Found] = field(default_factory=list)
    waiting: list[Found] = field(default_factory=list)
    finished: list[tuple[PurePath, str]] = field(default_factory=list)
    wait_seconds: float | None = None


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Look for no garbage meanwhile: among a million objects, none of it, that takes long."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


class Scanner:
    """Looks at folders again and again, and remembers since when each file has been the same.

    Attributes:
        knows: for its user, to tell what `forget` was last told of.
    """

    def __init__(
        self,
        roots: list[Path],
        ignore: tuple[str, ...],
        apart: tuple[Path, ...],
        settle_seconds: float,
        urgent: str = "",
    ) -> None:
        """Look at nothing yet.

        Args:
            roots: folders, and files that are taken as they are.
            ignore: as `inbox.walk` takes it.
            apart: likewise.
            settle_seconds: how long a file must stay the same.
            urgent: subfolder of a root whose files come first.
        """
        self._roots, self._ignore, self._apart = roots, ignore, apart
        self._settle_seconds, self._urgent = settle_seconds, urgent
        self._since: dict[str, tuple[str, float]] = {}
        self._finished: dict[str, str] = {}
        self.knows = ""
        # Where others write, their clock is not ours, and only watching tells a file's age.
        self._trusts_clock = not any(is_network(root) for root in roots)

    def forget(self, finished: dict[str, str]) -> None:
        """Take in anew which files (paths as text, with their facts) have nothing left to do.

        One with companions is none of them: it is looked at again.
        """
        self._finished = finished

    def finish(self, found: Found) -> None:
        """Leave a file out from now on, until it changes."""
        if found.facts:
            self._finished[shown(found.path)] = found.seen

    def age_seconds(self, found: Found) -> float:
        """Return how long a file has been the same, as far as is known."""
        known, since = self._since.get(str(found.path), (None, 0.0))
        watched = time.monotonic() - since if known and known == found.seen else 0.0
        by_clock = (time.time_ns() - found.arrived_ns) / 1e9 if self._trusts_clock else 0.0
        return max(watched, by_clock)

    @uncollected()
    def scan(self) -> Scan:
        """Look at all files: one stat each, no reading.

        Raises:
            InboxGoneError: a folder to search is not there.
            UsageError: another path that was given is not there.
        """
        settled: list[Found] = []
        waiting: list[Found] = []
        finished: list[tuple[PurePath, str]] = []
        ages: list[float] = []
        seen: dict[str, tuple[str, float]] = {}
        now = time.monotonic()
        for (path, folder, root, status), beside in companions.paired(self._files()):
            own = facts(status) if status else None
            known = companions.seen(own, beside)
            if own and self._finished and self._finished.get(shown(path)) == known:
                finished.append((folder, PurePath(path).stem))
                continue
            if path in seen:
                continue
            before = self._since.get(path)
            seen[path] = before if before and before[0] == known else (known, now)
            arrived = max([status.st_ctime_ns if status else 0, *(c.arrived_ns for c in beside)])
            found = Found(Path(path), folder, root, own, arrived, beside)
            age = now - seen[path][1]
            if self._trusts_clock:
                age = max(age, (time.time_ns() - arrived) / 1e9)
            if age >= self._settle_seconds:
                settled.append(found)
            else:
                waiting.append(found)
                ages.append(age)
        self._since = seen
        settled.sort(key=self._rank)
        wait = max(0.0, self._settle_seconds - max(ages)) if ages else None
        return Scan(settled, waiting, finished, wait)

    def _rank(self, found: Found) -> tuple[bool, int]:
        return not self.is_urgent(found), found.arrived_ns

    def is_urgent(self, found: Found) -> bool:
        """Tell whether a file is to come first."""
        return bool(self._urgent) and found.folder.parts[:1] == (self._urgent,)

    def _files(self) -> Iterator[tuple[str, PurePath, Path, os.stat_result | None]]:
        for root in self._roots:
            if not os.path.lexists(root):
                raise UsageError(f"{shown(root)}: no such file or folder")
            if not root.is_dir():
                for path in companions.together(root):
                    yield str(path.absolute()), PurePath(), root.parent, _status(path)
                continue
            try:
                for entry, folder in walk(root, self._ignore, self._apart):
                    try:
                        status = entry.stat()
                    except FileNotFoundError:
                        if not entry.is_symlink():
                            continue  # taken away since the folder was read
                        status = None
                    except OSError:
                        status = None
                    yield entry.path, folder, root, status
            except OSError as error:
                problem = f"inbox: {shown(root)}: {error.strerror}; mount or create it"
                raise InboxGoneError([problem]) from error


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def is_network(path: Path) -> bool:
    """Tell whether a path lies on a file system that other machines write to."""
    kind = filesystem(path)
    return kind in NETWORK_SYSTEMS or kind.startswith("fuse.")


def filesystem(path: Path) -> str:
    """Return the type of the file system that ``path`` lies on; empty where nobody can tell."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    real, best, kind = os.path.realpath(path), "", ""
    for line in lines:
        before, _, after = line.partition(" - ")
        mount = re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), before.split(" ")[4])
        inside = real == mount or real.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):  # the last of several on one place is on top
            best, kind = mount, after.split(" ")[0]
    return kind


def mount_point(path: Path) -> Path:
    """Return the topmost folder on the same file system as ``path``.

    Raises:
        OSError: ``path`` is not there.
    """
    path = Path(os.path.realpath(path))
    device = path.stat().st_dev
    while path != path.parent and path.parent.stat().st_dev == device:
        path = path.parent
    return path
