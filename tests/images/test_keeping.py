"""What of a content's metadata travels into its result."""

import io
import re
from typing import Any, get_args

import numpy as np
import pytest
from conftest import picture
from PIL import Image
from pydantic import ValidationError

from nst_pipeline.config.settings import Keeping, OutputSettings
from nst_pipeline.images import decoding
from nst_pipeline.images.encoding import encode
from nst_pipeline.images.keeping import xmp_packet
from nst_pipeline.images.metadata import NOTHING, Metadata

KINDS = [("png", 8), ("png", 16), ("jpeg", 8), ("webp", 8), ("tiff", 8), ("avif", 8)]
WHEN = "2020:01:02 03:04:05"
XMP = (
    '<?xpacket begin="" id=""?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/" '
    'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" '
    'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" tiff:Orientation="6" '
    'exif:PixelXDimension="4000" exif:GPSLatitude="52,30.1N" photoshop:City="Berlin" '
    'photoshop:DateCreated="2020-01-02"><dc:title><rdf:Alt><rdf:li xml:lang="x-default">Häuser'
    "</rdf:li></rdf:Alt></dc:title><xmp:Thumbnails>an old picture</xmp:Thumbnails>"
    '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
).encode()


def photo(**options: Any) -> decoding.Decoded:
    """Return a photograph as a camera and a photographer leave it."""
    block = Image.Exif()
    block[0x010E], block[0x010F], block[0x8298], block[0x0132] = "a child", "Maker", "(c) I", WHEN
    block[0x8769] = {
        0x9003: WHEN, 0x829A: 0.5, 0xA001: 65535, 0xA002: 4000, 0xA003: 3000,
        0x927C: b"a secret of the maker", 0xA005: {1: "R03", 2: b"0100"},
    }  # fmt: skip
    block[0x8825] = {1: "N", 2: (52.0, 30.0, 10.0)}
    buffer = io.BytesIO()
    picture().save(buffer, "JPEG", exif=block.tobytes(), xmp=XMP, **options)
    return decoding.decode(buffer.getvalue(), "it", 10**6)


def output(content: decoding.Decoded, **settings: Any) -> Image.Image:
    data = encode(
        np.asarray(picture(96, 72)), None, OutputSettings(**settings), {}, content.metadata
    )
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def xmp_of(image: Image.Image) -> str:
    found = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    return found if isinstance(found, str) else found.decode()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keeping", get_args(Keeping))
def test_as_much_travels_as_is_asked_for(keeping: Keeping, kind: tuple[str, int]) -> None:
    image = output(photo(), format=kind[0], bit_depth=kind[1], keep_exif=keeping)
    exif, xmp = image.getexif(), xmp_of(image)
    inner = exif.get_ifd(0x8769)
    level = get_args(Keeping).index(keeping)
    assert (inner.get(0x9003) == WHEN) is (exif.get(0x0132) == WHEN) is (level >= 1)
    assert ("2020-01-02" in xmp) is (level >= 1)
    assert (exif.get(0x8298) == "(c) I") is ("Häuser" in xmp) is (level >= 2)
    assert (exif.get(0x9C9C) == "a child\0".encode("utf-16-le")) is (level >= 2)
    assert (exif.get(0x010F) == "Maker") is (inner.get(0x829A) == 0.5) is (level >= 3)
    assert (exif.get_ifd(0x8825).get(1) == "N") is ("Berlin" in xmp) is (level >= 4)
    assert ("52,30.1N" in xmp) is (0x927C in inner) is (level >= 4)


@pytest.mark.parametrize("kind", KINDS)
def test_what_travels_is_true_of_the_new_picture(kind: tuple[str, int]) -> None:
    image = output(photo(), format=kind[0], bit_depth=kind[1], keep_exif="all")
    inner, xmp = image.getexif().get_ifd(0x8769), xmp_of(image)
    assert (inner[0xA002], inner[0xA003], inner[0xA001]) == (96, 72, 1)
    assert 0xA005 not in inner  # which said Adobe RGB
    for old in ("Orientation", "4000", "old picture"):
        assert old not in xmp
    assert 0x0112 not in image.getexif()


def test_without_exif_of_the_content_none_is_made_up() -> None:
    plain = decoding.Decoded(np.asarray(picture()), None)
    image = output(plain, keep_exif="all")
    assert set(image.getexif()) == {0x010E, 0x0131} and not xmp_of(image)


@pytest.mark.parametrize(("said", "meant"), [(True, "all"), (False, "none"), ("none", "none")])
def test_yes_and_no_go_on_to_mean_what_they_meant(said: Any, meant: str) -> None:
    assert OutputSettings(keep_exif=said).keep_exif == meant
    with pytest.raises(ValidationError):
        OutputSettings(keep_exif="some")


def test_what_a_jpeg_has_no_room_for_is_left_out_from_the_largest_down() -> None:
    full = {0x927C: b"x" * 60_000, 0x9286: b"y" * 40_000, 0x829A: 0.5}
    about = Metadata({0x0110: "a camera"}, full, {})
    image = output(decoding.Decoded(np.asarray(picture()), None, about), format="jpeg",
                   keep_exif="all")  # fmt: skip
    inner = image.getexif().get_ifd(0x8769)
    assert image.getexif()[0x0110] == "a camera" and inner[0x829A] == 0.5
    assert 0x927C not in inner and len(inner[0x9286]) == 40_000


NESTED = b"<a>" * 50_000 + b"</a>" * 50_000
HOSTILE = {
    "entities": b'<!DOCTYPE x [<!ENTITY a "b">]>' + XMP,
    "UTF-16": XMP.decode().encode("utf-16"),
    "cut short": XMP[:400],
    "no XML": b"\xff\xfe\xfd",
    "deep": XMP.replace(b"<dc:title>", b"<dc:title>" + NESTED),
    "long": XMP.replace("Häuser".encode(), b"x" * 70_000),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_packet_that_cannot_be_carried_is_left_out(what: str) -> None:
    assert xmp_packet(Metadata({}, {}, {}, HOSTILE[what]), "all") == b""


def test_a_packet_is_known_by_its_names_and_not_by_its_prefixes() -> None:
    other = XMP.replace(b"photoshop:", b"ps:").replace(b"xmlns:photoshop=", b"xmlns:ps=")
    packet = xmp_packet(Metadata({}, {}, {}, other), "date").decode()
    assert re.search(r'photoshop:DateCreated="2020-01-02"', packet) and "Berlin" not in packet


# Resolution


@pytest.mark.parametrize("kind", KINDS)
def test_the_resolution_is_kept_or_set(kind: tuple[str, int]) -> None:
    settings: dict[str, Any] = {"format": kind[0], "bit_depth": kind[1]}

    def dpi(image: Image.Image) -> list[float]:
        exif = image.getexif()
        said = [float(exif[tag]) for tag in (0x011A, 0x011B) if tag in exif]
        assert not said or exif[0x0128] == 2
        if said and "dpi" in image.info:
            assert image.info["dpi"] == pytest.approx(said, abs=0.02)
        return said

    assert dpi(output(photo(dpi=(300, 300)), **settings)) == [300, 300]
    assert dpi(output(photo(dpi=(300, 300)), **settings, dpi=72)) == [72, 72]
    assert dpi(output(decoding.Decoded(np.asarray(picture()), None, NOTHING), **settings)) == []
    if kind[0] in ("png", "jpeg", "tiff"):
        assert "dpi" in output(photo(dpi=(300, 300)), **settings).info


@pytest.mark.parametrize("dpi", [0, -1, 1e9, float("nan"), "many"])
def test_a_resolution_that_is_none_is_refused(dpi: Any) -> None:
    with pytest.raises(ValidationError):
        OutputSettings(dpi=dpi)
