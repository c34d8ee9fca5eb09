"""Logging: lines for people, JSON for programs, priorities for journald."""

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any, Literal

from nst_pipeline.files import as_text, shown
from nst_pipeline.jobs.job import Job

Format = Literal["auto", "human", "json", "journald"]

FIELDS = ("job", "content", "style")
"""What a record may carry besides its message: what it is about."""

PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.DEBUG, 7))


def about(job: Job) -> dict[str, str]:
    """Return the ``extra`` of a record that is about a job."""
    return {"job": job.key[:12], "content": as_text(job.content.path), "style": job.style.name}


def set_up(kind: Format, level: str = "info") -> None:
    """Log to standard error from now on.

    Args:
        kind: ``auto`` is journald where standard error is the journal, else human.
        level: the least that is told: debug, info, warning or error.
    """
    if kind == "auto":
        kind = "journald" if _is_journal() else "human"
    formatter = {"human": _Human, "json": _Json, "journald": _Journald}[kind]()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("nst_pipeline").setLevel(level.upper())


def _is_journal() -> bool:
    """Tell whether standard error is the stream that systemd says leads to the journal."""
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class _Human(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created).strftime("%Y-%m-%d %H:%M:%S")
        return f"{when} {record.levelname:7} {_text(self, record)}"


class _Journald(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        priority = next((p for level, p in PRIORITIES if record.levelno >= level), 7)
        # Each line of a message is an entry of its own, and needs its priority.
        return "\n".join(f"<{priority}>{line}" for line in _text(self, record).splitlines())


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _text(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    # Names were made fit for a line where the message was made; this is for all other text.
    text = record.getMessage()
    if job := getattr(record, "job", None):
        text += f" [{job}]"
    if record.exc_info:
        text += "\n" + formatter.formatException(record.exc_info)
    # Indented, for no line but the first begins a record.
    return "\n  ".join(map(shown, text.split("\n")))
