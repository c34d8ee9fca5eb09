"""What files say about themselves: read as far as it can be, and never deciding."""

import io
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pillow_heif
import pytest
from conftest import picture
from PIL import Image

from nst_pipeline.config.settings import OutputSettings
from nst_pipeline.images.decoding import decode
from nst_pipeline.images.encoding import encode
from nst_pipeline.images.metadata import read

KINDS = ("JPEG", "PNG", "WEBP", "AVIF", "HEIF")
EVERYTHING = OutputSettings(keep_exif="all")


def encoded(kind: str, **options: Any) -> bytes:
    pillow_heif.register_heif_opener()
    exif = options.pop("exif", None)
    if exif:  # what is not understood some would not write
        options["exif"] = b"Exif\0\0MM\0*\0\0\0\x08".ljust(len(exif), b"\0")
    buffer = io.BytesIO()
    picture().save(buffer, kind, quality=95, **options)
    data = buffer.getvalue()
    if exif and kind == "PNG":
        place = data.index(b"eXIf") + 4
        chunk = b"eXIf" + exif[6:]
        return (
            data[: place - 4]
            + chunk
            + struct.pack(">I", zlib.crc32(chunk))
            + data[place + len(exif) - 6 + 4 :]
        )
    if exif:
        assert options["exif"][6:] in data
        data = data.replace(options["exif"][6:], exif[6:])
    return data


def block(*entries: tuple[int, int, int, int], tail: bytes = b"", order: str = ">") -> bytes:
    """Return an EXIF block of one directory: tag, type, count and value or offset."""
    head = {">": b"MM\0*", "<": b"II*\0"}[order] + struct.pack(f"{order}I", 8)
    body = b"".join(struct.pack(f"{order}HHII", *entry) for entry in entries)
    count = struct.pack(f"{order}H", len(entries))
    return b"Exif\0\0" + head + count + body + bytes(4) + tail


def painted(data: bytes) -> Any:
    """Return the pixels of a file, after what it says has gone through an output, too."""
    decoded = decode(data, "it", 10**6)
    encode(decoded.pixels, decoded.alpha, EVERYTHING, {}, decoded.metadata)
    return decoded.pixels


MISTYPED = block((0x010E, 5, 1, 26), tail=struct.pack(">II", 1, 1))
SOUND_BUT = {
    "a description that is a number": MISTYPED,
    "a unit that is none": block((0x011A, 5, 1, 38), (0x0128, 3, 1, 9 << 16),
                                 tail=struct.pack(">II", 300, 1)),
    "a unit that is a text": block((0x0128, 2, 4, 0x61626300)),
    "a resolution over nothing": block((0x011A, 5, 1, 26), tail=bytes(8)),
    "an EXIF directory before the start": block((0x8769, 4, 1, 0xFFFFFFFF)),
    "an EXIF directory with a sign": block((0x8769, 9, 1, 0xFFFFFFFF)),
    "an EXIF directory that is a text": block((0x8769, 2, 4, 0x61626300)),
    "an EXIF directory in itself": block((0x8769, 4, 1, 8), (0x8825, 4, 1, 8)),
    "an orientation that is none": block((0x0112, 3, 1, 77 << 16)),
    "an orientation that is a text": block((0x0112, 2, 4, 0x36000000)),
    "a type that is none": block((0x0110, 99, 1, 26)),
    "a value that lies outside": block((0x0110, 2, 200, 0x7FFFFFFF)),
    "a value without an end": block((0x0110, 2, 0xFFFFFFFF, 26)),
    "no directory": b"Exif\0\0MM\0*\0\0\xff\x08" + bytes(20),
    "no block": b"Exif\0\0" + b"nonsense" * 4,
}  # fmt: skip
"""Metadata that are wrong, on pictures that are not."""


@pytest.mark.parametrize("what", SOUND_BUT)
@pytest.mark.parametrize("kind", KINDS)
def test_metadata_never_decide(kind: str, what: str) -> None:
    data = encoded(kind, exif=SOUND_BUT[what])
    expected = decode(encoded(kind), "it", 10**6).pixels
    assert np.array_equal(painted(data), expected)


@pytest.mark.parametrize("kind", range(1, 14))
@pytest.mark.parametrize("tag", [0x010E, 0x0112, 0x011A, 0x0128, 0x0132, 0x8298, 0x8769, 0x8825,
                                 0x9C9C])  # fmt: skip
def test_a_tag_of_any_type_costs_at_most_itself(tag: int, kind: int) -> None:
    entries = [(tag, kind, 1, 1 << 24), (0x0110, 2, 9, 38)]
    about, _ = read(block(*entries, tail=b"a camera\0"))
    assert about.main[0x0110] == "a camera"
    encode(np.asarray(picture()), None, EVERYTHING, {}, about)


def test_a_tiff_is_painted_whatever_its_other_tags_say() -> None:
    plain = encode(np.asarray(picture()), None, OutputSettings(format="tiff", dpi=300), {})
    unit = struct.pack(">HHIHH", 0x0128, 3, 1, 2, 0)
    assert unit in plain
    for wrong in (
        struct.pack(">HHIHH", 0x0128, 3, 1, 9, 0),
        struct.pack(">HHI4s", 0x0128, 2, 4, b"abc\0"),
        struct.pack(">HHII", 0x8769, 4, 1, 0xFFFFFFFF),
        struct.pack(">HHII", 0x8769, 7, 2**31, 0),
    ):
        assert np.array_equal(painted(plain.replace(unit, wrong)), np.asarray(picture()))


def test_the_good_tags_beside_a_bad_one_are_kept() -> None:
    about, reading = read(
        block((0x010E, 5, 1, 62), (0x0110, 2, 9, 70), (0x0112, 3, 1, 6 << 16), (0x0128, 2, 1, 0),
              tail=struct.pack(">II", 1, 1) + b"a camera\0")
    )  # fmt: skip
    assert about.main == {0x0110: "a camera"} and reading.orientation == 6


@pytest.mark.parametrize(
    ("unit", "dpi"), [(2, (300.0, 300.0)), (3, (762.0, 762.0)), (1, None), (9, None)]
)
def test_the_resolution_is_read_in_its_unit(unit: int, dpi: tuple[float, float] | None) -> None:
    about, _ = read(
        block((0x011A, 5, 1, 50), (0x011B, 5, 1, 50), (0x0128, 3, 1, unit << 16),
              tail=struct.pack(">II", 300, 1))
    )  # fmt: skip
    assert about.dpi == dpi


def test_a_block_that_would_fill_the_memory_is_left_out() -> None:
    entry = (0x9000, 7, 2**22, 26)
    huge = block(*[(tag, *entry[1:]) for tag in range(2000)], tail=bytes(2**22))
    about, _ = read(huge)
    assert not about.main
    tracemalloc.start()
    try:
        inner = [(tag, 7, 2**17, 26) for tag in range(0x9000, 0x9000 + 1000)]
        about, _ = read(block((0x8769, 4, 1, 8), *inner, tail=bytes(2**17)))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(about.exif) < 10 and most < 10 * 2**20
    long = block((0x0110, 2, 2**22, 26), tail=bytes(2**22))
    assert not read(long)[0].main


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "tiff", "avif"])
@pytest.mark.parametrize("coding", ["utf-8", "latin-1"])
def test_letters_beyond_ascii_stay_what_they_were(kind: Any, coding: str) -> None:
    said = {0x010E: "Häuser", 0x013B: "Jörg", 0x8298: "© Jörg"}
    tail, entries = b"", []
    for tag, text in said.items():
        words = text.encode(coding) + b"\0"
        entries.append((tag, 2, len(words), 14 + 12 * len(said) + len(tail)))
        tail += words
    about, _ = read(block(*entries, tail=tail))
    settings = OutputSettings(format=kind, keep_exif="credits")
    data = encode(np.zeros((8, 8, 3), np.uint8), None, settings, {}, about)
    exif = Image.open(io.BytesIO(data)).getexif()
    for tag in (0x013B, 0x8298):
        assert exif[tag].encode("latin-1") == said[tag].encode(coding)
    assert exif[0x9C9C] == "Häuser\0".encode("utf-16-le")
