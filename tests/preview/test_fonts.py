"""Names of all the world's writing on a sheet."""

import os
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont, features

from nst_pipeline.preview import typesetting
from nst_pipeline.preview.fonts import face_for, packaged

ROOT = Path(__file__).parents[2]
NAMES = (
    "Tübingen-été.jpg", "Ελλάδα.jpg", "Привет мир.jpg", "שלום עולם.jpg", "مرحبا بالعالم.jpg",
    "हिन्दी चित्र.jpg", "ไทย.jpg", "日本の海.jpg", "中文图片.jpg", "한국어 사진.jpg", "paint 🎨.png",
)  # fmt: skip


def drawn(text: str) -> np.ndarray:
    """Return a line in black on white."""
    image = Image.new("L", (300, 40), 255)
    typesetting.write(ImageDraw.Draw(image), 5, 5, text, "black", 20)
    return np.asarray(image)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_written_with_its_own_letters(name: str) -> None:
    assert typesetting.plain(name) == name
    assert all(ord(c) in face.characters() for face, part in typesetting.runs(name) for c in part)
    missing = drawn(name) != drawn("".join("\uffff" if c.isalpha() else c for c in name))
    assert missing.any() and drawn(name).min() < 100
    right = np.nonzero((drawn(name) < 255).any(0))[0].max()
    assert abs(right - 5 - typesetting.width(name, 20)) <= 4


def test_what_no_font_has_is_written_as_its_code() -> None:
    assert typesetting.plain("a\u0378\ue000\U0003ffff?\n") == r"a\u0378\ue000\U0003ffff? "


def test_letters_with_their_marks_apart_become_one() -> None:
    assert typesetting.plain(unicodedata.normalize("NFD", "été")) == "été"


def test_a_line_does_not_end_between_a_letter_and_its_mark() -> None:
    word = "नि" * 40
    (first, *_) = typesetting.lines(word, 100, 15, 9)
    assert len(first) > 3 and not unicodedata.category(word[len(first)]).startswith("M")


@pytest.mark.skipif(not features.check("raqm"), reason="Pillow has no raqm")
def test_hebrew_runs_from_right_to_left_and_its_suffix_does_not() -> None:
    face = face_for("א")
    assert face and face.path
    font = ImageFont.truetype(face.path, 20, layout_engine=ImageFont.Layout.BASIC)
    images = []
    for text in ("בא", "אב"):
        image = Image.new("L", (300, 40), 255)
        baseline = 5 + typesetting.main_face().sized(20).getmetrics()[0]
        ImageDraw.Draw(image).text((5, baseline), text, "black", font, anchor="ls")
        images.append(np.asarray(image, float))
    backwards, forwards = (np.abs(drawn("אב") - image).mean() for image in images)
    assert backwards < forwards / 3
    assert [part for _, part in typesetting.runs("שלום עולם.jpg")][0].startswith("שלום עולם")


def test_the_fonts_of_the_package_come_first() -> None:
    assert packaged() and {face_for(c) for c in "aЖאน"} <= set(packaged())


@pytest.mark.parametrize("has_fontconfig", [True, False])
def test_without_the_packages_the_system_is_asked_and_then_pillow(has_fontconfig: bool) -> None:
    if has_fontconfig and not shutil.which("fc-match"):
        pytest.skip("there is no fontconfig")
    code = (
        "from nst_pipeline.preview import fonts, typesetting\n"
        "fonts.PACKAGES = ('no_such_fonts',)\n"
        "print(typesetting.plain('Ab·Ж\\ue000'), typesetting.width('AbЖ', 20) > 20)\n"
        "print([face.path is None for face, _ in typesetting.runs('Ab')])"
    )
    environment = {**os.environ, "PYTHONUTF8": "1"} | ({} if has_fontconfig else {"PATH": ""})
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment,
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    told = "Ab·Ж" if has_fontconfig else r"Ab·\u0416"
    assert done.stdout.splitlines() == [rf"{told}\ue000 True", "[True]"]
