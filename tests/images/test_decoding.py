"""Image files to pixels: of 8 bits, of 16 bits, and of telephones."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pillow_heif
import pytest
import tifffile
from conftest import picture
from PIL import Image, ImageCms, features
from PIL.PngImagePlugin import putchunk

from nst_pipeline.config.settings import OutputSettings
from nst_pipeline.errors import ImageError, NotReadyError
from nst_pipeline.images import decoding, metadata
from nst_pipeline.images.decoding import Need, check_need, need
from nst_pipeline.images.encoding import encode

BIG = 10**9


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decode(data: bytes, max_pixels: int = 10**8) -> decoding.Decoded:
    return decoding.decode(data, "it", max_pixels)


def difference(one: object, other: object) -> float:
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF"])
def test_every_format_is_decoded_by_its_content(kind: str) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    decoded = decode(encoded(picture(), kind))
    assert decoded.pixels.shape == (48, 64, 3) and decoded.pixels.dtype == np.uint8
    assert difference(decoded.pixels, picture()) < 12
    assert decoded.alpha is None


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LA", "RGBA", "YCbCr"])
def test_every_colour_mode_becomes_rgb(mode: str) -> None:
    decoded = decode(encoded(picture().convert(mode), "TIFF" if mode != "P" else "PNG"))
    assert decoded.pixels.shape == (48, 64, 3) and decoded.pixels.dtype == np.uint8
    expected = picture().convert(mode).convert("RGB")
    assert difference(decoded.pixels, expected) < 2


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_tones(kind: str) -> None:
    ramp = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
    decoded = decode(encoded(Image.fromarray(ramp), kind))
    assert np.array_equal(decoded.pixels, np.dstack([ramp] * 3))


def test_float_samples_keep_their_tones() -> None:
    ramp = np.linspace(0, 1, 64 * 48, dtype=np.float32).reshape(48, 64)
    decoded = decode(encoded(Image.fromarray(ramp), "TIFF"))
    assert difference(decoded.pixels[..., 0], ramp * 65535) < 1


def test_orientation_is_applied_and_then_forgotten() -> None:
    exif = Image.Exif()
    exif[metadata.ORIENTATION] = 6  # turn a quarter to the right
    exif[0x0110] = "a camera"
    decoded = decode(encoded(picture(), "JPEG", exif=exif, quality=95))
    assert decoded.pixels.shape == (64, 48, 3)
    assert difference(decoded.pixels, picture().transpose(Image.Transpose.ROTATE_270)) < 12
    assert decoded.metadata.main == {0x0110: "a camera"}


def test_an_embedded_profile_is_converted_to_srgb() -> None:
    lab = ImageCms.createProfile("LAB", 5000)
    in_lab = ImageCms.profileToProfile(
        picture(), ImageCms.createProfile("sRGB"), lab, outputMode="LAB"
    )
    assert in_lab is not None
    profile = ImageCms.ImageCmsProfile(lab).tobytes()
    decoded = decode(encoded(in_lab, "TIFF", icc_profile=profile))
    assert difference(decoded.pixels, picture()) < 4


def test_a_broken_profile_is_ignored() -> None:
    decoded = decode(encoded(picture(), "PNG", icc_profile=b"not a profile"))
    assert difference(decoded.pixels, picture()) == 0


def test_alpha_is_kept_with_the_colour_under_it() -> None:
    image = picture()
    alpha = Image.linear_gradient("L").resize(image.size)
    image.putalpha(alpha)
    decoded = decode(encoded(image, "PNG"))
    assert decoded.alpha is not None and difference(decoded.alpha, alpha) == 0
    assert difference(decoded.pixels, picture()) == 0


def test_palette_transparency_becomes_alpha() -> None:
    image = picture().convert("P")
    image.info["transparency"] = image.getpixel((0, 0))
    decoded = decode(encoded(image, "PNG", transparency=image.getpixel((0, 0))))
    assert decoded.alpha is not None and decoded.alpha[0, 0] == 0


def test_a_truncated_image_is_refused_and_not_half_painted() -> None:
    for kind in ("JPEG", "PNG", "WEBP"):
        data = encoded(picture(200, 200), kind)
        with pytest.raises(ImageError, match="^it: "):
            decode(data[: len(data) // 2])


@pytest.mark.parametrize("data", [b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"%PDF-1.4"])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match="^it: "):
        decode(data)


def test_a_format_that_is_not_listed_is_refused() -> None:
    with pytest.raises(ImageError, match="known format"):
        decode(encoded(picture(), "PPM"))


def test_a_bomb_is_refused_before_a_pixel_is_decoded() -> None:
    bomb = encoded(Image.new("1", (20_000, 20_000)), "PNG")
    assert len(bomb) < 200_000
    with pytest.raises(ImageError, match="max_pixels"):
        decode(bomb)
    with pytest.raises(ImageError, match="64 x 48 pixels; limits.max_pixels allows 3,000"):
        decode(encoded(picture(), "PNG"), max_pixels=3000)


def test_header_alone_tells_the_size_and_what_is_no_image() -> None:
    assert decoding.identify(encoded(picture(), "PNG"), "it", BIG) == (48, 64)
    with pytest.raises(ImageError):
        decoding.identify(b"hello", "it", BIG)


def heic(**options: object) -> bytes:
    pillow_heif.register_heif_opener()
    return encoded(picture(), "HEIF", quality=90, **options)


def test_heic_is_decoded_upright_once() -> None:
    exif = Image.Exif()
    exif[metadata.ORIENTATION] = 6
    exif[0x0110] = "a telephone"
    decoded = decode(heic(exif=exif.tobytes()))
    assert difference(decoded.pixels, picture().transpose(Image.Transpose.ROTATE_270)) < 12
    assert decoded.metadata.main == {0x0110: "a telephone"}


def test_heic_is_refused_when_too_large_or_cut_short() -> None:
    data = heic()
    with pytest.raises(ImageError, match="64 x 48 pixels; limits.max_pixels allows 3,000"):
        decode(data, max_pixels=3000)
    with pytest.raises(ImageError, match="damaged or cut short"):
        decode(data[: len(data) // 2])
    assert decoding.identify(data, "it", BIG) == (48, 64)


def test_heic_without_its_package_tells_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    data = heic()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"pip install 'nst-pipeline\[heif\]'"):
        decode(data)


def test_the_suffixes_of_telephones_are_known() -> None:
    assert {".heic", ".heif", ".avif", ".webp"} <= decoding.IMAGE_SUFFIXES


# 16 bits

MADE_BY = {"style": "ink"}
DEEP_TIFF = OutputSettings(format="tiff", bit_depth=16, keep_exif=True)
BASE = np.random.default_rng(0).integers(0, 65536, (48, 64, 4)).astype(np.uint16)
RGB, ALPHA = np.ascontiguousarray(BASE[..., :3]), np.ascontiguousarray(BASE[..., 3])


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
    decoded = decode(data)
    assert decoded.pixels.dtype == np.uint16 and decoded.alpha is None
    assert np.array_equal(decoded.pixels, RGB)


@pytest.mark.parametrize("data", [png(BASE), tiff(BASE, extrasamples=["unassalpha"])])
def test_16_bits_of_alpha_are_read_without_loss(data: bytes) -> None:
    decoded = decode(data)
    assert np.array_equal(decoded.pixels, RGB) and np.array_equal(decoded.alpha, ALPHA)


def test_opaque_alpha_is_no_alpha() -> None:
    assert decode(png(np.dstack((RGB, np.full_like(ALPHA, 65535))))).alpha is None


def test_grey_with_alpha_is_decode() -> None:
    decoded = decode(png(np.ascontiguousarray(BASE[..., 2:])))
    assert np.array_equal(decoded.pixels[..., 1], BASE[..., 2])
    assert np.array_equal(decoded.alpha, ALPHA)


def test_premultiplied_colours_are_divided_by_their_alpha() -> None:
    clear = np.full((48, 64, 1), 32768, np.uint16)
    halved = (RGB.astype(np.float64) * 32768 / 65535).round().astype(np.uint16)
    decoded = decode(tiff(np.dstack((halved, clear)), extrasamples=["assocalpha"]))
    assert np.abs(decoded.pixels.astype(int) - RGB).max() <= 2


def test_white_may_be_zero() -> None:
    decoded = decode(tiff(ALPHA, "miniswhite"))
    assert np.array_equal(decoded.pixels[..., 0], 65535 - ALPHA)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_that_of_8_bits(orientation: int) -> None:
    exif = Image.Exif()
    exif[metadata.ORIENTATION] = orientation
    block = exif.tobytes()[6:]
    buffer = io.BytesIO()
    Image.fromarray(decoding.to_depth(RGB, 8)).save(buffer, "PNG", exif=exif)
    decoded = decode(png(RGB, eXIf=block))
    assert np.array_equal(decoding.to_depth(decoded.pixels, 8), decode(buffer.getvalue()).pixels)
    assert not decoded.metadata.main
    # In the place of another tag that says 1 (big-endian, as EXIF blocks are made here).
    plain = encode(RGB, None, DEEP_TIFF, MADE_BY)
    other = struct.pack(">HHIHH", 284, 3, 1, 1, 0)
    assert other in plain
    turned = plain.replace(other, struct.pack(">HHIHH", metadata.ORIENTATION, 3, 1, orientation, 0))
    assert np.array_equal(decode(turned).pixels, decoded.pixels)


@pytest.mark.parametrize("make", [png, tiff])
def test_a_profile_is_applied_in_16_bits(make: Any) -> None:
    profile = imagecodecs.cms_profile("adobergb")
    srgb = imagecodecs.cms_profile("srgb")
    soft = (RGB // 4 + 20000).astype(np.uint16)  # colours that both can show
    wide = imagecodecs.cms_transform(soft, srgb, profile, colorspace="rgb", outcolorspace="rgb")
    if make is png:
        data = png(wide, iCCP=b"x\0\0" + zlib.compress(profile))
    else:
        data = tiff(wide, iccprofile=profile)
    assert np.abs(wide.astype(int) - soft).max() > 1000
    assert np.abs(decode(data).pixels.astype(int) - soft).max() < 100


def test_a_broken_profile_is_ignored_in_16_bits_too() -> None:
    assert np.array_equal(decode(tiff(RGB, iccprofile=b"no profile at all")).pixels, RGB)


@pytest.mark.parametrize("data", [png(RGB), tiff(RGB), encode(RGB, None, DEEP_TIFF, MADE_BY)])
def test_16_bits_that_are_cut_short_or_too_large_are_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match="^it: "):
        decode(data[: len(data) * 2 // 3])
    with pytest.raises(ImageError, match="64 x 48 pixels; limits.max_pixels allows 3,000"):
        decode(data, 3000)


def test_a_png_with_flipped_bits_is_refused() -> None:
    data = bytearray(png(RGB))
    data[len(data) // 2] ^= 255
    with pytest.raises(ImageError, match="damaged"):
        decode(bytes(data))


def test_a_tiff_that_lies_about_its_size_is_refused() -> None:
    data = tiff(RGB)
    lying = data.replace(struct.pack("<HHII", 257, 4, 1, 48), struct.pack("<HHII", 257, 4, 1, 4800))
    assert lying != data
    with pytest.raises(ImageError, match="damaged"):
        decode(lying)


def test_depths_are_converted_by_rounding_and_back() -> None:
    every = np.arange(65536, dtype=np.uint16)
    assert np.array_equal(decoding.to_depth(every, 8), (every / 257).round())
    eight = np.arange(256, dtype=np.uint8)
    assert np.array_equal(decoding.to_depth(decoding.to_depth(eight, 16), 8), eight)
    assert decoding.to_depth(eight, 16)[-1] == 65535


@pytest.mark.parametrize(
    ("mode", "suffix", "peak", "held"),
    [("RGB", "png", 13, 3), ("L", "jpg", 13, 3), ("RGBA", "png", 19, 4), ("RGB", "webp", 18, 3),
     ("RGBA", "tif", 19, 4), ("I;16", "png", 28, 6)],
)  # fmt: skip
def test_the_memory_that_an_image_takes_is_known_by_its_header(
    mode: str, suffix: str, peak: int, held: int
) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (640, 480)).save(buffer, Image.registered_extensions()[f".{suffix}"])
    data = buffer.getvalue()
    found = need(data, "a", 10**6)
    assert found == Need(640 * 480 * peak + 2 * len(data), 640 * 480 * held)
    check_need(data, "a", 10**6, found.peak)
    with pytest.raises(NotReadyError, match="a: takes 0.0. GB of memory to be decoded; limits.max"):
        check_need(data, "a", 10**6, found.peak - 1)


PEAK_SCRIPT = """
import sys
from pathlib import Path
from nst_pipeline.images.decoding import decode, need

def said(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

decode(Path(sys.argv[1]).read_bytes(), "warm", 10**8)
data = Path(sys.argv[2]).read_bytes()
before = said("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
decode(data, "large", 10**8)
print(said("VmHWM") - before, need(data, "large", 10**8).peak)
"""


@pytest.mark.parametrize(
    ("mode", "suffix"), [("RGB", "png"), ("RGBA", "png"), ("CMYK", "jpg"), ("RGBA", "webp")]
)
def test_decoding_takes_no_more_memory_than_was_said(
    tmp_path: Path, mode: str, suffix: str
) -> None:
    for name, times in (("small", 1), ("large", 50)):
        pixels = np.tile(np.asarray(picture(60, 60)), (times, times, 1))
        Image.fromarray(pixels).convert(mode).save(tmp_path / f"{name}.{suffix}")
    paths = (tmp_path / f"{name}.{suffix}" for name in ("small", "large"))
    done = subprocess.run(
        [sys.executable, "-c", PEAK_SCRIPT, *paths], capture_output=True, text=True, check=True
    )
    took, said = map(int, done.stdout.split())
    assert took <= said + 2**24
