"""Which files there are to paint, in which order, and which of them are stable."""

import os
import shutil
import sys
from pathlib import Path, PurePath
from typing import Any

import pytest
from support import draw, nest, wait_until

from nst_pipeline.errors import InboxGoneError, UsageError
from nst_pipeline.files import signature
from nst_pipeline.folders import Entry
from nst_pipeline.inbox import scanner
from nst_pipeline.inbox.scanner import Scan, Scanner, SourceFile, find


def names(found: list[SourceFile]) -> list[str]:
    return [str(item.folder / item.path.name) for item in found]


def make(root: Path, settle_seconds: float = 0.0, **options: Any) -> Scanner:
    return Scanner([root], ("*.part", "*~"), {root / "excluded": ""}, settle_seconds, **options)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def until_stable(look: Scanner) -> Scan:
    """Scan until everything is stable."""
    scans: list[Scan] = []

    def is_stable() -> bool:
        scans.append(look.scan())
        return not scans[-1].unstable

    wait_until(is_stable)
    return scans[-1]


def folder_is(descriptor: int, path: Path) -> bool:
    return os.path.samestat(os.stat(descriptor), path.stat())


# Listing


def test_folders_are_searched_in_order_with_their_subfolders(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "a.jpg", "sub/c.png", "sub/deep/d.png", ".hidden.png", ".git/e.png")
    touch(tmp_path, "x.part", "notes.txt", "Thumbs.db", "c.png", "B.png")
    found = find([tmp_path], ("*.part", "*.txt", "Thumbs.db"))
    assert names(found) == ["B.png", "a.jpg", "b.png", "c.png", "sub/c.png", "sub/deep/d.png"]
    assert found[-1].folder == PurePath("sub/deep") and found[-1].root == tmp_path


def test_folders_nested_deeper_than_calls_are_searched(deep_tmp_path: Path) -> None:
    touch(deep_tmp_path, "a.png", "e.png")
    touch(nest(deep_tmp_path), "deepest.png")
    found = find([deep_tmp_path])
    assert [item.path.name for item in found] == ["a.png", "deepest.png", "e.png"]
    assert len(found[1].folder.parts) > sys.getrecursionlimit()


def test_folders_nested_deeper_than_a_path_is_long_are_told_and_hide_no_other_file(
    deep_tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(deep_tmp_path, "a.png")
    monkeypatch.chdir(deep_tmp_path)
    for _ in range(20):
        Path("d" * 250).mkdir()
        os.chdir("d" * 250)
    Path("deepest.png").touch()
    assert [item.path.name for item in find([deep_tmp_path])] == ["a.png"]
    assert "cannot be searched: File name too long" in caplog.text


def test_paths_are_taken_in_the_order_in_which_they_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "sub/a.png", "sub/c.png", "x.part")
    found = find([tmp_path / "x.part", tmp_path / "sub", tmp_path / "b.png"], ("*.part",))
    assert names(found) == ["x.part", "a.png", "c.png", "b.png"]
    assert [str(item.root.relative_to(tmp_path)) for item in found] == [
        "x.part",
        "sub",
        "sub",
        "b.png",
    ]


def test_excluded_folders_and_files_are_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "out/b.png", "style.png")
    assert names(find([tmp_path], (), {tmp_path / "out": "", tmp_path / "style.png": ""})) == [
        "a.png"
    ]


def test_a_file_named_twice_is_found_once_with_its_companions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a.png", "a.mask.png")
    monkeypatch.chdir(tmp_path)
    paths = [tmp_path / "a.png", Path("a.mask.png"), Path("a.png"), tmp_path]
    (found,) = find(paths)
    assert [one.kind for one in found.companions] == ["mask"]
    (found,) = Scanner(paths, (), {}, 0).scan().stable
    assert [one.kind for one in found.companions] == ["mask"]


@pytest.mark.parametrize("name", ["gone.png", "x" * 300, "a.png/b.png"])
def test_a_named_path_that_is_not_there_is_an_error_of_usage(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "a.png")
    with pytest.raises(UsageError, match=f"{name}: no such file or folder"):
        find([tmp_path / name])


def test_a_named_link_to_nowhere_is_found_to_be_reported(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("nowhere")
    (tmp_path / "b.png").symlink_to("x" * 300)
    found = find([tmp_path / "a.png", tmp_path / "b.png"])
    assert [(item.path.name, item.signature) for item in found] == [
        ("a.png", None),
        ("b.png", None),
    ]


def test_a_folder_named_like_an_image_is_found_to_be_reported(tmp_path: Path) -> None:
    touch(tmp_path, "x.jpg/inside.png")
    assert names(find([tmp_path])) == ["x.jpg"]


def test_names_that_are_not_utf_8_are_found(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")).touch()
    (found,) = find([tmp_path])
    assert os.fsencode(found.path).endswith(b"caf\xe9.png")


def test_what_nobody_wants_painted_is_left_out(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    root = tmp_path / "inbox"
    touch(root, "a.png", ".h.png", "b.png.part", "c.png~", "excluded/d.png", ".hidden/e.png")
    touch(root, "sub/f.png")
    touch(outside, "g.png")
    (root / "out.png").symlink_to(outside / "g.png")
    (root / "folder").symlink_to(outside)
    (root / "in.png").symlink_to(root / "a.png")
    assert sorted(names(make(root).scan().stable)) == ["a.png", "in.png", "sub/f.png"]


def test_a_link_that_cannot_even_be_followed_hides_no_other_file(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    (tmp_path / "far.png").symlink_to("x" * 300)
    (tmp_path / "loop.png").symlink_to("loop.png")
    found = make(tmp_path, is_inbox=True).scan().stable
    assert "a.png" in names(found) and {item.signature for item in found} > {None}


def test_an_inbox_that_is_gone_is_not_empty(tmp_path: Path) -> None:
    root = tmp_path / "inbox"
    root.mkdir()
    look, named = make(root, is_inbox=True), make(root)
    assert not look.scan().stable
    root.rmdir()
    with pytest.raises(InboxGoneError, match="inbox: no such folder; mount or create it"):
        look.scan()
    with pytest.raises(UsageError, match="inbox: no such file"):
        named.scan()
    root.touch()
    with pytest.raises(InboxGoneError, match="inbox: Not a directory"):
        look.scan()


def test_what_goes_while_the_inbox_is_searched_is_left_out_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "a.png", "b/c.png", "d.png", "e.png")
    entries = scanner.entries

    def interrupted(folder: int) -> list[Entry]:
        found = entries(folder)
        if folder_is(folder, tmp_path):
            shutil.rmtree(tmp_path / "b")
            (tmp_path / "d.png").unlink()
        return found

    monkeypatch.setattr(scanner, "entries", interrupted)
    assert names(make(tmp_path, is_inbox=True).scan().stable) == ["a.png", "e.png"]
    assert not caplog.records


def test_many_files_are_each_seen_once(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{number}.png" for number in range(3000)))
    look = make(tmp_path)
    scan = look.scan()
    assert len({item.path for item in scan.stable}) == len(scan.stable) == 3000
    for item in scan.stable:
        look.add_finished(item)
    assert not look.scan().stable


def test_what_is_by_its_name_no_picture_is_passed_over_and_counted(tmp_path: Path) -> None:
    touch(
        tmp_path, "IMG_1.JPG", "IMG_1.AAE", "IMG_1.MOV", "IMG_1.jpg.xmp", "a.pp3", "x.Lnk", "n.TXT"
    )
    touch(tmp_path, "COPY.PART", "b.tar.gz", "noise", "scan.unknown", "mov", ".mov")
    scan = make(tmp_path).scan()
    assert sorted(names(scan.stable)) == ["IMG_1.JPG", "mov", "noise", "scan.unknown"]
    assert scan.passed_over.counts() == {"by_name": 8, "links": 0, "results": 0}
    assert "8 files by their names" in str(scan.passed_over)
    assert names(find([tmp_path / "IMG_1.MOV"])) == ["IMG_1.MOV"]  # somebody named it


@pytest.mark.parametrize(
    "folder", ["@eaDir", "#recycle", "$RECYCLE.BIN", "$Recycle.Bin", ".Trashes", "lost+found"]
)
def test_folders_that_the_system_keeps_for_itself_are_not_searched(
    tmp_path: Path, folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "a.png", f"{folder}/b.png", f"sub/{folder}/c.png", f"{folder}.png")
    (tmp_path / folder).chmod(0)
    assert set(names(make(tmp_path).scan().stable)) - {f"{folder}.png"} == {"a.png"}
    assert not caplog.records


def test_patterns_are_of_any_case(tmp_path: Path) -> None:
    touch(tmp_path, "thumbs.db", "Desktop.INI", "copy.TMP", "a.png", "Drafts/b.png")
    found = find([tmp_path], ("Thumbs.db", "desktop.ini", "*.tmp", "drafts"))
    assert names(found) == ["a.png"]


def test_a_link_that_leads_out_is_told_once_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "inbox/a.png", "outside/b.png", "inbox/sub/c.png")
    root = tmp_path / "inbox"
    (root / "b.png").symlink_to(tmp_path / "outside/b.png")
    (root / "far").symlink_to(tmp_path / "outside")
    (root / "near.png").symlink_to(root / "a.png")
    look = make(root)
    for _ in range(3):
        scan = look.scan()
        assert scan.passed_over.links == 2
    assert sorted(names(scan.stable)) == ["a.png", "near.png", "sub/c.png"]
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2 and "b.png: a link" in told[0] and "far: a link" in told[1]
    (root / "d.png").symlink_to(tmp_path / "outside/b.png")
    look.scan()
    assert len(caplog.records) == 3 and "d.png" in caplog.records[-1].getMessage()


def test_of_very_many_links_some_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "inbox").mkdir()
    for number in range(30):
        (tmp_path / f"inbox/{number}.png").symlink_to(tmp_path)
    assert make(tmp_path / "inbox").scan().passed_over.links == 30
    assert len(caplog.records) == 11 and "20 more" in caplog.records[-1].getMessage()


@pytest.mark.parametrize("way", ["plain", "link", "dots"])
def test_what_is_excluded_is_told_by_whatever_way_it_is_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    touch(tmp_path, "real/a.png", "real/out/b.png", "real/style.png")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    root = {"plain": "real", "link": "link", "dots": "real/out/.."}[way]
    excluded = {tmp_path / "real/out": "the outbox", tmp_path / "link/style.png": "a style"}
    assert names(find([tmp_path / root], (), excluded)) == ["a.png"]
    assert [record.getMessage() for record in caplog.records] == ["the outbox", "a style"]


@pytest.mark.parametrize(
    "mark", [".nst-pipeline/ledger.sqlite", "manifests/20260101T120000Z-0a1b.json"]
)
def test_the_outbox_of_an_earlier_run_is_known_by_what_is_in_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mark: str
) -> None:
    touch(tmp_path, "a.png", f"out/{mark}", "out/a-s.png", "out/sub/b-s.png")
    touch(tmp_path, "manifests/mine.json")
    assert names(find([tmp_path])) == ["a.png"]
    assert len(make(tmp_path, is_inbox=True).scan().stable) == 3
    assert "out: the outbox of an earlier run" in caplog.records[0].getMessage()
    assert names(find([tmp_path / "out"])) == ["a-s.png", "sub/b-s.png"]


# Stable files


def test_a_file_is_stable_once_it_did_not_change_for_a_while(tmp_path: Path) -> None:
    look = make(tmp_path, 0.2)
    (tmp_path / "a.png").write_text("1")
    first = look.scan()
    assert names(first.unstable) == ["a.png"] and not first.stable
    assert first.wait_seconds is not None and 0 < first.wait_seconds <= 0.2
    until_stable(look)
    with (tmp_path / "a.png").open("a") as file:
        file.write("2")
    assert names(look.scan().unstable) == ["a.png"]
    assert names(until_stable(look).stable) == ["a.png"]


def test_without_a_clock_to_trust_only_watching_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_text("1")
    wait_until(lambda: make(tmp_path, 0.1).scan().stable)  # by the clock
    monkeypatch.setattr(scanner, "is_network", lambda _: True)
    look = make(tmp_path, 0.1)
    assert names(look.scan().unstable) == ["a.png"]
    assert names(until_stable(look).stable) == ["a.png"]


def test_a_picture_is_stable_when_its_companions_are(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    look = make(tmp_path, 0.3)
    until_stable(look)
    draw(tmp_path / "a.mask.png")
    assert names(look.scan().unstable) == ["a.png"]
    assert names(until_stable(look).stable) == ["a.png"]


def test_urgent_comes_first_then_the_oldest(tmp_path: Path) -> None:
    for name in ("b.png", "urgent/c.png", "a.png", "x/urgent/d.png"):
        touch(tmp_path, name)
        wait_until(lambda last=tmp_path / name: _is_past(last))  # type: ignore[misc]
    found = names(make(tmp_path, urgent="urgent").scan().stable)
    assert found == ["urgent/c.png", "b.png", "a.png", "x/urgent/d.png"]


def _is_past(path: Path) -> bool:
    """Tell whether a file made now would be younger (the clock of files ticks slowly)."""
    probe = path.parent / ".probe"
    probe.write_text("x")
    return probe.stat().st_ctime_ns > path.stat().st_ctime_ns


# Finished files


def test_a_finished_file_is_left_out_until_it_changes(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("1")
    look = make(tmp_path)
    assert look.known_as == ""
    finished = {str(tmp_path / "a.png"): signature((tmp_path / "a.png").stat())}
    look.set_finished(finished, "today's")
    assert look.known_as == "today's"
    scan = look.scan()
    assert not scan.stable and scan.finished == [(PurePath(), "a")]
    (tmp_path / "a.png").write_text("22")
    assert names(look.scan().stable) == ["a.png"]


def test_other_finished_files_take_the_place_of_those_before(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png")
    look = make(tmp_path)
    for item in look.scan().stable:
        look.add_finished(item)
    assert not look.scan().stable
    look.set_finished({}, "")
    assert sorted(names(look.scan().stable)) == ["a.png", "b.png"]


def test_a_finished_picture_is_looked_at_again_when_a_companion_changes(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    look = make(tmp_path)
    for change in (draw, lambda path: draw(path, 2), Path.unlink):
        (found,) = look.scan().stable
        look.add_finished(found)
        assert not look.scan().stable
        change(tmp_path / "a.mask.png")
    assert look.scan().stable
