"""Companions: the pictures beside a picture that say how it is painted.

Beside ``photo.jpg``, ``photo.mask.png`` says where (white is painted, black stays),
``photo.mask.sky.png`` where the region ``sky`` is, and ``photo.init.png`` what the painting starts
as. Any image suffix will do, in any case. Such a name is never a picture to paint.
"""

import os
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from nst_pipeline.errors import ImageError
from nst_pipeline.files import shown, signature
from nst_pipeline.images.decoding import IMAGE_SUFFIXES, Pixels, to_grey

ROLE = re.compile(r"(.+?)\.(mask(?:\.[^.]+)?|init)", re.IGNORECASE | re.DOTALL)

SHAPE_TOLERANCE = 0.02
"""How far a companion's proportions may be off: what rounding does to small pictures."""

Listed = tuple[str, PurePath, Path, os.stat_result | None]
"""A file, its folder relative to where the search started, where that was, and its status."""


@dataclass(frozen=True)
class Companion:
    """A file beside a picture.

    Attributes:
        kind: ``mask``, ``mask.NAME`` (in lower case) or ``init``.
        path: the file.
        signature: what it was seen with, or None.
        arrived_ns: when it got its name or its bytes, in ns since the epoch; 0: not known.
    """

    kind: str
    path: Path
    signature: str | None = None
    arrived_ns: int = 0


def role(name: str) -> tuple[str, str] | None:
    """Return the stem of the picture that a file name belongs to, and its kind; None: to none."""
    lower = name.lower()
    if ".mask." not in lower and ".init." not in lower:
        return None
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - for every file of the inbox
    match = ROLE.fullmatch(stem) if suffix.lower() in IMAGE_SUFFIXES else None
    return (match[1], match[2].lower()) if match else None


def combined_signature(own: str | None, companions: Iterable[Companion]) -> str:
    """Return what a picture and its companions were seen with; alone: its own signature."""
    beside = [f"{one.kind} {one.signature}" for one in companions]
    return " ".join([own or "", *beside]) if beside else own or ""


def with_companions(files: Iterable[Listed]) -> Iterator[tuple[Listed, tuple[Companion, ...]]]:
    """Give each file with its companions; a companion without a picture comes last, by itself."""
    plain: list[Listed] = []
    beside: dict[tuple[str, str], dict[str, tuple[Companion, Listed]]] = {}
    for file in files:
        path, _, _, status = file
        folder, _, name = path.rpartition("/")
        known = role(name)
        if known is None:
            plain.append(file)
            continue
        stem, kind = known
        companion = Companion(
            kind, Path(path), status and signature(status), status.st_ctime_ns if status else 0
        )
        beside.setdefault((folder, stem), {})[path] = companion, file
    met = set()
    for file in plain:
        mine: tuple[Companion, ...] = ()
        if beside:
            picture = PurePath(file[0])
            place = str(picture.parent), picture.stem
            if place in beside:
                met.add(place)
                mine = tuple(companion for companion, _ in beside[place].values())
        yield file, mine
    for place in beside.keys() - met:
        for _, file in beside[place].values():
            yield file, ()


def by_kind(picture: Path, companions: Iterable[Companion]) -> dict[str, Companion]:
    """Return a picture's companions by their kind.

    Raises:
        ImageError: two are of one kind, or ``picture`` is itself a companion, of one not there.
    """
    if (known := role(picture.name)) is not None:
        raise ImageError(
            f"{shown(picture)}: is the {known[1]} of a picture {shown(known[0])} that is not "
            "there; put that beside it, or rename this file to have it painted"
        )
    found: dict[str, Companion] = {}
    for one in companions:
        if one.kind in found:
            raise ImageError(
                f"{shown(one.path)}: a second {one.kind} of {shown(picture.name)}, beside "
                f"{shown(found[one.kind].path.name)}; take one away"
            )
        found[one.kind] = one
    return found


def missing_mask(picture: Path, regions: Iterable[str], kinds: Container[str]) -> str:
    """Say that a picture with companions of ``kinds`` lacks a region's mask; empty: it has all."""
    for region in regions:
        if region and f"mask.{region}" not in kinds:
            return (
                f"there is no mask of the region {region}; "
                f"put {shown(picture.stem)}.mask.{shown(region)}.png beside it"
            )
    return ""


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


def engine_arguments(
    picture: Path, content: Pixels, companions: Mapping[str, tuple[Path, Pixels]]
) -> dict[str, Any]:
    """Return what the engine takes of a picture's companions, none of them: nothing.

    ``masks`` are (h, w) uint8 by the name of their region, the whole picture's without one;
    ``init`` is (h, w, 3), uint8 or uint16.

    Args:
        picture: the file, for messages.
        content: its pixels.
        companions: by their kind, each a file and its pixels.

    Raises:
        ImageError: one is not of the picture's shape.
    """
    given: dict[str, Any] = {}
    for kind, (path, pixels) in companions.items():
        _check_shape(path, pixels, picture, content)
        if kind == "init":
            given["init"] = pixels
        else:
            region = kind.removeprefix("mask").removeprefix(".")
            given.setdefault("masks", {})[region] = to_grey(pixels)
    return given


def _check_shape(path: Path, pixels: Pixels, picture: Path, content: Pixels) -> None:
    height, width = pixels.shape[:2]
    wanted_height, wanted_width = content.shape[:2]
    if abs(height * wanted_width / (width * wanted_height) - 1) > SHAPE_TOLERANCE:
        raise ImageError(
            f"{shown(path)}: {width} x {height} pixels, not of the shape of {shown(picture.name)} "
            f"({wanted_width} x {wanted_height}); make it as large or of the same proportions"
        )


def named_with_companions(path: Path) -> list[Path]:
    """Return a file that was named with its companions.

    A companion that was named itself comes with its picture, if that is there: then, nothing is
    returned for it.
    """
    known = role(path.name)
    if known is not None:
        return [] if _has_picture(path.parent, known[0]) else [path]
    roles = ((other, role(other.name)) for other in sorted(path.parent.iterdir()))
    return [path, *(other for other, known in roles if known and known[0] == path.stem)]


def shares_companions(path: Path) -> bool:
    """Tell whether another picture beside this one has the same companions."""
    return _has_picture(path.parent, path.stem, path.name)


def _has_picture(folder: Path, stem: str, but: str = "") -> bool:
    return any(
        other.stem == stem and other.name != but and role(other.name) is None
        for other in folder.iterdir()
    )
