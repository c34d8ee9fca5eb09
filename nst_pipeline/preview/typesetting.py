"""Text in a picture: its fonts, its width, and lines that fit."""

import bisect
import re
import unicodedata
from typing import Any

from PIL import ImageDraw, ImageFont

from nst_pipeline.preview.fonts import Face, face_for, main_face

ELLIPSIS = "…"


def plain(text: str) -> str:
    r"""Return ``text`` in characters that there are fonts for, the others as codes (``\u0378``)."""
    composed = unicodedata.normalize("NFC", text)
    return "".join(" " if c.isspace() else c if face_for(c) else _code(c) for c in composed)


def _code(character: str) -> str:
    return character.encode("unicode_escape").decode()


def runs(text: str) -> list[tuple[Face, str]]:
    """Return a line in parts of one font each.

    What is no letter or figure stays in the font of what is before it, if that has it: so signs
    between words that run from right to left run along.
    """
    found: list[tuple[Face, str]] = []
    for character in text:
        face, before = found[-1] if found else (main_face(), " ")
        is_free = character == " " and unicodedata.category(before[-1]).startswith("S")
        if is_free or character.isalnum() or ord(character) not in face.characters():
            face = face_for(character) or face
        if found and found[-1][0] == face:
            found[-1] = face, found[-1][1] + character
        else:
            found.append((face, character))
    return found


def _direction(font: ImageFont.FreeTypeFont) -> dict[str, Any]:
    """Return what has letters that run from right to left stand in a line that does not."""
    return {"direction": "ltr"} if font.layout_engine == ImageFont.Layout.RAQM else {}


def _length(font: ImageFont.FreeTypeFont, text: str) -> float:
    return font.getlength(text, **_direction(font))


def width(text: str, size: int) -> int:
    """Return the width of a line in pixels."""
    return round(sum(_length(face.sized(size), part) for face, part in runs(text)) + 0.5)


def write(pen: ImageDraw.ImageDraw, x: int, y: int, text: str, colour: str, size: int) -> None:
    """Write a line that begins at (x, y), its upper left corner."""
    baseline, place = y + main_face().sized(size).getmetrics()[0], float(x)
    for face, part in runs(text):
        font = face.sized(size)
        pen.text((place, baseline), part, colour, font, anchor="ls", **_direction(font))
        place += _length(font, part)


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
    """Return how many characters fit, one at least; a letter keeps its marks."""
    sizes = range(1, len(text) + 1)
    count = max(1, bisect.bisect_right(sizes, room, key=lambda n: width(text[:n], size)))
    while 1 < count < len(text) and unicodedata.category(text[count]).startswith("M"):
        count -= 1
    return count
