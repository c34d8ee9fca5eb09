"""What another account may do with files, by their owners and modes."""

import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class Account:
    """A user of this machine; of none yet, ``uid`` is None, and there are no groups."""

    uid: int | None
    groups: frozenset[int]

    @classmethod
    def named(cls, name: str) -> Self:
        """Return the account of a name."""
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            return cls(None, frozenset())
        return cls(found.pw_uid, frozenset(os.getgrouplist(name, found.pw_gid)))

    def may(self, path: Path, wanted: int) -> bool:
        """Tell whether it may do something with a path that is there, its folders aside.

        Args:
            path: a file or folder.
            wanted: of `os.R_OK`, `os.W_OK` and `os.X_OK`.
        """
        status = path.stat()
        if status.st_uid == self.uid:
            granted = status.st_mode >> 6
        else:
            granted = status.st_mode >> (3 if status.st_gid in self.groups else 0)
        # What a list of its own says beyond the mode is not looked into.
        return granted & wanted == wanted or "system.posix_acl_access" in os.listxattr(path)


def barrier(path: Path, account: Account, wanted: int) -> Path | None:
    """Return what on the way to a path, or itself, keeps an account out; None: nothing does.

    What is not there keeps nobody out.

    Args:
        path: a file or folder; links are followed.
        account: whose way it is.
        wanted: what is to be done in the end, as for `Account.may`; folders are entered as well.
    """
    real = Path(os.path.realpath(path))
    for place in dict.fromkeys((*reversed(path.parents), *reversed(real.parents), path)):
        if not place.exists():
            return None
        needed = (wanted if place == path else 0) | (os.X_OK if place.is_dir() else 0)
        if not account.may(place, needed):
            return place
    return None
