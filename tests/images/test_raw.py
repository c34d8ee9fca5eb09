"""RAW files of cameras: never painted from their thumbnail."""

import io
import struct
import sys
from typing import Any

import numpy as np
import pytest
import tifffile
from fuzzing import picture, raw_file

from nst_pipeline.errors import ImageError
from nst_pipeline.images.decoding import Decoded, decode, identify


def read(data: bytes, max_pixels: int = 10**6) -> Decoded:
    return decode(data, "it", max_pixels)


def camera_file(photometric: int, compression: int = 1) -> bytes:
    """Return what NEF and ARW are: a TIFF with a thumbnail, and the sensor's samples below it."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(np.asarray(picture(16, 12)), photometric="rgb", subfiletype=1, subifds=1,
                     metadata=None, extratags=[(271, 2, 0, "NIKON CORPORATION", True)])  # fmt: skip
        sensor = np.zeros((48, 64, 3) if photometric == 34892 else (48, 64), np.uint16)
        writer.write(sensor, photometric=photometric, subfiletype=0, metadata=None)
    data = buffer.getvalue()
    plain = struct.pack("<HHIHH", 259, 3, 1, 1, 0)
    assert data.count(plain) == 2
    below = data.rindex(plain)
    return data[:below] + struct.pack("<HHIHH", 259, 3, 1, compression, 0) + data[below + 12 :]


RAW_FILES = {
    "DNG": raw_file(),
    "NEF": camera_file(32803, 34713),
    "ARW": camera_file(32803, 32767),
    "linear DNG": camera_file(34892),
    "CR2": b"II*\0\x10\0\0\0CR\2\0" + bytes(500),
    "CR3": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(500),
    "RAF": b"FUJIFILMCCD-RAW 0201" + bytes(500),
    "ORF": b"IIRO\x08\0\0\0" + bytes(500),
    "RW2": b"IIU\0\x08\0\0\0" + bytes(500),
}


@pytest.mark.parametrize("kind", RAW_FILES)
@pytest.mark.parametrize("look", [decode, identify])
def test_without_its_package_a_raw_file_tells_what_to_install(
    look: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rawpy", None)
    with pytest.raises(ImageError, match=r"^it: a camera's RAW file.*'nst-pipeline\[raw\]'"):
        look(RAW_FILES[kind], "it", 10**6)


def test_a_raw_file_is_developed_in_its_full_size() -> None:
    pytest.importorskip("rawpy")
    decoded = read(raw_file(96, 128))
    assert decoded.pixels.shape == (96, 128, 3) and decoded.pixels.dtype == np.uint16
    assert decoded.alpha is None and decoded.note == ""
    # Colours are the camera's, brightness LibRaw's: the picture must be the same.
    expected = np.asarray(picture(128, 96)).astype(float)
    for channel in range(3):
        both = np.corrcoef(decoded.pixels[..., channel].ravel(), expected[..., channel].ravel())
        assert both[0, 1] > 0.8
    assert decoded.metadata.main[0x010F] == "Test"
    assert identify(raw_file(96, 128), "it", 10**6) == (96, 128)
    assert np.array_equal(decoded.pixels, read(raw_file(96, 128)).pixels)


def test_a_camera_that_is_not_known_is_no_damage() -> None:
    pytest.importorskip("rawpy")
    with pytest.raises(ImageError, match="^it: a RAW file of a camera that LibRaw") as it:
        read(RAW_FILES["CR2"])
    assert "b'" not in str(it.value)


def test_a_raw_file_that_is_too_large_or_damaged_is_refused() -> None:
    pytest.importorskip("rawpy")
    data = raw_file(96, 128)
    with pytest.raises(ImageError, match="128 x 96 pixels; limits.max_pixels allows 1,000"):
        read(data, 1000)
    with pytest.raises(ImageError, match=r"damaged or cut short.*\(LibRaw\w+: \w"):
        read(data[: len(data) // 2])


def test_a_tiff_that_only_names_a_camera_is_no_raw_file() -> None:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.asarray(picture(64, 48)), photometric="rgb", metadata=None,
                     extratags=[(271, 2, 0, "NIKON", True),
                                (50706, 1, 4, (1, 4, 0, 0), True)])  # fmt: skip
    assert np.array_equal(read(buffer.getvalue()).pixels, np.asarray(picture(64, 48)))
