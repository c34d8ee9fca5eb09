"""What an image file says about itself besides its pixels: it is read as far as it can be.

Nothing here ever raises for what a file says: what cannot be read is left out.
"""

import contextlib
import io
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image, TiffImagePlugin

from nst_pipeline.images import tiff

DESCRIPTION, ORIENTATION, X_RESOLUTION, Y_RESOLUTION, UNIT = 0x010E, 0x0112, 0x011A, 0x011B, 0x0128
EXIF, GPS, INTEROPERABILITY = 0x8769, 0x8825, 0xA005
COLOUR_SPACE, WIDTH, HEIGHT, MAKER_NOTE = 0xA001, 0xA002, 0xA003, 0x927C
DATES = frozenset((0x0132, 0x9003, 0x9004, *range(0x9010, 0x9013), *range(0x9290, 0x9293)))
CREDITS = frozenset((0x013B, 0x8298, 0x4746, 0x4749, *range(0x9C9B, 0x9CA0)))
"""Author, copyright, rating; of Windows the title, comment, author, keywords and subject."""
CAMERA = frozenset((0x010F, 0x0110, DESCRIPTION))
OF_OLD_PIXELS = frozenset(
    (COLOUR_SPACE, WIDTH, HEIGHT, INTEROPERABILITY, 0x9101, 0x9102, 0x9214, 0xA004, 0xA20B, 0xA20C,
     0xA20E, 0xA20F, 0xA210, 0xA214, 0xA500)
)  # fmt: skip
"""Tags of the EXIF directory that describe the pixels of the file that they stand in."""
LONGEST_DIRECTORY, LONGEST_XMP = 2**18, 2**20
MAIN = DATES | CREDITS | CAMERA | {ORIENTATION, X_RESOLUTION, Y_RESOLUTION, UNIT, EXIF, GPS}
SRGB, INCH, CENTIMETRE = 1, 2, 3
XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=[\"']|>)([1-8])")

Directory = Mapping[int, Any]
"""Values by tag."""


class Text(str):
    """Text of a tag that is not ASCII: Pillow reads its bytes as Latin-1, and writes them again."""

    __slots__ = ()

    def encode(self, encoding: str = "latin-1", errors: str = "strict") -> bytes:  # noqa: ARG002
        """Return the tag's bytes, whatever Pillow asks for: it would write each as ``?``."""
        return super().encode("latin-1")

    def read(self) -> str:
        """Return what people read: mostly it is UTF-8."""
        data = self.encode()
        try:
            return data.decode()
        except UnicodeDecodeError:
            return data.decode("latin-1")


@dataclass(frozen=True, eq=False)
class Metadata:
    """What a file says about itself that may travel along.

    Attributes:
        main: tags of the EXIF block's main directory: credits, dates, camera, description.
        exif: tags of its EXIF directory, without those of the file's own pixels.
        gps: tags of its GPS directory: the position.
        xmp: the XMP packet, as it is.
        dpi: pixels an inch, across and down; None: not said.
    """

    main: Directory
    exif: Directory
    gps: Directory
    xmp: bytes = b""
    dpi: tuple[float, float] | None = None


NOTHING = Metadata({}, {}, {})


@dataclass(frozen=True)
class Reading:
    """What metadata say of a file's pixels.

    Attributes:
        orientation: 1 to 8, as EXIF counts them.
        is_adobe_rgb: whether the colours are said to be Adobe RGB (1998), by DCF.
    """

    orientation: int = 1
    is_adobe_rgb: bool = False


def read(block: bytes, xmp: bytes = b"", dpi: object = None) -> tuple[Metadata, Reading]:
    """Return what an EXIF block and an XMP packet say.

    Args:
        block: the EXIF block, or a TIFF file.
        xmp: the packet.
        dpi: what the container itself says, as Pillow gives it.
    """
    block = block.removeprefix(b"Exif\0\0").removeprefix(b"Exif\0\0")
    main = _directory(block, None, MAIN)
    exif = _directory(block, EXIF, main.pop(EXIF, None))
    gps = _directory(block, GPS, main.pop(GPS, None))
    links = _directory(block, INTEROPERABILITY, exif.get(INTEROPERABILITY))
    resolution = _resolution(dpi) or _resolution_of(main)
    orientation = _orientation(main.pop(ORIENTATION, None), xmp)
    is_adobe = str(links.get(1, "")).startswith("R03") and exif.get(COLOUR_SPACE) != SRGB
    for tag in (X_RESOLUTION, Y_RESOLUTION, UNIT):
        main.pop(tag, None)
    exif = {tag: value for tag, value in exif.items() if tag not in OF_OLD_PIXELS}
    xmp = xmp if len(xmp) <= LONGEST_XMP else b""
    return Metadata(main, exif, gps, xmp, resolution), Reading(orientation, is_adobe)


def _directory(block: bytes, group: int | None, place: object = None) -> dict[int, Any]:
    """Return the values of a directory that can be read, and written again.

    Args:
        block: an EXIF block or a TIFF file.
        group: the tag that says where the directory is; None: the main one.
        place: the directory's offset, as ``group`` says it; of the main one, the tags wanted.
    """
    layout = tiff.layout_of(block)
    offset = tiff.first_offset(block, layout) if layout and group is None else place
    page = tiff.directory(block, layout, offset) if layout and type(offset) is int else None
    if page is None:
        return {}
    values = {}
    room = LONGEST_DIRECTORY
    for tag, (kind, count, _) in page.entries.items():
        length = count * tiff.TYPE_BYTES.get(kind, LONGEST_DIRECTORY)
        if (group is not None or tag in MAIN) and length <= room:
            room -= length
            # Pillow raises nearly anything for a tag of a wrong type.
            with contextlib.suppress(Exception):
                values[tag] = _value(page, tag, group)
    return values


def _value(page: tiff.Directory, tag: int, group: int | None) -> Any:
    """Return a tag's value, of which it is known that it can be written."""
    kind, count, _ = page.entries[tag]
    raw = page.value(tag)
    if not raw and count:
        raise ValueError("its value lies outside the file")
    # A block of one tag, which Pillow reads: its own loader takes all tags or none.
    layout = tiff.Layout(page.layout.order, False)
    head = {"<": b"II*\0", ">": b"MM\0*"}[layout.order] + layout.word.pack(8)
    inside = raw.ljust(4, b"\0") if len(raw) <= 4 else layout.word.pack(26)
    entry = layout.count.pack(1) + layout.entry.pack(tag, kind, count, inside) + bytes(4)
    directory = TiffImagePlugin.ImageFileDirectory_v2(head, group=group)
    file = io.BytesIO(head + entry + raw)
    file.seek(8)
    directory.load(file)
    value = directory[tag]
    if isinstance(value, tuple) and len(value) == 1:
        (value,) = value
    if isinstance(value, str) and not value.isascii():
        value = Text(value)
    if tag not in (EXIF, GPS, INTEROPERABILITY):  # which are places of other directories
        _check_writable(tag, value, group)
    return value


def _check_writable(tag: int, value: Any, group: int | None) -> None:
    """See that Pillow can write a value; it raises anything where not."""
    block = Image.Exif()
    block[group or tag] = {tag: value} if group else value
    block.tobytes()


def _orientation(value: object, xmp: bytes) -> int:
    if value is None and (found := XMP_ORIENTATION.search(xmp)):
        value = int(found[1])
    return value if type(value) is int and 1 <= value <= 8 else 1


def _resolution_of(main: Directory) -> tuple[float, float] | None:
    scale = {INCH: 1.0, CENTIMETRE: 2.54}.get(main.get(UNIT, INCH))
    if scale is None:
        return None  # only proportions
    with contextlib.suppress(TypeError, ValueError, ZeroDivisionError, OverflowError):
        return _resolution([float(main[tag]) * scale for tag in (X_RESOLUTION, Y_RESOLUTION)
                            if tag in main])  # fmt: skip
    return None


def _resolution(dpi: object) -> tuple[float, float] | None:
    """Return a resolution if it is one that a file can say."""
    if not isinstance(dpi, Iterable):
        return None
    with contextlib.suppress(TypeError, ValueError, ZeroDivisionError, OverflowError):
        across, down = (round(float(value), 2) for value in dpi)
        if all(math.isfinite(value) and 1 <= value <= 65535 for value in (across, down)):
            return across, down
    return None
