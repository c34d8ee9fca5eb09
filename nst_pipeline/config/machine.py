"""What torch said of this machine's processor, remembered, so that it need not be loaded to ask.

An answer holds for a day, and only as long as all is the same that it may depend on: torch, the
processor, which of them this process may use, the devices there are, and the environment.
"""

import contextlib
import functools
import importlib.util
import json
import os
import time
from pathlib import Path

from nst_pipeline.digests import digest
from nst_pipeline.errors import PipelineError
from nst_pipeline.files import publish

TRUSTED_SECONDS = 86_400
"""How long an answer holds."""
VARIABLES = (
    "ATEN", "CUDA", "DNNL", "GOMP", "HIP", "HSA", "KMP", "LD_", "MALLOC", "MKL", "NVIDIA", "OMP",
    "ONEAPI", "ONEDNN", "PYTHONPATH", "PYTORCH", "ROCR", "SYCL", "TORCH", "ZE_",
)  # fmt: skip
"""How the names of variables begin that torch or its libraries heed."""
DEVICES = ("nvidia*", "dri/*", "kfd", "dxg", "accel/*")
"""Files in /dev of whatever torch could take in place of the processor."""


class Memo:
    """What is remembered of one question."""

    def __init__(self, question: str, *about: str) -> None:
        """Look at the machine as it is now.

        Args:
            question: which one it is.
            about: what the answer depends on besides the machine.
        """
        self._path: Path | None = None
        with contextlib.suppress(OSError, RuntimeError):
            self._path = _path(question, *about)

    def recall(self) -> list[str] | None:
        """Return what was answered; None: nothing, or it holds no more."""
        if self._path is None:
            return None
        with contextlib.suppress(OSError, ValueError):
            if 0 <= time.time() - self._path.stat().st_mtime < TRUSTED_SECONDS:
                found = json.loads(self._path.read_text(encoding="utf-8"))
                if isinstance(found, list) and all(isinstance(part, str) for part in found):
                    return found
        return None

    def remember(self, *answer: str) -> None:
        """Remember an answer, where there is a place for it."""
        if self._path is None:
            return
        with contextlib.suppress(OSError, PipelineError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            publish(self._path, json.dumps(answer).encode(), durably=False)


def _path(question: str, *about: str) -> Path:
    """Return where an answer is kept.

    Raises:
        OSError, RuntimeError: there is no such place, or no torch.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    conditions = digest([*about, *_conditions()])
    return Path(cache).expanduser() / "nst-pipeline" / f"{question}-{conditions[:16]}.json"


@functools.cache  # torch, and what loads it, change the environment
def _conditions() -> tuple[str, ...]:
    """Return all of this machine, and of this process, that an answer may depend on.

    Raises:
        OSError: there is no torch, or this is no Linux.
    """
    torch = importlib.util.find_spec("torch")
    if torch is None or torch.origin is None:
        raise FileNotFoundError("torch")
    version = Path(torch.origin).with_name("version.py")
    processor = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    first = [
        line
        for line in processor.partition("\n\n")[0].split("\n")
        if line.startswith(("model", "flags", "Features", "CPU"))
    ]
    return (
        version.read_text(encoding="utf-8"),
        str(version),
        *first,
        *map(str, sorted(os.sched_getaffinity(0))),
        *sorted(str(path) for pattern in DEVICES for path in Path("/dev").glob(pattern)),
        *(f"{k}={v}" for k, v in sorted(os.environ.items()) if k.startswith(VARIABLES)),
    )
