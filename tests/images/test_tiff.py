"""TIFF pages of 16 bits and more, and files that lie about them."""

import io
import struct
import warnings
from typing import Any

import numpy as np
import pytest
import tifffile

from nst_pipeline.errors import ImageError
from nst_pipeline.images.decoding import Decoded, decode, identify

DICE = np.random.default_rng(0)
DEEP = DICE.integers(0, 65536, (48, 64, 4)).astype(np.uint16)
FLOAT = DICE.random((48, 64, 4), np.float32)
FLOAT[0, 0] = 1


def tiff(samples: Any, photometric: str | int = "rgb", **options: Any) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tifffile.imwrite(buffer, samples, photometric=photometric, **options)
    return buffer.getvalue()


def read(data: bytes) -> Decoded:
    return decode(data, "it", 10**6)


@pytest.mark.parametrize("extra", [{"byteorder": ">"}, {"bigtiff": True}, {"tile": (16, 16)},
                                   {"compression": "deflate"}])  # fmt: skip
def test_16_bit_grey_with_alpha_is_read_without_loss(extra: Any) -> None:
    samples = np.ascontiguousarray(DEEP[..., :2])
    decoded = read(tiff(samples, "minisblack", extrasamples=["unassalpha"], **extra))
    assert np.array_equal(decoded.pixels, np.stack([samples[..., 0]] * 3, 2))
    assert np.array_equal(decoded.alpha, samples[..., 1])


def test_premultiplied_grey_is_divided_by_its_alpha() -> None:
    half = np.full((48, 64), 32768, np.uint16)
    grey = (DEEP[..., 0].astype(np.float64) * 32768 / 65535).round().astype(np.uint16)
    data = tiff(np.dstack((grey, half)), "minisblack", extrasamples=["assocalpha"])
    assert np.abs(read(data).pixels[..., 0].astype(int) - DEEP[..., 0]).max() <= 2


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("extra", [{}, {"byteorder": ">"}, {"compression": "deflate"}])
def test_float_samples_keep_their_tones(dtype: Any, channels: int, extra: Any) -> None:
    samples = FLOAT[..., :channels].astype(dtype)
    data = tiff(samples.squeeze(), "rgb" if channels == 3 else "minisblack", **extra)
    decoded = read(data)
    assert decoded.pixels.dtype == np.uint16 and decoded.alpha is None
    assert np.abs(decoded.pixels - samples.astype(np.float64) * 65535).max() < 40


def test_float_samples_beyond_white_are_no_darker_for_it() -> None:
    light = (np.linspace(0, 4, 64 * 48, dtype=np.float32) ** 2 / 4).reshape(48, 64)
    decoded = read(tiff(light, "minisblack"))
    grey = decoded.pixels[..., 0].astype(np.float64) / 65535
    assert np.abs(grey - (light / np.percentile(light, 99)).clip(0, 1)).max() < 0.01
    bright = light / 4 * 255  # white is 255
    found = read(tiff(bright, "minisblack")).pixels[..., 0]
    assert np.abs(found / 65535 - bright / 255).max() < 0.01


def test_float_alpha_and_a_predictor_are_read() -> None:
    decoded = read(tiff(FLOAT, extrasamples=["unassalpha"], compression="deflate", predictor=True))
    assert np.abs(decoded.pixels - FLOAT[..., :3] * 65535.0).max() <= 1
    assert decoded.alpha is not None
    assert np.abs(decoded.alpha - FLOAT[..., 3] * 65535.0).max() <= 1


def test_highlights_beyond_white_do_not_darken_the_picture() -> None:
    bright = FLOAT[..., :3].copy()
    bright[0, :4] = 3.5
    expected = bright.clip(0, 1) * 65535.0
    assert np.abs(read(tiff(bright)).pixels - expected).max() <= 1


def test_what_is_no_number_is_black() -> None:
    holes = FLOAT[..., 0].copy()
    holes[1, 1], holes[2, 2] = np.nan, -np.inf
    decoded = read(tiff(holes, "minisblack"))
    assert not decoded.pixels[1, 1].any() and not decoded.pixels[2, 2].any()


def test_32_bit_whole_numbers_are_read() -> None:
    samples = DEEP[..., :3].astype(np.uint32)
    assert np.array_equal(read(tiff(samples)).pixels, DEEP[..., :3])
    large = samples * 65537
    assert np.abs(read(tiff(large)).pixels.astype(int) - DEEP[..., :3]).max() <= 1


def test_further_channels_are_left_out() -> None:
    five = np.dstack((DEEP, DEEP[..., :1]))
    data = tiff(five, planarconfig="contig", extrasamples=["unassalpha", "unspecified"])
    decoded = read(data)
    assert np.array_equal(decoded.pixels, DEEP[..., :3])
    assert np.array_equal(decoded.alpha, DEEP[..., 3])


@pytest.mark.parametrize("kind", ["deep", "float", "tiles"])
def test_one_wrong_byte_is_read_past_or_refused_with_the_decoders_words(kind: str) -> None:
    data = {
        "deep": tiff(np.ascontiguousarray(DEEP[:4, :4, :3]), metadata=None),
        "float": tiff(FLOAT[:4, :4, :3].copy(), metadata=None),
        "tiles": tiff(np.ascontiguousarray(DEEP[:16, :16]), tile=(16, 16), metadata=None,
                      extrasamples=["unassalpha"], compression="deflate"),
    }[kind]  # fmt: skip
    refused = 0
    for place in range(min(len(data), 400)):
        for value in (0, 1, 255, data[place] ^ 16):
            wrong = data[:place] + bytes((value,)) + data[place + 1 :]
            try:
                read(wrong)
            except ImageError as error:
                refused += 1
                assert str(error).startswith("it: ")
    assert refused > 50


def test_tiles_that_claim_to_be_huge_are_refused() -> None:
    data = tiff(np.ascontiguousarray(DEEP[..., :3]), tile=(16, 16))
    wide = data.replace(struct.pack("<HHII", 322, 4, 1, 16), struct.pack("<HHII", 322, 4, 1, 2**30))
    assert wide != data
    with pytest.raises(ImageError, match="tiles of 1073741824 x 16 pixels"):
        read(wide)


def test_a_small_copy_is_not_counted_as_a_page() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(DEEP[..., :3].copy(), photometric="rgb")
        writer.write(DEEP[:24, :32, :3].copy(), photometric="rgb", subfiletype=1)
    decoded = read(buffer.getvalue())
    assert decoded.note == "" and np.array_equal(decoded.pixels, DEEP[..., :3])


@pytest.mark.parametrize("big", [False, True])
def test_the_largest_page_may_be_of_16_bits_and_below_the_first(big: bool) -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, bigtiff=big) as writer:
        thumbnail = (DEEP[:6, :8, :3] >> 8).astype(np.uint8)
        writer.write(thumbnail, photometric="rgb", subfiletype=1, subifds=1)
        writer.write(DEEP[..., :3].copy(), photometric="rgb", subfiletype=0)
    data = buffer.getvalue()
    assert np.array_equal(read(data).pixels, DEEP[..., :3])
    assert identify(data, "it", 10**6) == (48, 64)
