import os
from pathlib import Path, PurePath

import pytest

from nst_pipeline.errors import ImageError, UsageError
from nst_pipeline.inbox import reading, scanner

BIG = 10**9


def test_reading_refuses_what_is_not_a_regular_file_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to("nowhere")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "large.jpg").write_bytes(b"x" * 1000)
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, reason in {
        "folder.jpg": "a folder",
        "link.jpg": "a link to nowhere",
        "empty.jpg": "empty",
        "large.jpg": r"1,000 bytes; limits.max_bytes allows 999",
        "pipe.jpg": "a pipe or device",
        "missing.jpg": "No such file",
    }.items():
        with pytest.raises(ImageError, match=reason):
            reading.read(tmp_path / name, 999)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_reading_refuses_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(ImageError, match="Permission denied"):
        reading.read(path, BIG)


def names(found: list[scanner.SourceFile], root: Path) -> list[str]:
    return [os.fsdecode(item.path.relative_to(root)) for item in found]


def test_folders_are_searched_in_order_with_their_subfolders(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", "sub/c.png", "sub/deep/d.png", ".hidden.png", ".git/e.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("x.part", "notes.txt", "Thumbs.db"):
        (tmp_path / name).touch()
    found = scanner.find([tmp_path], ("*.part", "*.txt", "Thumbs.db"))
    assert names(found, tmp_path) == ["a.jpg", "b.png", "sub/c.png", "sub/deep/d.png"]
    assert found[3].folder == PurePath("sub/deep")


def test_folders_that_are_apart_are_passed_over(tmp_path: Path) -> None:
    for name in ("a.png", "out/b.png", "style.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = scanner.find([tmp_path], (), (tmp_path / "out", tmp_path / "style.png"))
    assert names(found, tmp_path) == ["a.png"]


def test_a_file_named_twice_is_found_once_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    assert len(scanner.find([tmp_path / "a.png", tmp_path])) == 1
    with pytest.raises(UsageError, match=r"gone\.png"):
        scanner.find([tmp_path / "gone.png"])


def test_a_folder_named_like_an_image_is_found_to_be_told_of(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").mkdir()
    (tmp_path / "x.jpg" / "inside.png").touch()
    assert names(scanner.find([tmp_path]), tmp_path) == ["x.jpg"]


def test_names_that_are_not_utf_8_are_found(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")).touch()
    (found,) = scanner.find([tmp_path])
    assert os.fsencode(found.path).endswith(b"caf\xe9.png")
