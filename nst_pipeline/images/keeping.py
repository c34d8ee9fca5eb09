"""What of a content's metadata travels into its pastiche."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree import ElementTree

from PIL import Image

from nst_pipeline.config.settings import Keeping
from nst_pipeline.images import metadata
from nst_pipeline.images.metadata import CREDITS, DATES, DESCRIPTION, Metadata

WINDOWS_COMMENT = 0x9C9C
LONGEST_BLOCK = 65_000
"""Bytes of EXIF, and of XMP, that go into any file: JPEG's segments take no more."""
PACKET_BEGIN = b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>'
RDF, X = "http://www.w3.org/1999/02/22-rdf-syntax-ns#", "adobe:ns:meta/"
DC, XMP = "http://purl.org/dc/elements/1.1/", "http://ns.adobe.com/xap/1.0/"
RIGHTS, PHOTOSHOP = "http://ns.adobe.com/xap/1.0/rights/", "http://ns.adobe.com/photoshop/1.0/"
IPTC, IPTC_MORE = (
    "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/",
    "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
)
EXIF_IN_XMP = "http://ns.adobe.com/exif/1.0/"
PREFIXES = {
    "x": X, "rdf": RDF, "dc": DC, "xmp": XMP, "xmpRights": RIGHTS, "photoshop": PHOTOSHOP,
    "Iptc4xmpCore": IPTC, "Iptc4xmpExt": IPTC_MORE, "exif": EXIF_IN_XMP,
}  # fmt: skip
XMP_DATES = {XMP: ("CreateDate",), PHOTOSHOP: ("DateCreated",), EXIF_IN_XMP: ("DateTimeOriginal",)}
XMP_CREDITS = {
    DC: ("title", "description", "creator", "rights", "subject"),
    XMP: ("Rating", "Label"),
    RIGHTS: ("Marked", "Owner", "UsageTerms", "WebStatement"),
    PHOTOSHOP: ("Headline", "Credit", "Source", "Instructions", "AuthorsPosition", "CaptionWriter"),
    IPTC: ("AltTextAccessibility", "ExtDescrAccessibility", "CreatorContactInfo"),
}
XMP_PLACES = {
    PHOTOSHOP: ("City", "State", "Country"),
    IPTC: ("Location", "CountryCode"),
    IPTC_MORE: ("LocationShown", "LocationCreated"),
    EXIF_IN_XMP: (
        "GPSVersionID", "GPSLatitude", "GPSLongitude", "GPSAltitude", "GPSAltitudeRef",
        "GPSTimeStamp", "GPSImgDirection", "GPSImgDirectionRef", "GPSMapDatum",
    ),
}  # fmt: skip

for _prefix, _space in PREFIXES.items():
    ElementTree.register_namespace(_prefix, _space)


def exif_block(
    about: Metadata, keeping: Keeping, size: tuple[int, int], ours: Mapping[int, Any]
) -> Image.Exif:
    """Return the EXIF block of a pastiche.

    Args:
        about: of the content.
        keeping: what of it travels along.
        size: of the pastiche, (height, width).
        ours: tags that we write ourselves.
    """
    main, exif, gps = _kept(about, keeping)
    if exif:
        exif |= dict(zip((metadata.HEIGHT, metadata.WIDTH), size, strict=True))
        exif[metadata.COLOUR_SPACE] = metadata.SRGB
    block = _block(main, exif, gps, ours)
    while len(block.tobytes()) > LONGEST_BLOCK and (main or exif):
        sizes = ((len(str(d[tag])), tag, d) for d in (main, exif) for tag in d)
        _, tag, directory = max(sizes, key=lambda found: found[0])
        del directory[tag]
        block = _block(main, exif, gps, ours)
    return block


def _block(
    main: dict[int, Any], exif: dict[int, Any], gps: dict[int, Any], ours: Mapping[int, Any]
) -> Image.Exif:
    block = Image.Exif()
    for directory in (main, {metadata.EXIF: exif, metadata.GPS: gps}, ours):
        for tag, value in directory.items():
            if value != {}:
                block[tag] = value
    return block


def _kept(
    about: Metadata, keeping: Keeping
) -> tuple[dict[int, Any], dict[int, Any], dict[int, Any]]:
    """Return the tags of the main, the EXIF and the GPS directory that travel along."""
    if keeping == "none":
        return {}, {}, {}
    main, exif = dict(about.main), dict(about.exif)
    comment = main.pop(DESCRIPTION, None)  # its own tag says how the pastiche was made
    if isinstance(comment, str) and comment:
        words = comment.read() if isinstance(comment, metadata.Text) else comment
        main.setdefault(WINDOWS_COMMENT, f"{words}\0".encode("utf-16-le"))
    if keeping in ("date", "credits"):
        wanted = DATES | CREDITS if keeping == "credits" else DATES
        main, exif = ({t: v for t, v in d.items() if t in wanted} for d in (main, exif))
    if keeping != "all":
        exif.pop(metadata.MAKER_NOTE, None)  # nobody knows what it holds: the place, perhaps
    return main, exif, dict(about.gps) if keeping == "all" else {}


def xmp_packet(about: Metadata, keeping: Keeping) -> bytes:
    """Return the XMP packet of a pastiche: of the content's, what is known and still true.

    Of what describes the old pixels, its edits, its previews and its position, nothing is in it,
    but for the position where it is asked for. Empty: there is nothing to say.
    """
    names = {f"{{{space}}}{name}" for space, name in _names(keeping)}
    # Nested too deeply, no packet can be written.
    with contextlib.suppress(RecursionError):
        packet = _packet(about.xmp, names) if names else b""
        return packet if len(packet) <= LONGEST_BLOCK else b""
    return b""


def _names(keeping: Keeping) -> Iterator[tuple[str, str]]:
    """Give the namespace and the name of each property that travels along."""
    tables = {
        "none": (), "date": (XMP_DATES,), "credits": (XMP_DATES, XMP_CREDITS),
        "all-but-place": (XMP_DATES, XMP_CREDITS), "all": (XMP_DATES, XMP_CREDITS, XMP_PLACES),
    }  # fmt: skip
    for table in tables[keeping]:
        for space, names in table.items():
            yield from ((space, name) for name in names)


def _packet(old: bytes, names: set[str]) -> bytes:
    """Return a packet with those properties of an old one that have a name of ``names``."""
    description = ElementTree.Element(f"{{{RDF}}}Description", {f"{{{RDF}}}about": ""})
    for one in _descriptions(old):
        for name, value in one.attrib.items():
            if name in names:
                description.set(name, value)
        description.extend(child for child in one if child.tag in names)
    if not len(description) and len(description.attrib) == 1:
        return b""
    root = ElementTree.Element(f"{{{X}}}xmpmeta")
    ElementTree.SubElement(root, f"{{{RDF}}}RDF").append(description)
    return b"".join((PACKET_BEGIN, ElementTree.tostring(root, "utf-8"), b'<?xpacket end="w"?>'))


def _descriptions(packet: bytes) -> list[ElementTree.Element]:
    """Return the descriptions of an XMP packet; of one that cannot be read: none."""
    packet = packet.strip(b"\0 \r\n\t")
    if re.search(rb"<!(DOCTYPE|ENTITY)|\0", packet):
        return []  # which no packet has, but what makes a parser work for hours
    with contextlib.suppress(ElementTree.ParseError, ValueError, LookupError):
        return ElementTree.fromstring(packet).findall(f".//{{{RDF}}}Description")
    return []
