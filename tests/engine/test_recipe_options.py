"""What each option of a recipe does to the picture: across all modules of the engine."""

from typing import Any

import numpy as np
import pytest
import torch
from conftest import picture, wave
from painting import RED, mean_colour, paint, small_recipe, transfer
from PIL import Image

from nst_pipeline.config.weights import COMPACT_PATH
from nst_pipeline.engine import Recipe
from nst_pipeline.engine.colour import grey
from nst_pipeline.engine.images import resize, to_tensor
from nst_pipeline.engine.losses import extract, style_statistic
from nst_pipeline.engine.vgg import deepest, load_trunk

CONTENT, STYLE = wave(48, 36, seed=1), wave(48, 36, seed=2)


# What is minimised


def style_loss(recipe: Recipe, style: torch.Tensor) -> float:
    """Return the style loss of the content (Gatys et al. 2016, eq. 5), computed plainly."""
    trunk = load_trunk(COMPACT_PATH, deepest(recipe.style_layers), recipe.pooling, recipe.padding)
    layers = set(recipe.style_layers)
    found, wanted = (extract(trunk, pixels, layers) for pixels in (CONTENT, style))
    total = 0.0
    for layer, weight in recipe.style_layers.items():
        kind = recipe.statistic
        one, other = (style_statistic(values[layer], kind)[0, 0] for values in (found, wanted))
        channels = len(other)  # the matrix, and the means if there are any
        parts = [(one[:, :channels], other[:, :channels]), (one[:, channels:], other[:, channels:])]
        losses = [
            (a - b).square().mean() / (b.square().mean() if recipe.balanced else 1)
            for a, b in parts
            if b.numel()
        ]
        share = weight / (sum(recipe.style_layers.values()) if recipe.balanced else 1)
        total += share * float(torch.stack(losses).mean())
    return recipe.style_weight * total


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"style_weight": 1.0},
        {"style_layers": {"relu1_1": 1.0}},
        {"style_layers": {"relu1_1": 1.0, "relu2_1": 9.0}},
        {"style_layers": {"relu1_1": 1.0, "pixels": 1.0}},
        {"balanced": False},
        {"statistic": "gram+mean"},
        {"statistic": "covariance"},
        {"pooling": "average"},
        {"pooling": "rescaled-average"},
        {"padding": "zeros"},
        {"padding": "reflect"},
    ],
    ids=str,
)
def test_the_style_loss_is_that_of_the_recipes_layers_and_statistic(
    changes: dict[str, Any],
) -> None:
    recipe = small_recipe(iterations=1, **changes)
    (result,) = transfer(recipe).run(CONTENT, [STYLE])
    expected = style_loss(recipe, STYLE)
    assert result.start.style == pytest.approx(expected, rel=1e-4)
    if changes:
        assert expected != pytest.approx(style_loss(small_recipe(), STYLE), rel=1e-3)


def test_the_style_is_compared_at_its_scale() -> None:
    style = wave(96, 72, seed=2)
    (result,) = transfer(small_recipe(iterations=1, style_scale=1.5)).run(CONTENT, [style])
    expected = style_loss(small_recipe(), resize(style, (54, 72)))
    assert result.start.style == pytest.approx(expected, rel=1e-4)


def errors(changes: dict[str, Any]) -> dict[str, float]:
    """Return how far a result is from the content, by layer."""
    layers = {"relu1_1", "relu3_1", "relu4_2"}
    painted = to_tensor(paint(iterations=30, **changes).pixels)
    trunk = load_trunk(COMPACT_PATH, "relu4_2", "average", "replicate")
    found, wanted = (extract(trunk, x, layers) for x in (painted, resize(wave(seed=1), (36, 48))))
    return {
        layer: float((found[layer] - wanted[layer]).square().mean() / wanted[layer].var())
        for layer in layers
    }


def test_a_larger_weight_of_the_content_or_a_smaller_one_of_the_style_stays_nearer_to_it() -> None:
    plain = errors({})["relu4_2"]
    assert errors({"content_weight": 300.0})["relu4_2"] < 0.5 * plain
    assert errors({"style_weight": 1.0})["relu4_2"] < 0.5 * plain


def test_the_content_is_kept_at_the_layers_that_are_compared() -> None:
    deep = errors({"content_layers": {"relu4_2": 1.0}, "style_weight": 1.0})
    shallow = errors({"content_layers": {"relu1_1": 1.0}, "style_weight": 1.0})
    assert shallow["relu1_1"] < 0.8 * deep["relu1_1"]
    assert deep["relu4_2"] < 0.5 * shallow["relu4_2"]


def test_total_variation_makes_the_picture_smoother() -> None:
    def roughness(tv_weight: float) -> float:
        pixels = paint(tv_weight=tv_weight, iterations=20).pixels
        return float(np.abs(np.diff(pixels.astype(float), axis=1)).mean())

    assert roughness(1e4) < 0.7 * roughness(0)


def test_pixels_as_a_style_layer_bring_the_colours_of_the_style() -> None:
    def distance(layers: dict[str, float]) -> float:
        result = paint(RED, style_layers=layers, statistic="gram+mean", iterations=30)
        return float(np.abs(mean_colour(result.pixels) - (200, 40, 30)).mean())

    assert distance({"relu3_1": 1, "pixels": 2}) < 0.5 * distance({"relu3_1": 1})


# How it is minimised


def test_a_longer_memory_finds_a_lower_loss_in_as_many_steps() -> None:
    short, long = (paint(history_size=size, iterations=80) for size in (1, 10))
    assert (short.history_size, long.history_size) == (1, 10)
    assert long.end.total < 0.9 * short.end.total


@pytest.mark.parametrize("colors", ["style", "content"])
def test_adam_lowers_the_loss_without_a_history_and_faster_at_a_higher_rate(
    colors: str,
) -> None:
    result = paint(optimizer="adam", iterations=40, colors=colors)
    assert result.end.total < 0.5 * result.start.total
    assert (result.iterations, result.history_size) == (40, 0)
    other = paint(optimizer="adam", iterations=40, colors=colors, learning_rate=0.001)
    assert result.end.total < other.end.total < other.start.total


def test_as_many_steps_are_done_as_asked_for_and_more_lower_the_loss() -> None:
    few, many = (paint(iterations=count) for count in (3, 12))
    assert (few.iterations, many.iterations) == (3, 12)
    assert many.end.total < few.end.total < few.start.total


def test_an_image_that_hardly_changes_any_more_is_left() -> None:
    result = paint(iterations=200, tolerance=0.2)
    assert result.stop_reason == "settled"
    assert result.iterations < 200


def test_noise_is_that_of_its_seed_and_nothing_else_depends_on_it() -> None:
    def start(init: str, seed: int) -> np.ndarray:
        # So little weight that the one step leaves what it starts from.
        return paint(
            init=init, seed=seed, iterations=1, style_weight=0, content_weight=1e-9
        ).pixels.astype(float)

    noises = [start("noise", seed) for seed in (1, 2, 1)]
    assert np.array_equal(noises[0], noises[2])
    assert all(60 < noise.std() < 90 and 110 < noise.mean() < 145 for noise in noises)
    assert abs(np.corrcoef(noises[0].flat, noises[1].flat)[0, 1]) < 0.1
    assert np.array_equal(start("content", 1), start("content", 2))


# Sizes, colours and bits


def test_the_original_size_is_kept() -> None:
    assert paint(content=picture(70, 50), size="original", iterations=1).pixels.shape == (50, 70, 3)


def test_the_contents_colours_are_kept_where_asked_for() -> None:
    content = to_tensor(picture(seed=1))
    result = paint(RED, content, size="original", colors="content", bits=16, iterations=8)
    painted = to_tensor(result.pixels)
    inside = ((painted > 0.01) & (painted < 0.99)).all(1, keepdim=True).expand_as(painted)
    chroma, wanted = painted - grey(painted), content - grey(content)
    assert inside.float().mean() > 0.5
    torch.testing.assert_close(chroma[inside], wanted[inside], rtol=0, atol=1e-4)
    assert (grey(painted) - grey(content)).abs().mean() > 0.02


def test_a_matched_style_leaves_the_contents_colours_on_the_whole() -> None:
    content = picture(seed=1)
    wanted = mean_colour(np.asarray(content))
    reddish = Image.blend(picture(seed=6), RED, 0.7)

    def distance(colors: str) -> float:
        pixels = paint(reddish, content, colors=colors, iterations=40).pixels
        return float(np.abs(mean_colour(pixels) - wanted).mean())

    assert distance("matched") < 0.6 * distance("style")


def test_16_bits_are_used_to_the_last() -> None:
    result = paint(bits=16)
    assert result.pixels.dtype == np.uint16
    assert len(np.unique(result.pixels % 257)) > 100
    assert np.asarray(result.pastiche).dtype == np.uint8
