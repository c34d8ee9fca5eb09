"""Reading a file whole, or saying why not."""

import os
import resource
import stat
from pathlib import Path

import pytest
from support import draw

from nst_pipeline.errors import BeingWrittenError, ImageError, NotReadyError, UnreadableError
from nst_pipeline.files import identity
from nst_pipeline.inbox.reading import read

BIG = 10**9


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("folder.jpg", ImageError, "a folder, not an image file"),
        ("pipe.jpg", ImageError, "a pipe or device"),
        ("large.jpg", ImageError, r"1,000 bytes; limits\.max_bytes allows 999"),
        ("link.jpg", NotReadyError, "a link to nowhere"),
        ("loop.jpg", NotReadyError, "a link to nowhere"),
        ("empty.jpg", NotReadyError, "empty; copy it again"),
        ("missing.jpg", UnreadableError, "No such file"),
        ("large.jpg/below.jpg", UnreadableError, "Not a directory"),
        ("x" * 256, UnreadableError, "File name too long"),
        ("socket.jpg", ImageError, "a socket or device"),
        ("far.jpg", NotReadyError, "a link to nowhere"),
    ],
)
def test_what_is_not_a_regular_file_is_refused_with_its_reason(
    tmp_path: Path, name: str, kind: type[ImageError], reason: str
) -> None:
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to("nowhere")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "far.jpg").symlink_to("x" * 256)
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "large.jpg").write_bytes(b"x" * 1000)
    os.mkfifo(tmp_path / "pipe.jpg")
    os.mknod(tmp_path / "socket.jpg", stat.S_IFSOCK | 0o600)
    with pytest.raises(ImageError, match=reason) as caught:
        read(tmp_path / name, 999)
    assert caught.type is kind and str(caught.value).startswith(f"{tmp_path / name}: ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("which", ["file", "folder"])
def test_a_file_without_permission_is_refused(tmp_path: Path, which: str) -> None:
    path = tmp_path / "folder/secret.png"
    path.parent.mkdir()
    path.write_bytes(b"x")
    (path if which == "file" else path.parent).chmod(0)
    with pytest.raises(UnreadableError, match="Permission denied"):
        read(path, BIG)
    path.parent.chmod(0o700)


def test_a_process_with_too_many_files_open_says_nothing_of_the_file(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        with pytest.raises(UnreadableError, match="Too many open files"):
            read(tmp_path / "a.png", BIG)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_file_with_a_writer_is_not_read(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    with (tmp_path / "a.png").open("ab"), pytest.raises(BeingWrittenError):
        read(tmp_path / "a.png", BIG)
    assert read(tmp_path / "a.png", BIG) == (tmp_path / "a.png").read_bytes()


def test_another_file_than_was_listed_is_not_read(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", 1)
    listed = identity((tmp_path / "a.png").stat())
    assert read(tmp_path / "a.png", BIG, listed)
    draw(tmp_path / "b.png", 2)
    (tmp_path / "b.png").rename(tmp_path / "a.png")
    with pytest.raises(BeingWrittenError):
        read(tmp_path / "a.png", BIG, listed)
