"""PNG of 16 bits: all of it is looked at before libpng decodes it."""

import gc
import random
import struct
import sys
import zlib
from itertools import pairwise
from typing import Any

import imagecodecs
import numpy as np
import pytest
from fuzzing import DAMAGES, originals

from nst_pipeline.errors import ImageError
from nst_pipeline.images import png
from nst_pipeline.images.decoding import Decoded, decode

DEEP = np.random.default_rng(0).integers(0, 65536, (37, 53, 4)).astype(np.uint16)
GREY, GREY_ALPHA, RGB, RGBA = DEEP[..., 0], DEEP[..., :2], DEEP[..., :3], DEEP
COLOURS = {1: 0, 3: 2, 2: 4, 4: 6}
"""The type of colour by the number of channels."""


def read(data: bytes) -> Decoded:
    return decode(data, "it", 10**6)


def chunk(name: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(name + body)
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum)


def rows(samples: Any) -> bytes:
    """Return samples as rows without a filter."""
    height = samples.shape[0]
    plain = np.ascontiguousarray(samples.astype(">u2")).view(np.uint8).reshape(height, -1)
    return np.hstack((np.zeros((height, 1), np.uint8), plain)).tobytes()


def made(samples: Any, interlaced: bool = False, packed: bytes | None = None, pieces: int = 1,
         **header: int) -> bytes:  # fmt: skip
    """Return a PNG; ``header`` overrules what stands in it, ``packed`` what its pixels are."""
    cube = np.atleast_3d(samples)
    parts = png.INTERLACED if interlaced else png.WHOLE
    plain = b"".join(rows(cube[y::dy, x::dx]) for x, y, dx, dy in parts if cube[y::dy, x::dx].size)
    packed = zlib.compress(plain) if packed is None else packed
    says = {"width": cube.shape[1], "height": cube.shape[0], "bits": 16,
            "colour": COLOURS[cube.shape[2]], "compression": 0, "filtering": 0,
            "interlacing": int(interlaced)} | header  # fmt: skip
    cuts = [len(packed) * n // pieces for n in range(pieces + 1)]
    data = [chunk(b"IDAT", packed[a:b]) for a, b in pairwise(cuts)]
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *says.values()))
    return b"".join((png.SIGNATURE, head, *data, chunk(b"IEND", b"")))


@pytest.mark.parametrize("samples", [GREY, GREY_ALPHA, RGB, RGBA])
@pytest.mark.parametrize("options", [{}, {"interlaced": True}, {"pieces": 40}])
def test_every_layout_is_read_without_loss(samples: Any, options: Any) -> None:
    cube = np.atleast_3d(samples)
    decoded = read(made(samples, **options))
    colours = cube[..., : cube.shape[2] - (cube.shape[2] + 1) % 2]
    assert np.array_equal(decoded.pixels, np.broadcast_to(colours, decoded.pixels.shape))
    if cube.shape[2] in (2, 4):
        assert np.array_equal(decoded.alpha, cube[..., -1])


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1), (3, 3), (8, 8), (700, 700)])
@pytest.mark.parametrize("interlaced", [False, True])
def test_every_size_is_read(size: tuple[int, int], interlaced: bool) -> None:
    samples = np.random.default_rng(1).integers(0, 65536, (*size, 3)).astype(np.uint16)
    assert np.array_equal(read(made(samples, interlaced)).pixels, samples)
    assert np.array_equal(read(bytes(imagecodecs.png_encode(samples))).pixels, samples)


def test_a_transparent_colour_is_alpha_in_16_bits_too() -> None:
    data = made(RGB)
    clear = chunk(b"tRNS", RGB[0, 0].astype(">u2").tobytes())
    decoded = read(data[:33] + clear + data[33:])
    assert decoded.alpha is not None and decoded.alpha[0, 0] == 0 and decoded.alpha[1:].all()


PLAIN = rows(RGB)
STRIDE = 1 + 53 * 6
BROKEN = {
    "a row too few": made(RGB, packed=zlib.compress(PLAIN[:-STRIDE])),
    "a byte too few": made(RGB, packed=zlib.compress(PLAIN[:-1])),
    "a stream cut short": made(RGB, packed=zlib.compress(PLAIN)[:-40]),
    "a wrong sum": made(RGB, packed=zlib.compress(PLAIN)[:-1] + b"\0"),
    "no zlib": made(RGB, packed=b"nonsense"),
    "nothing": made(RGB, packed=b""),
    "an unknown filter": made(RGB, packed=zlib.compress(PLAIN[: 9 * STRIDE] + b"\5"
                                                        + PLAIN[9 * STRIDE + 1 :])),
    "an unknown filter in a pass": made(RGB, True, zlib.compress(b"\0" * 2000 + b"\7" * 20000)),
    "an unknown compression": made(RGB, compression=1),
    "an unknown kind of filters": made(RGB, filtering=64),
    "an unknown interlacing": made(RGB, interlacing=2),
    "a palette of 16 bits": made(RGB, colour=3),
    "an unknown colour": made(RGB, colour=5),
    "a side that libpng takes for too long": made(np.zeros((1, 4), np.uint16), width=1_000_001,
                                                  packed=zlib.compress(bytes(2_000_003))),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_what_libpng_would_refuse_never_gets_there(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imagecodecs, "png_decode", lambda *_: pytest.fail("it got there"))
    with pytest.raises(ImageError, match="^it: damaged or cut short"):
        decode(BROKEN[what], "it", 10**7)


def test_no_damage_makes_the_decoder_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def checked(data: bytes) -> Any:
        try:
            return libpng(data)
        except Exception as error:  # noqa: BLE001 - any at all is one too many
            pytest.fail(f"number {number}: {error}")

    libpng = imagecodecs.png_decode
    monkeypatch.setattr(imagecodecs, "png_decode", checked)
    whole, refused = originals()["png-deep"], 0
    for number in range(1500):
        dice, data = random.Random(number), bytearray(whole)
        dice.choice(DAMAGES)(data, dice)
        for _, start, end in png.chunks(bytes(data)) if number % 2 else ():
            body = data[start + 8 : end - 4]
            data[start:end] = chunk(bytes(data[start + 4 : start + 8]), bytes(body))
        try:
            read(bytes(data))
        except ImageError:
            refused += 1
    assert refused > 300


def test_damaged_files_leave_no_wrong_reference_counts() -> None:
    for data in originals().values():
        broken = data[: len(data) // 2] + bytes(4) + data[len(data) // 2 + 4 :]
        for _ in range(3):  # to fill the caches
            _refusal(broken)
        gc.collect()
        gc.disable()  # what other tests left behind has references, too
        try:
            before = sys.getrefcount(None)
            for _ in range(100):
                _refusal(broken)
            assert abs(sys.getrefcount(None) - before) < 50
        finally:
            gc.enable()


def _refusal(data: bytes) -> str:
    try:
        read(data)
    except ImageError as error:
        return str(error)
    return ""
