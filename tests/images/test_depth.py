"""More than 8 bits a channel, in and out."""

import io
import json
import struct
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from PIL.PngImagePlugin import putchunk

from nst_pipeline.config.settings import OutputSettings
from nst_pipeline.errors import ImageError
from nst_pipeline.images.decoding import ORIENTATION, Decoded, decode, to_depth
from nst_pipeline.images.encoding import encode

MADE_BY = {"style": "ink"}
BASE = np.random.default_rng(0).integers(0, 65536, (48, 64, 4)).astype(np.uint16)
RGB, ALPHA = np.ascontiguousarray(BASE[..., :3]), np.ascontiguousarray(BASE[..., 3])


def read(data: bytes, max_pixels: int = 10**6) -> Decoded:
    return decode(data, "it", max_pixels)


def png(samples: Any, **chunks: bytes) -> bytes:
    plain = bytes(imagecodecs.png_encode(samples))
    buffer = io.BytesIO()
    buffer.write(plain[:33])
    for name, data in chunks.items():
        putchunk(buffer, name.encode(), data)
    buffer.write(plain[33:])
    return buffer.getvalue()


def tiff(samples: Any, photometric: str = "rgb", **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, photometric=photometric, **options)
    return buffer.getvalue()


def deep(kind: str) -> OutputSettings:
    return OutputSettings(format=kind, bit_depth=16, keep_exif=True)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "data",
    [
        png(RGB),
        tiff(RGB),
        tiff(RGB, compression="deflate", predictor=True),
        tiff(RGB, byteorder=">"),
        tiff(RGB, tile=(16, 16)),
        tiff(RGB, bigtiff=True),
        tiff(np.ascontiguousarray(np.moveaxis(RGB, 2, 0)), planarconfig="separate"),
    ],
)
def test_16_bits_of_colour_are_read_without_loss(data: bytes) -> None:
    decoded = read(data)
    assert decoded.pixels.dtype == np.uint16 and decoded.alpha is None
    assert np.array_equal(decoded.pixels, RGB)


@pytest.mark.parametrize("data", [png(BASE), tiff(BASE, extrasamples=["unassalpha"])])
def test_16_bits_of_alpha_are_read_without_loss(data: bytes) -> None:
    decoded = read(data)
    assert np.array_equal(decoded.pixels, RGB) and np.array_equal(decoded.alpha, ALPHA)


def test_opaque_alpha_is_no_alpha() -> None:
    assert read(png(np.dstack((RGB, np.full_like(ALPHA, 65535))))).alpha is None


def test_grey_with_alpha_is_read() -> None:
    decoded = read(png(np.ascontiguousarray(BASE[..., 2:])))
    assert np.array_equal(decoded.pixels[..., 1], BASE[..., 2])
    assert np.array_equal(decoded.alpha, ALPHA)


def test_premultiplied_colours_are_divided_by_their_alpha() -> None:
    clear = np.full((48, 64, 1), 32768, np.uint16)
    halved = (RGB.astype(np.float64) * 32768 / 65535).round().astype(np.uint16)
    decoded = read(tiff(np.dstack((halved, clear)), extrasamples=["assocalpha"]))
    assert np.abs(decoded.pixels.astype(int) - RGB).max() <= 2


def test_white_may_be_zero() -> None:
    decoded = read(tiff(ALPHA, "miniswhite"))
    assert np.array_equal(decoded.pixels[..., 0], 65535 - ALPHA)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_that_of_8_bits(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    block = exif.tobytes()[6:]
    buffer = io.BytesIO()
    Image.fromarray(to_depth(RGB, 8)).save(buffer, "PNG", exif=exif)
    decoded = read(png(RGB, eXIf=block))
    assert np.array_equal(to_depth(decoded.pixels, 8), read(buffer.getvalue()).pixels)
    assert not decoded.exif
    # In the place of another tag that says 1 (big-endian, as EXIF blocks are made here).
    plain = encode(RGB, None, deep("tiff"), MADE_BY)
    other = struct.pack(">HHIHH", 284, 3, 1, 1, 0)
    assert other in plain
    turned = plain.replace(other, struct.pack(">HHIHH", ORIENTATION, 3, 1, orientation, 0))
    assert np.array_equal(read(turned).pixels, decoded.pixels)


@pytest.mark.parametrize("make", [png, tiff])
def test_a_profile_is_applied_in_16_bits(make: Any) -> None:
    profile = imagecodecs.cms_profile("adobergb")
    srgb = imagecodecs.cms_profile("srgb")
    soft = (RGB // 4 + 20000).astype(np.uint16)  # colours that both can show
    wide = imagecodecs.cms_transform(soft, srgb, profile, colorspace="rgb", outcolorspace="rgb")
    if make is png:
        import zlib

        data = png(wide, iCCP=b"x\0\0" + zlib.compress(profile))
    else:
        data = tiff(wide, iccprofile=profile)
    assert np.abs(wide.astype(int) - soft).max() > 1000
    assert np.abs(read(data).pixels.astype(int) - soft).max() < 100


def test_a_broken_profile_is_ignored() -> None:
    assert np.array_equal(read(tiff(RGB, iccprofile=b"no profile at all")).pixels, RGB)


@pytest.mark.parametrize("data", [png(RGB), tiff(RGB), encode(RGB, None, deep("tiff"), MADE_BY)])
def test_what_is_cut_short_or_too_large_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match="^it: "):
        read(data[: len(data) * 2 // 3])
    with pytest.raises(ImageError, match="64 x 48 pixels; limits.max_pixels allows 3,000"):
        read(data, 3000)


def test_a_png_with_flipped_bits_is_refused() -> None:
    data = bytearray(png(RGB))
    data[len(data) // 2] ^= 255
    with pytest.raises(ImageError, match="damaged"):
        read(bytes(data))


def test_a_tiff_that_lies_about_its_size_is_refused() -> None:
    data = tiff(RGB)
    lying = data.replace(struct.pack("<HHII", 257, 4, 1, 48), struct.pack("<HHII", 257, 4, 1, 4800))
    assert lying != data
    with pytest.raises(ImageError, match="damaged"):
        read(lying)


@pytest.mark.parametrize("alpha", [None, ALPHA])
@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_16_bits_are_written_without_loss(kind: str, alpha: Any) -> None:
    data = encode(RGB, alpha, deep(kind), MADE_BY)
    decoded = read(data)
    assert np.array_equal(decoded.pixels, RGB)
    assert alpha is None or np.array_equal(decoded.alpha, alpha)
    with Image.open(io.BytesIO(data)) as image:  # a reader of another make
        assert image.size == (64, 48)
        assert kind == "png" or alpha is None or image.getexif()[338] == 2  # not premultiplied
        assert np.abs(np.asarray(image.convert("RGB")).astype(int) - RGB / 257).max() <= 1
    assert encode(RGB, alpha, deep(kind), MADE_BY) == data


def test_a_tiff_of_8_bits_is_written_without_loss() -> None:
    shallow = to_depth(RGB, 8)
    settings = OutputSettings(format="tiff")
    with Image.open(io.BytesIO(encode(shallow, None, settings, MADE_BY))) as image:
        assert np.array_equal(np.asarray(image), shallow)
    assert np.array_equal(read(encode(shallow, None, settings, MADE_BY)).pixels, shallow)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_the_cameras_data_travel_whatever_their_byte_order(kind: str, order: str) -> None:
    exif = Image.Exif()
    exif.endian = order
    exif[0x0110] = "a camera"
    exif[0x0142] = 512  # the width of tiles in the camera's file: the new one has none
    exif.get_ifd(0x8825)[1] = "N"
    exif.get_ifd(0x8769)[0x829A] = 0.5
    data = encode(RGB, None, deep(kind), MADE_BY, exif.tobytes())
    with Image.open(io.BytesIO(data)) as image:
        found = image.getexif()
        assert found[0x0110] == "a camera" and found.get_ifd(0x8825)[1] == "N"
        assert found.get_ifd(0x8769)[0x829A] == 0.5
        assert json.loads(found[0x010E]) == MADE_BY and 0x0142 not in found
    assert np.array_equal(read(data).pixels, RGB)


def test_depths_are_converted_by_rounding_and_back() -> None:
    every = np.arange(65536, dtype=np.uint16)
    assert np.array_equal(to_depth(every, 8), (every / 257).round())
    eight = np.arange(256, dtype=np.uint8)
    assert np.array_equal(to_depth(to_depth(eight, 16), 8), eight)
    assert to_depth(eight, 16)[-1] == 65535


def test_8_bits_come_out_of_16_where_asked_and_the_other_way_round() -> None:
    shallow = to_depth(RGB, 8)
    assert np.array_equal(read(encode(RGB, None, OutputSettings(), MADE_BY)).pixels, shallow)
    widened = read(encode(shallow, None, deep("png"), MADE_BY)).pixels
    assert np.array_equal(widened, shallow.astype(np.uint16) * 257)


def test_alpha_is_scaled_to_the_picture() -> None:
    ramp = np.tile(np.linspace(0, 65535, 128).astype(np.uint16), (96, 1))
    decoded = read(encode(RGB, ramp, deep("png"), MADE_BY))
    assert decoded.alpha is not None and decoded.alpha.shape == (48, 64)
    assert np.abs(decoded.alpha.astype(float) - ramp[::2, ::2]).max() < 600
