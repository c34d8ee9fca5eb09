"""The pieces of a gallery: each job that made a pastiche or failed, as the ledger has it."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nst_pipeline.digests import bytes_digest, digest
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
        return bytes_digest("\n".join(map(str, parts)).encode(errors="replace"))[:ID_DIGITS]


def short(value: object) -> str:
    """Return what tells a value from others in the gallery."""
    return digest(value)[:ID_DIGITS]


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
        name = short([one.source.hex(), one.style, one.key])
        is_failed = status == "failed"
        pieces.append(
            Piece(
                name, one.source, one.style, one.key, one.content, status,
                None if is_failed else one.final, None if is_failed else one.sha256,
                one.reason if is_failed else "", one.finished,
            )
        )  # fmt: skip
    return [*pieces, *_broken(ledger, {one.source for one in pieces if one.status == "failed"})]


def _broken(ledger: Ledger, told: set[bytes]) -> Iterator[Piece]:
    """Give the files that were given up before any job was made of them."""
    for one in ledger.files.failed():
        source = os.fsencode(one.source)
        if source not in told:
            name = short([source.hex()])
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
