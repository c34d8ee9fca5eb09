"""Names that a file can have, and files that appear whole or not at all."""

import hashlib
import os
import resource
import sys
from pathlib import Path

import pytest
from support import NOBODY, as_nobody

from nst_pipeline.errors import CannotCreateError, OutputError
from nst_pipeline.files import (
    NAME_BYTES,
    as_text,
    changed_ns,
    ensure_folder,
    fitted_name,
    free_bytes,
    is_numbered,
    numbered,
    publish,
    shown,
    signature,
)
from nst_pipeline.folders import PRIVATE, make_folder

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


def test_a_published_file_replaces_the_old_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    publish(path, b"old")
    publish(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_published_files_have_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    publish(tmp_path / "file", b"x")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_write_that_fails_half_way_leaves_the_old_file_and_nothing_half_written(
    tmp_path: Path,
) -> None:
    path = tmp_path / "file"
    publish(path, b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OutputError, match="File too large"):
            publish(path, b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_where_nothing_can_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotCreateError, match="permissions"):
        ensure_folder(tmp_path / "file" / "folder")
    with pytest.raises(CannotCreateError):
        publish(tmp_path / "file" / "x", b"")


def test_a_place_of_another_user_is_told_to_be_so(anybodys_folder: Path) -> None:
    theirs = anybodys_folder / "theirs"
    publish(theirs, b"x")
    said = as_nobody(lambda: publish(theirs, b"y"))
    assert f"{theirs}: cannot be written: Permission denied: {theirs} belongs to root" in said
    said = as_nobody(lambda: ensure_folder(anybodys_folder / "new/deep"))
    assert f"{anybodys_folder} belongs to root (mode 0755), and this process runs as nobody" in said
    (own := anybodys_folder / "own").mkdir(0o500)
    os.chown(own, NOBODY, NOBODY)
    assert f"{own} belongs to nobody (mode 0500);" in as_nobody(lambda: ensure_folder(own))


def test_folders_are_made_and_cleared_however_deep_they_are_nested(deep_tmp_path: Path) -> None:
    deepest = deep_tmp_path.joinpath(*"d" * (sys.getrecursionlimit() + 100))
    make_folder(deepest)
    (deepest / ".nst-unfinished").touch()
    (deepest / "whole.png").touch()
    assert PRIVATE.remove_temporaries(deep_tmp_path) == 1
    assert [path.name for path in deepest.iterdir()] == ["whole.png"]


def test_any_path_can_be_shown() -> None:
    assert shown(Path(os.fsdecode(b"caf\xe9/\xc3\xa9"))) == "caf\\xe9/é"


UNSAFE = [*map(chr, (*range(0x20), *range(0x7F, 0xA0))), *"\u2028\u2029\u061c\u200e\u200f"]
UNSAFE += [*map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A)))]


@pytest.mark.parametrize("sign", UNSAFE)
def test_a_shown_name_is_one_line_without_anything_that_acts(sign: str) -> None:
    name = shown(f"a{sign}b.png")
    assert len(name.splitlines()) == 1 and sign not in name
    assert name == f"a{ascii(sign)[1:-1]}b.png" == shown(name)


@pytest.mark.parametrize("name", ["é 漢 🎨.png", "👩\u200d🎨.png", "a\\b.png", "مصر.png"])
def test_a_harmless_name_is_shown_as_it_is(name: str) -> None:
    assert shown(name) == as_text(name) == name


def test_a_path_as_text_for_programs_keeps_all_that_is_text() -> None:
    assert as_text(Path(os.fsdecode(b"a\n\xe9"))) == "a\n\\xe9"


def test_a_numbered_name_is_known_for_what_it_is_the_number_of(tmp_path: Path) -> None:
    plain = tmp_path / f"{LONG}.png"
    for number in (1, 2, 11):
        assert is_numbered(numbered(plain, number), plain)
        assert is_numbered(numbered(tmp_path / "a-2.png", number), tmp_path / "a-2.png")
    for other in ("a-0.png", "a-x.png", "b-2.png", "a-2.jpg", "sub/a-2.png"):
        assert not is_numbered(tmp_path / other, tmp_path / "a.png")


def test_a_signature_changes_with_a_files_bytes_its_times_and_its_place(tmp_path: Path) -> None:
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_bytes(b"1")
    other.write_bytes(b"1")
    signatures = [signature(other.stat()), signature(path.stat())]
    os.utime(path, ns=(1, 1))
    signatures.append(signature(path.stat()))
    path.write_bytes(b"22")
    signatures.append(signature(path.stat()))
    os.utime(path, ns=(1, 1))
    signatures.append(signature(path.stat()))
    assert len(set(signatures)) == len(signatures)
    assert changed_ns(signatures[-1]) == path.stat().st_ctime_ns
    assert signature(path.stat()) == signatures[-1]


def test_free_bytes_of_a_folder_that_is_not_made_yet(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "not/yet") == pytest.approx(free_bytes(tmp_path), rel=0.1)
