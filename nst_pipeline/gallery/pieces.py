"""The pieces of a gallery: each job that made a pastiche or failed, as the ledger has it."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from nst_pipeline.digests import bytes_digest
from nst_pipeline.files import as_text, raw_bytes
from nst_pipeline.folders import Folders
from nst_pipeline.jobs.ledger import Ledger
from nst_pipeline.jobs.run_table import record_name
from nst_pipeline.jobs.state import JobState

ID_DIGITS = 16
"""Of a digest, so many hexadecimal digits tell things of a gallery apart."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A job as the gallery shows it.

    Attributes:
        id: what no other has, the same for ever.
        source: the content's path.
        style: the style's name; empty for a file that no job could be made of.
        key: the job's; empty likewise.
        content: SHA-256 of the content.
        status: ``done``; ``gone``: its output was taken away; or ``failed``.
        output: where the output went.
        sha256: of the output.
        reason: why it failed.
        finished: when, in seconds since the epoch.
    """

    id: str
    source: bytes
    style: str
    key: str
    content: str
    status: Literal["done", "gone", "failed"]
    output: bytes | None
    sha256: str | None
    reason: str
    finished: float

    @property
    def path(self) -> Path:
        """The content's path."""
        return Path(os.fsdecode(self.source))

    @property
    def place(self) -> str:
        """The content's path as records have it."""
        return raw_bytes(self.path) or as_text(self.path)

    @property
    def record(self) -> str:
        """What the job's record is kept by."""
        return record_name(self.place, self.style)

    @property
    def signature(self) -> str:
        """What changes when anything of it does."""
        parts = (self.status, self.finished, self.sha256, (self.output or b"").hex(), self.reason)
        return short(*(str(part).encode(errors="replace") for part in parts))


def short(*parts: bytes) -> str:
    """Return what tells something from others in the gallery, by parts that hold no zero byte."""
    return bytes_digest(b"\0".join(parts))[:ID_DIGITS]


def find_pieces(ledger: Ledger, folders: Folders) -> list[Piece]:
    """Return the pieces, in the order they were planned in.

    Args:
        ledger: of the pipeline.
        folders: to look for the outputs in.
    """
    ended = ledger.jobs.ended()
    present = _present({one.final for one in ended if one.final}, folders)
    pieces = []
    for one in ended:
        status: Literal["done", "gone", "failed"] = "failed"
        if one.state != JobState.FAILED:
            status = "done" if one.final in present else "gone"
        name = short(one.source, one.style.encode(), one.key.encode())
        is_failed = status == "failed"
        pieces.append(
            Piece(
                name, one.source, one.style, one.key, one.content, status,
                None if is_failed else one.final, None if is_failed else one.sha256,
                one.reason if is_failed else "", one.finished,
            )
        )  # fmt: skip
    return [*pieces, *_broken(ledger, {one.source for one in pieces if one.status == "failed"})]


def pieces_of(manifests: Iterable[dict[str, Any]], folders: Folders, outbox: Path) -> list[Piece]:
    """Return the pieces that manifests tell of, the newest first, where the ledger is lost.

    Args:
        manifests: as plain data.
        folders: to look for the outputs in.
        outbox: whoever writes to it may write manifests, which speak for no file outside of it.
    """
    found: dict[tuple[bytes, str], Piece] = {}
    for manifest in manifests:
        run = manifest["run"]
        when = datetime.fromisoformat(run["ended"] or run["started"]).timestamp()
        for job in manifest["jobs"]:
            source, style = _bytes(job["content"]), job["style"]["name"]
            if (source, style) in found:
                continue
            key, output = job["key"] or "", job["output"] or {}
            found[source, style] = Piece(
                short(source, style.encode(), key.encode()), source, style, key,
                job["content"]["sha256"] or "", "done" if output else "failed",
                _bytes(output) if output else None, output.get("sha256"),
                (job["error"] or {}).get("reason", ""), when,
            )  # fmt: skip
    own = os.fsencode(outbox) + b"/"
    outputs = {one.output for one in found.values() if one.output and one.output.startswith(own)}
    present = _present(outputs, folders)
    return [
        replace(one, status="gone") if one.output and one.output not in present else one
        for one in reversed(found.values())
    ]


def _bytes(file: dict[str, Any]) -> bytes:
    """Return the path of a file's record."""
    return bytes.fromhex(file["raw"]) if file["raw"] else os.fsencode(file["path"])


def _broken(ledger: Ledger, told: set[bytes]) -> Iterator[Piece]:
    """Give the files that were given up before any job was made of them."""
    for one in ledger.files.failed():
        source = os.fsencode(one.source)
        if source not in told:
            name = short(source)
            yield Piece(name, source, "", "", "", "failed", None, None, one.reason, one.time)


def _present(paths: Iterable[bytes], folders: Folders) -> set[bytes]:
    """Return those of some files that are there, by one look at each folder."""
    names: dict[bytes, set[bytes]] = defaultdict(set)
    for path in paths:
        folder, _, name = path.rpartition(b"/")
        names[folder].add(name)
    found = set()
    for folder, wanted in names.items():
        try:
            there = {os.fsencode(name) for name in folders.names(Path(os.fsdecode(folder)))}
        except OSError:
            continue
        found |= {folder + b"/" + name for name in wanted & there}
    return found
