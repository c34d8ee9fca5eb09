"""TIFF directories: which page of a file is painted, and its samples of 16 bits and more."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, SAMPLES = 254, 256, 257, 258, 259, 262, 277
PLANES, SUB_DIRECTORIES, EXTRA, SAMPLE_FORMAT, PROFILE = 284, 330, 338, 339, 34675
PIXEL_TAGS = frozenset(
    (*range(256, 260), 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, *range(322, 326),
     332, 338, 339, 340, 341, 347, *range(512, 522), *range(529, 533), 50674)
)  # fmt: skip
"""Tags that say how the pixels are laid out: all that a decoder needs."""
TILE_WIDTH, TILE_HEIGHT, LARGE_TILE, MOST_SAMPLES = 322, 323, 2**22, 16
WHITE_IS_ZERO, RGB, COLOUR_FILTER, LINEAR_RAW = 0, 2, 32803, 34892
UNSIGNED, FLOAT, PREMULTIPLIED, SEPARATE = 1, 3, 1, 2
REDUCED, MASK = 1, 4
"""Bits of `SUBFILE`: a smaller copy of another page; the transparency of another page."""
MOST_ENTRIES, MOST_PAGES, MOST_VALUES = 1024, 1024, 64
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
              16: 8, 17: 8, 18: 8}  # fmt: skip
INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
WHITES = {"u": (255.0, 65535.0), "i": (255.0, 65535.0), "f": (1.0, 255.0, 65535.0)}
"""What may stand for white in samples that are not of 16 bits, by their kind."""
BRIGHTEST = 16.0
"""What float samples of which white is 1 may come to: merged exposures go beyond it."""


@dataclass(frozen=True)
class Layout:
    """How the directories of a file are written: byte order, and sizes of 32 or 64 bits."""

    order: str
    is_big: bool

    @property
    def entry(self) -> struct.Struct:
        """Tag, type, count, value."""
        return struct.Struct(f"{self.order}HH{'Q8s' if self.is_big else 'I4s'}")

    @property
    def word(self) -> struct.Struct:
        """An offset."""
        return struct.Struct(f"{self.order}{'Q' if self.is_big else 'I'}")

    @property
    def count(self) -> struct.Struct:
        """The number of a directory's entries."""
        return struct.Struct(f"{self.order}{'Q' if self.is_big else 'H'}")

    @property
    def first(self) -> int:
        """Where the offset of the first directory stands."""
        return 8 if self.is_big else 4


@dataclass(frozen=True, eq=False)
class Directory:
    """A directory of a file.

    Attributes:
        data: the whole file.
        layout: how it is written.
        entries: type, count and value by tag; a value that is too long is an offset.
        following: offset of the next directory; 0: there is none.
    """

    data: bytes
    layout: Layout
    entries: dict[int, tuple[int, int, bytes]]
    following: int

    def numbers(self, tag: int) -> tuple[int, ...]:
        """Return the value of a tag, whole numbers; without such a value: none."""
        kind, count, _ = self.entries.get(tag, (0, 0, b""))
        if kind not in INTEGERS or count > MOST_VALUES:
            return ()
        value = self.value(tag)
        return struct.unpack(f"{self.layout.order}{count}{INTEGERS[kind]}", value) if value else ()

    def number(self, tag: int, default: int = 0) -> int:
        """Return the first number of a tag's value."""
        return next(iter(self.numbers(tag)), default)

    def value(self, tag: int) -> bytes:
        """Return the bytes of a tag's value; empty: it has none, or they lie outside the file."""
        kind, count, value = self.entries.get(tag, (0, 0, b""))
        length = count * TYPE_BYTES.get(kind, 0)
        if length <= len(value):
            return value[:length]
        (offset,) = self.layout.word.unpack(value)
        found = self.data[offset : offset + length]
        return found if len(found) == length else b""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the page."""
        return self.number(HEIGHT), self.number(WIDTH)


def layout_of(data: bytes) -> Layout | None:
    """Return how the directories of a file are written; None: it is no TIFF."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8:
        return None
    (version,) = struct.unpack(f"{order}H", data[2:4])
    return Layout(order, version == 43) if version in (42, 43) else None


def directory(data: bytes, layout: Layout, offset: int) -> Directory | None:
    """Return the directory at ``offset``; None: there is none that can be read."""
    start = offset + layout.count.size
    if not 0 < offset < len(data) or start > len(data):
        return None
    (count,) = layout.count.unpack_from(data, offset)
    end = start + count * layout.entry.size
    if count > MOST_ENTRIES or end > len(data):
        return None
    entries: dict[int, tuple[int, int, bytes]] = {}
    for tag, *rest in layout.entry.iter_unpack(memoryview(data)[start:end]):
        entries.setdefault(tag, (rest[0], rest[1], rest[2]))
    following = data[end : end + layout.word.size]
    is_whole = len(following) == layout.word.size
    return Directory(data, layout, entries, layout.word.unpack(following)[0] if is_whole else 0)


def first_offset(data: bytes, layout: Layout) -> int:
    """Return the offset of a file's first directory; 0: it is cut short before."""
    whole = len(data) >= layout.first + layout.word.size
    return layout.word.unpack_from(data, layout.first)[0] if whole else 0


def pages(data: bytes) -> list[Directory]:
    """Return the directories of a file: the chain first, then those below them."""
    layout = layout_of(data)
    if layout is None:
        return []
    seen: set[int] = set()
    chain = list(_chain(data, layout, first_offset(data, layout), seen))
    below = [
        page
        for parent in chain
        for offset in parent.numbers(SUB_DIRECTORIES)
        for page in _chain(data, layout, offset, seen)
    ]
    return chain + below


def _chain(data: bytes, layout: Layout, offset: int, seen: set[int]) -> Iterator[Directory]:
    while offset and offset not in seen and len(seen) < MOST_PAGES:
        seen.add(offset)
        page = directory(data, layout, offset)
        if page is None:
            return
        yield page
        offset = page.following


def largest(found: list[Directory]) -> tuple[int, int]:
    """Return which page is the largest (of equals the first), and how many pages there are.

    Smaller copies and masks of others, where the file says so, are no pages of their own.
    """
    own = [n for n, page in enumerate(found) if not page.number(SUBFILE) & (REDUCED | MASK)]
    choice = own or list(range(len(found)))
    best = max(choice, key=lambda n: found[n].number(WIDTH) * found[n].number(HEIGHT))
    return best, len(choice)


def with_only(page: Directory, tags: frozenset[int]) -> bytes:
    """Return a page's file as if it held no other page, and of this one only ``tags``."""
    layout = page.layout
    kept = sorted((tag, *entry) for tag, entry in page.entries.items() if tag in tags)
    offset = len(page.data) + len(page.data) % 2
    return b"".join(
        (
            page.data[: layout.first],
            layout.word.pack(offset),
            page.data[layout.first + layout.word.size :].ljust(offset - layout.first
                                                               - layout.word.size, b"\0"),
            layout.count.pack(len(kept)),
            *(layout.entry.pack(*entry) for entry in kept),
            layout.word.pack(0),
        )
    )  # fmt: skip


def check_tiles(page: Directory) -> None:
    """See that a page's tiles are not much larger than itself, for decoders make room for one.

    Raises:
        ValueError: they are.
    """
    width, height = page.number(TILE_WIDTH), page.number(TILE_HEIGHT)
    if width * height > max(LARGE_TILE, 4 * page.number(WIDTH) * page.number(HEIGHT)):
        raise ValueError(f"tiles of {width} x {height} pixels")


def is_deep(page: Directory) -> bool:
    """Tell whether a page has grey or RGB samples of 16 bits and more."""
    bits, formats = set(page.numbers(BITS)), set(page.numbers(SAMPLE_FORMAT)) or {UNSIGNED}
    return (
        len(bits) == 1
        and bits <= {16, 32, 64}
        and len(formats) == 1
        and page.number(PHOTOMETRIC, 1) <= RGB
    )


def read_deep(page: Directory, lean: bytes) -> tuple[NDArray[np.uint16], NDArray[np.uint16] | None]:
    """Return a deep page's colours (H, W, 1 or 3), not premultiplied, and its alpha (H, W).

    Args:
        page: the page.
        lean: its file as `with_only` gives it.

    Raises:
        ValueError, imagecodecs.TiffError: the file is damaged, or nothing that can be read.
    """
    samples = _samples(page, lean)
    photometric = page.number(PHOTOMETRIC, 1)
    colours = 3 if photometric == RGB else 1
    if samples.shape[2] < colours:
        raise ValueError(f"{samples.shape[2]} samples a pixel are no colour")
    extra = page.numbers(EXTRA)
    # An extra channel of which the file does not say what it means is alpha, if it is the only one.
    extra = extra or ((2,) if samples.shape[2] == colours + 1 else ())
    place = next((n for n, kind in enumerate(extra) if kind in (PREMULTIPLIED, 2)), None)
    found = _in_16_bits(samples[..., :colours])
    if photometric == WHITE_IS_ZERO:
        found = 65535 - found
    if place is None or colours + place >= samples.shape[2]:
        return found, None
    alpha = _in_16_bits(samples[..., colours + place])
    if extra[place] == PREMULTIPLIED:
        divisor = np.maximum(alpha, 1)[..., None].astype(np.float32)
        found = (found / divisor * np.float32(65535)).clip(0, 65535).round().astype(np.uint16)
    return found, alpha


def _samples(page: Directory, lean: bytes) -> NDArray[Any]:
    import imagecodecs  # here, because most runs meet no such file

    (height, width), count = page.size, page.number(SAMPLES, 1)
    if not 1 <= count <= MOST_SAMPLES:
        raise ValueError(f"{count} samples a pixel; at most {MOST_SAMPLES} can be read")
    kind = {UNSIGNED: "u", 2: "i", FLOAT: "f"}.get(page.number(SAMPLE_FORMAT, UNSIGNED))
    if kind is None:
        raise ValueError(f"sample format {page.number(SAMPLE_FORMAT)} is not known")
    is_planar = page.number(PLANES) == SEPARATE and count > 1
    shape = (count, height, width) if is_planar else (height, width, count)
    # An array of the size that was checked: a file that lies about it is refused.
    samples = np.empty(shape[: 2 if count == 1 else 3], f"{kind}{page.number(BITS) // 8}")
    imagecodecs.tiff_decode(lean, out=samples)
    return np.moveaxis(samples, 0, 2) if is_planar else np.atleast_3d(samples)


def _in_16_bits(samples: NDArray[Any]) -> NDArray[np.uint16]:
    """Return samples of any kind as 16 bits; white is where nearly all of them lie below it."""
    if samples.dtype == np.uint16:
        return samples
    values = np.nan_to_num(samples.astype(np.float32))
    # Highlights may lie beyond white.
    most = float(np.percentile(values[:: max(1, len(values) // 1024)], 99))
    whites = WHITES[samples.dtype.kind]
    white = next((white for white in whites if most <= white), float(values.max()))
    if samples.dtype.kind == "f" and 1 < most <= BRIGHTEST:
        white = most
    return (values * np.float32(65535 / white)).clip(0, 65535).round().astype(np.uint16)
