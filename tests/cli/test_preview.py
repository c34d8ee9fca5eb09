"""The preview command: what it paints, what it leaves alone, and what it refuses."""

import re
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Program, picture
from PIL import Image
from typer.testing import CliRunner, Result

from nst_pipeline.cli.app import app
from nst_pipeline.cli.display import Bars
from nst_pipeline.config.pipeline import load
from nst_pipeline.engine import Callbacks, StyleTransfer, tiles
from nst_pipeline.engine import Result as EngineResult
from nst_pipeline.engine.batch import Batch
from nst_pipeline.errors import CannotCreateError, PipelineError, UsageError
from nst_pipeline.inbox.patience import Patience
from nst_pipeline.jobs.looking import as_listed, terms_of
from nst_pipeline.preview.renderer import is_sheet


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
        assert "default · size: 32 · iterations: 1" in sheet.info["Description"]


def test_the_styles_of_a_content_are_painted_as_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[range] = []
    paint = Batch.paint

    def counted(self: Batch, callbacks: Callbacks) -> list[EngineResult]:
        batches.append(self.indices)
        return paint(self, callbacks)

    monkeypatch.setattr(Batch, "paint", counted)
    assert preview("inbox/boat.jpg", "inbox/hill.png").exit_code == 0
    assert batches == [range(2), range(2)]
    assert Path("preview.png").is_file()


def test_a_sweep_paints_each_value_and_tells_how_to_keep_one(monkeypatch: pytest.MonkeyPatch):
    recipes = []
    start = StyleTransfer.__init__

    def noted(self: StyleTransfer, recipe: object, *more: Any, **options: Any) -> None:
        recipes.append(recipe)
        start(self, recipe, *more, **options)

    monkeypatch.setattr(StyleTransfer, "__init__", noted)
    sweeps = ["--sweep", "style_weight=1e2,1e4", "--sweep", "init=content,noise"]
    done = preview("photo.jpg", "-s", "ink", *sweeps)
    assert done.exit_code == 0, done.output
    assert sorted((r.style_weight, r.init) for r in recipes) == [
        (100, "content"), (100, "noise"), (10000, "content"), (10000, "noise"),
    ]  # fmt: skip
    assert "preview-photo-style_weight-init.png: 4 painted" in done.stdout
    assert "such as `recipe: {style_weight: 1e4, init: noise}`" in done.stdout


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
    paint = Batch.paint

    def broken(self: Batch, callbacks: Callbacks) -> list[EngineResult]:
        if self.scenes[0].recipe.seed == 2:
            raise RuntimeError("it broke")
        return paint(self, callbacks)

    monkeypatch.setattr(Batch, "paint", broken)
    done = preview("photo.jpg", "-s", "ink", "--sweep", "seed=1,2,3")
    assert done.exit_code == 1
    assert "failed   photo.jpg in ink: RuntimeError: it broke" in done.stdout
    assert "preview-photo-seed.png: 2 painted" in done.stdout


def test_short_memory_fails_the_pictures_it_is_too_short_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tiles, "available_bytes", lambda device: 14 * 10**6)
    done = preview("photo.jpg", "-s", "ink", "--sweep", "size=32,256")
    assert done.exit_code == 1
    assert "failed   photo.jpg in ink: memory: the picture of 256 x 192 needs" in done.stdout
    assert "preview-photo-size.png: 1 painted" in done.stdout


@pytest.mark.parametrize(
    "recipe", ["scales: 1, iterations: [2, 2]", "scales: [32, 40], iterations: [2]"]
)
def test_the_bar_ends_full_whatever_came_of_the_pictures(
    recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = Path("pipeline.yaml").read_text()
    Path("pipeline.yaml").write_text(text.replace("size: 48, iterations: 3", recipe))
    Path("styles/oil.png").write_bytes(b"no picture")
    totals: list[int] = []
    steps: list[int] = []
    monkeypatch.setattr(Bars, "begin", lambda self, total, description: totals.append(total))
    monkeypatch.setattr(Bars, "advance", lambda self, count: steps.append(count))
    done = CliRunner().invoke(app, ["preview", "photo.jpg", "--size", "48"])
    assert done.exit_code == 1 and "1 painted" in done.stdout
    assert totals == [sum(steps)] and min(steps) >= 0
    assert 0 < steps[0] < max(steps) == totals[0] / 2  # that of the style that is none, at once


def test_a_preview_is_replaced_and_another_file_only_by_force() -> None:
    assert preview("photo.jpg", "-s", "ink").exit_code == 0
    assert preview("photo.jpg", "-s", "oil").exit_code == 0
    with Image.open("preview-photo.png") as sheet:
        assert sheet.info["Title"] == "photo.jpg in oil"
    picture().save("mine.png")
    mine = Path("mine.png").read_bytes()
    error = refused("photo.jpg", "-o", "mine.png")
    assert isinstance(error, CannotCreateError) and "--force" in str(error)
    assert Path("mine.png").read_bytes() == mine
    assert preview("photo.jpg", "-s", "ink", "-o", "mine.png", "--force").exit_code == 0
    assert is_sheet(Path("mine.png"))


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


# Regions and companions


def write_styles(**styles: Any) -> None:
    """Put these styles into the project's settings."""
    changed = yaml.safe_load(Path("pipeline.yaml").read_text()) | {"styles": styles}
    Path("pipeline.yaml").write_text(yaml.safe_dump(changed, sort_keys=False))


def halves(path: str, size: tuple[int, int] = (64, 48)) -> None:
    """Write a mask that is black on the left and white on the right."""
    mask = Image.new("L", size)
    mask.paste(255, (size[0] // 2, 0, *size))
    mask.save(path)


def test_companions_in_a_folder_are_no_pictures_of_their_own() -> None:
    for name in ("boat.mask.png", "boat.mask.sky.png", "boat.init.png"):
        halves(f"inbox/{name}")
    done = preview("inbox", "-s", "ink")
    assert done.exit_code == 0 and "preview.png: 2 painted" in done.stdout
    with Image.open("preview.png") as sheet:
        assert sheet.info["Title"] == "2 pictures in ink"


def test_a_missing_mask_is_told_once_and_stops_no_other_style() -> None:
    write_styles(ink="styles/ink.png", land={"regions": {"sky": "styles/oil.png"}})
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


def test_help_of_preview_imports_no_torch_and_the_program_exits_as_it_should(
    program: Program,
) -> None:
    shown = program("preview", "--help", PYTHONPROFILEIMPORTTIME="1")
    assert shown.returncode == 0 and "--sweep" in shown.stdout
    assert "torch" not in shown.stderr and "PIL" not in shown.stderr
    wrong = program("preview", "photo.jpg", "--sweep", "style_weigth=1")
    assert wrong.returncode == 64
    assert wrong.stderr == ("--sweep style_weigth: unknown field; did you mean 'style_weight'?\n")


def test_a_picture_of_the_longest_name_gets_a_sheet_of_a_shorter_one(project: Path) -> None:
    name = "a" * 251 + ".jpg"
    (project / "photo.jpg").rename(project / name)
    before = files(project)
    assert preview(name).exit_code == 0
    (sheet,) = files(project) - before
    assert sheet.startswith("preview-aaa") and len(sheet) == 255


def test_a_picture_that_proves_sound_is_suspect_no_more(project: Path) -> None:
    config = load(project / "pipeline.yaml")
    config.state.mkdir(exist_ok=True)
    notes = config.state / "preview-looks.json"
    seen = as_listed(Path("photo.jpg").absolute(), terms_of(config.limits))
    Patience(0, notes).begin_look(seen)  # a process ended there, such as by somebody's kill
    assert Patience(0, notes, is_shared=True).is_suspect(seen)
    assert preview("photo.jpg").exit_code == 0
    assert not notes.exists()
