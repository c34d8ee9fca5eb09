"""The preview command: what it paints, what it leaves alone, and what it refuses."""

import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import Program, picture
from PIL import Image
from typer.testing import CliRunner, Result

from nst_pipeline.cli.app import app
from nst_pipeline.config.pipeline import Config, load, parse
from nst_pipeline.config.recipe import Recipe, make_recipe
from nst_pipeline.config.weights import resolve
from nst_pipeline.engine import Style, StyleTransfer
from nst_pipeline.errors import CannotCreateError, PipelineError, UsageError
from nst_pipeline.inbox.scanner import find
from nst_pipeline.preview import renderer as previews


@pytest.fixture(autouse=True)
def _in_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    picture(seed=9).save("photo.jpg")
    # The command handles signals from here on, which is not for this process.
    monkeypatch.setattr(signal, "signal", lambda *_: None)


def preview(*arguments: object) -> Result:
    words = ["preview", *map(str, arguments), "--size", "32", "--iterations", "1"]
    return CliRunner().invoke(app, words)


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def refused(*arguments: object) -> PipelineError:
    error = preview(*arguments).exception
    assert isinstance(error, PipelineError), error
    return error


def test_a_photo_in_all_styles_gives_one_sheet_and_no_other_file(project: Path) -> None:
    before = files(project)
    done = preview("photo.jpg")
    assert done.exit_code == 0, done.output
    assert files(project) - before == {"preview-photo.png"}
    assert re.search(r"^sheet    preview-photo.png: 2 painted in [\d.]+ s$", done.stdout, re.M)
    with Image.open("preview-photo.png") as sheet:
        assert sheet.info["Title"] == "photo.jpg in 2 styles"
        assert "gatys · size: 32 · iterations: 1" in sheet.info["Description"]


def test_the_styles_of_a_content_are_painted_as_one_batch(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[tuple[int, int]] = []
    run = StyleTransfer.run

    def counted(self: StyleTransfer, content: object, styles: list[object], **more: object):
        batches.append((len(styles), self.batch))
        return run(self, content, styles, **more)

    monkeypatch.setattr(StyleTransfer, "run", counted)
    assert preview("inbox/boat.jpg", "inbox/hill.png").exit_code == 0
    assert [count for count, _ in batches] == [2, 2]
    assert all(batch >= 2 for _, batch in batches)
    assert Path("preview.png").is_file()


def test_a_sweep_paints_each_value_and_tells_how_to_keep_one(monkeypatch: pytest.MonkeyPatch):
    recipes = []
    start = StyleTransfer.__init__

    def noted(self: StyleTransfer, recipe: object, *more: object) -> None:
        recipes.append(recipe)
        start(self, recipe, *more)

    monkeypatch.setattr(StyleTransfer, "__init__", noted)
    sweeps = ["--sweep", "style_weight=1e2,1e4", "--sweep", "init=content,noise"]
    done = preview("photo.jpg", "-s", "ink", *sweeps)
    assert done.exit_code == 0, done.output
    assert sorted((r.style_weight, r.init) for r in recipes) == [
        (100, "content"), (100, "noise"), (10000, "content"), (10000, "noise"),
    ]  # fmt: skip
    assert "preview-photo-style_weight-init.png: 4 painted" in done.stdout
    assert "such as `style_weight: 1e4, init: noise`" in done.stdout


def test_what_cannot_be_read_is_told_and_the_rest_is_painted(project: Path) -> None:
    Path("styles/oil.png").write_bytes(b"no picture")
    Path("cut.jpg").write_bytes(Path("photo.jpg").read_bytes()[:400])
    done = preview("photo.jpg", "cut.jpg")
    assert done.exit_code == 1
    assert re.search(r"failed   cut.jpg: damaged", done.stdout.replace(f"{project}/", ""))
    assert done.stdout.count("oil.png: not an image") == 1
    assert "1 painted" in done.stdout and Path("preview.png").is_file()
    alone = preview("cut.jpg")
    assert alone.exit_code == 1 and not Path("preview-cut.png").exists()


def test_a_picture_that_cannot_be_painted_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    run = StyleTransfer.run

    def broken(self: StyleTransfer, *given: object, **more: object):
        if self.recipe.seed == 2:
            raise RuntimeError("it broke")
        return run(self, *given, **more)

    monkeypatch.setattr(StyleTransfer, "run", broken)
    done = preview("photo.jpg", "-s", "ink", "--sweep", "seed=1,2,3")
    assert done.exit_code == 1
    assert "failed   photo.jpg in ink: RuntimeError: it broke" in done.stdout
    assert Path("preview-photo-seed.png").is_file()


def test_a_preview_is_replaced_and_another_file_only_by_force() -> None:
    assert preview("photo.jpg", "-s", "ink").exit_code == 0
    first = Path("preview-photo.png").read_bytes()
    assert preview("photo.jpg", "-s", "oil").exit_code == 0
    assert Path("preview-photo.png").read_bytes() != first
    picture().save("mine.png")
    mine = Path("mine.png").read_bytes()
    error = refused("photo.jpg", "-o", "mine.png")
    assert isinstance(error, CannotCreateError) and "--force" in str(error)
    assert Path("mine.png").read_bytes() == mine
    assert preview("photo.jpg", "-s", "ink", "-o", "mine.png", "--force").exit_code == 0
    assert previews.is_sheet(Path("mine.png"))


@pytest.mark.parametrize(
    ("output", "kind", "said"),
    [
        ("sheet.jpg", UsageError, "a sheet is a PNG file"),
        ("inbox/sheet.png", UsageError, "lies in the inbox"),
        ("styles/ink.png", UsageError, "is one of the pictures"),
        ("photo.mask.png", UsageError, "is one of the pictures"),
        ("folder.png", CannotCreateError, "is a folder"),
        ("photo.jpg/sheet.png", CannotCreateError, "no files can be created"),
    ],
)
def test_a_sheet_never_takes_a_place_that_is_not_its_own(
    output: str, kind: type[PipelineError], said: str
) -> None:
    Path("folder.png").mkdir()
    picture().save("photo.mask.png")
    before = files(Path())
    error = refused("photo.jpg", "-o", output, "--force")
    assert isinstance(error, kind) and said in str(error)
    assert files(Path()) == before


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["gone.jpg"], 64, "gone.jpg"),
        (["styles", "-s", "photo.jpg", "--sweep", "tv_wieght=1"], 64, "did you mean 'tv_weight'?"),
        (["photo.jpg", "-s", "inc"], 64, "did you mean 'ink'?"),
        (["photo.jpg", "--device", "cuda:7"], 69, "cuda:7"),
        (["photo.jpg", "--weights", "gone.pth"], 69, "gone.pth"),
        (["empty"], 64, "no pictures"),
    ],
)
def test_exit_codes_are_those_of_a_run(arguments: list[str], code: int, said: str) -> None:
    Path("empty").mkdir()
    error = refused(*arguments)
    assert error.exit_code == code and said in str(error)


# Blends, regions and companions


def settings(**styles: Any) -> Config:
    """Return the project's settings, with these styles."""
    changed = yaml.safe_load(Path("pipeline.yaml").read_text()) | {"styles": styles}
    Path("pipeline.yaml").write_text(yaml.safe_dump(changed, sort_keys=False))
    return load(Path("pipeline.yaml"))


def paint(config: Config, path: str, recipe: Recipe) -> tuple[previews.Source, Any]:
    """Paint a content in the only style; return what the sheet shows of both."""
    (found,) = find([Path(path)])
    (style,) = config.styles
    job = previews.PreviewJob(0, style, recipe)
    renderer = previews.Renderer(config, resolve("compact"), 32, lambda *_: None, lambda: None)
    source, painted = renderer.paint(found, [job])
    return source, painted[job.key]


def halves(path: str, size: tuple[int, int] = (64, 48)) -> None:
    """Write a mask that is black on the left and white on the right."""
    mask = Image.new("L", size)
    mask.paste(255, (size[0] // 2, 0, *size))
    mask.save(path)


RECIPE = make_recipe("compact", size=64, iterations=2, tv_weight=0)


def pixels(path: str) -> Any:
    return np.asarray(Image.open(path).convert("RGB"))


def engine_paints(style: Any, **more: Any) -> Any:
    transfer = StyleTransfer(RECIPE, "cpu", "auto", "compact")
    (result,) = transfer.run(pixels("photo.png"), [style], **more)
    return np.asarray(result.pastiche)


@pytest.fixture
def photo() -> None:
    picture(seed=9).save("photo.png")
    Path("photo.jpg").unlink()


@pytest.mark.usefixtures("photo")
def test_a_blend_is_painted_by_its_shares() -> None:
    config = settings(both={"images": {"styles/ink.png": 3, "styles/oil.png": 1}})
    _, done = paint(config, "photo.png", RECIPE)
    ink, oil = pixels("styles/ink.png"), pixels("styles/oil.png")
    assert np.array_equal(done.picture, engine_paints(Style((ink, oil), (0.75, 0.25))))
    assert not np.array_equal(done.picture, engine_paints(Style((ink, oil), (0.25, 0.75))))


@pytest.mark.usefixtures("photo")
def test_regions_are_painted_where_their_masks_are() -> None:
    halves("photo.mask.Sky.png")
    Image.new("L", (64, 48), 90).save("photo.mask.ground.png")
    config = settings(land={"regions": {"sky": "styles/ink.png", "ground": "styles/oil.png"}})
    source, done = paint(config, "photo.png", RECIPE)
    assert source.companions == ("mask.sky", "mask.ground")
    styles = {"sky": pixels("styles/ink.png"), "ground": pixels("styles/oil.png")}
    files = {"sky": "photo.mask.Sky.png", "ground": "photo.mask.ground.png"}
    masks = {region: pixels(file)[..., 0] for region, file in files.items()}
    assert np.array_equal(done.picture, engine_paints(styles, masks=masks))


@pytest.mark.usefixtures("photo")
def test_a_mask_leaves_alone_what_is_black() -> None:
    halves("photo.mask.png")
    _, done = paint(settings(ink="styles/ink.png"), "photo.png", RECIPE)
    painted, before = np.asarray(done.picture), pixels("photo.png")
    assert np.array_equal(painted[:, :31], before[:, :31])
    assert not np.array_equal(painted[:, 33:], before[:, 33:])


@pytest.mark.usefixtures("photo")
def test_init_image_needs_a_picture_and_starts_from_it() -> None:
    config = settings(ink="styles/ink.png")
    recipe = RECIPE.model_copy(update={"init": "image"})
    _, done = paint(config, "photo.png", recipe)
    assert "init: image needs a picture" in done.reason
    picture(seed=5).save("photo.init.png")
    _, done = paint(config, "photo.png", recipe)
    wanted = engine_paints(pixels("styles/ink.png"), init=pixels("photo.init.png"))
    assert np.array_equal(done.picture, wanted)


def test_companions_in_a_folder_are_no_pictures_of_their_own() -> None:
    for name in ("boat.mask.png", "boat.mask.sky.png", "boat.init.png"):
        halves(f"inbox/{name}")
    done = preview("inbox", "-s", "ink")
    assert done.exit_code == 0 and "preview.png: 2 painted" in done.stdout
    with Image.open("preview.png") as sheet:
        assert sheet.info["Title"] == "2 pictures in ink"


def test_a_missing_mask_is_told_once_and_stops_no_other_style() -> None:
    settings(ink="styles/ink.png", land={"regions": {"sky": "styles/oil.png"}})
    halves("inbox/hill.mask.sky.png")
    done = preview("inbox", "--sweep", "seed=1,2")
    assert done.exit_code == 1 and "6 painted" in done.stdout
    said = "boat.jpg in land: there is no mask of the region sky; put boat.mask.sky.png beside it"
    assert [line for line in done.stdout.splitlines() if "failed" in line] == [f"failed   {said}"]


@pytest.mark.parametrize(
    ("names", "size", "said"),
    [
        (["boat.mask.png"], (48, 64), "boat.mask.png: 48 x 64 pixels, not of the shape of boat"),
        (["boat.mask.png", "boat.mask.tif"], (64, 48), "a second mask of boat.jpg"),
        (["gone.mask.png"], (64, 48), "is the mask of a picture gone that is not there"),
    ],
)
def test_a_companion_that_does_not_fit_is_told_and_the_rest_is_painted(
    project: Path, names: list[str], size: tuple[int, int], said: str
) -> None:
    for name in names:
        halves(f"inbox/{name}", size)
    done = preview("inbox", "-s", "ink")
    assert done.exit_code == 1
    assert said in done.stdout.replace("\n", " ").replace(f"{project}/", "")
    assert f"{2 if 'gone.mask.png' in names else 1} painted" in done.stdout


def test_a_swatch_shows_every_picture_of_a_style() -> None:
    for name, colour in (("red", (200, 0, 0)), ("green", (0, 200, 0)), ("blue", (0, 0, 200))):
        Image.new("RGB", (30, 40), colour).save(f"styles/{name}.png")
    images = {"styles/red.png": 1, "styles/green.png": 3}
    config = settings(land={"regions": {"a": {"images": images}, "b": "styles/blue.png"}})
    renderer = previews.Renderer(config, resolve("compact"), 32, lambda *_: None, lambda: None)
    swatch = renderer.styles["land"].picture
    assert swatch
    places = ((40, 50), (60, 50), (180, 90), (100, 150))
    shown = [swatch.getpixel(place) for place in places]
    assert shown == [(200, 0, 0), (0, 200, 0), (0, 200, 0), (0, 0, 200)]


def test_transparency_is_kept() -> None:
    clear = picture(40, 30)
    clear.putalpha(128)
    clear.save("clear.png")
    source, done = paint(settings(ink="styles/ink.png"), "clear.png", RECIPE)
    for shown in (source.picture, done.picture):
        assert shown and shown.mode == "RGBA"
        assert shown.getchannel("A").getextrema() == (128, 128)


def test_small_pictures_go_together_and_the_settings_come_first(project: Path) -> None:
    def batch(size: object, **limits: int) -> int:
        styles = {"ink": "styles/ink.png"}
        config: Config = parse({"styles": styles, "limits": limits}, project)
        return previews.batch_for(config, make_recipe("compact", size=size), 1)

    assert [batch(size) for size in (128, 256, 512, 1024, "original")] == [32, 8, 2, 1, 1]
    assert batch(128, batch=3) == 3


def test_help_of_preview_imports_no_torch_and_the_program_exits_as_it_should(
    program: Program,
) -> None:
    shown = program("preview", "--help", PYTHONPROFILEIMPORTTIME="1")
    assert shown.returncode == 0 and "--sweep" in shown.stdout
    assert "torch" not in shown.stderr and "PIL" not in shown.stderr
    wrong = program("preview", "photo.jpg", "--sweep", "style_weigth=1")
    assert wrong.returncode == 64
    assert wrong.stderr == ("--sweep style_weigth: unknown field; did you mean 'style_weight'?\n")
