import io
import os
from pathlib import Path, PurePath

import numpy as np
import pytest
from conftest import picture
from PIL import Image, ImageCms, features

from nst_pipeline import inbox
from nst_pipeline.errors import ImageError, UsageError

BIG = 10**9


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decode(data: bytes, max_pixels: int = 10**8) -> inbox.Decoded:
    return inbox.decode(data, "it", max_pixels)


def difference(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF"])
def test_every_format_is_decoded_by_its_content(kind: str) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    decoded = decode(encoded(picture(), kind))
    assert decoded.image.mode == "RGB" and decoded.image.size == (64, 48)
    assert difference(decoded.image, picture()) < 12
    assert decoded.alpha is None


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LA", "RGBA", "YCbCr"])
def test_every_colour_mode_becomes_rgb(mode: str) -> None:
    decoded = decode(encoded(picture().convert(mode), "TIFF" if mode != "P" else "PNG"))
    assert decoded.image.mode == "RGB"
    expected = picture().convert(mode).convert("RGB")
    assert difference(decoded.image, expected) < 2


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_tones(kind: str) -> None:
    ramp = np.linspace(0, 65535, 64 * 48).reshape(48, 64)
    decoded = decode(encoded(Image.fromarray(ramp.astype(np.uint16)), kind))
    expected = Image.fromarray((ramp / 257).astype(np.uint8)).convert("RGB")
    assert difference(decoded.image, expected) < 1


def test_float_samples_keep_their_tones() -> None:
    ramp = np.linspace(0, 1, 64 * 48, dtype=np.float32).reshape(48, 64)
    decoded = decode(encoded(Image.fromarray(ramp), "TIFF"))
    assert difference(decoded.image.getchannel(0), Image.fromarray((ramp * 255).astype("u1"))) < 1


def test_orientation_is_applied_and_then_forgotten() -> None:
    exif = Image.Exif()
    exif[inbox.ORIENTATION] = 6  # turn a quarter to the right
    exif[0x0110] = "a camera"
    decoded = decode(encoded(picture(), "JPEG", exif=exif, quality=95))
    assert decoded.image.size == (48, 64)
    assert difference(decoded.image, picture().transpose(Image.Transpose.ROTATE_270)) < 12
    left = Image.Exif()
    left.load(decoded.exif)
    assert inbox.ORIENTATION not in left and left[0x0110] == "a camera"


def test_an_embedded_profile_is_converted_to_srgb() -> None:
    lab = ImageCms.createProfile("LAB", 5000)
    in_lab = ImageCms.profileToProfile(
        picture(), ImageCms.createProfile("sRGB"), lab, outputMode="LAB"
    )
    assert in_lab is not None
    profile = ImageCms.ImageCmsProfile(lab).tobytes()
    decoded = decode(encoded(in_lab, "TIFF", icc_profile=profile))
    assert difference(decoded.image, picture()) < 4


def test_a_broken_profile_is_ignored() -> None:
    decoded = decode(encoded(picture(), "PNG", icc_profile=b"not a profile"))
    assert difference(decoded.image, picture()) == 0


def test_alpha_is_kept_with_the_colour_under_it() -> None:
    image = picture()
    alpha = Image.linear_gradient("L").resize(image.size)
    image.putalpha(alpha)
    decoded = decode(encoded(image, "PNG"))
    assert decoded.alpha is not None and difference(decoded.alpha, alpha) == 0
    assert difference(decoded.image, picture()) == 0


def test_palette_transparency_becomes_alpha() -> None:
    image = picture().convert("P")
    image.info["transparency"] = image.getpixel((0, 0))
    decoded = decode(encoded(image, "PNG", transparency=image.getpixel((0, 0))))
    assert decoded.alpha is not None and decoded.alpha.getpixel((0, 0)) == 0


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
    assert inbox.identify(encoded(picture(), "PNG"), "it", BIG) == (48, 64)
    with pytest.raises(ImageError):
        inbox.identify(b"hello", "it", BIG)


def test_reading_refuses_what_is_not_a_regular_file_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to("nowhere")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "large.jpg").write_bytes(b"x" * 1000)
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, reason in {
        "folder.jpg": "a folder",
        "link.jpg": "a link to nowhere",
        "empty.jpg": "empty",
        "large.jpg": r"1,000 bytes; limits.max_bytes allows 999",
        "pipe.jpg": "a pipe or device",
        "missing.jpg": "No such file",
    }.items():
        with pytest.raises(ImageError, match=reason):
            inbox.read(tmp_path / name, 999)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_reading_refuses_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(ImageError, match="Permission denied"):
        inbox.read(path, BIG)


def names(found: list[inbox.Found], root: Path) -> list[str]:
    return [os.fsdecode(item.path.relative_to(root)) for item in found]


def test_folders_are_searched_in_order_with_their_subfolders(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", "sub/c.png", "sub/deep/d.png", ".hidden.png", ".git/e.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("x.part", "notes.txt", "Thumbs.db"):
        (tmp_path / name).touch()
    found = inbox.find([tmp_path], ("*.part", "*.txt", "Thumbs.db"))
    assert names(found, tmp_path) == ["a.jpg", "b.png", "sub/c.png", "sub/deep/d.png"]
    assert found[3].folder == PurePath("sub/deep")


def test_folders_that_are_apart_are_passed_over(tmp_path: Path) -> None:
    for name in ("a.png", "out/b.png", "style.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = inbox.find([tmp_path], (), (tmp_path / "out", tmp_path / "style.png"))
    assert names(found, tmp_path) == ["a.png"]


def test_a_file_named_twice_is_found_once_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    assert len(inbox.find([tmp_path / "a.png", tmp_path])) == 1
    with pytest.raises(UsageError, match=r"gone\.png"):
        inbox.find([tmp_path / "gone.png"])


def test_a_folder_named_like_an_image_is_found_to_be_told_of(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").mkdir()
    (tmp_path / "x.jpg" / "inside.png").touch()
    assert names(inbox.find([tmp_path]), tmp_path) == ["x.jpg"]


def test_names_that_are_not_utf_8_are_found(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")).touch()
    (found,) = inbox.find([tmp_path])
    assert os.fsencode(found.path).endswith(b"caf\xe9.png")
