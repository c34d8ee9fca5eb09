"""Colours to sRGB: by the profile, or by what EXIF says."""

import io
import struct
import zlib
from typing import Any

import imagecodecs
import numpy as np
import pytest
from conftest import picture
from PIL import Image, ImageCms

from nst_pipeline.config.settings import OutputSettings
from nst_pipeline.images.decoding import decode
from nst_pipeline.images.encoding import encode

ADOBE, SRGB = imagecodecs.cms_profile("adobergb"), imagecodecs.cms_profile("srgb")
SOFT = (np.asarray(picture()) // 4 + 80).astype(np.uint8)  # colours that both can show
WIDE = imagecodecs.cms_transform(SOFT, SRGB, ADOBE, colorspace="rgb", outcolorspace="rgb")
GREY_18 = imagecodecs.cms_profile("gray", gamma=1.0)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(data: bytes) -> Any:
    return decode(data, "it", 10**6).pixels


def marked(index: str = "R03", space: int = 65535) -> bytes:
    """Return the EXIF block of a camera that was told to use Adobe RGB."""
    block = Image.Exif()
    block[0x8769] = {0xA001: space, 0xA005: {1: index, 2: b"0100"}}
    return block.tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_adobe_rgb_is_known_by_exif_alone(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    options |= {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    data = encoded(Image.fromarray(WIDE), kind, exif=marked(), **options)
    if kind == "TIFF":  # into which Pillow does not write this directory
        place = len(data)
        data += struct.pack("<HHHI4sI", 1, 1, 2, 4, b"R03\0", 0)
        link = struct.pack("<HHI", 0xA005, 4, 1)
        assert data.count(link) == 1
        start = data.index(link) + len(link)
        data = data[:start] + struct.pack("<I", place) + data[start + 4 :]
    assert np.abs(WIDE.astype(int) - SOFT).mean() > 2
    assert np.abs(pixels(data).astype(int) - SOFT).mean() < 0.7


def test_adobe_rgb_is_known_in_16_bits_too() -> None:
    deep = WIDE.astype(np.uint16) * 257
    plain = encode(deep, None, OutputSettings(bit_depth=16), {})
    chunk = b"eXIf" + marked()[6:]
    there = plain.index(b"iCCP") - 4
    end = plain.index(b"IDAT") - 4
    chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    decoded = pixels(plain[:there] + chunk + plain[end:])
    assert decoded.dtype == np.uint16
    assert np.abs(decoded / 257 - SOFT).mean() < 0.7


@pytest.mark.parametrize(("index", "space"), [("R98", 65535), ("R98", 1), ("R03", 1)])
def test_srgb_is_not_taken_for_adobe_rgb(index: str, space: int) -> None:
    data = encoded(Image.fromarray(WIDE), "PNG", exif=marked(index, space))
    assert np.array_equal(pixels(data), WIDE)


def test_a_profile_goes_before_what_exif_says() -> None:
    data = encoded(Image.fromarray(WIDE), "PNG", exif=marked(), icc_profile=SRGB)
    assert np.abs(pixels(data).astype(int) - WIDE).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_grey_profile_counts_with_alpha_as_without(kind: str) -> None:
    grey = Image.linear_gradient("L")
    alpha = grey.rotate(90)
    plain = pixels(encoded(grey, kind, icc_profile=GREY_18))
    assert np.abs(plain[..., 0].astype(int) - np.asarray(grey)).mean() > 30
    data = encoded(Image.merge("LA", (grey, alpha)), kind, icc_profile=GREY_18)
    decoded = decode(data, "it", 10**6)
    assert np.array_equal(decoded.pixels, plain) and np.array_equal(decoded.alpha, alpha)


def test_a_grey_profile_counts_with_a_transparent_tone_and_in_16_bits() -> None:
    grey = Image.linear_gradient("L")
    plain = pixels(encoded(grey, "PNG", icc_profile=GREY_18))
    data = encoded(grey, "PNG", icc_profile=GREY_18, transparency=7)
    decoded = decode(data, "it", 10**6)
    assert np.array_equal(decoded.pixels, plain)
    assert decoded.alpha is not None and not decoded.alpha[7].any() and decoded.alpha[8:].all()


@pytest.mark.parametrize(
    "profile", [GREY_18, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()]
)
def test_a_profile_of_another_kind_is_ignored(profile: bytes) -> None:
    data = encoded(picture(), "PNG", icc_profile=profile)
    assert np.array_equal(pixels(data), np.asarray(picture()))


def test_a_profile_of_colours_counts_for_grey() -> None:
    data = encoded(Image.linear_gradient("L"), "PNG", icc_profile=ADOBE)
    grey = pixels(data).astype(int)
    assert np.abs(grey[..., 0] - np.asarray(Image.linear_gradient("L"))).max() < 12
    assert np.ptp(grey, axis=2).max() <= 1
