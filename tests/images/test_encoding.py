import io
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import picture
from PIL import Image, ImageCms, JpegImagePlugin

from nst_pipeline.config.settings import OutputSettings
from nst_pipeline.errors import CannotCreateError, OutputError
from nst_pipeline.files import ensure_folder, publish, shown
from nst_pipeline.images.encoding import encode

MADE_BY = {"style": "ink", "recipe": {"size": 48}}
KINDS = ["png", "jpeg", "webp", "tiff", "avif"]
CHOICES = [*((kind, 8) for kind in KINDS), ("png", 16), ("tiff", 16)]


def private_exif() -> bytes:
    exif = Image.Exif()
    exif[0x0110] = "a camera"
    exif.get_ifd(0x8825)[1] = "N"
    return exif.tobytes()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize("kind", KINDS)
def test_metadata_tell_how_it_was_made_and_nothing_private(kind: str) -> None:
    data = encode(np.asarray(picture()), None, OutputSettings(format=kind), MADE_BY, private_exif())
    exif = opened(data).getexif()
    assert json.loads(exif[0x010E]) == MADE_BY
    assert exif[0x0131].startswith("nst-pipeline ")
    assert 0x0110 not in exif and not exif.get_ifd(0x8825)
    assert b"a camera" not in data


@pytest.mark.parametrize("kind", KINDS)
def test_the_cameras_data_travel_when_asked(kind: str) -> None:
    settings = OutputSettings(format=kind, keep_exif=True)
    exif = opened(encode(np.asarray(picture()), None, settings, MADE_BY, private_exif())).getexif()
    assert exif[0x0110] == "a camera" and exif.get_ifd(0x8825)[1] == "N"
    assert json.loads(exif[0x010E]) == MADE_BY


@pytest.mark.parametrize("kind", KINDS)
def test_srgb_is_embedded(kind: str) -> None:
    data = encode(np.asarray(picture()), None, OutputSettings(format=kind), MADE_BY)
    profile = ImageCms.ImageCmsProfile(io.BytesIO(opened(data).info["icc_profile"]))
    assert "sRGB" in ImageCms.getProfileDescription(profile)


def test_the_same_image_gives_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    np.save(tmp_path / "picture.npy", np.asarray(picture()))
    script = (
        "import hashlib, numpy\n"
        "from nst_pipeline.images.encoding import encode\n"
        "from nst_pipeline.config.settings import OutputSettings\n"
        "pixels = numpy.load('picture.npy')\n"
        f"for kind, bits in {CHOICES}:\n"
        "    settings = OutputSettings(format=kind, bit_depth=bits)\n"
        f"    data = encode(pixels, None, settings, {MADE_BY!r})\n"
        "    print(hashlib.sha256(data).hexdigest())\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    runs = [
        subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, env=env,
                       cwd=tmp_path).stdout.split()
        for _ in range(2)
    ]  # fmt: skip
    assert runs[0] == runs[1] and len(set(runs[0])) == len(CHOICES)


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


def test_a_published_file_replaces_the_old_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    publish(path, b"old")
    publish(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_published_files_have_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    publish(tmp_path / "file", b"x")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_write_that_fails_half_way_leaves_the_old_file_and_nothing_half_written(
    tmp_path: Path,
) -> None:
    path = tmp_path / "file"
    publish(path, b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OutputError, match="File too large"):
            publish(path, b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_where_nothing_can_be_created_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotCreateError, match="permissions"):
        ensure_folder(tmp_path / "file" / "folder")
    with pytest.raises(CannotCreateError):
        publish(tmp_path / "file" / "x", b"")


def test_any_path_can_be_shown() -> None:
    assert shown(Path(os.fsdecode(b"caf\xe9/\xc3\xa9"))) == "caf\\xe9/é"
