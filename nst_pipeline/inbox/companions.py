"""Companions: pictures that lie beside a picture and say how it is painted.

Beside ``photo.jpg``, ``photo.mask.png`` says where (white is painted, black stays),
``photo.mask.sky.png`` where the region ``sky`` is, and ``photo.init.png`` what the painting starts
as. Any image suffix will do, in any case. Such a name is never a picture to paint.
"""

import os
import re
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np

from nst_pipeline.errors import ImageError
from nst_pipeline.files import shown, signature
from nst_pipeline.images.decoding import (
    IMAGE_SUFFIXES,
    Decoded,
    Pixels,
    reduced,
    to_depth,
    to_grey,
)

ROLE = re.compile(r"(.+?)\.(mask(?:\.[^.]+)?|init)", re.IGNORECASE | re.DOTALL)

SHAPE_TOLERANCE = 0.02
"""How far a companion's proportions may be off: what rounding does to small pictures."""


class ListedFile(NamedTuple):
    """A file as a search found it: small, for there may be very many.

    Attributes:
        path: the file.
        folder: its folder relative to where the search started.
        root: where the search started; of what was named, that itself.
        status: what the file system says of it; None: nothing, as of a link to nowhere.
    """

    path: str
    folder: PurePath
    root: Path
    status: os.stat_result | None


@dataclass(frozen=True)
class Companion:
    """A picture that says how another is painted.

    Attributes:
        kind: ``mask``, ``mask.NAME`` (in lower case) or ``init``.
        path: the file.
        signature: the file's when it was listed; None: it had none.
        arrived_ns: when it got its name or its bytes, in ns since the epoch; 0: not known.
        device: the number of its file system's.
    """

    kind: str
    path: Path
    signature: str | None = None
    arrived_ns: int = 0
    device: int = 0

    @property
    def identity(self) -> str | None:
        """What `files.identity` gave when it was listed."""
        return self.signature and f"{self.signature} {self.device}"


def role(name: str) -> tuple[str, str] | None:
    """Return the stem of the picture that a companion belongs to, and the companion's kind.

    None: a file of this name is no companion.
    """
    lower = name.lower()
    if ".mask." not in lower and ".init." not in lower:
        return None
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - for every file of the inbox
    match = ROLE.fullmatch(stem) if suffix.lower() in IMAGE_SUFFIXES else None
    return (match[1], match[2].lower()) if match else None


def combined_signature(own: str | None, companions: tuple[Companion, ...]) -> str:
    """Return the signature of a picture with its companions; without any: ``own``."""
    if not companions:
        return own or ""
    return " ".join([own or "", *(f"{one.kind} {one.signature}" for one in companions)])


def with_companions(
    files: Iterable[ListedFile],
) -> Iterator[tuple[ListedFile, tuple[Companion, ...]]]:
    """Give each picture with its companions; a companion without a picture comes last, by itself.

    Args:
        files: pictures and companions, in any order; pictures keep theirs.
    """
    pictures: list[ListedFile] = []
    companions: dict[tuple[str, str], dict[str, tuple[Companion, ListedFile]]] = {}
    for file in files:
        folder, _, name = file.path.rpartition("/")
        if (found := role(name)) is None:
            pictures.append(file)
            continue
        stem, kind = found
        companions.setdefault((folder, stem), {})[file.path] = _companion(file, kind), file
    paired = set()
    for file in pictures:
        own: tuple[Companion, ...] = ()
        if companions:
            picture = PurePath(file.path)
            place = str(picture.parent), picture.stem
            if place in companions:
                paired.add(place)
                own = tuple(companion for companion, _ in companions[place].values())
        yield file, own
    for place in companions.keys() - paired:
        for _, file in companions[place].values():
            yield file, ()


def _companion(file: ListedFile, kind: str) -> Companion:
    if file.status is None:
        return Companion(kind, Path(file.path))
    status = file.status
    return Companion(kind, Path(file.path), signature(status), status.st_ctime_ns, status.st_dev)


def by_kind(picture: Path, companions: Iterable[Companion]) -> dict[str, Companion]:
    """Return a picture's companions by their kind.

    Raises:
        ImageError: two are of one kind, or ``picture`` is itself a companion, of one not there.
    """
    if (found := role(picture.name)) is not None:
        stem, kind = found
        raise ImageError(
            f"{shown(picture)}: is the {kind} of a picture {shown(stem)} that is not "
            "there; put that beside it, or rename this file to have it painted"
        )
    kinds: dict[str, Companion] = {}
    for one in companions:
        if one.kind in kinds:
            raise ImageError(
                f"{shown(one.path)}: a second {one.kind} of {shown(picture.name)}, beside "
                f"{shown(kinds[one.kind].path.name)}; take one away"
            )
        kinds[one.kind] = one
    return kinds


def missing_companion(
    picture: Path, regions: Iterable[str], needs_init: bool, kinds: Container[str]
) -> str:
    """Say which companion a picture lacks; empty: none.

    Args:
        picture: the file, for messages.
        regions: of the style, each of which needs a mask; the whole picture's is ``""``.
        needs_init: whether the recipe starts from a picture (``init: image``).
        kinds: of the companions that there are.
    """
    for region in regions:
        if region and f"mask.{region}" not in kinds:
            return (
                f"there is no mask of the region {region}; "
                f"put {shown(picture.stem)}.mask.{shown(region)}.png beside it"
            )
    if needs_init and "init" not in kinds:
        return (
            "init: image needs a picture to start from; "
            f"put {shown(picture.stem)}.init.png beside it"
        )
    return ""


def used(kinds: Iterable[str], regions: Iterable[str]) -> list[str]:
    """Return those kinds of companions that styles of these regions take anything of."""
    wanted = {"mask", "init", *(f"mask.{region}" for region in regions)}
    return [kind for kind in kinds if kind in wanted]


def engine_arguments(
    picture: Path,
    content: Pixels,
    companions: Iterable[tuple[str, Path, Decoded]],
    longest: int | None = None,
) -> dict[str, Any]:
    """Return the engine's arguments that a picture's companions stand for; without any: none.

    ``masks`` are (h, w) uint8 by the name of their region, the whole picture's by ``""``;
    ``init`` is a picture with its alpha.

    Args:
        picture: the file, for messages.
        content: its pixels.
        companions: the kind of each, the file and what is in it; asked for one by one, so that no
            two masks need be decoded at a time.
        longest: side of the pastiches, in pixels; masks that are much larger are made smaller.
            None: as large as they are.

    Raises:
        ImageError: one is not of the picture's shape, or there is nothing to be seen on it.
    """
    arguments: dict[str, Any] = {}
    for kind, path, companion in companions:
        _check_shape(path, companion.pixels, picture, content)
        if kind == "init":
            arguments["init"] = visible(path, companion)
        else:
            region = kind.removeprefix("mask").removeprefix(".")
            mask = _mask(path, companion)
            arguments.setdefault("masks", {})[region] = reduced(mask, longest) if longest else mask
        del companion
    return arguments


def visible(path: Path, picture: Decoded) -> Decoded:
    """Return a picture that a painting takes something of.

    Raises:
        ImageError: all of it is transparent.
    """
    if picture.alpha is not None and not picture.alpha.any():
        raise ImageError(
            f"{shown(path)}: nothing is visible, all pixels are transparent; save it without alpha"
        )
    return picture


def _mask(path: Path, picture: Decoded) -> Pixels:
    """Return luminance times alpha in 8 bits.

    Raises:
        ImageError: it is 0 everywhere.
    """
    grey = to_grey(picture.pixels)
    if picture.alpha is not None:
        product = grey.astype(np.uint16) * to_depth(picture.alpha, 8)
        grey = ((product + 127) // 255).astype(np.uint8)
    if not grey.any():
        raise ImageError(
            f"{shown(path)}: a mask without a visible pixel, all are black or transparent; make "
            "white and opaque what is to be painted"
        )
    return grey


def _check_shape(path: Path, pixels: Pixels, picture: Path, content: Pixels) -> None:
    height, width = pixels.shape[:2]
    wanted_height, wanted_width = content.shape[:2]
    if abs(height * wanted_width / (width * wanted_height) - 1) > SHAPE_TOLERANCE:
        raise ImageError(
            f"{shown(path)}: {width} x {height} pixels, not of the shape of {shown(picture.name)} "
            f"({wanted_width} x {wanted_height}); make it as large or of the same proportions"
        )


def named_with_companions(path: Path) -> list[Path]:
    """Return a file that was named, and its companions.

    A companion that was named itself comes with its picture, if that is there: then, nothing is
    returned for it.
    """
    found = role(path.name)
    if found is not None:
        return [] if _has_picture(path.parent, found[0]) else [path]
    others = ((other, role(other.name)) for other in sorted(_files(path.parent)))
    return [path, *(other for other, found in others if found and found[0] == path.stem)]


def shares_companions(path: Path) -> bool:
    """Tell whether another picture in the folder of a picture has the same companions."""
    return _has_picture(path.parent, path.stem, path.name)


def _has_picture(folder: Path, stem: str, but: str = "") -> bool:
    return any(other.stem == stem and other.name != but for other in _files(folder))


def _files(folder: Path) -> list[Path]:
    """Return what is in a folder; nothing, if it is gone or may not be listed."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []
