"""The gallery's files: one page, and data that it loads as scripts, which work from file:// too."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from nst_pipeline.config.flow import dump
from nst_pipeline.config.pipeline import Config
from nst_pipeline.config.recipe import RECIPES, Recipe
from nst_pipeline.digests import bytes_digest, digest
from nst_pipeline.files import shown
from nst_pipeline.folders import Folders
from nst_pipeline.gallery.known import Known, KnownRecipe
from nst_pipeline.gallery.makings import Making, Plain
from nst_pipeline.gallery.pieces import ID_DIGITS, Piece, short

PAGE_PIECES = 500
"""The most pieces of a page."""
ASSETS = ("style.css", "gallery.js", "icon.svg")
NEVER_IN_JSON = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}
"""What could end a script or begin markup stands in strings alone, and there is escaped."""


class ContentPieces(NamedTuple):
    """A content with its pieces; ``id`` tells it from others."""

    id: str
    pieces: list[Piece]

    @property
    def path(self) -> Path:
        """The content's path."""
        return self.pieces[0].path


def by_content(pieces: Iterable[Piece]) -> list[ContentPieces]:
    """Return pieces by their contents, in the order that these came first."""
    found: dict[bytes, list[Piece]] = {}
    for piece in pieces:
        found.setdefault(piece.source, []).append(piece)
    return [ContentPieces(short(source), some) for source, some in found.items()]


def paged(contents: Sequence[ContentPieces]) -> list[list[ContentPieces]]:
    """Return contents by pages of `PAGE_PIECES` pieces at most, unless one alone has more.

    The oldest stand on the first page: what comes changes the last alone.
    """
    pages: list[list[ContentPieces]] = []
    room = 0
    for content in contents:
        if not pages or len(content.pieces) > room:
            pages.append([])
            room = PAGE_PIECES
        pages[-1].append(content)
        room -= len(content.pieces)
    return pages


def script(function: str, data: object) -> bytes:
    """Return a script that calls a function of the gallery's with data."""
    text = json.dumps(data, separators=(",", ":"))
    for sign, escaped in NEVER_IN_JSON.items():
        text = text.replace(sign, escaped)
    return f"gallery.{function}({text});\n".encode()


def data_of(text: bytes) -> Any:
    """Return the data of a `script`.

    Raises:
        ValueError: it is none.
    """
    return json.loads(text[text.index(b"(") + 1 : text.rindex(b")")])


class Place(NamedTuple):
    """How a content is called: its name, and its folder; both for people."""

    name: str
    folder: str

    @classmethod
    def of(cls, path: Path, config: Config) -> "Place":
        """Return that of a content: relative to the inbox, if it lies there."""
        if not path.is_relative_to(config.inbox):
            return cls(shown(path.name), shown(path.parent))
        relative = path.relative_to(config.inbox)
        folder = shown(relative.parent)
        return cls(shown(relative.name), "" if folder == "." else folder)


def page_data(contents: Iterable[ContentPieces], known: Known, config: Config) -> list[Plain]:
    """Return what a page shows of its contents."""
    found = []
    for content in contents:
        photograph = known.contents[content.id].photograph
        found.append(
            {
                "id": content.id,
                **Place.of(content.path, config)._asdict(),
                "photograph": photograph,
                "size": known.sizes.get(photograph or ""),
                "pieces": [_tile(piece, known) for piece in content.pieces],
            }
        )
    return found


def _tile(piece: Piece, known: Known) -> Plain:
    own = known.pieces[piece.id]
    found: Plain = {
        "id": piece.id, "style": piece.style, "status": piece.status,
        "time": round(piece.finished, 1), "recipe": own.recipe, "run": own.run,
    }  # fmt: skip
    if own.picture:
        found |= {"picture": own.picture, "size": known.sizes.get(own.picture)}
    if piece.reason:
        found["reason"] = shown(piece.reason)
    return found


class Details:
    """Writes down all that is known of a content's pieces."""

    def __init__(self, config: Config, folders: Folders) -> None:
        """Write with the settings' paths and commands."""
        self._config, self._folders = config, folders

    def of(
        self, content: ContentPieces, makings: Mapping[str, Making], before: Mapping[str, Plain]
    ) -> Plain:
        """Return the data of a content.

        Args:
            content: with its pieces.
            makings: how those were made that changed.
            before: what was written of the others.
        """
        pieces = {}
        for piece in content.pieces:
            making = makings.get(piece.id)
            made = _made(making) if making else before.get(piece.id, {}).get("made", {})
            pieces[piece.id] = self._piece(piece, made)
        return {"id": content.id, "path": shown(content.path), "pieces": pieces}

    def _piece(self, piece: Piece, made: Plain) -> Plain:
        found: Plain = {"made": made, "content_sha256": piece.content, "key": piece.key}
        found["path"] = shown(os.fsdecode(piece.output)) if piece.output else ""
        if piece.output and piece.status == "done":
            found |= {"url": self._url(piece.output), "sha256": piece.sha256}
            for path in made.get("extras", []):
                if path.endswith((".gif", ".webp")) and os.path.isfile(path):  # noqa: PTH113
                    found["animation"] = self._url(os.fsencode(path))
        if piece.status == "failed":
            found["retry"] = self._config.command(
                "retry", _typed(piece.path, self._config), is_for_anywhere=True
            )
        else:
            found["again"] = self._again(piece)
        return found

    def _url(self, path: bytes) -> str:
        """Return a file's address relative to the gallery's page."""
        return quote(os.path.relpath(path, os.fsencode(self._config.gallery)))

    def _again(self, piece: Piece) -> str:
        """Return the commands that make a piece again; empty: its content is not there."""
        path, config = piece.path, self._config
        is_at_large = path.parent == config.inbox or not path.is_relative_to(config.inbox)
        if not os.path.lexists(path):
            path = config.processed / path.name
            if not is_at_large or not os.path.lexists(path):
                return ""
        elif not is_at_large or shown(path) != str(path):
            # Named, it would lie in no folder of the inbox, and its result in none of the outbox.
            retry = config.command("retry", "--force", _typed(path, config), is_for_anywhere=True)
            return f"{retry}\n{config.command('run', is_for_anywhere=True)}"
        return config.command("run", "--force", "--style", piece.style, path, is_for_anywhere=True)


def _typed(path: Path, config: Config) -> str:
    """Return a content's path as it is shortest to type; no name passes for an option."""
    if not path.is_relative_to(config.inbox):
        return shown(path)
    name = shown(path.relative_to(config.inbox))
    return f"./{name}" if name.startswith("-") else name


def _made(making: Making) -> Plain:
    """Return how a piece was made, without what is not known, and without its recipe."""
    found = {k: v for k, v in vars(making).items() if k not in ("recipe", "job")} | making.job
    return {name: value for name, value in found.items() if value not in (None, "", [], {})}


def recipe_of(recipe: Plain) -> tuple[str, KnownRecipe]:
    """Return a recipe's id, and the recipe for people."""
    name = str(recipe.get("name", ""))
    lines = [f"  {key}: {dump(value)}" for key, value in recipe.items()]
    usual = _defaults(name)
    differing = [
        f"{key} {dump(value)}"
        for key, value in recipe.items()
        if key != "name" and usual.get(key) != value
    ]
    label = ", ".join([name, *differing])
    return digest(recipe)[:ID_DIGITS], KnownRecipe(label, "\n".join(["recipe:", *lines]))


@cache
def _defaults(name: str) -> Plain:
    if name not in RECIPES:
        return {}
    return Recipe.model_validate(RECIPES[name] | {"name": name}).model_dump(mode="json")


def site_data(
    pages: Sequence[tuple[str, str, int]],
    styles: Sequence[str],
    pieces: Sequence[Piece],
    known: Known,
    manifests: set[str],
) -> Plain:
    """Return what the page begins with.

    Args:
        pages: each file of data with its version and its number of pieces, the oldest first.
        styles: the names of the styles, in the order of the columns.
        pieces: all.
        known: their recipes, runs and pictures.
        manifests: the names of those that are there.
    """
    own = [known.pieces[piece.id] for piece in pieces]
    runs = sorted({one.run for one in own if one.run}, reverse=True)
    recipes = sorted({one.recipe for one in own if one.recipe})
    return {
        "visits": known.visits,
        "newest": max((piece.finished for piece in pieces), default=0.0),
        "pages": [{"file": f"data/{name}", "version": v, "pieces": n} for name, v, n in pages],
        "styles": [
            {
                "name": name,
                "painting": known.styles[name].picture,
                "size": known.sizes.get(known.styles[name].picture or ""),
            }
            for name in styles
        ],
        "recipes": {one: known.recipes[one]._asdict() for one in recipes},
        "runs": {run: f"{run}.json" in manifests for run in runs},
    }


def page_html(config: Config, site: Plain, pieces: Sequence[Piece], versions: Plain) -> bytes:
    """Return the page.

    Args:
        config: the settings.
        site: what `site_data` gave.
        pieces: all, to count them.
        versions: of the stylesheet and the script.
    """
    newest = max((piece.finished for piece in pieces), default=0.0)
    counts = {
        "pastiches": sum(piece.status != "failed" for piece in pieces),
        "failed": sum(piece.status == "failed" for piece in pieces),
        "contents": len({piece.source for piece in pieces if piece.status != "failed"}),
        "styles": len(site["styles"]),
    }
    template = _templates().get_template("index.html")
    return template.render(
        title=shown(config.outbox.parent.name) or "Gallery",
        counts=counts,
        newest=datetime.fromtimestamp(newest, UTC) if newest else None,
        site=json.dumps(site, separators=(",", ":")),
        versions=versions,
    ).encode()


@cache
def _templates() -> Environment:
    loader = PackageLoader("nst_pipeline.gallery")
    return Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip


def assets() -> Iterator[tuple[str, bytes]]:
    """Give the names and the bytes of the files that every gallery has."""
    folder = Path(__file__).parent / "assets"
    for name in ASSETS:
        yield name, (folder / name).read_bytes()


def version_of(data: bytes) -> str:
    """Return what tells a file's bytes from what they were before."""
    return bytes_digest(data)[:ID_DIGITS]
