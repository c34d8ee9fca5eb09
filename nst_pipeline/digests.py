"""SHA-256 of files, bytes and plain values, in hexadecimal."""

import hashlib
import json
from io import BufferedReader
from pathlib import Path
from typing import Any


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return stream_digest(file)


def stream_digest(file: BufferedReader) -> str:
    """Return the SHA-256 of what is in an open file.

    Raises:
        OSError: it cannot be read.
    """
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
