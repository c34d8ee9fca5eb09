"""Text in a picture: its font, its width, and lines that fit."""

import bisect
import functools
import re
import unicodedata

from PIL import ImageFont

ELLIPSIS = "…"
FONT_CHARACTERS = frozenset(map(chr, range(32, 127))) | {"·", ELLIPSIS}
"""What Pillow's own font can write."""


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Return Pillow's own font in a size in pixels."""
    found = ImageFont.load_default(size)
    assert isinstance(found, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return found


def plain(text: str) -> str:
    """Return ``text`` in characters that the font has: without accents, ``?`` for the rest."""
    parts = unicodedata.normalize("NFKD", text)
    bare = "".join(c for c in parts if not unicodedata.combining(c))
    return "".join(c if c in FONT_CHARACTERS else " " if c.isspace() else "?" for c in bare)


def width(text: str, size: int) -> int:
    """Return the width of a line in pixels."""
    return round(font(size).getlength(text) + 0.5)


def line_height(size: int) -> int:
    """Return the distance of two lines in pixels."""
    return round(size * 1.35)


def lines(text: str, room: int, size: int, max_lines: int) -> tuple[str, ...]:
    """Break ``text`` into lines; what is too long ends with an ellipsis.

    Lines end after a space, a hyphen, an underscore, a slash or a file name's dot if they can.

    Args:
        text: on one line.
        room: width in pixels.
        size: of the font.
        max_lines: how many there may be.
    """
    rest = plain(text).strip()
    found: list[str] = []
    while rest and len(found) < max_lines - 1:
        line = _begin(rest, room, size)
        found.append(line.strip())
        rest = rest[len(line) :].strip()
    if rest:
        found.append(_shorten(rest, room, size))
    return tuple(found)


def _begin(text: str, room: int, size: int) -> str:
    """Return as much of the beginning of ``text`` as fits, one character at least."""
    length = _fitting(text, room, size)
    if length == len(text):
        return text
    ends = [m.end() for m in re.finditer(r"[\s\-_/]|\.(?=[a-z])", text[: length + 1])]
    good = [end for end in ends if end > 0 and width(text[:end].strip(), size) <= room]
    return text[: good[-1]] if good else text[:length]


def _shorten(text: str, room: int, size: int) -> str:
    if width(text, size) <= room:
        return text
    length = _fitting(text, room - width(ELLIPSIS, size), size)
    return text[:length].rstrip() + ELLIPSIS


def _fitting(text: str, room: int, size: int) -> int:
    """Return how many characters fit, one at least."""
    sizes = range(1, len(text) + 1)
    return max(1, bisect.bisect_right(sizes, room, key=lambda n: width(text[:n], size)))
