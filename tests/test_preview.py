"""The preview command: what it paints, what it leaves alone, and what it refuses."""

import re
import signal
from pathlib import Path

import pytest
from conftest import Program, picture
from PIL import Image
from typer.testing import CliRunner, Result

from nst_pipeline import preview as previews
from nst_pipeline.cli import app
from nst_pipeline.config import Config, parse
from nst_pipeline.engine import StyleTransfer
from nst_pipeline.errors import CannotCreateError, PipelineError, UsageError
from nst_pipeline.recipe import make_recipe


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
        ("folder.png", CannotCreateError, "is a folder"),
        ("photo.jpg/sheet.png", CannotCreateError, "no files can be created"),
    ],
)
def test_a_sheet_never_takes_a_place_that_is_not_its_own(
    output: str, kind: type[PipelineError], said: str
) -> None:
    Path("folder.png").mkdir()
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


def test_transparency_is_kept() -> None:
    clear = picture(40, 30)
    clear.putalpha(128)
    clear.save("clear.png")
    config = parse({"styles": {"ink": "styles/ink.png"}}, Path())
    source = previews.read_source(Path("clear.png"), "clear.png", config)
    assert source.picture and source.picture.mode == "RGBA"
    ((_, top),) = {previews.small(source.picture, 20).getchannel("A").getextrema()}
    assert top == 128


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
