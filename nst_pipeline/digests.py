"""SHA-256 of files, bytes and plain values, in hexadecimal."""

import hashlib
import json
from pathlib import Path
from typing import Any

from nst_pipeline.folders import Folders


def file_digest(path: Path, folders: Folders | None = None) -> str:
    """Return the SHA-256 of a file.

    Args:
        path: the file.
        folders: to reach it in; None: it is trusted, whatever links lead to it.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") if folders is None else folders.reader(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bytes_digest(data: bytes) -> str:
    """Return the SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def canonical(value: Any) -> str:
    """Return ``value`` as JSON that is the same for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def digest(value: Any) -> str:
    """Return the SHA-256 of ``value`` written as canonical JSON."""
    return bytes_digest(canonical(value).encode())
