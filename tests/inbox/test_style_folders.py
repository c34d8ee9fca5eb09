"""What is found in folders of styles, and that a search for pictures passes it over."""

import os
from pathlib import Path
from typing import Any

import pytest
from support import configure, draw, make_home

from nst_pipeline.config.pipeline import Config
from nst_pipeline.errors import UnreadableError
from nst_pipeline.inbox.style_folders import FoundStyles, StyleFolders
from nst_pipeline.jobs.planning import make_scanner

MORE = {"more": {"folder": "paintings", "recipe": {"style_weight": 7}}}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a home with an empty folder of styles."""
    home = make_home(tmp_path / "home")
    (home / "paintings").mkdir()
    return home


def look(home: Path, styles: Any = MORE, **changes: Any) -> FoundStyles:
    return StyleFolders(configure(home, styles=styles, **changes), 0).find()


def images(found: FoundStyles) -> dict[str, str]:
    return {name: style.image.name for name, style in found.config.styles.items() if style.image}


def notes(home: Path, found: FoundStyles) -> list[str]:
    return [note.replace(f"{home}/", "") for note in found.notes]


def test_each_image_is_a_style_named_by_its_stem_in_the_order_of_names(home: Path) -> None:
    for number, name in enumerate(("z.JPG", "a.png", "the night.webp", "émile.png")):
        draw(home / "paintings" / name, number)
    found = look(home)
    assert list(images(found)) == ["s", "a", "the night", "z", "émile"] and not found.notes
    assert {found.config.style_recipe(n).style_weight for n in ("a", "z")} == {7}
    assert found.config.style_recipe("s").style_weight == 20


def test_hidden_files_other_files_and_subfolders_are_passed_over_quietly(home: Path) -> None:
    draw(home / "paintings/a.png")
    for name in (".hidden.png", "notes.txt", "b.jpg.part", "noimage"):
        draw(home / "paintings" / name)
    (home / "paintings/deep/deeper").mkdir(parents=True)
    (home / "paintings/folder.png").mkdir()
    draw(home / "paintings/deep/b.png")
    found = look(home)
    assert images(found) == {"s": "style.png", "a": "a.png"} and not found.notes


def test_a_pattern_takes_what_matches_at_its_depth(home: Path) -> None:
    for name in ("old/a.png", "old/b.jpg", "new/c.jpg", "new/.d.jpg", "d.jpg"):
        (home / "paintings" / name).parent.mkdir(exist_ok=True)
        draw(home / "paintings" / name)
    assert list(images(look(home, "paintings/*/*.jpg"))) == ["b", "c"]
    assert list(images(look(home, "paintings/o*/[ab].*"))) == ["a", "b"]
    assert list(images(look(home, "paintings/?.jpg"))) == ["d"]


def test_a_folder_may_be_named_like_a_pattern(home: Path) -> None:
    (home / "pain[t]").mkdir()
    draw(home / "pain[t]/a.png")
    assert list(images(look(home, "pain[t]"))) == ["a"]
    draw(home / "pain[t]/b.jpg")
    assert list(images(look(home, "pain[t]/*.png"))) == ["a"]


def test_names_that_cannot_be_styles_are_told_with_where_what_and_cure(home: Path) -> None:
    for name in (b"a\nb.png", b"{c}.png", b"caf\xe9.png", b"d\\e.png"):
        draw(os.fsencode(home / "paintings") + b"/" + name)
    draw(home / "paintings/f.png")
    found = look(home)
    assert list(images(found)) == ["s", "f"] and len(found.notes) == 4
    for shown in ("a\\nb.png", "{c}.png", "caf\\xe9.png", "d\\e.png"):
        (note,) = [note for note in notes(home, found) if note.startswith(f"paintings/{shown}: ")]
        assert note.endswith("it becomes part of file names; rename the file")


def test_of_two_images_of_one_name_none_is_taken_and_both_are_told(home: Path) -> None:
    (home / "other").mkdir()
    for name in ("paintings/a.png", "paintings/a.jpg", "paintings/b.png", "other/b.png"):
        draw(home / name)
    found = look(home, MORE | {"others": {"folder": "other"}})
    assert list(images(found)) == ["s"]
    end = "of which none is painted; rename one"
    assert notes(home, found) == [
        f"paintings/a.jpg and paintings/a.png: two styles of one name, a, {end}",
        f"paintings/b.png and other/b.png: two styles of one name, b, {end}",
    ]


def test_one_file_that_two_patterns_match_is_one_style_of_the_first(home: Path) -> None:
    draw(home / "paintings/a.png")
    (home / "link").symlink_to("paintings")
    found = look(home, {"fine": {"folder": "link/a*", "recipe": "sketch"}} | MORE)
    assert list(images(found)) == ["s", "a"] and not found.notes
    assert found.config.style_recipe("a").name == "sketch"


def test_a_named_style_goes_before_an_image_of_its_name(home: Path) -> None:
    draw(home / "paintings/s.png")
    found = look(home)
    assert images(found) == {"s": "style.png"}
    (note,) = notes(home, found)
    assert note == "paintings/s.png: the settings have another style of the name s; rename the file"
    assert not look(home, {"style": "style.png", "all": {"folder": "*.png"}}).notes


def test_an_empty_folder_is_told_and_one_that_is_gone_cannot_be_read(home: Path) -> None:
    assert notes(home, look(home)) == [
        "paintings: no image there; put some in, or name another folder"
    ]
    config = configure(home, styles=MORE)
    (home / "paintings").rmdir()
    with pytest.raises(UnreadableError, match="paintings: No such file or directory; mount or"):
        StyleFolders(config).find()


def test_what_is_new_is_found_once_it_is_stable_and_what_goes_is_not(home: Path) -> None:
    folders = StyleFolders(configure(home, styles=MORE, watch={"settle_seconds": 3600}))
    draw(home / "paintings/a.png")
    found = folders.find()
    assert found.arriving == [home / "paintings/a.png"] and list(images(found)) == ["s"]
    assert found.wait_seconds is not None and 0 < found.wait_seconds <= 3600
    folders = StyleFolders(configure(home, styles=MORE, watch={"settle_seconds": 0}))
    assert list(images(folders.find())) == ["s", "a"]
    draw(home / "paintings/b.png")
    (home / "paintings/a.png").unlink()
    assert list(images(folders.find())) == ["s", "b"]


# Where the inbox's folders name them


def with_folders(home: Path, **folders: Any) -> FoundStyles:
    for name in ("vangogh.png", "monet.png"):
        draw(home / "paintings" / name)
    return look(home, folders=folders)


def test_a_folder_of_the_inbox_may_name_one_of_its_styles_or_all(home: Path) -> None:
    found = with_folders(home, a={"styles": ["vangogh", "s"]}, b={"styles": ["more"]}, c={})
    lists = {name: folder.styles for name, folder in found.config.folders.items()}
    assert lists == {"a": ("vangogh", "s"), "b": ("monet", "vangogh"), "c": None}
    assert not found.notes


def test_a_style_that_is_not_there_is_told_and_the_others_stay(home: Path) -> None:
    found = with_folders(home, a={"styles": ["vangoh", "s"]}, b={"styles": ["zzz"]})
    assert found.notes == [
        "folders.a.styles: no style 'vangoh' is there; did you mean 'vangogh'?",
        "folders.b.styles: no style 'zzz' is there; known: s, monet, vangogh, more",
        "folders.b: none of its styles is there, so its pictures wait",
    ]
    assert [folder.styles for folder in found.config.folders.values()] == [("s",), ()]


# Among the pictures


def contents(config: Config, *paths: Path) -> list[str]:
    found = make_scanner(config, list(paths), 0).scan().stable
    return sorted(str(one.path.relative_to(config.inbox)) for one in found)


@pytest.mark.parametrize(
    ("folder", "left"),
    [
        ("inbox/styles", ["p.png", "styles/deep/d.png", "styles/c.dat"]),
        ("inbox/st*/*.png", ["p.png", "styles/b.jpg", "styles/c.dat", "styles/deep/d.png"]),
        ("inbox/p*.png", ["styles/a.png", "styles/b.jpg", "styles/c.dat", "styles/deep/d.png"]),
    ],
)
def test_images_of_styles_in_the_inbox_are_passed_over_and_told(
    home: Path, folder: str, left: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    (home / "inbox/styles/deep").mkdir(parents=True)
    for name in ("p.png", "styles/a.png", "styles/b.jpg", "styles/c.dat", "styles/deep/d.png"):
        draw(home / "inbox" / name)
    config = configure(home, styles={"more": {"folder": folder}})
    assert contents(config) == sorted(left)
    assert "images of styles are passed over; name one as a picture" in caplog.text
    named = home / "inbox/styles/a.png"
    assert contents(config, named) == ["styles/a.png"]
