"""Looking at files: whether they are pictures, and their digests, which the ledger remembers."""

import contextlib
import functools
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from nst_pipeline import __version__, images
from nst_pipeline.config.pipeline import Config
from nst_pipeline.config.sections import Limits
from nst_pipeline.digests import bytes_digest, digest, file_digest
from nst_pipeline.files import shown, signature
from nst_pipeline.images.apart import tried_apart
from nst_pipeline.images.decoding import check_need, decode, identify
from nst_pipeline.inbox.companions import Companion, by_kind
from nst_pipeline.inbox.patience import ListedImage, Patience
from nst_pipeline.inbox.reading import read
from nst_pipeline.inbox.scanner import SourceFile
from nst_pipeline.inbox.style_folders import StyleFile
from nst_pipeline.jobs.file_table import Known
from nst_pipeline.jobs.job import Content
from nst_pipeline.jobs.ledger import Ledger

DECODERS = ("pillow", "pillow-heif", "imagecodecs", "rawpy")
"""Distributions that decide, by being there and by their version, what can be decoded."""

Look = Callable[[bytes, str, int], object]
"""Refuses what is no image, by its bytes, its name and the pixels allowed."""


def terms_of(limits: Limits) -> str:
    """Return the digest of all but a file itself that decides whether it is a picture."""
    versions = [__version__, _program(), *decoders().values()]
    return digest([limits.max_pixels, limits.max_bytes, versions])


def decoders() -> dict[str, str]:
    """Return the version of each of `DECODERS` on this computer; empty: it is not there."""
    found = {}
    for name in DECODERS:
        found[name] = ""
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


@functools.cache
def _program() -> str:
    """Return the digest of what decodes: it changes more often than the program's version."""
    sources = sorted(Path(*images.__path__).glob("*.py"))
    return digest([file_digest(path) for path in sources])


def as_content(
    found: SourceFile,
    config: Config,
    ledger: Ledger,
    known: Known,
    terms: str | None,
    keep: Callable[[Path, bytes], None],
    is_suspect: bool = False,
) -> Content:
    """Return a file as a content, with its companions.

    Args:
        found: the file.
        config: the settings.
        ledger: remembers what was looked at.
        known: what it remembers of this and other files.
        terms: as `terms_of` returns them; None: what was refused before is looked at again.
        keep: takes the bytes of a file that was read.
        is_suspect: whether a process ended when it was looked at.

    Raises:
        ImageError: it is none, or a companion is none, or has no picture.
    """
    by = by_kind(found.path, found.companions)
    look = tried_apart(identify) if is_suspect else identify

    def compute(path: Path) -> str:
        data = _look(path, config, look, found.identity, found.root)
        keep(path, data)
        return bytes_digest(data)

    sha256 = ledger.files.digest(found.path, compute, found.signature, known, terms)
    if not by:
        return Content(found, sha256)
    companions = {
        kind: (one.path, _companion_digest(one, found.root, config, ledger, terms, look))
        for kind, one in by.items()
    }
    return Content(found, sha256, companions)


def style_digest(
    path: Path,
    config: Config,
    ledger: Ledger,
    terms: str,
    file: StyleFile | None = None,
    known: Known | None = None,
    patience: Patience | None = None,
) -> str:
    """Return a style image's SHA-256, looked at the first time.

    Args:
        path: the image.
        config: the settings.
        ledger: remembers what was looked at.
        terms: as `terms_of` returns them.
        file: as it was listed in a folder of styles; None: it was not.
        known: what the ledger remembers of this and other files, if that was asked for.
        patience: notes that the image is looked at, and knows whether a process ended at it.

    Raises:
        ImageError: it is none.
    """

    def look(data: bytes, name: str, max_pixels: int) -> None:
        check_need(data, name, max_pixels, config.limits.memory_bytes)
        decode(data, name, max_pixels)

    def compute(path: Path) -> str:
        seen = as_listed(path, terms, file)
        is_suspect = False
        if patience:
            patience.check(seen, config.watch.max_attempts)
            is_suspect = patience.is_suspect(seen)
            patience.begin_look(seen)
        root = config.root_of(path)
        careful = tried_apart(look) if is_suspect else look
        sha256 = bytes_digest(_look(path, config, careful, file and file.identity, root))
        if patience:
            patience.forget(path)
        return sha256

    return ledger.files.digest(path, compute, file and file.seen, known, terms)


def as_listed(path: Path, terms: str, file: StyleFile | None = None) -> ListedImage:
    """Return a style's image as patience knows it, under terms; arguments as of `style_digest`."""
    seen = file.seen if file else None
    with contextlib.suppress(OSError):  # whoever reads it says why it cannot be
        seen = seen or signature(path.stat())
    return ListedImage(path, f"{seen} {terms}")


def _companion_digest(
    one: Companion, root: Path, config: Config, ledger: Ledger, terms: str | None, look: Look
) -> str:
    """Return a companion's SHA-256, looked at the first time."""

    def compute(path: Path) -> str:
        return bytes_digest(_look(path, config, look, one.identity, root))

    return ledger.files.digest(one.path, compute, one.signature, terms=terms)


def _look(
    path: Path, config: Config, look: Look, seen: str | None = None, root: Path | None = None
) -> bytes:
    """Return the bytes of an image file of the identity ``seen``; as `read` takes them.

    Raises:
        ImageError: it is none.
    """
    data = read(path, config.limits.max_bytes, seen, root)
    look(data, shown(path), config.limits.max_pixels)
    return data
