"""The memory that the machine has for this process, which defaults depend on."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path


def machine_bytes() -> int:
    """Return the bytes of the machine, or what the control group or `ulimit -v` allows if less."""
    return min(_limits())


def _limits() -> Iterator[int]:
    yield os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        yield soft
    for folder in control_groups():
        try:
            yield int((folder / "memory.max").read_text())
        except (OSError, ValueError):  # no limit reads "max"
            continue


def control_groups(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> list[Path]:
    """Return the folders of this process's control group (version 2) and those above it."""
    try:
        name = next(
            line[3:] for line in own.read_text().splitlines() if line.startswith("0::")
        ).strip("/")
    except (OSError, StopIteration):
        return []
    folder = root / name
    return [folder, *(above for above in folder.parents if above.is_relative_to(root))]
