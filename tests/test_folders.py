"""Folders that others write to as well: links, names, permissions, unfinished files."""

import errno
import os
from pathlib import Path

import pytest

from nst_pipeline import folders as module
from nst_pipeline.folders import PATH_BYTES, Folders, LinkError


@pytest.fixture(params=["at once", "step by step"], autouse=True)
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Open folders with a kernel that knows how to do it at once, and with one that does not."""
    if request.param == "step by step":
        monkeypatch.setattr(module, "_beneath", lambda *_: None)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a folder in which ``link`` leads to a folder outside, and ``in`` to one inside."""
    (tmp_path / "root/deep/er").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("theirs")
    (tmp_path / "root/deep/file").write_text("ours")
    (tmp_path / "root/link").symlink_to(tmp_path / "outside")
    (tmp_path / "root/in").symlink_to(tmp_path / "root/deep")
    (tmp_path / "root/deep/er/out").symlink_to(tmp_path / "outside")
    return tmp_path / "root"


@pytest.mark.parametrize("link", ["link", "in", "deep/er/out"])
def test_nothing_is_done_behind_a_link_below_a_root(root: Path, link: str) -> None:
    folders, path, other = Folders((root,)), root / link / "file", root / "deep/file"
    before = sorted(root.parent.rglob("*"))
    for refused in (
        lambda: folders.status(path),
        lambda: folders.open(path),
        lambda: folders.create(path.with_name("new")),
        lambda: folders.unlink(path),
        lambda: folders.replace(other, path),
        lambda: folders.rename_new(other, path.with_name("new")),
        lambda: folders.rename_new(path, other.with_name("new")),
        lambda: folders.link(other, path.with_name("new")),
        lambda: folders.make(root / link / "new"),
        lambda: folders.names(root / link),
        lambda: folders.sync(root / link),
    ):
        with pytest.raises(LinkError):
            refused()
    folders.remove_temporaries(root)
    assert sorted(root.parent.rglob("*")) == before


def test_a_link_itself_is_neither_opened_nor_taken_for_what_it_leads_to(root: Path) -> None:
    (root / "a").symlink_to(root / "deep/file")
    folders = Folders((root,))
    assert folders.is_link(root / "a") and folders.exists(root / "a")
    with pytest.raises(OSError) as caught:
        folders.open(root / "a")
    assert caught.value.errno == errno.ELOOP
    folders.unlink(root / "a")
    assert (root / "deep/file").read_text() == "ours"


def test_a_root_may_lie_behind_links_and_the_outermost_counts(root: Path) -> None:
    behind = root / "link"
    assert Folders((behind,)).status(behind / "file").st_size == 6
    with pytest.raises(LinkError):
        Folders((behind, root)).status(behind / "file")
    assert Folders().status(behind / "file").st_size == 6


@pytest.mark.parametrize("name", ["..", "deep/../..", "deep/.."])
def test_no_path_leads_up(root: Path, name: str) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        Folders((root,)).make(root / name / "new")


def test_a_folder_deeper_than_any_path_is_refused(root: Path) -> None:
    with pytest.raises(OSError, match="File name too long"):
        Folders((root,)).make(root / "/".join(["x" * 100] * (PATH_BYTES // 100)))


def test_rename_new_never_replaces(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = Folders((root,))
    for way in ("kernel", "links", "neither"):
        if way == "links":
            monkeypatch.setattr(module, "_renameat2", lambda: None)
        if way == "neither":
            monkeypatch.setattr(os, "link", refused)
        (root / "a").write_text("a")
        (root / "b").write_text("b")
        with pytest.raises(FileExistsError):
            folders.rename_new(root / "a", root / "b")
        assert (root / "b").read_text() == "b"
        folders.rename_new(root / "a", root / "deep/c")
        assert (root / "deep/c").read_text() == "a" and not (root / "a").exists()
        (root / "deep/c").unlink()


def refused(*_: object, **__: object) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")


def test_a_folder_that_may_be_passed_but_not_listed_is_worked_in(root: Path) -> None:
    (root / "deep").chmod(0o300)
    assert Folders((root,)).status(root / "deep/file").st_size == 4
    (root / "deep").chmod(0o700)


def test_no_descriptor_is_left_open(root: Path) -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    folders, before = Folders((root,)), count()
    for _ in range(3):
        for path in (root / "link/file", root / "none/file", root / "deep/none", root / "deep"):
            with pytest.raises(OSError):
                folders.reader(path)
        folders.reader(root / "deep/file").close()
        folders.names(root / "deep")
        folders.remove_temporaries(root)
    assert count() == before


def test_only_the_owners_unfinished_files_are_removed(root: Path) -> None:
    mine, theirs = Folders((root,), "1a2b3c4d"), Folders((root,), "1a2b3c4e")
    for folders in (mine, theirs):
        folders.temporary(root / "deep/er/a.png").touch()
    (root / "deep/.nst-old").touch()
    (root / ".hidden").touch()
    assert mine.remove_temporaries(root) == 1
    assert theirs.remove_temporaries(root) == 1
    assert Folders((root,)).remove_temporaries(root) == 1  # of a folder that nobody shares
    assert (root / ".hidden").exists()


def test_unfinished_files_are_removed_however_deep_they_lie(root: Path) -> None:
    folder = root
    for _ in range(1200):
        folder /= "d"
        folder.mkdir()
    (folder / ".nst-x").touch()
    assert Folders((root,)).remove_temporaries(root) == 1
    while folder != root:  # what cleans up after the tests searches no folder that is so deep
        folder.rmdir()
        folder = folder.parent
