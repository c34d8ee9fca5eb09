"""An update of the gallery: what changed since the last one is found, and made anew."""

import contextlib
import fcntl
import functools
import json
import os
import secrets
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nst_pipeline import __version__
from nst_pipeline.config.pipeline import Config
from nst_pipeline.digests import digest
from nst_pipeline.errors import CannotCreateError, ConfigError, DiskFullError, LockedError
from nst_pipeline.files import cannot_write, free_bytes, publish, shown, signature
from nst_pipeline.folders import Folders
from nst_pipeline.gallery import known as knowledge
from nst_pipeline.gallery.known import KnownContent, KnownPiece, KnownStyle
from nst_pipeline.gallery.makings import (
    SETTLED_SECONDS,
    Making,
    Makings,
    Plain,
    read_manifests,
)
from nst_pipeline.gallery.pages import (
    ContentPieces,
    Details,
    assets,
    by_content,
    data_of,
    page_data,
    page_html,
    paged,
    recipe_of,
    script,
    site_data,
    version_of,
)
from nst_pipeline.gallery.pictures import LARGE, SMALL, Pictures, at_once
from nst_pipeline.gallery.pieces import Piece, find_pieces, pieces_of
from nst_pipeline.inbox.kinds import MANIFESTS_NAME
from nst_pipeline.jobs.ledger import Ledger, ledger_path

PAGE_NAME = "index.html"
LOCK_NAME, OWNER_NAME = ".lock", ".owner"
WAIT_SECONDS = 30.0
"""How long an update waits for another process's to end."""
LOOK_SECONDS = 0.1
"""How often it looks whether it has."""


@dataclass(frozen=True)
class Update:
    """What an update came to: the page, pieces in all, pictures that were made, files written."""

    page: Path
    pieces: int
    pictures: int
    files: int


def update(config: Config, check: Callable[[], None] = lambda: None, tidies: bool = True) -> Update:
    """Bring the gallery up to date, by the ledger; without one, by the manifests.

    Args:
        config: the settings.
        check: called every now and then; raises what is to end the update.
        tidies: delete first what a killed update left unfinished.

    Raises:
        CannotCreateError, OutputError: it cannot be written, or the ledger not be read.
        DiskFullError: for want of space, be it that ``limits.min_free_bytes`` would be used.
        LockedError: another process's update does not end.
        ConfigError: it is the gallery of another pipeline, of the same outbox.
    """
    if free_bytes(config.outbox) < config.limits.min_free_bytes:
        raise DiskFullError(
            f"{shown(config.outbox)}: has less room than limits.min_free_bytes "
            f"({config.limits.min_free_bytes:,}), which the gallery leaves alone; make room"
        )
    with Ledger.to_read(ledger_path(config.state)) or Ledger(None) as ledger:
        owner = ledger.fact("owner") or ""
        # Not the jobs' unfinished files, which are put in order without the gallery's lock.
        folders = Folders(config.roots, f"{owner}g")
        try:
            folders.make(config.gallery)
            with _alone(config.gallery / LOCK_NAME, check):
                _claim(config, folders, owner)
                if tidies:
                    folders.remove_temporaries(config.gallery)
                return _Update(config, folders, ledger, check).carry_out()
        except OSError as error:
            raise cannot_write(config.gallery, error) from error


@contextlib.contextmanager
def _alone(lock: Path, check: Callable[[], None]) -> Iterator[None]:
    """Wait until no other process updates the gallery; where nothing can be locked, do not."""
    until = time.monotonic() + WAIT_SECONDS
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        while not _is_locked(descriptor):
            check()
            if time.monotonic() > until:
                raise LockedError(
                    f"{shown(lock)}: another process has held it for {WAIT_SECONDS:.0f} s; wait "
                    "for its update of the gallery, or end it (`fuser` tells which it is)"
                )
            time.sleep(LOOK_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int) -> bool:
    """Lock a file, unless another process has; what cannot be locked counts as locked."""
    with contextlib.suppress(OSError):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _claim(config: Config, folders: Folders, own: str) -> None:
    """Note whose the gallery is; refuse that of another pipeline that is still there."""
    path = config.gallery / OWNER_NAME
    owner, state = "", config.state
    with contextlib.suppress(OSError, ValueError, TypeError), folders.reader(path) as file:
        owner, place = json.loads(file.read())
        state = Path(place)
    if state != config.state and owner != own and _is_there(state, owner):
        raise ConfigError(
            [
                f"{shown(config.gallery)}: shows what the pipeline painted whose state is in "
                f"{shown(state)}; give this pipeline another outbox, turn its output.gallery off, "
                "or delete the folder for this one to have it"
            ]
        )
    if own and (owner, state) != (own, config.state):
        publish(path, json.dumps([own, str(config.state)]).encode(), folders)


def _refuse_results(config: Config, pieces: Iterable[Piece]) -> None:
    """Make no gallery among results, which nobody is to delete together with it."""
    outputs = (Path(os.fsdecode(one.output)) for one in pieces if one.output)
    if inside := next((path for path in outputs if path.is_relative_to(config.gallery)), None):
        raise ConfigError(
            [
                f"{shown(config.gallery)}: is the gallery's folder, but there are results in it, "
                f"such as {shown(inside)}; give the inbox's folder of that name another, and take "
                "its results out"
            ]
        )


def _is_there(state: Path, owner: str) -> bool:
    try:
        with Ledger.to_read(ledger_path(state)) or Ledger(None) as ledger:
            return ledger.fact("owner") == owner
    except (OSError, CannotCreateError):
        return True  # who may not look cannot tell


class _Update:
    """One update at work."""

    def __init__(
        self, config: Config, folders: Folders, ledger: Ledger, check: Callable[[], None]
    ) -> None:
        self._config, self._folders, self._ledger = config, folders, ledger
        self._check, self._written = check, 0
        self._known = knowledge.read_known(config.gallery, folders)
        self._before = self._known.pictures()
        self._pictures = Pictures(config, folders, self._known.sizes)

    def carry_out(self) -> Update:
        config, known = self._config, self._known
        terms = _terms(config)
        if known.terms != terms or not self._folders.exists(config.gallery / PAGE_NAME):
            known.files.clear()
        known.visits = known.visits or secrets.token_hex(8)
        self._finder = Makings(config, self._folders, self._ledger, known.runs, self._check)
        self._check()
        pieces = find_pieces(self._ledger, self._folders)
        if not pieces:
            manifests = read_manifests(config.outbox, self._folders, self._check)
            pieces = pieces_of(manifests, self._folders, config.outbox)
        _refuse_results(config, pieces)
        changed = [
            piece
            for piece in pieces
            if known.terms != terms
            or piece.id not in known.pieces
            or known.pieces[piece.id].signature != piece.signature
        ]
        makings = self._makings(changed)
        contents = by_content(pieces)
        self._pictures.sound |= _sound(pieces, makings)
        photographs = self._make_pictures(changed, contents)
        self._note_pieces(pieces, changed, makings)
        styles = self._styles(pieces)
        self._write_contents(contents, photographs, makings, {piece.id for piece in changed})
        self._write_pages(contents, styles, pieces)
        known.terms = terms
        self._forget_pictures()
        knowledge.keep_known(config.gallery, known, self._folders)
        made = len(self._pictures.made)
        return Update(config.gallery / PAGE_NAME, len(pieces), made, self._written)

    # What changed

    def _makings(self, changed: Sequence[Piece]) -> dict[str, Making]:
        pieces = self._known.pieces
        needed = {one.id for one in changed if one.id not in pieces or not pieces[one.id].run}
        found = self._finder.of(changed, needed)
        self._known.runs = self._finder.read
        return found

    def _make_pictures(
        self, changed: Sequence[Piece], contents: Sequence[ContentPieces]
    ) -> dict[str, str]:
        """Make the thumbnails of what changed; return the photographs of its contents."""
        pictures, known = self._pictures, self._known
        photographs: dict[str, str] = {}
        new = {piece.id for piece in changed}

        def of_piece(piece: Piece) -> None:
            old = known.pieces.get(piece.id, KnownPiece(""))
            picture = old.picture if piece.status == "gone" else None
            if piece.output and piece.status == "done":
                picture = pictures.make(Path(os.fsdecode(piece.output)), piece.sha256 or "")
            known.pieces[piece.id] = old._replace(picture=picture)

        def of_content(content: ContentPieces) -> None:
            for piece in reversed(content.pieces):
                if piece.content and (found := pictures.photograph(piece.path, piece.content)):
                    photographs[content.id] = found
                    return

        work = [functools.partial(of_piece, piece) for piece in changed]
        work += [
            functools.partial(of_content, content)
            for content in contents
            if any(piece.id in new for piece in content.pieces)
        ]
        at_once(work, self._check)
        return photographs

    def _note_pieces(
        self, pieces: Sequence[Piece], changed: Sequence[Piece], makings: dict[str, Making]
    ) -> None:
        known, now = self._known, time.time()
        for piece in changed:
            making, old = makings.get(piece.id), known.pieces[piece.id]
            recipe, run = old.recipe, old.run
            if making:
                run = making.run
                if making.recipe:
                    recipe, text = recipe_of(making.recipe)
                    known.recipes[recipe] = text
            # The record of a moment ago may be still to come: the next update looks again.
            is_young = piece.style and making is None and now - piece.finished < SETTLED_SECONDS
            is_open = is_young or any(
                map(self._pictures.is_unread, (piece.sha256 or "", piece.content))
            )
            known.pieces[piece.id] = KnownPiece(
                "" if is_open else piece.signature, old.picture, recipe, run
            )
        there = {piece.id for piece in pieces}
        known.pieces = {name: one for name, one in known.pieces.items() if name in there}

    def _styles(self, pieces: Sequence[Piece]) -> list[str]:
        """Return the names of the styles in their order; their paintings are known by then."""
        names = dict.fromkeys(piece.style for piece in pieces if piece.style)
        listed = [name for name in self._config.styles if name in names]
        listed += sorted(name for name in names if name not in listed)
        paths = self._finder.style_paths
        found = {}
        for name in listed:
            settings = self._config.styles.get(name)
            own = [str(path) for path in settings.paths()] if settings else []
            old = self._known.styles.get(name, KnownStyle("", "", None))
            found[name] = self._style(own[0] if own else paths.get(name, ""), old)
        self._known.styles = found
        return listed

    def _style(self, path: str, old: KnownStyle) -> KnownStyle:
        seen = ""
        with contextlib.suppress(OSError):
            seen = signature(os.stat(path))  # noqa: PTH116
        if not seen or (path, seen) == (old.path, old.signature):
            return old
        picture = self._pictures.make(Path(path))
        return KnownStyle(path, "" if self._pictures.is_unread(path) else seen, picture)

    # What is written

    def _write_contents(
        self,
        contents: Sequence[ContentPieces],
        photographs: dict[str, str],
        makings: dict[str, Making],
        changed: Container[str],
    ) -> None:
        known, details = self._known, Details(self._config, self._folders)
        there = {}
        for content in contents:
            self._check()
            names = [piece.id for piece in content.pieces]
            old = known.contents.get(content.id, KnownContent(None, []))
            if names != old.pieces or any(name in changed for name in names):
                file = f"data/{content.id}.js"
                data = details.of(content, makings, self._read_pieces(file))
                self._write(file, script("content", data))
            photograph = photographs.get(content.id) or old.photograph
            there[content.id] = KnownContent(photograph, names)
        for gone in known.contents.keys() - there.keys():
            self._remove(f"data/{gone}.js")
        known.contents = there

    def _read_pieces(self, name: str) -> dict[str, Plain]:
        """Return what was written of a content's pieces."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            with self._folders.reader(self._config.gallery / name) as file:
                found: dict[str, Plain] = data_of(file.read())["pieces"]
            return found
        return {}

    def _write_pages(
        self, contents: Sequence[ContentPieces], styles: Sequence[str], pieces: Sequence[Piece]
    ) -> None:
        known, config = self._known, self._config
        pages, versions, names = [], {}, set()
        for name, data in assets():
            versions[name] = self._write_if_changed(f"assets/{name}", data)
        for number, page in enumerate(paged(contents), 1):
            name = f"page-{number:04}.js"
            data = script("page", {"number": number, "contents": page_data(page, known, config)})
            version = self._write_if_changed(f"data/{name}", data)
            pages.append((name, version, sum(len(content.pieces) for content in page)))
            names.add(f"data/{name}")
        manifests: set[str] = set()
        with contextlib.suppress(OSError):
            manifests = set(self._folders.names(config.outbox / MANIFESTS_NAME))
        site = site_data(pages, styles, pieces, known, manifests)
        used = set(site["recipes"])
        known.recipes = {name: one for name, one in known.recipes.items() if name in used}
        self._write_if_changed(PAGE_NAME, page_html(config, site, pieces, versions))
        # The page that knew of them is none any more.
        for old in [n for n in known.files if n.startswith("data/page-") and n not in names]:
            self._remove(old)
            del known.files[old]

    def _write_if_changed(self, name: str, data: bytes) -> str:
        version = version_of(data)
        if self._known.files.get(name) != version:
            self._write(name, data)
            self._known.files[name] = version
        return version

    def _write(self, name: str, data: bytes) -> None:
        publish(self._config.gallery / name, data, self._folders, durably=False)
        self._written += 1

    def _remove(self, name: str) -> None:
        with contextlib.suppress(OSError):
            self._folders.unlink(self._config.gallery / name)

    def _forget_pictures(self) -> None:
        """Delete the thumbnails that nothing is shown by any more."""
        for picture in self._before - self._known.pictures():
            self._known.sizes.pop(picture, None)
            for side in (SMALL, LARGE):
                with contextlib.suppress(OSError):
                    self._folders.unlink(self._pictures.path(picture, side))


def _sound(pieces: Iterable[Piece], makings: Mapping[str, Making]) -> set[str]:
    """Return the digests of the files that jobs decoded and came through."""
    found: set[str] = set()
    for piece in pieces:
        if piece.status != "failed":
            found |= {piece.content, piece.sha256 or ""}
            if piece.id in makings:
                found.add(makings[piece.id].job["style_sha256"])
    return found


def _terms(config: Config) -> str:
    """Return a digest of what decides the files besides the pieces."""
    places: Iterable[Path] = (*config.roots, config.state)
    return digest(
        [
            knowledge.VERSION,
            __version__,
            config.command("run", is_for_anywhere=True),
            json.dumps(list(map(str, places))),
        ]
    )
