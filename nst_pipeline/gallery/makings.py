"""How the pieces were made: joined from the runs that made them, not those that skipped them."""

import contextlib
import json
import os
import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from pydantic import ValidationError

from nst_pipeline.config.pipeline import Config, deepest
from nst_pipeline.folders import Folders
from nst_pipeline.gallery.pieces import Piece
from nst_pipeline.inbox.kinds import MANIFEST, MANIFESTS_NAME
from nst_pipeline.jobs.ledger import Ledger
from nst_pipeline.manifest.model import Manifest

FEW = 500
"""Records that are asked for one by one; of more, those of the whole run are read."""
SETTLED_SECONDS = 60.0
"""A piece that is older, and whose record the ledger lacks, is looked for in the manifests."""

Plain = dict[str, Any]


@dataclass(frozen=True)
class Making:
    """How a piece was made, as its run recorded it; plain data, for it is kept as JSON.

    Attributes:
        run: the run's id.
        version: of the program.
        recipe: the whole recipe; empty: not known.
        device, precision, threads, weights, weights_sha256: what painted it.
        job: the job's record, without what the ledger knows.
    """

    run: str
    version: str = ""
    recipe: Plain = field(default_factory=dict)
    device: str = ""
    precision: str = ""
    threads: int | None = None
    weights: str = ""
    weights_sha256: str = ""
    job: Plain = field(default_factory=dict)

    @property
    def is_painted(self) -> bool:
        """Whether it has the figures of a job that was painted, and not copied."""
        return bool(self.job.get("losses"))


class Makings:
    """Finds how pieces were made, and remembers which runs hold nothing new.

    Attributes:
        read: ids of the runs that have an end and were read.
        style_paths: of the styles of pieces that changed, as the ledger has them: manifests, which
            others may write, name no file to be shown.
    """

    def __init__(
        self,
        config: Config,
        folders: Folders,
        ledger: Ledger,
        known: Sequence[str],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Find nothing yet; what has ended by now may be asked for.

        Args:
            config: the settings.
            folders: to read the manifests in.
            ledger: has the records of the last runs.
            known: ids of runs that have an end and were read.
            check: as `read_manifests` takes it.
        """
        self._config, self._folders, self._ledger = config, folders, ledger
        self._check = check
        # Before the pieces: a run that has an end by then has no more of them.
        self._listed = ledger.runs.listed()
        self.read = list(known)
        self.style_paths: dict[str, str] = {}

    def of(self, pieces: Sequence[Piece], needed: Container[str]) -> dict[str, Making]:
        """Return how pieces were made, by their ids, as far as it is recorded.

        Args:
            pieces: that changed.
            needed: ids of those for which manifests are read, too: of the others it is known from
                before.
        """
        wanted = {(one.place, one.style, one.key): one.id for one in pieces if one.style}
        keys = {one.key for one in pieces if one.status != "failed"}
        found: dict[str, Making] = {}
        painted: dict[str, Making] = {}

        def take(makings: Iterable[tuple[tuple[str, str, str], Making]], is_older: bool) -> None:
            for job, making in makings:
                if job in wanted and not (is_older and wanted[job] in found):
                    found[wanted[job]] = making
                if job[2] in keys and making.is_painted and not (is_older and job[2] in painted):
                    painted[job[2]] = making

        names = [one.record for one in pieces] if len(pieces) <= FEW else None
        take(self._of_ledger(names), is_older=False)
        styles = {one.id: one.style for one in pieces}
        self.style_paths = {styles[name]: one.job["style_path"] for name, one in found.items()}
        old = time.time() - SETTLED_SECONDS
        lacking = [
            one
            for one in pieces
            if one.id in needed
            and one.status != "failed"
            and one.finished < old
            and one.key not in painted
        ]
        outbox = self._config.outbox
        for manifest in read_manifests(outbox, self._folders, self._check) if lacking else ():
            take(_of_run(manifest, manifest["jobs"]), is_older=True)
            lacking = [one for one in lacking if one.key not in painted]
            if not lacking:
                break
        for one in pieces:
            if one.key in painted and not (one.id in found and found[one.id].is_painted):
                found[one.id] = _joined(found.get(one.id), painted[one.key])
        return found

    def _of_ledger(self, names: list[str] | None) -> Iterator[tuple[tuple[str, str, str], Making]]:
        runs, there = self._ledger.runs, {run for run, _ in self._listed}
        read, self.read = self.read, [run for run in self.read if run in there]
        for run, is_open in self._listed:
            if run in read or (head := runs.head(run)) is None:
                continue
            yield from _of_run(json.loads(head), map(json.loads, runs.records(run, names)))
            if not is_open:
                self.read.append(run)


def read_manifests(
    outbox: Path, folders: Folders, check: Callable[[], None] = lambda: None
) -> Iterator[Plain]:
    """Give the manifests of an outbox, the newest first; what is none is passed over.

    Args:
        outbox: the folder.
        folders: to read them in.
        check: called before each; raises what is to end that.
    """
    folder = outbox / MANIFESTS_NAME
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = [name for name in folders.names(folder) if MANIFEST.fullmatch(name)]
    for name in reversed(names):
        check()
        with contextlib.suppress(OSError, ValidationError), folders.reader(folder / name) as file:
            Manifest.model_validate_json(data := file.read())
            yield json.loads(data)


def _joined(own: Making | None, painted: Making) -> Making:
    """Return the making of a copy: its own record, with the figures of what it is a copy of."""
    if own is None:
        return painted
    kept = {k: own.job[k] for k in ("extras", "duplicate_of", "notes") if own.job.get(k)}
    return Making(**{**vars(painted), "job": {**painted.job, "extras": [], **kept}})


def _of_run(head: Plain, records: Iterable[Plain]) -> Iterator[tuple[tuple[str, str, str], Making]]:
    """Give how the jobs were made that a run did itself, by place, style and key."""
    device, weights = head.get("device") or {}, head["weights"]
    recipes = _Recipes(head["config"])
    for record in records:
        if record["status"] == "skipped":
            continue
        content, style = record["content"], record["style"]
        job = {
            name: record.get(name)
            for name in (
                "iterations", "stop_reason", "losses", "curve", "seconds", "history_size",
                "extras", "notes", "duplicate_of",
            )
        }  # fmt: skip
        job |= {"style_path": style["path"], "style_sha256": style["sha256"]}
        job |= {"style_images": style.get("images", []), "content_size": content.get("size")}
        job |= {"size": (record.get("output") or {}).get("size")}
        place = content.get("raw") or content["path"]
        yield (
            (place, style["name"], record.get("key") or ""),
            Making(
                run=head["run"]["id"], version=head["program"]["version"],
                recipe=recipes.of(content, style["name"]),
                device=_device(record) or device.get("name", ""),
                precision=device.get("precision", ""),
                threads=device.get("threads"), weights=weights["id"],
                weights_sha256=weights["sha256"], job=job,
            ),
        )  # fmt: skip


def _device(record: Plain) -> str:
    """Return what painted a job, and where; empty: the record does not say."""
    return " on ".join(filter(None, (record.get("device"), record.get("node"))))


class _Recipes:
    """The recipes of a run's settings, as its manifest has them."""

    def __init__(self, config: Plain) -> None:
        self._styles = config["styles"]
        self._folders = config.get("folders") or {}
        self._inbox = PurePath(config["inbox"])
        self._urgent = (config.get("watch") or {}).get("urgent", "")

    def of(self, content: Plain, style: str) -> Plain:
        styles = self._styles
        if self._folders:
            raw = content.get("raw")
            path = Path(os.fsdecode(bytes.fromhex(raw))) if raw else Path(content["path"])
            if path.is_relative_to(self._inbox):
                place = path.relative_to(self._inbox).parent
                if (name := deepest(place, self._folders, self._urgent)) is not None:
                    styles = self._folders[name]["styles"]
        found: Plain = (styles.get(style) or {}).get("recipe") or {}
        return found
