"""What the command line says of styles, as its users meet it."""

import json
import os
from pathlib import Path

import pytest
from conftest import Program, picture
from PIL import Image

from nst_pipeline.cli.overrides import with_cluster
from nst_pipeline.config.pipeline import Config
from nst_pipeline.config.sections import ClusterSettings
from nst_pipeline.errors import UsageError


@pytest.fixture
def styles(project: Path) -> Path:
    """Return the folder of styles, with two pictures more and what is none."""
    for number, name in enumerate(("a.jpg", "b.jpg", ".hidden.jpg")):
        picture(seed=10 + number).save(project / "styles" / name)
    (project / "styles/notes.txt").write_text("no picture")
    (project / "other").mkdir()
    picture(seed=20).save(project / "other/a.jpg")
    picture(seed=21).save(project / "photo.jpg")
    return project / "styles"


def planned(here: Program, *arguments: str) -> tuple[list[str], str]:
    """Return what a run would paint, as CONTENT in STYLE, and what it says besides."""
    done = here("run", "--dry-run", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    rows = [row for row in json.loads(done.stdout) if row["action"] == "paint"]
    return [f"{Path(row['content']).name} in {row['style']}" for row in rows], done.stderr


def refused(here: Program, *arguments: str) -> str:
    """Return why the command line is wrong."""
    for command in ("run", "preview"):
        done = here(command, "photo.jpg", *arguments)
        assert done.returncode == 64 and "Traceback" not in done.stderr
        assert not done.stdout
    return done.stderr


def test_two_images_of_one_stem_are_refused_with_both_and_what_to_do(
    styles: Path, here: Program
) -> None:
    said = refused(here, "-s", "styles/a.jpg", "-s", "other/a.jpg")
    assert f"{styles}/a.jpg and {styles.parent}/other/a.jpg are two styles of one name, a" in said
    assert "names under `styles:` in pipeline.yaml, or rename one" in said


@pytest.mark.parametrize("chosen", [["ink", "other/ink.jpg"], ["other/ink.jpg", "ink"]])
def test_an_image_cannot_have_the_name_of_a_style_that_is_chosen_too(
    styles: Path, here: Program, chosen: list[str]
) -> None:
    (styles.parent / "other/a.jpg").rename(styles.parent / "other/ink.jpg")
    said = refused(here, "-s", chosen[0], "-s", chosen[1])
    assert "the settings' style ink" in said and f"{styles.parent}/other/ink.jpg" in said
    pairs, _ = planned(here, "photo.jpg", "-s", "other/ink.jpg")
    assert pairs == ["photo.jpg in ink"]


def test_one_file_or_style_that_is_named_twice_is_one_style(styles: Path, here: Program) -> None:
    (styles.parent / "link").symlink_to(styles)
    twice = ["-s", "styles/a.jpg", "-s", "./link/a.jpg", "-s", "ink", "-s", "ink"]
    pairs, _ = planned(here, "photo.jpg", *twice, "-s", "styles/a*")
    assert pairs == ["photo.jpg in a", "photo.jpg in ink"]


@pytest.mark.parametrize("folder", ["styles", "./styles", "absolute"])
def test_a_quoted_pattern_takes_every_image_that_matches(
    styles: Path, here: Program, folder: str
) -> None:
    pattern = f"{styles if folder == 'absolute' else folder}/*"
    pairs, said = planned(here, "photo.jpg", "-s", pattern)
    assert pairs == [f"photo.jpg in {style}" for style in ("a", "b", "ink", "oil")]
    assert not said
    pairs, _ = planned(here, "photo.jpg", "-s", f"{pattern}.jpg", "-s", "oil")
    assert pairs == [f"photo.jpg in {style}" for style in ("a", "b", "oil")]


def test_a_file_may_be_named_like_a_pattern(styles: Path, here: Program) -> None:
    (styles / "a.jpg").rename(styles / "[ab].jpg")
    pairs, _ = planned(here, "photo.jpg", "-s", "styles/[ab].jpg")
    assert pairs == ["photo.jpg in [ab]"]


@pytest.mark.parametrize("name", ["styles/*.webp", "styles/*.txt", "gone/*", "empty", "x" * 300])
def test_what_is_no_style_and_matches_no_image_is_refused_by_its_name(
    styles: Path, here: Program, name: str
) -> None:
    (styles.parent / "empty").mkdir()
    assert f"--style {name}: " in refused(here, "-s", name)


NOTE = (
    "note: styles/b.jpg is painted as a content; give each style its own -s, "
    "or quote the pattern: -s 'styles/*.jpg'\n"
)


def test_a_pattern_that_the_shell_expanded_is_noted_on_one_line(
    styles: Path, here: Program
) -> None:
    pairs, said = planned(here, "photo.jpg", "-s", "styles/a.jpg", "styles/b.jpg")
    assert sorted(pairs) == ["b.jpg in a", "photo.jpg in a"] and said == NOTE
    _, said = planned(here, "-s", "styles/a.jpg", "styles/b.jpg", "styles/ink.png")
    assert said == NOTE.replace("is painted as a content", "and 1 more are painted as contents")
    done = here("preview", "photo.jpg", "-s", "styles/a.jpg", "styles/b.jpg", "--size", 32,
                   "--iterations", 1)  # fmt: skip
    assert done.returncode == 0 and done.stderr == NOTE


def test_upper_case_comes_after_lower_case_or_is_the_same_as_shells_differ(
    styles: Path, here: Program
) -> None:
    (styles / "b.jpg").rename(styles / "B.jpg")
    for style, content in (("a", "B"), ("B", "a")):
        _, said = planned(here, "-s", f"styles/{style}.jpg", f"styles/{content}.jpg")
        assert f"note: styles/{content}.jpg is painted" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["photo.jpg", "-s", "styles/a.jpg", "-s", "styles/b.jpg"],
        ["styles/b.jpg", "-s", "styles/a.jpg", "-s", "styles/b.jpg"],
        ["styles/a.jpg", "-s", "styles/b.jpg"],
        ["styles/b.jpg", "-s", "other/a.jpg"],
        ["styles", "-s", "styles/a.jpg"],
        ["styles/b.jpg", "-s", "ink"],
        ["styles/b.jpg", "-s", "styles/*.jpg"],
    ],
)
def test_nothing_is_noted_where_no_shell_would_have_made_it(
    styles: Path, here: Program, arguments: list[str]
) -> None:
    pairs, said = planned(here, *arguments)
    assert pairs and "note:" not in said


def test_an_image_whose_name_is_no_text_is_refused_as_a_style(styles: Path, here: Program) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    picture(seed=30).save(os.fsencode(styles / name), "PNG")
    assert "cannot be a style's name" in refused(here, "-s", f"styles/{name}")


def test_a_size_may_be_a_width_and_a_height(project: Path, here: Program) -> None:
    for size, wanted in (("40x36", (40, 36)), ("x33", (44, 33)), ("32", (32, 24))):
        outbox = project / f"out-{size}"
        done = here("run", "--size", size, "-s", "ink", "--outbox", str(outbox))
        assert done.returncode == 0, done.stderr
        with Image.open(outbox / "boat-ink.png") as result:
            assert result.size == wanted


@pytest.mark.parametrize("size", ["3x2", "x", "99999x40", "0x40", "4:3", "4k"])
def test_what_is_no_size_is_refused_with_what_it_may_be(
    project: Path, here: Program, size: str
) -> None:
    done = here("run", "--size", size, "--dry-run")
    assert done.returncode == 64 and done.stderr.startswith("--size")
    if "x" not in size:
        assert done.stderr.endswith("or should be 'original', or WIDTHxHEIGHT\n")


# Folders of styles


def test_a_folder_is_all_its_images(styles: Path, here: Program) -> None:
    (styles / "deep").mkdir()
    picture(seed=30).save(styles / "deep/c.jpg")
    for folder in ("styles", "styles/", f"{styles}"):
        pairs, said = planned(here, "photo.jpg", "-s", folder)
        assert pairs == [f"photo.jpg in {style}" for style in ("a", "b", "ink", "oil")]
        assert not said
    pairs, _ = planned(here, "photo.jpg", "-s", "oil", "-s", "styles/a.jpg", "-s", "styles")
    assert pairs == [f"photo.jpg in {style}" for style in ("oil", "a", "b", "ink")]


@pytest.mark.parametrize("chosen", ["styles", "styles/*"])
def test_an_image_of_a_folder_that_is_none_stops_no_other(
    styles: Path, here: Program, chosen: str
) -> None:
    (styles / "bad.jpg").write_text("hello")
    picture(seed=30).save(styles / "a.png")
    done = here("run", "photo.jpg", "-s", chosen, "--dry-run")
    assert done.returncode == 0
    assert f"style   {styles}/bad.jpg: not an image in a known format" in done.stdout
    assert f"{styles}/a.jpg and {styles}/a.png: two styles of one name, a, of which" in done.stdout
    assert "would paint 3" in done.stdout


def test_a_style_of_a_folder_of_the_settings_is_chosen_by_its_name_or_the_folders(
    styles: Path, here: Program
) -> None:
    text = (styles.parent / "pipeline.yaml").read_text().split("styles:")[0]
    (styles.parent / "pipeline.yaml").write_text(
        f"{text}styles: {{o: other/a.jpg, more: {{folder: styles/*.jpg, recipe: sketch}}}}\n"
    )
    assert planned(here, "photo.jpg", "-s", "b")[0] == ["photo.jpg in b"]
    assert planned(here, "photo.jpg", "-s", "more")[0] == ["photo.jpg in a", "photo.jpg in b"]
    assert "neither a style nor an image file or folder; known: o, more, a, b" in refused(
        here, "-s", "zzzz"
    )


def test_chosen_styles_and_sizes_go_above_those_of_the_inboxs_folders(
    styles: Path, here: Program
) -> None:
    home = styles.parent
    with (home / "pipeline.yaml").open("a") as file:
        file.write("folders: {sub: {styles: oil, recipe: {size: 40}}}\noutput: {name: ")
        file.write("'{content}-{style}-{size}'}\n")
    (home / "inbox/sub").mkdir()
    (home / "inbox/boat.jpg").rename(home / "inbox/sub/boat.jpg")

    def names(*arguments: str) -> list[str]:
        rows = json.loads(here("run", "--dry-run", "--json", *arguments).stdout)
        return sorted(Path(row["outcome"]).stem for row in rows if row["action"] == "paint")

    assert names() == ["boat-oil-40", "hill-ink-48", "hill-oil-48"]
    assert names("-s", "ink") == ["boat-ink-40", "hill-ink-48"]
    assert names("--size", "64") == ["boat-oil-64", "hill-ink-64", "hill-oil-64"]


def test_a_cluster_is_named_by_its_address_alone(config: Config) -> None:
    assert with_cluster(config, None) is config
    changed = config.model_copy(update={"cluster": ClusterSettings(workers=3)})
    for address in ("local", "auto", "10.0.0.1:6379", "ray://head:10001"):
        cluster = with_cluster(changed, address).cluster
        assert (cluster.address, cluster.workers) == (address, 3)
    with pytest.raises(UsageError, match="^--cluster: 'head' is no cluster; give local, auto"):
        with_cluster(config, "head")
    with pytest.raises(UsageError, match="^--cluster: 'http://head:10001' is no cluster"):
        with_cluster(config, "http://head:10001")
    one = config.model_copy(update={"device": "cuda:1"})
    with pytest.raises(UsageError, match=r"^--cluster: device: 'cuda:1'.*CUDA_VISIBLE_DEVICES"):
        with_cluster(one, "local")
