"""Pixels to image files."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from conftest import picture
from PIL import Image, ImageCms, JpegImagePlugin

from nst_pipeline.config.settings import OutputSettings
from nst_pipeline.images import metadata, png
from nst_pipeline.images.decoding import Decoded, decode, to_depth
from nst_pipeline.images.encoding import encode

MADE_BY = {"style": "ink", "recipe": {"size": 48}}
KINDS = ["png", "jpeg", "webp", "tiff", "avif"]
CHOICES = [*((kind, 8) for kind in KINDS), ("png", 16), ("tiff", 16)]


def private() -> metadata.Metadata:
    exif = Image.Exif()
    exif[0x0110] = "a camera"
    exif.get_ifd(0x8825)[1] = "N"
    return metadata.read(exif.tobytes())[0]


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize("kind", KINDS)
def test_metadata_tell_how_it_was_made_and_nothing_private(kind: str) -> None:
    data = encode(np.asarray(picture()), None, OutputSettings(format=kind), MADE_BY, private())
    exif = opened(data).getexif()
    assert json.loads(exif[0x010E]) == MADE_BY
    assert exif[0x0131].startswith("nst-pipeline ")
    assert 0x0110 not in exif and not exif.get_ifd(0x8825)
    assert b"a camera" not in data


@pytest.mark.parametrize("kind", KINDS)
def test_the_cameras_data_travel_when_asked(kind: str) -> None:
    settings = OutputSettings(format=kind, keep_exif=True)
    exif = opened(encode(np.asarray(picture()), None, settings, MADE_BY, private())).getexif()
    assert exif[0x0110] == "a camera" and exif.get_ifd(0x8825)[1] == "N"
    assert json.loads(exif[0x010E]) == MADE_BY


@pytest.mark.parametrize("kind", KINDS)
def test_srgb_is_embedded(kind: str) -> None:
    data = encode(np.asarray(picture()), None, OutputSettings(format=kind), MADE_BY)
    profile = ImageCms.ImageCmsProfile(io.BytesIO(opened(data).info["icc_profile"]))
    assert "sRGB" in ImageCms.getProfileDescription(profile)


def test_the_same_image_gives_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    np.save(tmp_path / "picture.npy", np.asarray(picture()))
    modes = [(*choice, mode) for choice in CHOICES for mode in ("color", "grey")]
    script = (
        "import hashlib, numpy\n"
        "from nst_pipeline.images.encoding import encode\n"
        "from nst_pipeline.config.settings import OutputSettings\n"
        "pixels = numpy.load('picture.npy')\n"
        f"for kind, bits, mode in {modes}:\n"
        "    settings = OutputSettings(format=kind, bit_depth=bits, mode=mode)\n"
        f"    data = encode(pixels, None, settings, {MADE_BY!r})\n"
        "    print(hashlib.sha256(data).hexdigest())\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    runs = [
        subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, env=env,
                       cwd=tmp_path).stdout.split()
        for _ in range(2)
    ]  # fmt: skip
    assert runs[0] == runs[1] and len(set(runs[0])) == len(modes)


def test_png_loses_no_pixel_and_alpha_is_carried_over() -> None:
    alpha = np.asarray(Image.linear_gradient("L").resize((64, 48)))
    for kind in ("png", "webp", "tiff"):
        settings = OutputSettings(format=kind, quality=100)
        image = opened(encode(np.asarray(picture()), alpha, settings, MADE_BY))
        assert image.mode == "RGBA"
        assert image.convert("RGB").tobytes() == picture().tobytes()
        assert image.getchannel("A").tobytes() == alpha.tobytes()


def test_jpeg_has_white_where_the_content_was_transparent() -> None:
    clear = np.zeros((48, 64), np.uint8)
    image = opened(encode(np.asarray(picture()), clear, OutputSettings(format="jpeg"), MADE_BY))
    assert image.getextrema() == ((255, 255),) * 3


def test_quality_is_obeyed() -> None:
    small, large = (
        encode(np.asarray(picture()), None, OutputSettings(format="jpeg", quality=q), MADE_BY)
        for q in (20, 95)
    )
    assert len(small) < len(large)


def test_subsampling_is_obeyed() -> None:
    layers = {}
    for choice in ("4:4:4", "4:2:2", "4:2:0"):
        settings = OutputSettings(format="jpeg", subsampling=choice)
        layers[choice] = JpegImagePlugin.get_sampling(
            opened(encode(np.asarray(picture()), None, settings, MADE_BY))
        )
    assert layers == {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}


# 16 bits

BASE = np.random.default_rng(0).integers(0, 65536, (48, 64, 4)).astype(np.uint16)
RGB, ALPHA = np.ascontiguousarray(BASE[..., :3]), np.ascontiguousarray(BASE[..., 3])


def read(data: bytes) -> Decoded:
    return decode(data, "it", 10**6)


def deep(kind: str) -> OutputSettings:
    return OutputSettings(format=kind, bit_depth=16, keep_exif=True)  # type: ignore[arg-type]


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
    data = encode(RGB, None, deep(kind), MADE_BY, metadata.read(exif.tobytes())[0])
    with Image.open(io.BytesIO(data)) as image:
        found = image.getexif()
        assert found[0x0110] == "a camera" and found.get_ifd(0x8825)[1] == "N"
        assert found.get_ifd(0x8769)[0x829A] == 0.5
        assert json.loads(found[0x010E]) == MADE_BY and 0x0142 not in found
    assert np.array_equal(read(data).pixels, RGB)


def test_8_bits_come_out_of_16_where_asked_and_the_other_way_round() -> None:
    shallow = to_depth(RGB, 8)
    assert np.array_equal(read(encode(RGB, None, OutputSettings(), MADE_BY)).pixels, shallow)
    widened = read(encode(shallow, None, deep("png"), MADE_BY)).pixels
    assert np.array_equal(widened, shallow.astype(np.uint16) * 257)


# Grey


def luminance(pixels: np.ndarray) -> np.ndarray:
    """Return the luminance of sRGB pixels in [0, 1] with sRGB's curve, by its definition."""
    linear = np.where(pixels <= 0.04045, pixels / 12.92, ((pixels + 0.055) / 1.055) ** 2.4)
    light = linear @ (0.2225, 0.7169, 0.0606)  # Y, adapted to D50 as in profiles
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def about(data: bytes, kind: str) -> tuple[str, bytes]:
    """Return the description and the profile in a file, by a reader of another make."""
    if kind == "tiff":
        page = tifffile.TiffFile(io.BytesIO(data)).pages[0]
        return page.description, page.iccprofile
    return opened(data).getexif()[0x010E], opened(data).info["icc_profile"]


def has_one_channel(data: bytes, kind: str, has_alpha: bool) -> bool:
    """Tell whether a file holds one channel, and an alpha if it should."""
    if kind == "tiff":
        page = tifffile.TiffFile(io.BytesIO(data)).pages[0]
        alphas = (2,) if has_alpha else ()  # not premultiplied
        return page.photometric == 1 and page.extrasamples == alphas
    if kind == "png":
        return png.header(data).colour == (4 if has_alpha else 0)
    if kind == "avif":
        boxes = data.split(b"av1C")[1:]  # equal ones of picture and alpha stand there once
        return bool(boxes) and all(box[2] & 0b10000 for box in boxes)
    return opened(data).mode == "L"


@pytest.mark.parametrize("alpha", [None, ALPHA])
@pytest.mark.parametrize(("kind", "bits"), CHOICES)
def test_grey_is_the_luminance_in_one_channel_with_its_profile(
    kind: Any, bits: Any, alpha: Any
) -> None:
    settings = OutputSettings(format=kind, bit_depth=bits, mode="grey", quality=100)
    pixels = RGB if bits == 16 else np.asarray(picture())
    data = encode(pixels, alpha, settings, MADE_BY)
    decoded = read(data)
    assert (np.ptp(decoded.pixels, axis=2) == 0).all() and decoded.pixels.itemsize * 8 == bits
    said, block = about(data, kind)
    assert json.loads(said) == MADE_BY
    profile = ImageCms.ImageCmsProfile(io.BytesIO(block))
    if kind != "webp":  # which has three channels
        assert has_one_channel(data, kind, alpha is not None)
        assert profile.profile.xcolor_space.strip() == "GRAY"
    assert "sRGB" in ImageCms.getProfileDescription(profile)
    if kind == "jpeg" and alpha is not None:
        return
    top = 2**bits - 1
    wanted = luminance(pixels / top) * top
    off = 3 if kind in ("jpeg", "avif") else top / 255
    assert np.abs(decoded.pixels[..., 0] - wanted).max() <= off
    assert (decoded.alpha is None) == (alpha is None)
    assert alpha is None or np.array_equal(decoded.alpha, to_depth(alpha, bits))


@pytest.mark.parametrize(("kind", "bits"), CHOICES)
def test_a_picture_that_is_grey_already_keeps_its_numbers(kind: Any, bits: Any) -> None:
    ramp = np.linspace(0, 2**bits - 1, 64 * 48).round().reshape(48, 64)
    ramp = np.stack([ramp.astype(np.uint8 if bits == 8 else np.uint16)] * 3, 2)
    settings = OutputSettings(format=kind, bit_depth=bits, mode="grey", quality=100)
    found = read(encode(ramp, None, settings, MADE_BY)).pixels
    assert np.abs(found.astype(int) - ramp).max() <= (1 if bits == 8 else 3)


def test_a_grey_jpeg_has_white_where_the_content_was_transparent() -> None:
    settings = OutputSettings(format="jpeg", mode="grey")
    image = opened(encode(np.asarray(picture()), np.zeros((48, 64), np.uint8), settings, MADE_BY))
    assert image.mode == "L" and image.getextrema() == (255, 255)


def test_alpha_is_scaled_to_the_picture() -> None:
    ramp = np.tile(np.linspace(0, 65535, 128).astype(np.uint16), (96, 1))
    decoded = read(encode(RGB, ramp, deep("png"), MADE_BY))
    assert decoded.alpha is not None and decoded.alpha.shape == (48, 64)
    assert np.abs(decoded.alpha.astype(float) - ramp[::2, ::2]).max() < 600
