"""Folders of styles, and the inbox's folders, as pipeline.yaml has them."""

from pathlib import Path, PurePath

import pytest
from conftest import picture

from nst_pipeline.config.pipeline import ONLY_FOLDER, Config, load
from nst_pipeline.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "paintings").mkdir()
    (tmp_path / "inbox").mkdir()
    for name in ("ink.png", "oil.png"):
        picture().save(tmp_path / name)
    return tmp_path


def read(folder: Path, text: str) -> Config:
    (folder / "pipeline.yaml").write_text(text)
    return load(folder / "pipeline.yaml")


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(folder, text)
    prefix = f"{folder}/pipeline.yaml:"
    return [
        problem.removeprefix(prefix).replace(f"{folder}/", "") for problem in caught.value.problems
    ]


# Folders of styles


@pytest.mark.parametrize(
    ("text", "path", "recipe"),
    [
        ("styles: paintings/", "paintings", None),
        ("styles: paintings/*.jpg", "paintings/*.jpg", None),
        ("styles: {folder: paintings/, recipe: painterly}", "paintings", "painterly"),
        ("styles: {folder: paintings}", "paintings", None),
    ],
)
def test_one_folder_or_pattern_may_stand_in_place_of_the_names(
    folder: Path, text: str, path: str, recipe: str | None
) -> None:
    (style,) = read(folder, text).styles.values()
    assert style.folder == folder / path and style.recipe.name == recipe


def test_folders_and_names_may_be_mixed(folder: Path) -> None:
    text = "styles: {ink: ink.png, more: {folder: paintings, recipe: {size: 64}}, folder: oil.png}"
    styles = read(folder, text).styles
    assert styles["ink"].image == folder / "ink.png"
    assert styles["more"].folder == folder / "paintings" and styles["more"].recipe.size == 64
    assert styles["folder"].image == folder / "oil.png"


def test_a_style_may_still_be_called_folder(folder: Path) -> None:
    assert list(read(folder, "styles: {folder: {image: ink.png}}").styles) == ["folder"]
    assert ONLY_FOLDER not in read(folder, "styles: {folder: {image: ink.png}}").styles


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("styles: gone", "1: styles.folder: gone: no such folder; make it, or name another"),
        (
            "styles:\n  folder: gone/*.jpg",
            "2: styles.folder: gone: no such folder; make it, or name another",
        ),
        (
            "styles:\n  ink: ink.png\n  more: {folder: gone}",
            "3: styles.more.folder: gone: no such folder; make it, or name another",
        ),
        (
            "styles: ink.png",
            "1: styles.folder: ink.png: a file, no folder; a style of one image is written "
            "NAME: PATH, or {image: PATH}",
        ),
        (
            "styles:\n  more: paintings",
            "2: styles.more.image: paintings: a folder, no image; {folder: PATH} makes a style of "
            "each image in it",
        ),
        (
            "styles:\n  folder: paintings\n  recipe:\n    szie: 64",
            "4: styles.recipe.szie: unknown key; did you mean 'size'?",
        ),
        (
            "styles:\n  more: {folder: paintings, image: ink.png}",
            "2: styles.more: needs exactly one of image, images, regions, folder; has image and "
            "folder",
        ),
        (
            "styles: [paintings]",
            "1: styles: is a list; give each a name, as NAME: PATH or NAME: {folder: PATH}",
        ),
        (
            "styles: inbox",
            "1: styles: inbox is the inbox, whose pictures are no styles; put the styles into a "
            "folder of their own",
        ),
        (
            "styles: paintings\noutput: {name: '{content}'}",
            "1: output.name: '{content}' gives every style of a content the same name; put "
            "{style} into it",
        ),
    ],
)
def test_a_folder_of_styles_that_cannot_be_one_is_told_with_line_and_cure(
    folder: Path, text: str, problem: str
) -> None:
    assert problems(folder, text) == [problem]


# Folders of the inbox

STYLES = "styles: {ink: ink.png, oil: {image: oil.png, recipe: {size: 64, style_weight: 40}}}\n"


def test_every_mistake_in_the_folders_of_the_inbox_is_told_with_line_and_cure(folder: Path) -> None:
    text = STYLES + (
        "folders:\n"
        "  a:\n"
        "    styles: [ink, oli]\n"
        "  ../b: {}\n"
        "  /c: {}\n"
        "  .: {}\n"
        "  d: {styles: []}\n"
        "  e: {style: ink}\n"
        "  f: {recipe: {size: 1}}\n"
    )
    assert problems(folder, text) == [
        "4: folders.a.styles.1: no style 'oli'; did you mean 'oil'?",
        "5: folders.../b: '../b' leaves the inbox; write the path of one of its subfolders, "
        "relative to it",
        "6: folders./c: '/c' leaves the inbox; write the path of one of its subfolders, "
        "relative to it",
        "7: folders..: '.' is the inbox itself; write what is for all of it under styles and "
        "recipe",
        "8: folders.d.styles: names no style, so nothing would be painted there; name some, leave "
        "it out for all styles, or put the folder into also_ignore",
        "9: folders.e.style: unknown key; did you mean 'styles'?",
        "10: folders.f.recipe.size: is 1; input should be greater than or equal to 32, or should "
        "be 'original'",
    ]
    assert problems(folder, STYLES + "folders:\n  a: {}\n  a/: {}") == [
        "2: folders: 'a' and 'a/' are the same folder; make one of them"
    ]


def test_folders_may_have_the_names_of_years_and_days_and_say_little(folder: Path) -> None:
    config = read(folder, STYLES + "folders: {2024: {styles: ink}, 2024-05-01: , x//y/: {}}")
    assert list(config.folders) == ["2024", "2024-05-01", "x/y"]
    assert config.folders["2024"].styles == ("ink",)


@pytest.mark.parametrize(
    ("place", "entry"),
    [
        ("", None),
        ("other", None),
        ("portraits", "portraits"),
        ("portraits/old", "portraits"),
        ("portraits/children/x/y", "portraits/children"),
        ("portraits2", None),
        ("other/portraits", None),
        ("urgent", None),
        ("urgent/portraits/x", "portraits"),
        ("urgent/rush", "urgent/rush"),
        ("urgent/rush/portraits", "urgent/rush"),
    ],
)
def test_the_deepest_folder_counts_be_it_urgent_or_not(
    folder: Path, place: str, entry: str | None
) -> None:
    text = "folders: {portraits: {}, portraits/children: {}, urgent/rush: {}}"
    config = read(folder, STYLES + text)
    assert config.folder_of(PurePath(place)) == entry
    if place.startswith("urgent/port"):
        config = read(folder, f"{STYLES}{text}\nwatch: {{urgent: ''}}")
        assert config.folder_of(PurePath(place)) is None


def test_the_recipe_of_a_folder_goes_above_that_of_the_style(folder: Path) -> None:
    config = read(
        folder,
        f"{STYLES}recipe: {{size: 48, iterations: 3}}\n"
        "folders: {a: {recipe: {style_weight: 7}}, b: {styles: oil, recipe: sketch}}",
    )
    a = config.recipes("a")
    assert list(a) == ["ink", "oil"]
    found = {name: (r.size, r.style_weight, r.iterations) for name, r in a.items()}
    assert found == {"ink": (48, 7, 3), "oil": (64, 7, 3)}
    b = config.recipes("b")
    assert list(b) == ["oil"] and (b["oil"].name, b["oil"].size) == ("sketch", 512)
    assert config.recipes()["oil"].style_weight == 40
