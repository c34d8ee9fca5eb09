import io
import sys

import numpy as np
import pillow_heif
import pytest
from conftest import picture
from PIL import Image, ImageCms, features

from nst_pipeline.errors import ImageError
from nst_pipeline.images import decoding

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
    exif[decoding.ORIENTATION] = 6  # turn a quarter to the right
    exif[0x0110] = "a camera"
    decoded = decode(encoded(picture(), "JPEG", exif=exif, quality=95))
    assert decoded.pixels.shape == (64, 48, 3)
    assert difference(decoded.pixels, picture().transpose(Image.Transpose.ROTATE_270)) < 12
    left = Image.Exif()
    left.load(decoded.exif)
    assert decoding.ORIENTATION not in left and left[0x0110] == "a camera"


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
    exif[decoding.ORIENTATION] = 6
    exif[0x0110] = "a telephone"
    decoded = decode(heic(exif=exif.tobytes()))
    assert difference(decoded.pixels, picture().transpose(Image.Transpose.ROTATE_270)) < 12
    left = Image.Exif()
    left.load(decoded.exif)
    assert decoding.ORIENTATION not in left and left[0x0110] == "a telephone"


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
