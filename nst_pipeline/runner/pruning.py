"""What piles up beside the results, and what of it is thrown away again, the oldest first."""

import contextlib
import os
import stat
import time
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from nst_pipeline.config.pipeline import Config
from nst_pipeline.folders import Folders, entries
from nst_pipeline.inbox.kinds import MANIFEST, MANIFESTS_NAME

DAY_SECONDS = 86_400.0


@dataclass(frozen=True)
class Kept:
    """How much is kept of one kind."""

    files: int
    bytes: int


@dataclass(frozen=True)
class _File:
    path: Path
    name: str
    bytes: int
    used: float


def prune(config: Config, waiting: Container[str]) -> dict[str, Kept]:
    """Delete what `keep` of the settings says is too much or too old; return what is kept.

    Args:
        config: the settings.
        waiting: keys of the jobs that may still go on from their checkpoints.
    """
    keep, oldest = config.keep, time.time() - config.keep.checkpoint_days * DAY_SECONDS
    folders = Folders(config.roots)
    found = _files(config, folders)
    found["checkpoints"] = _deleted(
        folders,
        found["checkpoints"],
        [f for f in found["checkpoints"] if f.used < oldest and _key(f.name) not in waiting],
    )
    found["targets"] = _deleted(
        folders, found["targets"], _beyond(found["targets"], keep.targets_bytes)
    )
    manifests = sorted(found["manifests"], key=lambda file: file.used)
    found["manifests"] = _deleted(folders, manifests, manifests[: -keep.manifests])
    return _counted(found)


def kept(config: Config) -> dict[str, Kept]:
    """Return what is kept, by kind: checkpoints, targets, manifests."""
    return _counted(_files(config, Folders(config.roots)))


def _key(name: str) -> str:
    """Return the key of the first of the jobs that a checkpoint is of."""
    return name.partition("-")[0]


def _beyond(files: list[_File], most_bytes: int) -> list[_File]:
    """Return the files that were not used for the longest time, without which the rest fits."""
    files, excess = sorted(files, key=lambda file: file.used), sum(f.bytes for f in files)
    count = 0
    while excess > most_bytes:
        excess -= files[count].bytes
        count += 1
    return files[:count]


def _deleted(folders: Folders, files: list[_File], old: list[_File]) -> list[_File]:
    """Delete old files, as far as that is possible; return the others."""
    gone = set()
    for file in old:
        with contextlib.suppress(OSError):
            folders.unlink(file.path)
            gone.add(file.path)
    return [file for file in files if file.path not in gone]


def _counted(found: dict[str, list[_File]]) -> dict[str, Kept]:
    return {kind: Kept(len(files), sum(f.bytes for f in files)) for kind, files in found.items()}


def _files(config: Config, folders: Folders) -> dict[str, list[_File]]:
    found = {
        "checkpoints": _in_folder(folders, config.state / "checkpoints"),
        "targets": _in_folder(folders, config.state / "targets"),
        "manifests": _in_folder(folders, config.outbox / MANIFESTS_NAME),
    }
    found["manifests"] = [file for file in found["manifests"] if MANIFEST.fullmatch(file.name)]
    return found


def _in_folder(folders: Folders, folder: Path) -> list[_File]:
    """Return the files of a folder; none, if it is not there. Hidden ones are unfinished."""
    files = []
    with contextlib.suppress(OSError), folders.opened(folder) as descriptor:
        for entry in entries(descriptor):
            with contextlib.suppress(OSError):
                status = os.stat(entry.name, dir_fd=descriptor, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode) and not entry.name.startswith("."):
                    path = folder / entry.name
                    files.append(_File(path, entry.name, status.st_size, status.st_mtime))
    return files
