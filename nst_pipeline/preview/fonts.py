"""Fonts by what they can write: those of the packages with Noto, and then the system's."""

import functools
import importlib.util
import subprocess
from dataclasses import dataclass
from pathlib import Path

from fontTools.ttLib import TTFont, TTLibError
from PIL import ImageFont

PACKAGES = ("manimgx_fonts", "manimgx_fonts_cjk")
"""What holds Noto Sans for many scripts, and for those of China, Japan and Korea."""
MAIN = "NotoSans[wght].ttf"
REGULAR = 400
OWN_CHARACTERS = frozenset(map(ord, "·…")) | frozenset(range(32, 127))
"""What Pillow's own font can write."""


@dataclass(frozen=True)
class Face:
    """A font: its file, and which of those in it. Without a file it is Pillow's own."""

    path: Path | None = None
    index: int = 0

    def characters(self) -> frozenset[int]:
        """Return what it can write."""
        return _characters(self)

    def sized(self, pixels: int) -> ImageFont.FreeTypeFont:
        """Return it in a size in pixels."""
        return _sized(self, pixels)


@functools.cache
def _characters(face: Face) -> frozenset[int]:
    if face.path is None:
        return OWN_CHARACTERS
    # Of a variable font, the upper half of the index says which instance.
    with TTFont(face.path, lazy=True, fontNumber=face.index & 0xFFFF) as font:
        return frozenset(font.getBestCmap() or ())


@functools.cache
def _sized(face: Face, pixels: int) -> ImageFont.FreeTypeFont:
    if face.path is None:
        own = ImageFont.load_default(pixels)
        assert isinstance(own, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
        return own
    font = ImageFont.truetype(face.path, pixels, face.index)
    if "[wght]" in face.path.name or "-VF." in face.path.name:
        font.set_variation_by_axes([REGULAR])
    return font


@functools.cache
def packaged() -> tuple[Face, ...]:
    """Return the upright fonts of the packages that are installed, the one for Latin first."""
    specs = filter(None, map(importlib.util.find_spec, PACKAGES))
    folders = [Path(place) for spec in specs for place in spec.submodule_search_locations or ()]
    files = [path for folder in folders for path in sorted(folder.glob("*.tt[fc]"))]
    upright = [path for path in files if "-Italic" not in path.name]
    return tuple(Face(path) for path in sorted(upright, key=lambda path: path.name != MAIN))


@functools.cache
def main_face() -> Face:
    """Return the font that writes all that it can."""
    faces = packaged()
    return faces[0] if faces and faces[0].path and faces[0].path.name == MAIN else Face()


@functools.cache
def face_for(character: str) -> Face | None:
    """Return a font that can write a character; None: there is none."""
    known = (main_face(), *packaged(), *_used_of_system)
    for face in known:
        if ord(character) in face.characters():
            return face
    found = _of_system(character)
    if found:
        _used_of_system.append(found)
    return found


_used_of_system: list[Face] = []
"""The system's fonts that were of use before."""


def _of_system(character: str) -> Face | None:
    """Return the system's font that can write a character, as fontconfig knows it, if any."""
    pattern = f"sans:charset={ord(character):x}:scalable=true:color=false"
    try:
        done = subprocess.run(
            ["fc-match", "--format", "%{file}\n%{index}", pattern],
            capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        path, index = done.stdout.split("\n")
        face = Face(Path(path), int(index))
        is_fit = ord(character) in face.characters() and face.sized(16)
    except (OSError, ValueError, subprocess.TimeoutExpired, TTLibError):
        return None  # no fontconfig, or a font that cannot be read
    return face if is_fit else None
