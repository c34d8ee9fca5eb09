"""PNG: its chunks, and its samples of 16 bits."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_CHUNKS = 2**18
"""Those of a file of 1 GiB, if they are as short as writers make them."""
LONGEST_SIDE = 1_000_000
"""Libpng's own limit."""
CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}
"""By the type of colour."""
WHOLE = ((0, 0, 1, 1),)
INTERLACED = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
              (0, 1, 1, 2))  # fmt: skip
"""Passes: the first column and row of each, and the steps to the next; those of Adam7."""
FILTERS, PIECE_BYTES = 5, 2**20


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Give the name, start and end of each whole chunk.

    Raises:
        ValueError: there are more than any picture has.
    """
    place = len(SIGNATURE)
    for _ in range(MOST_CHUNKS):
        if place + 12 > len(data):
            return
        (length,) = struct.unpack_from(">I", data, place)
        end = place + 12 + length
        if end > len(data):
            return
        yield data[place + 4 : place + 8], place, end
        place = end
    raise ValueError(f"more than {MOST_CHUNKS:,} chunks")


def is_sound(data: bytes, start: int, end: int) -> bool:
    """Tell whether a chunk is what its checksum says."""
    (checksum,) = struct.unpack_from(">I", data, end - 4)
    return bool(zlib.crc32(memoryview(data)[start + 4 : end - 4]) == checksum)


@dataclass(frozen=True)
class Header:
    """What IHDR says, in its order."""

    width: int
    height: int
    bits: int
    colour: int
    compression: int
    filtering: int
    interlacing: int

    @property
    def pixel_bytes(self) -> int:
        """Bytes of a pixel of 16 bits a channel."""
        return 2 * CHANNELS[self.colour]


def header(data: bytes) -> Header:
    """Return what a file's first chunk says.

    Raises:
        struct.error: the file is cut short before its end.
    """
    return Header(*struct.unpack_from(">IIBBBBB", data, len(SIGNATURE) + 8))


def read_deep(data: bytes) -> NDArray[np.uint16]:
    """Return the samples of a PNG of 16 bits, (H, W, C).

    Whatever is wrong with it is found before it is decoded: at an error imagecodecs jumps out of
    libpng with wrong reference counts, and some ten thousand errors later Python aborts.

    Raises:
        ValueError, zlib.error: it is damaged.
    """
    import imagecodecs  # here, because most runs meet no such file

    about = header(data)
    _check_header(about)
    packed, clear = [], b""
    for name, start, end in chunks(data):
        if name in (b"IDAT", b"tRNS") and not is_sound(data, start, end):
            raise ValueError(f"{name.decode()} is not what its checksum says")
        if name == b"IDAT":
            packed.append(data[start + 8 : end - 4])
        elif name == b"tRNS" and about.colour in (0, 2) and end - start == 12 + about.pixel_bytes:
            clear = data[start + 8 : end - 4]
    _check_rows(about, b"".join(packed))
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", *astuple(about))),
        *([(b"tRNS", clear)] if clear else []),
        *((b"IDAT", part) for part in packed),
        (b"IEND", b""),
    ]
    whole = b"".join((SIGNATURE, *(_chunk(name, body) for name, body in parts)))
    samples: NDArray[Any] = imagecodecs.png_decode(whole)
    return np.atleast_3d(samples)


def _chunk(name: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(body, zlib.crc32(name))
    return b"".join((struct.pack(">I", len(body)), name, body, struct.pack(">I", checksum)))


def _check_header(about: Header) -> None:
    """See that libpng takes a header.

    Raises:
        ValueError: it does not.
    """
    if about.bits != 16 or about.colour not in CHANNELS:
        raise ValueError(f"{about.bits} bits of colour type {about.colour}")
    if about.compression or about.filtering or about.interlacing > 1:
        raise ValueError(
            f"compression {about.compression}, filter {about.filtering}, interlacing "
            f"{about.interlacing} are not known"
        )
    if not 0 < min(about.width, about.height) <= max(about.width, about.height) <= LONGEST_SIDE:
        raise ValueError(f"{about.width} x {about.height} pixels")


def _check_rows(about: Header, packed: bytes) -> None:
    """See that there are all rows, and each with a filter that libpng knows.

    Raises:
        ValueError, zlib.error: there are not.
    """
    passes = list(_passes(about))
    wanted = sum(rows * stride for _, rows, stride in passes)
    done = 0
    for piece in _unpacked(packed):
        samples = np.frombuffer(piece, np.uint8)
        for start, rows, stride in passes:
            # The rows of the pass that begin in this piece.
            first = max(0, -((start - done) // stride))
            last = min(rows, -((start - done - len(piece)) // stride))
            if first < last:
                begin = start + first * stride - done
                filters = samples[begin : begin + (last - first - 1) * stride + 1 : stride]
                if filters.max() >= FILTERS:
                    raise ValueError("a row with a filter that is not known")
        done += len(piece)
        if done >= wanted:
            return
    raise ValueError(f"its pixels end after {done:,} of {wanted:,} bytes")


def _passes(about: Header) -> Iterator[tuple[int, int, int]]:
    """Give the place of each pass in the unpacked bytes, its rows, and the bytes of a row."""
    start = 0
    for left, top, across, down in INTERLACED if about.interlacing else WHOLE:
        columns = -((left - about.width) // across)
        rows = -((top - about.height) // down)
        if columns > 0 and rows > 0:
            stride = 1 + columns * about.pixel_bytes
            yield start, rows, stride
            start += rows * stride


def _unpacked(packed: bytes) -> Iterator[bytes]:
    """Give what zlib makes of ``packed``, a piece after the other."""
    unpacker = zlib.decompressobj(0)  # with the window that the data say, as libpng does
    for start in range(0, len(packed), PIECE_BYTES):
        left = packed[start : start + PIECE_BYTES]
        while left and not unpacker.eof:
            yield unpacker.decompress(left, PIECE_BYTES)
            left = unpacker.unconsumed_tail
    yield unpacker.flush()
