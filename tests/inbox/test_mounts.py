"""File systems: their kinds, and where they begin."""

import os
from pathlib import Path

import pytest

from nst_pipeline.inbox import mounts
from nst_pipeline.inbox.mounts import filesystem, is_network, mount_point


def test_the_file_system_of_a_path_is_the_innermost(tmp_path: Path) -> None:
    assert filesystem(Path("/proc/self")) == "proc"
    link = tmp_path / "link"
    link.symlink_to("/proc")
    assert filesystem(link / "self") == "proc" != filesystem(tmp_path)
    assert filesystem(tmp_path / "gone/too") == filesystem(tmp_path)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("nfs4", True), ("cifs", True), ("fuse.sshfs", True), ("ext4", False), ("", False)],
)
def test_file_systems_that_others_write_to_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, expected: bool
) -> None:
    monkeypatch.setattr(mounts, "filesystem", lambda _: kind)
    assert is_network(tmp_path) is expected


def test_the_mount_point_is_the_topmost_folder_of_the_file_system(tmp_path: Path) -> None:
    assert mount_point(Path("/proc/self/task")) == Path("/proc")
    top = mount_point(tmp_path)
    assert tmp_path.is_relative_to(top) and (os.path.ismount(top) or top == Path("/"))


def test_a_path_that_is_gone_has_no_mount_point(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        mount_point(tmp_path / "gone")
