"""Which files count as settled."""

import os
from pathlib import Path

import pytest
from support import draw, wait_until

from nst_pipeline.errors import BeingWrittenError, UsageError
from nst_pipeline.files import signature
from nst_pipeline.inbox import reading, scanner
from nst_pipeline.inbox.mounts import filesystem, is_network, mount_point
from nst_pipeline.inbox.scanner import Scan, Scanner


def names(found: list[scanner.SourceFile]) -> list[str]:
    return [str(item.folder / item.path.name) for item in found]


def make(root: Path, settle_seconds: float = 0.0, **options: object) -> Scanner:
    return Scanner([root], ("*.part", "*~"), (root / "excluded",), settle_seconds, **options)  # type: ignore[arg-type]


def until_settled(scan: Scanner) -> Scan:
    found: list[Scan] = []

    def settled() -> bool:
        found.append(scan.scan())
        return not found[-1].waiting

    wait_until(settled)
    return found[-1]


def test_a_file_is_settled_once_it_did_not_change_for_a_while(tmp_path: Path) -> None:
    look = make(tmp_path, 0.2)
    (tmp_path / "a.png").write_text("1")
    first = look.scan()
    assert names(first.waiting) == ["a.png"] and not first.settled
    assert first.wait_seconds is not None and 0 < first.wait_seconds <= 0.2
    until_settled(look)
    with (tmp_path / "a.png").open("a") as file:
        file.write("2")
    assert names(look.scan().waiting) == ["a.png"]
    assert names(until_settled(look).settled) == ["a.png"]


def test_without_a_clock_to_trust_only_watching_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_text("1")
    os.utime(tmp_path / "a.png", (1, 1))
    monkeypatch.setattr(scanner, "is_network", lambda _: True)
    look = make(tmp_path, 3600)
    assert names(look.scan().waiting) == ["a.png"]


def test_what_nobody_wants_painted_is_left_out(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    root = tmp_path / "inbox"
    for folder in (outside, root / "excluded", root / ".hidden", root / "sub"):
        folder.mkdir(parents=True)
    for path in ("a.png", ".h.png", "b.png.part", "c.png~", "excluded/d.png", ".hidden/e.png"):
        (root / path).write_text("x")
    (root / "sub/f.png").write_text("x")
    (outside / "g.png").write_text("x")
    (root / "out.png").symlink_to(outside / "g.png")
    (root / "folder").symlink_to(outside)
    (root / "in.png").symlink_to(root / "a.png")
    found = names(make(root).scan().settled)
    assert sorted(found) == ["a.png", "in.png", "sub/f.png"]


def test_a_finished_file_is_left_out_until_it_changes(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("1")
    look = make(tmp_path)
    look.forget({str(tmp_path / "a.png"): signature((tmp_path / "a.png").stat())})
    scan = look.scan()
    assert not scan.stable and [name for _, name in scan.finished] == ["a"]
    (tmp_path / "a.png").write_text("22")
    assert names(look.scan().settled) == ["a.png"]


def test_urgent_comes_first_then_the_oldest(tmp_path: Path) -> None:
    for name in ("b.png", "urgent/c.png", "a.png", "x/urgent/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        last = tmp_path / name
        last.write_text("x")
        wait_until(lambda last=last: _is_past(last))  # type: ignore[misc]
    found = names(make(tmp_path, urgent="urgent").scan().settled)
    assert found == ["urgent/c.png", "b.png", "a.png", "x/urgent/d.png"]


def _is_past(path: Path) -> bool:
    """Tell whether a file made now would be younger (the clock of files ticks slowly)."""
    probe = path.parent / ".probe"
    probe.write_text("x")
    return probe.stat().st_ctime_ns > path.stat().st_ctime_ns


def test_an_inbox_that_is_gone_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    look = make(tmp_path / "inbox")
    look.scan()
    (tmp_path / "inbox").rmdir()
    with pytest.raises(UsageError, match="inbox"):
        look.scan()


def test_a_file_with_a_writer_is_not_read(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    with (tmp_path / "a.png").open("ab"), pytest.raises(BeingWrittenError):
        reading.read(tmp_path / "a.png", 10**6)
    assert reading.read(tmp_path / "a.png", 10**6)


def test_another_file_than_was_seen_is_not_read(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", 1)
    known = signature((tmp_path / "a.png").stat())
    draw(tmp_path / "b.png", 2)
    (tmp_path / "b.png").rename(tmp_path / "a.png")
    with pytest.raises(BeingWrittenError):
        reading.read(tmp_path / "a.png", 10**6, known)


def test_file_systems_without_events_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert filesystem(Path("/proc")) == "proc" and not is_network(tmp_path)
    for kind in ("nfs4", "cifs", "fuse.sshfs"):
        monkeypatch.setattr(scanner, "filesystem", lambda _, kind=kind: kind)
        assert is_network(tmp_path)


def test_mount_point_is_the_topmost_folder_of_the_file_system(tmp_path: Path) -> None:
    assert mount_point(Path("/proc/self")) == Path("/proc")
    assert tmp_path.is_relative_to(mount_point(tmp_path))


def test_many_files_are_each_seen_once(tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / f"{number}.png").touch()
    look = make(tmp_path)
    scan = look.scan()
    assert len({item.path for item in scan.stable}) == len(scan.stable) == 3000
    for item in scan.stable:
        look.finish(item)
    assert not look.scan().settled
