"""Masks, and what a pastiche starts as."""

import numpy as np
import pytest
import torch
from conftest import picture, wave
from painting import BLUE, RED, mean_colour, paint, small_recipe, transfer

from nst_pipeline.config.recipe import Bounds
from nst_pipeline.engine.alpha import Seen
from nst_pipeline.engine.scales import Scale
from nst_pipeline.engine.scene import guide_count, make_scene, masks_at, style_masks
from nst_pipeline.engine.tiles import Tiling
from nst_pipeline.errors import ImageError


def test_a_start_in_the_colours_of_the_style_has_them() -> None:
    result = paint(RED, init="style-colors", iterations=1, style_weight=0)
    assert np.abs(mean_colour(result.pixels) - (200, 40, 30)).max() < 12


def test_a_start_from_a_picture_is_that_picture() -> None:
    start = picture(48, 36, seed=7)
    result = paint(start=start, iterations=1, content_weight=1e-6, style_weight=0)
    assert np.abs(result.pixels.astype(int) - np.asarray(start, int)).mean() < 10


def test_a_recipe_that_starts_from_a_picture_needs_one_for_all_styles() -> None:
    outcomes = transfer(small_recipe(init="image")).paint(picture(seed=1), [RED, BLUE])
    ((indices, error),) = outcomes
    assert indices == range(2) and isinstance(error, ImageError)
    assert str(error) == (
        "init: the recipe starts from a picture, and there is none; give one, or another "
        "recipe.init"
    )


def test_black_of_a_mask_stays_and_white_is_painted() -> None:
    mask = np.zeros((48, 64), np.uint8)
    mask[:, 32:] = 255
    content = picture(64, 48, seed=1)
    result = paint(content=content, size="original", masks={"": mask})
    before = np.asarray(content)
    assert np.array_equal(result.pixels[:, :31], before[:, :31])
    assert np.abs(result.pixels[:, 34:].astype(int) - before[:, 34:]).mean() > 5


def test_the_soft_edge_of_a_mask_blends() -> None:
    content = picture(64, 48, seed=1)

    def change(value: int) -> float:
        mask = np.full((48, 64), value, np.uint8)
        pixels = paint(content=content, size="original", masks={"": mask}, iterations=5).pixels
        return float(np.abs(pixels.astype(int) - np.asarray(content)).mean())

    assert change(0) == 0
    assert 0 < change(30) < 0.8 * change(255)


def test_every_region_gets_its_own_style() -> None:
    left = np.zeros((48, 64), np.uint8)
    left[:, :32] = 255
    masks = {"left": left, "right": 255 - left}
    colours = {"style_layers": ["pixels"], "statistic": "gram+mean"}
    styles = {"left": RED, "right": BLUE}
    pixels = paint(styles, masks=masks, iterations=40, size=64, **colours).pixels
    assert mean_colour(pixels[:, :24])[0] > mean_colour(pixels[:, :24])[2] + 40
    assert mean_colour(pixels[:, 40:])[2] > mean_colour(pixels[:, 40:])[0] + 40


def test_a_region_without_a_mask_is_an_error_that_names_both() -> None:
    with pytest.raises(ImageError, match=r"^masks: there is none of the region 'sky'; give one"):
        paint({"sky": RED, "sea": BLUE}, masks={"sea": np.zeros((8, 8), np.uint8)})


@pytest.mark.parametrize(
    ("masks", "regions", "count"),
    [({}, (), 0), ({""}, (), 1), ({"", "a", "b"}, ("a", "b"), 2), ({"a", "b"}, ("b",), 1)],
)
@pytest.mark.parametrize(("size", "alpha"), [((48, 64), False), ((48, 64), True), ((20, 64), True)])
def test_as_many_masks_restrict_the_statistics_as_are_counted(
    masks: set[str],
    regions: tuple[str, ...],
    count: int,
    size: tuple[int, int],
    alpha: bool,
) -> None:
    content = Seen(wave(), wave(seed=1)[:, :1] if alpha else None)
    engine = transfer(small_recipe())
    scene = make_scene(engine._trunk, engine.recipe, content, Scale(size, 64, 1), Tiling())
    count = max(count, alpha)
    whole = {name: torch.ones(1, 1, 8, 8) for name in masks}
    guides = style_masks(scene, masks_at(whole, regions, scene.content)[1])
    assert guide_count(masks, regions, scene) == count
    assert count == (0 if guides is None else guides.shape[1])
    assert guides is None or guides.shape[2:] == (max(32, size[0]), 64)


def padded_with_noise(values: np.ndarray, above: int) -> np.ndarray:
    """Return a picture or mask with rows above and below that are cut off again."""
    noise = np.random.default_rng(0).integers(0, 256, (above, *values.shape[1:]), np.uint8)
    return np.concatenate([noise, values, noise[::-1]])


@pytest.mark.parametrize("regions", [False, True])
def test_masks_and_a_start_are_cut_off_as_their_content_is(regions: bool) -> None:
    content, start = (np.asarray(picture(seed=seed)) for seed in (1, 7))
    masks = {"": np.zeros((48, 64), np.uint8)}
    masks[""][:, 20:] = 255
    style: object = RED
    if regions:
        masks |= {"top": masks[""].copy(), "bottom": masks[""].copy()}
        masks["top"][24:], masks["bottom"][:24] = 0, 0
        style = {"top": RED, "bottom": BLUE}
    whole = paint(style, content, start, masks, size=96, iterations=4)
    cut = paint(
        style,
        padded_with_noise(content, 40),
        padded_with_noise(start, 40),
        {name: padded_with_noise(mask, 40) for name, mask in masks.items()},
        size=Bounds(width=96, height=72),
        iterations=4,
    )
    assert cut.pixels.shape == (72, 96, 3)
    assert np.array_equal(cut.pixels, whole.pixels)


def test_masks_of_another_size_are_cut_off_in_proportion() -> None:
    mask = np.zeros((20, 40), np.uint8)
    mask[:, :10] = 255  # outside of what is shown
    mask[8:12] = 255  # the middle fifth of the height
    content = picture(80, 40, seed=1)
    result = paint(content=content, masks={"": mask}, size=Bounds(width=40, height=40))
    before = np.asarray(content.crop((20, 0, 60, 40)))
    changed = np.abs(result.pixels.astype(int) - before).max(2) > 0
    assert changed[16:24].mean() > 0.9
    assert not changed[:14].any() and not changed[26:].any()


@pytest.mark.parametrize("colors", ["style", "content", "matched"])
def test_masks_that_are_cut_off_altogether_leave_a_picture(colors: str) -> None:
    mask = np.zeros((48, 64), np.uint8)
    mask[:2] = 255
    size = Bounds(width=64, height=24)
    content = picture(64, 48, seed=1)
    left = paint(content=content, masks={"": mask}, size=size, colors=colors)
    shown = np.asarray(content.crop((0, 12, 64, 36)), int)
    assert np.abs(left.pixels - shown).max() <= 1 and left.problem == ""
    styles = {"sky": RED, "ground": BLUE}
    masks = {"sky": mask, "ground": 255 - mask}
    assert paint(styles, content, masks=masks, size=size, colors=colors).problem == ""


@pytest.mark.parametrize("tile", ["on", "off"])
def test_a_size_that_is_exact_is_kept_in_tiles_and_where_it_is_small(tile: str) -> None:
    for width, height in ((90, 41), (40, 7), (3, 33)):
        recipe = small_recipe(size=Bounds(width=width, height=height), iterations=2)
        (result,) = transfer(recipe, tile=tile, tile_size=32).run(picture(), [RED])
        assert result.pixels.shape == (height, width, 3) and result.problem == ""
