"""Image files taken apart: what their pixels need, and what else is said in them.

Pixels are decoded from a copy that holds nothing but what they need, so that no metadata, however
broken, can spoil a picture.
"""

import contextlib
import io
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import MpoImagePlugin

from nst_pipeline.images import png, tiff

METADATA_BYTES = 16 * 2**20
"""A longer profile or text is left out; so much may be unpacked of a compressed one."""
MOST_PICTURES = 256
"""Pictures of a file that are looked at for the largest."""
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1")
XMP_IN_JPEG, EXIF_IN_JPEG = b"http://ns.adobe.com/xap/1.0/\0", b"Exif\0\0"
XMP_IN_PNG, EXIF_IN_PNG = b"XML:com.adobe.xmp\0", b"Raw profile type exif\0"
METADATA_ITEM = re.compile(rb"(infe.{4}(?:..|....)..)(?:Exif|mime)", re.DOTALL)
"""Of HEIF and AVIF: what lists an item as EXIF or XMP."""


@dataclass(frozen=True)
class Container:
    """An image file taken apart.

    Attributes:
        kind: the format, as Pillow calls it; RAW: of a camera; empty: none that is known.
        pixels: the file without what its pixels do not need.
        exif: the EXIF block.
        xmp: the XMP packet.
        profile: the colour profile, where it is not left in ``pixels``.
        page: number of the page or frame that ``pixels`` hold, from 1.
        pages: how many there are, as far as the container tells.
        directory: of a TIFF's page.
        canvas: (height, width), where a decoder would make room for it before it tells.
    """

    kind: str
    pixels: bytes
    exif: bytes = b""
    xmp: bytes = b""
    profile: bytes = b""
    page: int = 1
    pages: int = 1
    directory: tiff.Directory | None = None
    canvas: tuple[int, int] | None = None


def take_apart(data: bytes) -> Container:
    """Take an image file apart, by content and not by suffix."""
    if data.startswith(png.SIGNATURE):
        return _png(data)
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data)
    if any(data.startswith(magic, place) for place, magic in RAW_MAGIC):
        return Container("RAW", data, exif=data)
    if tiff.layout_of(data):
        return _tiff(data)
    if data[4:8] == b"ftyp":
        return _boxes(data)
    kinds = {b"GIF87a": "GIF", b"GIF89a": "GIF", b"BM": "BMP"}
    kind = next((kinds[magic] for magic in kinds if data.startswith(magic)), "")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return Container("WEBP", data, canvas=_webp_canvas(data))
    return Container(kind, data)


RAW_MAGIC = (
    (0, b"FUJIFILMCCD-RAW"), (0, b"IIRO"), (0, b"IIRS"), (0, b"MMOR"), (0, b"IIU\0"),
    (0, b"FOVb"), (0, b"\0MRM"), (4, b"ftypcrx "), (6, b"HEAPCCDR"), (8, b"CR\2\0"),
)  # fmt: skip
"""How RAW files of cameras begin that are not plain TIFF: Fujifilm to Canon."""


def _webp_canvas(data: bytes) -> tuple[int, int] | None:
    if data[12:16] != b"VP8X" or len(data) < 30:
        return None  # a single picture, for which room is made when it is decoded
    width, height = data[24:27], data[27:30]
    return int.from_bytes(height, "little") + 1, int.from_bytes(width, "little") + 1


def _tiff(data: bytes) -> Container:
    pages = tiff.pages(data)
    if not pages:
        return Container("TIFF", data)
    raw = {tiff.COLOUR_FILTER, tiff.LINEAR_RAW}
    if any(page.number(tiff.PHOTOMETRIC) in raw for page in pages):
        return Container("RAW", data, exif=data)
    best, count = tiff.largest(pages)
    page = pages[best]
    lean = tiff.with_only(page, tiff.PIXEL_TAGS)
    profile = page.value(tiff.PROFILE)
    about = tiff.with_only(page, frozenset(page.entries)) if best else data
    return Container("TIFF", lean, about, page.value(700), profile, best + 1, count, page)


def _boxes(data: bytes) -> Container:
    brand = data[8:12]
    if brand in (b"avif", b"avis") or b"avif" in data[12:64]:
        kind = "AVIF"
    else:
        kind = "HEIF" if brand in HEIF_BRANDS else ""
    return Container(kind, METADATA_ITEM.sub(rb"\1free", data))


def _jpeg(data: bytes) -> Container:
    kept, exif, xmp, is_several, end = [data[:2]], [], b"", False, 2
    for marker, start, end in _jpeg_segments(data):
        body = data[start + 4 : end]
        if marker == 0xE1 and body.startswith(EXIF_IN_JPEG):
            exif.append(body.removeprefix(EXIF_IN_JPEG))
        elif marker == 0xE1 and body.startswith(XMP_IN_JPEG):
            xmp = body.removeprefix(XMP_IN_JPEG)
        elif marker == 0xE2 and body.startswith(b"MPF\0"):
            is_several = True
        elif (
            marker in (0xE0, 0xEE)
            or not (0xE0 <= marker <= 0xEF or marker == 0xFE)
            or (marker == 0xE2 and body.startswith(b"ICC_PROFILE\0"))
        ):
            kept.append(data[start:end])
    lean = b"".join((*kept, data[end:]))
    if not is_several:
        return Container("JPEG", lean, b"".join(exif), xmp)
    number, count, place = _largest_picture(data)
    if place:
        lean = _jpeg(data[place:]).pixels
    return Container("JPEG", lean, b"".join(exif), xmp, b"", number, count)


def _largest_picture(data: bytes) -> tuple[int, int, int]:
    """Return the number, from 1, of a JPEG's largest picture, their count, and its place.

    Those that are smaller than the first are its previews or gain maps, and not counted.
    """
    found: list[tuple[int, int]] = []
    with contextlib.suppress(Exception):  # what cannot be read of the others is left out
        image = MpoImagePlugin.MpoImageFile(io.BytesIO(data))
        for number in range(min(image.n_frames, MOST_PICTURES)):
            image.seek(number)
            found.append((image.width * image.height, image.offset))
    if not found:
        return 1, 1, 0
    best = max(range(len(found)), key=lambda number: found[number][0])
    return best + 1, sum(area >= found[0][0] for area, _ in found), found[best][1]


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Give the marker, start and end of each segment before the first scan."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        (length,) = struct.unpack_from(">H", data, place + 2)
        end = place + 2 + length
        if marker < 0xC0 or 0xD0 <= marker <= 0xDA or length < 2 or end > len(data):
            return
        yield marker, place, end
        place = end


def has_all_scans(data: bytes) -> bool:
    """Tell whether a JPEG that ends without an end has a scan for all of each component.

    Args:
        data: the file, of which it is known that its last scan is whole.
    """
    left, is_progressive, end = set[tuple[int, int]](), False, 2
    for marker, start, end in _jpeg_segments(data):
        if marker in (0xC0, 0xC1, 0xC2):
            is_progressive = marker == 0xC2
            count = data[start + 9]
            components = data[start + 10 : min(end, start + 10 + 3 * count) : 3]
            left = {(one, n) for one in components for n in range(64 if is_progressive else 1)}
    if not left:
        return False
    for match in re.finditer(rb"\xff\xda..(.)", data[end:], re.DOTALL):
        place, count = end + match.end(), match[1][0]
        header = data[place : place + 2 * count + 3]
        if len(header) < 2 * count + 3:
            return False
        first, last, low = header[-3:]
        if not (is_progressive and low & 15):
            spectrum = range(first, last + 1) if is_progressive else range(1)
            left -= {(one, n) for one in header[: 2 * count : 2] for n in spectrum}
    return not left


def _png(data: bytes) -> Container:
    kept, end = [png.SIGNATURE], len(png.SIGNATURE)
    said: dict[tuple[bytes, bytes], bytes] = {}
    for name, start, end in png.chunks(data):
        if name[0] < 0x60 or name == b"tRNS":
            kept.append(data[start:end])  # a damaged one is refused by the decoder
        elif png.is_sound(data, start, end):
            body = data[start + 8 : end - 4]
            word = next((w for w in (XMP_IN_PNG, EXIF_IN_PNG) if body.startswith(w)), b"")
            # Only the first of each counts: to unpack all could take for ever.
            said.setdefault((name, word), body.removeprefix(word))
            if name == b"pHYs" and len(body) == 9:
                kept.append(data[start:end])
    exif = said.get((b"eXIf", b"")) or _from_hexadecimal(said.get((b"zTXt", EXIF_IN_PNG), b""))
    frames = said.get((b"acTL", b""), b"")
    return Container(
        "PNG",
        b"".join((*kept, data[end:])),
        exif,
        _international(said.get((b"iTXt", XMP_IN_PNG), b"")),
        _unpacked(said.get((b"iCCP", b""), b"").partition(b"\0")[2][1:]),
        pages=struct.unpack(">I", frames[:4])[0] if len(frames) == 8 else 1,
    )


def _unpacked(data: bytes) -> bytes:
    """Return what zlib makes of ``data``; empty: nothing, or more than `METADATA_BYTES`."""
    unpacker = zlib.decompressobj()
    with contextlib.suppress(zlib.error):
        found = unpacker.decompress(data, METADATA_BYTES)
        return b"" if unpacker.unconsumed_tail else found
    return b""


def _international(body: bytes) -> bytes:
    """Return the text of an iTXt chunk, whose body follows its keyword."""
    is_packed, _, rest = body[:1] == b"\1", body[1:2], body[2:]
    text = rest.partition(b"\0")[2].partition(b"\0")[2]
    return _unpacked(text) if is_packed else text[:METADATA_BYTES]


def _from_hexadecimal(text: bytes) -> bytes:
    """Return what ImageMagick packed as lines of hexadecimal digits, after three of a heading."""
    with contextlib.suppress(ValueError):
        return bytes.fromhex(b"".join(_unpacked(text[1:]).split(b"\n")[3:]).decode("ascii"))
    return b""
