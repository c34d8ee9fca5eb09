"""File systems: where one begins, and whether other machines write to it."""

import os
import re
from pathlib import Path

from nst_pipeline.errors import InboxGoneError
from nst_pipeline.files import shown

NETWORK_SYSTEMS = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "9p", "afs", "ceph", "glusterfs", "vboxsf",
     "vmhgfs", "virtiofs", "drvfs", "davfs", "lustre", "beegfs", "gpfs", "orangefs", "prl_fs")
)  # fmt: skip
"""File systems that other machines write to: without events, and with clocks of their own."""


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


def inbox_gone(folder: Path, error: OSError) -> InboxGoneError:
    """Return the error to raise when an inbox could not be searched for ``error``."""
    reason = "no such folder" if isinstance(error, FileNotFoundError) else error.strerror
    return InboxGoneError([f"inbox: {shown(folder)}: {reason}; mount or create it"])
