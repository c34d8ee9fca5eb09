"""Files taken apart: no text, profile or missing end refuses a picture, and no bomb goes off."""

import io
import struct
import time
import tracemalloc
import zlib
from typing import Any

import imagecodecs
import numpy as np
import pillow_heif
import pytest
from conftest import picture
from PIL import Image
from PIL.PngImagePlugin import PngInfo, putchunk

from nst_pipeline.config.pipeline import Limits
from nst_pipeline.errors import ImageError
from nst_pipeline.images.decoding import Decoded, decode, identify


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    pillow_heif.register_heif_opener()
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def read(data: bytes, max_pixels: int = 10**8) -> Decoded:
    return decode(data, "it", max_pixels)


def png_with(*chunks: tuple[bytes, bytes], plain: bytes | None = None) -> bytes:
    data = plain or encoded(picture(), "PNG")
    buffer = io.BytesIO()
    buffer.write(data[:33])
    for name, body in chunks:
        putchunk(buffer, name, body)
    buffer.write(data[33:])
    return buffer.getvalue()


BOMB = zlib.compress(bytes(2**28))
TEXTS = {
    "two MiB of text": (b"tEXt", b"Comment\0" + bytes(range(32, 96)) * 2**15),
    "two MiB of packed text": (b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 2**21)),
    "two MiB of international text": (b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(b"x" * 2**21)),
    "a bomb of text": (b"zTXt", b"Comment\0\0" + BOMB),
    "a bomb of XMP": (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + BOMB),
    "a bomb of EXIF": (b"zTXt", b"Raw profile type exif\0\0" + BOMB),
    "a bomb of a profile": (b"iCCP", b"it\0\0" + BOMB),
    "no zlib at all": (b"zTXt", b"Comment\0\0nonsense"),
    "a profile that is none": (b"iCCP", b"it\0\0nonsense"),
    "an empty text": (b"iTXt", b""),
    "a resolution of the wrong length": (b"pHYs", b"abc"),
    "a gamma of the wrong length": (b"gAMA", b""),
}


@pytest.mark.parametrize("what", TEXTS)
def test_no_text_of_a_png_refuses_it_or_fills_the_memory(what: str) -> None:
    data = png_with(TEXTS[what])
    tracemalloc.start()
    try:
        pixels = read(data).pixels
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert np.array_equal(pixels, np.asarray(picture()))
    assert most < 100 * 2**20


def test_texts_after_the_pixels_refuse_nothing_either() -> None:
    info = PngInfo()
    for _ in range(3):
        info.add_text("Comment", "x" * 2**21, zip=True)
    data = encoded(picture(), "PNG", pnginfo=info)
    end = data.index(b"IEND") - 4
    text = png_with(TEXTS["two MiB of packed text"])[33:]
    length = struct.unpack(">I", text[:4])[0] + 12
    assert np.array_equal(read(data[:end] + text[:length] + data[end:]).pixels, picture())


def test_a_profile_of_more_than_a_mib_is_applied() -> None:
    profile = imagecodecs.cms_profile("adobergb")
    padded = struct.pack(">I", len(profile) + 2**21) + profile[4:] + bytes(2**21)
    small, large = (
        read(png_with((b"iCCP", b"it\0\0" + zlib.compress(one)))).pixels
        for one in (profile, padded)
    )
    assert np.array_equal(small, large)
    assert np.abs(large.astype(int) - np.asarray(picture())).mean() > 5


def test_a_broken_checksum_of_a_text_refuses_nothing() -> None:
    data = bytearray(png_with((b"tEXt", b"Comment\0hello")))
    data[data.index(b"hello")] ^= 1
    assert np.array_equal(read(bytes(data)).pixels, np.asarray(picture()))


def test_a_png_without_its_end_is_whole_if_all_pixels_are_there() -> None:
    data = encoded(picture(), "PNG")
    assert np.array_equal(read(data[:-12]).pixels, np.asarray(picture()))
    with pytest.raises(ImageError, match="damaged or cut short"):
        read(data[:-40])


# JPEG


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True},
                                     {"restart_marker_blocks": 1}])  # fmt: skip
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_that_lacks_only_its_end_is_painted(mode: str, options: Any) -> None:
    data = encoded(picture().convert(mode), "JPEG", quality=95, **options)
    whole = read(data).pixels
    for cut in (data[:-2], data[:-1], data[:-2] + bytes(512)):
        assert np.array_equal(read(cut).pixels, whole)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 1}])
def test_a_jpeg_that_lacks_more_than_its_end_is_refused(options: Any) -> None:
    data = encoded(picture(), "JPEG", quality=95, **options)
    for length in range(len(data) // 2, len(data) - 3):
        with pytest.raises(ImageError, match="cut short"):
            read(data[:length])


# Pillow's own limit


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "JPEG"])
def test_only_our_limit_decides_how_large_a_picture_may_be(kind: str) -> None:
    image = Image.new("1" if kind != "JPEG" else "L", (20_000, 10_000))
    options = {"compression": "group4"} if kind == "TIFF" else {}
    data = encoded(image, kind, **options)
    assert identify(data, "it", 2 * 10**8) == (10_000, 20_000)
    with pytest.raises(ImageError, match="20000 x 10000 pixels; limits.max_pixels allows 199,999"):
        identify(data, "it", 2 * 10**8 - 1)


def test_the_decoders_own_limits_do_not_decide_either() -> None:
    data = bytearray(encoded(picture(), "WEBP", save_all=True, append_images=[picture(seed=2)]))
    data[24:30] = (15999).to_bytes(3, "little") + (11999).to_bytes(3, "little")
    assert identify(bytes(data), "it", 2 * 10**8) == (12_000, 16_000)


def test_a_webp_that_claims_to_be_huge_is_refused_before_there_is_room_for_it() -> None:
    data = bytearray(encoded(picture(), "WEBP", save_all=True, append_images=[picture(seed=2)]))
    assert data[12:16] == b"VP8X"
    data[24:30] = b"\xff\x3f\0" * 2
    with pytest.raises(ImageError, match="16384 x 16384 pixels; limits.max_pixels"):
        read(bytes(data))


# Several pictures

SMALL, LARGE, MIDDLE = picture(16, 12, 1), picture(64, 48, 2), picture(32, 24, 3)


@pytest.mark.parametrize("kind", ["TIFF", "MPO", "HEIF"])
@pytest.mark.parametrize("images", [(SMALL, LARGE, MIDDLE), (LARGE, SMALL), (SMALL, MIDDLE, LARGE)])
def test_the_largest_picture_is_painted(kind: str, images: tuple[Image.Image, ...]) -> None:
    first, *others = (image.copy() for image in images)
    data = encoded(first, kind, save_all=True, append_images=others)
    decoded = read(data)
    assert decoded.pixels.shape == (48, 64, 3)
    assert np.abs(decoded.pixels.astype(int) - np.asarray(LARGE)).mean() < 12
    assert identify(data, "it", 10**6) == (48, 64)
    number = images.index(LARGE) + 1
    if kind == "MPO" and number == 1:
        assert decoded.note == ""  # what is smaller than the first is its preview or gain map
    else:
        noun = "pages" if kind == "TIFF" else "pictures"
        used = "the first" if number == 1 else f"number {number}, the largest,"
        assert decoded.note == f"it: has {len(images)} {noun}; {used} is used"


def test_the_largest_page_counts_for_the_limit() -> None:
    data = encoded(SMALL.copy(), "TIFF", save_all=True, append_images=[LARGE.copy()])
    with pytest.raises(ImageError, match="64 x 48 pixels"):
        read(data, 1000)


@pytest.mark.parametrize(
    ("kind", "count"), [("GIF", "several"), ("WEBP", "2"), ("PNG", "2"), ("AVIF", "2")]
)
def test_of_an_animation_the_first_frame_is_painted_and_the_others_are_told(
    kind: str, count: str
) -> None:
    data = encoded(picture(), kind, save_all=True, append_images=[picture(seed=5)])
    decoded = read(data)
    assert decoded.note == f"it: has {count} frames; the first is used"
    assert np.abs(decoded.pixels.astype(int) - np.asarray(picture())).mean() < 12
    assert read(encoded(picture(), kind)).note == ""


def test_pages_in_a_ring_end() -> None:
    data = bytearray(encoded(SMALL.copy(), "TIFF", save_all=True, append_images=[LARGE.copy()]))
    first = struct.unpack_from("<I", data, 4)[0]
    (count,) = struct.unpack_from("<H", data, first)
    second = struct.unpack_from("<I", data, first + 2 + 12 * count)[0]
    (count,) = struct.unpack_from("<H", data, second)
    struct.pack_into("<I", data, second + 2 + 12 * count, first)
    assert read(bytes(data)).pixels.shape == (48, 64, 3)


def test_the_settings_allow_as_many_pixels_as_telephones_have() -> None:
    assert Limits(max_pixels=200_000_001).max_pixels == 200_000_001


def test_the_orientation_that_imagemagick_writes_into_a_png_is_applied() -> None:
    block = Image.Exif()
    block[0x0112] = 6
    digits = block.tobytes().hex()
    lines = [digits[start : start + 72] for start in range(0, len(digits), 72)]
    text = "\n".join(["", "exif", f"{len(digits) // 2:8}", *lines, ""]).encode()
    data = png_with((b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text)))
    assert np.array_equal(read(data).pixels, np.rot90(np.asarray(picture()), -1))


def test_thousands_of_bombs_take_no_longer_than_one() -> None:
    bombs = [TEXTS[what] for what in TEXTS if what.startswith("a bomb")]
    data = png_with(*bombs * 100)
    begun = time.process_time()
    assert np.array_equal(read(data).pixels, np.asarray(picture()))
    assert time.process_time() - begun < 2


def test_a_png_of_nothing_but_chunks_is_refused() -> None:
    data = png_with(*[(b"teXt", b"")] * 300_000)
    with pytest.raises(ImageError, match="more than 262,144 chunks"):
        read(data)
