"""Work in the middle, kept in the state folder until its jobs are done."""

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path

from nst_pipeline.digests import digest
from nst_pipeline.errors import PipelineError
from nst_pipeline.files import publish

log = logging.getLogger(__name__)


def name(keys: Sequence[str]) -> str:
    """Return what the checkpoint of the jobs with these keys, painted together, is called."""
    return f"{keys[0]}-{digest(list(keys))[:16]}"


def _path(state: Path, keys: Sequence[str]) -> Path:
    return state / "checkpoints" / name(keys)


def keep(state: Path, keys: Sequence[str], data: bytes) -> None:
    """Keep a checkpoint; one that cannot be written costs time only, and is told."""
    try:
        publish(_path(state, keys), data, mode=0o600)  # it shows what its picture may not
    except PipelineError as error:
        log.warning("%s; the work goes on without a checkpoint", error)


def find(state: Path, keys: Sequence[str]) -> bytes | None:
    """Return the checkpoint of jobs that are painted together, if there is one."""
    with contextlib.suppress(OSError):
        return _path(state, keys).read_bytes()
    return None


def of_jobs(state: Path, keys: Sequence[str]) -> dict[str, bytes]:
    """Return all checkpoints that jobs with these keys may go on from, by their names."""
    found = {}
    for key in keys:
        for path in (state / "checkpoints").glob(f"{key}-*"):
            with contextlib.suppress(OSError):
                found[path.name] = path.read_bytes()
    return found


def forget(state: Path, key: str) -> None:
    """Delete the checkpoints of a job."""
    for path in (state / "checkpoints").glob(f"{key}-*"):
        with contextlib.suppress(OSError):  # of no use to anybody, and removed in time
            path.unlink()
