"""Painting the cells of a sheet: styles, blends, regions and companions, and what fails."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import picture
from PIL import Image

from nst_pipeline.config.pipeline import Config, load, parse
from nst_pipeline.config.recipe import Recipe, make_recipe
from nst_pipeline.config.weights import resolve
from nst_pipeline.engine import Callbacks, Result, Style, StyleTransfer, batch, tiles
from nst_pipeline.errors import OutOfMemoryError
from nst_pipeline.inbox.scanner import find
from nst_pipeline.preview import renderer as renderer_module
from nst_pipeline.preview.renderer import PreviewJob, Rendered, Renderer, Subject, batch_for

RECIPE = make_recipe(size=64, iterations=2, tv_weight=0)


@pytest.fixture(autouse=True)
def _in_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    picture(seed=9).save("photo.png")


def settings(changes: dict[str, Any] | None = None, **styles: Any) -> Config:
    """Return the project's settings with ``changes`` and these styles."""
    known = yaml.safe_load(Path("pipeline.yaml").read_text())
    text = yaml.safe_dump(known | (changes or {}) | {"styles": styles}, sort_keys=False)
    Path("pipeline.yaml").write_text(text)
    return load(Path("pipeline.yaml"))


def render(
    config: Config, path: str, recipe: Recipe, calls: list[tuple[str, int, int]] | None = None
) -> tuple[Subject, list[Rendered]]:
    """Paint a content in all styles; return what the sheet shows of it and of each."""
    (found,) = find([Path(path)])
    jobs = [PreviewJob(0, style, recipe) for style in config.styles]
    kept = [] if calls is None else calls
    renderer = Renderer(
        config,
        resolve("compact"),
        32,
        lambda job, done, total: kept.append((job.style, done, total)),
        lambda: None,
    )
    subject, rendered = renderer.paint(found, jobs)
    return subject, [rendered[job.key] for job in jobs]


def halves(path: str) -> None:
    """Write a mask that is black on the left and white on the right."""
    mask = Image.new("L", (64, 48))
    mask.paste(255, (32, 0, 64, 48))
    mask.save(path)


def pixels(path: str) -> Any:
    return np.asarray(Image.open(path).convert("RGB"))


def engine_paints(style: Any, **more: Any) -> Any:
    transfer = StyleTransfer(RECIPE, "cpu", "auto", "compact")
    (result,) = transfer.run(pixels("photo.png"), [style], **more)
    return np.asarray(result.pastiche)


def test_a_blend_is_painted_by_its_shares() -> None:
    config = settings(both={"images": {"styles/ink.png": 3, "styles/oil.png": 1}})
    _, (done,) = render(config, "photo.png", RECIPE)
    ink, oil = pixels("styles/ink.png"), pixels("styles/oil.png")
    assert np.array_equal(done.picture, engine_paints(Style((ink, oil), (0.75, 0.25))))
    assert not np.array_equal(done.picture, engine_paints(Style((ink, oil), (0.25, 0.75))))


def test_regions_are_painted_where_their_masks_are() -> None:
    halves("photo.mask.Sky.png")
    Image.new("L", (64, 48), 90).save("photo.mask.ground.png")
    config = settings(land={"regions": {"sky": "styles/ink.png", "ground": "styles/oil.png"}})
    subject, (done,) = render(config, "photo.png", RECIPE)
    assert subject.companions == ("mask.sky", "mask.ground")
    styles = {"sky": pixels("styles/ink.png"), "ground": pixels("styles/oil.png")}
    files = {"sky": "photo.mask.Sky.png", "ground": "photo.mask.ground.png"}
    masks = {region: pixels(file)[..., 0] for region, file in files.items()}
    assert np.array_equal(done.picture, engine_paints(styles, masks=masks))


def test_a_mask_leaves_alone_what_is_black_and_paints_what_is_white() -> None:
    halves("photo.mask.png")
    _, (done,) = render(settings(ink="styles/ink.png"), "photo.png", RECIPE)
    painted, before = np.asarray(done.picture, int), pixels("photo.png").astype(int)
    assert np.array_equal(painted[:, :31], before[:, :31])
    assert np.abs(painted[:, 33:] - before[:, 33:]).mean() > 3


def test_init_image_needs_a_picture_and_starts_from_it() -> None:
    config = settings(ink="styles/ink.png")
    recipe = RECIPE.model_copy(update={"init": "image"})
    _, (done,) = render(config, "photo.png", recipe)
    assert done.picture is None and "init" in done.reason
    picture(seed=5).save("photo.init.png")
    _, (done,) = render(config, "photo.png", recipe)
    wanted = engine_paints(pixels("styles/ink.png"), init=pixels("photo.init.png"))
    assert np.array_equal(done.picture, wanted)


def test_a_swatch_shows_every_picture_of_a_style() -> None:
    for name, colour in (("red", (200, 0, 0)), ("green", (0, 200, 0)), ("blue", (0, 0, 200))):
        Image.new("RGB", (30, 40), colour).save(f"styles/{name}.png")
    images = {"styles/red.png": 1, "styles/green.png": 3}
    config = settings(land={"regions": {"a": {"images": images}, "b": "styles/blue.png"}})
    renderer = Renderer(config, resolve("compact"), 32, lambda *_: None, lambda: None)
    swatch = renderer.styles["land"].picture
    assert swatch
    places = ((40, 50), (60, 50), (180, 90), (100, 150))
    found = [swatch.getpixel(place) for place in places]
    assert found == [(200, 0, 0), (0, 200, 0), (0, 200, 0), (0, 0, 200)]


def test_transparency_is_kept() -> None:
    clear = picture(40, 30)
    clear.putalpha(128)
    clear.save("clear.png")
    subject, (done,) = render(settings(ink="styles/ink.png"), "clear.png", RECIPE)
    for image in (subject.picture, done.picture):
        assert image and image.mode == "RGBA"
        assert image.getchannel("A").getextrema() == (128, 128)


def test_hidden_colours_decide_nothing_and_what_is_all_transparent_is_a_reason() -> None:
    Image.new("RGBA", (64, 48)).save("cut.png")
    config, found = settings(ink="cut.png"), []
    for hidden in ("black", "lime"):
        below = Image.new("RGB", (64, 48), hidden)
        below.paste(picture(seed=9).crop((0, 0, 32, 48)), (0, 0))
        below.putalpha(Image.new("L", (64, 48)))
        below.paste(picture(seed=9).crop((0, 0, 32, 48)).convert("RGBA"), (0, 0))
        below.save("cut.png")
        below.save("photo.png")
        _, (done,) = render(config, "photo.png", RECIPE)
        found.append(np.asarray(done.picture))
    assert found[0].shape == (48, 64, 4) and np.array_equal(*found)
    Image.new("RGBA", (64, 48), (255, 255, 255, 0)).save("photo.mask.png")
    _, (done,) = render(config, "photo.png", RECIPE)
    assert "photo.mask.png: a mask without a visible pixel" in done.reason
    Path("photo.mask.png").unlink()
    Image.new("RGBA", (64, 48)).save("cut.png")
    _, (done,) = render(config, "photo.png", RECIPE)
    assert "cut.png: nothing is visible" in done.reason


def test_a_cell_of_an_exact_size_shows_its_part_of_a_cut_out() -> None:
    cut = picture(seed=9)
    cut.putalpha(Image.linear_gradient("L").resize((64, 48)).point(lambda v: 255 * (v > 95)))
    cut.save("cut.png")
    recipe = make_recipe(size={"width": 64, "height": 24}, iterations=1)
    _, (done,) = render(settings(ink="styles/ink.png"), "cut.png", recipe)
    assert done.picture and done.picture.size == (64, 24)
    alpha = np.asarray(done.picture.getchannel("A"))
    assert (alpha[:5] == 0).all() and (alpha[7:] == 255).all()


def test_cells_of_grey_outputs_are_grey() -> None:
    (config, plain) = (
        settings(o, ink="styles/ink.png") for o in ({"output": {"mode": "grey"}}, {"output": {}})
    )
    (_, (grey,)), (_, (coloured,)) = (render(c, "photo.png", RECIPE) for c in (config, plain))
    assert grey.picture and coloured.picture
    assert np.ptp(np.asarray(grey.picture), axis=2).max() == 0
    assert np.ptp(np.asarray(coloured.picture), axis=2).max() > 20


def test_small_pictures_go_together_and_the_settings_come_first(project: Path) -> None:
    def batch(size: object, **limits: int) -> int:
        styles = {"ink": "styles/ink.png"}
        config: Config = parse({"styles": styles, "limits": limits}, project)
        return batch_for(config, make_recipe(size=size), 1)

    assert [batch(size) for size in (128, 256, 512, 1024, "original")] == [32, 8, 2, 1, 1]
    assert [batch({"width": 512, "height": 256}), batch({"width": 256})] == [4, 8]
    assert batch(128, batch=3) == 3


def test_progress_is_that_of_each_job_with_its_true_total() -> None:
    config = settings(ink="styles/ink.png", oil="styles/oil.png")
    recipe = make_recipe(size=64, scales=(32, 48), iterations=(3,))
    calls: list[tuple[str, int, int]] = []
    render(config, "photo.png", recipe, calls)
    assert {total for _, _, total in calls} == {9}
    for style in ("ink", "oil"):
        assert [done for name, done, _ in calls if name == style] == [1, 3, 4, 6, 7, 9]


STYLES = {"ink": "styles/ink.png", "oil": "styles/oil.png", "wash": "styles/ink.png"}


def test_a_loss_that_is_not_finite_is_a_reason() -> None:
    recipe = RECIPE.model_copy(update={"style_weight": 1e300})
    _, (done,) = render(settings(ink="styles/ink.png"), "photo.png", recipe)
    assert done.picture is None and done.reason.startswith("the loss is inf")


@pytest.mark.parametrize(
    ("limit", "fails"), [(1, [False, True, False]), (2, [True, True, False]), (8, [True] * 3)]
)
def test_a_style_that_fails_fails_what_was_painted_with_it_alone(
    limit: int, fails: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    paint = batch.Batch.paint

    def painted(self: batch.Batch, callbacks: Callbacks) -> list[Result]:
        if 1 in self.indices:
            raise ValueError("no luck")
        return paint(self, callbacks)

    monkeypatch.setattr(batch.Batch, "paint", painted)
    config = settings({"limits": {"batch": limit}}, **STYLES)
    _, rendered = render(config, "photo.png", RECIPE)
    assert [done.picture is None for done in rendered] == fails
    assert {done.reason for done in rendered if done.picture is None} == {"ValueError: no luck"}


@pytest.mark.parametrize(
    ("tile", "way_out"),
    [("on", "a smaller recipe.size"), ("off", "tile to 'on', or a smaller recipe.size")],
)
def test_short_memory_is_a_reason_and_the_settings_say_whether_to_paint_in_tiles(
    tile: str, way_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "available_bytes", lambda device: 10**6)
    _, rendered = render(settings({"tile": tile}, **STYLES), "photo.png", RECIPE)
    for done in rendered:
        assert done.picture is None
        assert done.reason.startswith("memory: the picture of 64 x 48 needs ")
        assert done.reason.endswith(f"; set {way_out}")


def test_a_network_that_memory_has_no_room_for_is_a_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def transfer(*_: object) -> None:
        raise OutOfMemoryError("device: cuda: no memory is left for the network")

    monkeypatch.setattr(renderer_module.Renderer, "_transfer", transfer)
    subject, rendered = render(settings(**STYLES), "photo.png", RECIPE)
    assert subject.picture
    assert {done.reason for done in rendered} == {"device: cuda: no memory is left for the network"}


def test_precision_of_the_settings_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    real = Renderer._transfer

    def transfer(self: Renderer, recipe: Recipe) -> StyleTransfer:
        found = real(self, recipe)
        made.append(found.describe()[1])
        return found

    monkeypatch.setattr(Renderer, "_transfer", transfer)
    for precision in ("bf16", "fp32"):
        render(settings({"precision": precision}, ink="styles/ink.png"), "photo.png", RECIPE)
    assert made == ["bf16", "fp32"]
