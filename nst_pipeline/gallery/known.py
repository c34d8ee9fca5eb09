"""What a gallery knows of itself from update to update, so that only what changed is made anew."""

import contextlib
import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from nst_pipeline.files import publish
from nst_pipeline.folders import Folders
from nst_pipeline.gallery.pictures import Size

VERSION = 1
"""Of what is known, and of the files that are made; of another, all but pictures are made anew."""
NAME = ".known.json"
MARKED = ("data/mark", "pictures/mark")
"""Go with their folders, should somebody delete these."""


class KnownPiece(NamedTuple):
    """A piece, without what the ledger knows: its picture, and its recipe and run by their ids."""

    signature: str
    picture: str | None = None
    recipe: str = ""
    run: str = ""


class KnownContent(NamedTuple):
    """A content: its photograph, and the ids of its pieces."""

    photograph: str | None
    pieces: list[str]


class KnownStyle(NamedTuple):
    """A style's painting: the file, its signature, and its picture."""

    path: str
    signature: str
    picture: str | None


class KnownRecipe(NamedTuple):
    """A recipe, as a name for people and as YAML."""

    label: str
    yaml: str


@dataclass
class Known:
    """What is known; ids are those of `pieces.short`.

    Attributes:
        terms: digest of what else decides the files: version, settings, program.
        mark: what stands in the files that show that the folders are those of the last update.
        visits: what the browser remembers visits of this gallery by.
        runs: that have an end, and hold nothing new.
        sizes: of the pictures.
        pieces, contents, recipes: by their ids.
        styles: by their names.
        files: digests of the files that were written, by their names.
    """

    terms: str = ""
    mark: str = ""
    visits: str = ""
    runs: list[str] = field(default_factory=list)
    sizes: dict[str, Size] = field(default_factory=dict)
    pieces: dict[str, KnownPiece] = field(default_factory=dict)
    contents: dict[str, KnownContent] = field(default_factory=dict)
    styles: dict[str, KnownStyle] = field(default_factory=dict)
    recipes: dict[str, KnownRecipe] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    def pictures(self) -> set[str]:
        """Return the pictures that something is shown by."""
        found = {one.picture for one in self.pieces.values()}
        found |= {one.picture for one in self.styles.values()}
        found |= {one.photograph for one in self.contents.values()}
        return {picture for picture in found if picture}


KINDS: dict[str, Any] = {
    "sizes": Size, "pieces": KnownPiece, "contents": KnownContent, "styles": KnownStyle,
    "recipes": KnownRecipe,
}  # fmt: skip


def read_known(gallery: Path, folders: Folders) -> Known:
    """Return what the last update knew; of none, or of a damaged one, nothing.

    Of one whose files were deleted, the visits alone; then the folders have another mark.

    Raises:
        CannotCreateError, OutputError: see `files.publish`.
    """
    known = _read(gallery, folders)
    marks = {_mark(gallery / name, folders) for name in MARKED}
    if not known.mark or marks != {known.mark}:
        known = Known(mark=secrets.token_hex(8), visits=known.visits)
        for name in MARKED:
            publish(gallery / name, known.mark.encode(), folders, durably=False)
    return known


def _mark(path: Path, folders: Folders) -> str:
    with contextlib.suppress(OSError), folders.reader(path) as file:
        return file.read().decode("ascii", "replace")
    return ""


def _read(gallery: Path, folders: Folders) -> Known:
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        with folders.reader(gallery / NAME) as file:
            plain = json.loads(file.read())
        for name, kind in KINDS.items():
            plain[name] = {key: kind(*values) for key, values in plain[name].items()}
        return Known(**plain)
    return Known()


def keep_known(gallery: Path, known: Known, folders: Folders) -> None:
    """Keep what is known for the next update, unless it is what was known; the files come first.

    Raises:
        CannotCreateError, OutputError: see `files.publish`.
        OSError: the file system cannot be made durable.
    """
    plain = json.dumps(vars(known), separators=(",", ":")).encode()
    with contextlib.suppress(OSError), folders.reader(gallery / NAME) as file:
        if file.read() == plain:
            return
    # A file that a loss of power emptied would never be made again.
    folders.sync_all(gallery)
    publish(gallery / NAME, plain, folders)
