"""Names that a file can have."""

import hashlib
import os
from pathlib import Path

import pytest

from nst_pipeline.files import NAME_BYTES, fitted_name, numbered

LONG = "p" * 251
"""With ``.png``, the longest name that a file can have."""


def size(name: str) -> int:
    return len(os.fsencode(name))


def test_a_name_that_fits_is_left_as_it_is() -> None:
    assert fitted_name("photo-ink", ".png") == "photo-ink.png"
    assert fitted_name(LONG, ".png") == f"{LONG}.png"
    assert fitted_name("p" * 250, ".png", room=1) == "p" * 250 + ".png"


@pytest.mark.parametrize("room", [0, 5, 200])
def test_a_longer_one_ends_in_its_digest_and_is_as_long_as_may_be(room: int) -> None:
    stem = LONG + "p"
    name = fitted_name(stem, ".png", room=room)
    assert size(name) == NAME_BYTES - room
    digest = hashlib.sha256(stem.encode()).hexdigest()
    assert name == f"{'p' * (242 - room)}~{digest[:8]}.png"


def test_different_stems_give_different_names() -> None:
    stems = [LONG + end for end in ("-ink", "-oil", "-oil-2", "-oil~", "")]
    assert len({fitted_name(stem, ".jpeg") for stem in stems}) == len(stems)


@pytest.mark.parametrize("letter", [b"\xc3\xa9", b"\xe6\xbc\xa2", b"\xf0\x9f\x8e\xa8", b"\xe9"])
@pytest.mark.parametrize("shift", range(4))
def test_a_name_is_cut_between_letters_and_can_be_a_file(
    tmp_path: Path, letter: bytes, shift: int
) -> None:
    raw = b"x" * shift + letter * (300 // len(letter))
    name = fitted_name(os.fsdecode(raw), ".png")
    assert NAME_BYTES - 3 <= size(name) <= NAME_BYTES
    start = os.fsencode(name).partition(b"~")[0]
    assert raw.startswith(start) and (len(start) - shift) % len(letter) == 0
    (tmp_path / name).touch()
    assert os.listdir(tmp_path) == [name]  # noqa: PTH208 - the name alone, as it is stored


def test_a_suffix_that_leaves_no_room_is_shortened_too(tmp_path: Path) -> None:
    names = {fitted_name("a", "." + letter * 254) for letter in "xy"}
    assert len(names) == 2 and {size(name) for name in names} == {NAME_BYTES}
    for name in names:
        (tmp_path / name).touch()


@pytest.mark.parametrize("name", [f"{LONG}.png", "é" * 125 + ".jpeg", "a." + "x" * 253])
def test_a_number_is_put_into_a_name_of_any_length(tmp_path: Path, name: str) -> None:
    assert size(name) == NAME_BYTES
    paths = {numbered(tmp_path / name, number) for number in range(1, 12)}
    for path in paths:
        path.touch(exist_ok=False)
    assert len(paths) == 11 and tmp_path / name in paths
    assert numbered(tmp_path / "photo.png", 2) == tmp_path / "photo-2.png"
