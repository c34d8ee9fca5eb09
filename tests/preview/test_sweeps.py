"""Sweeps: what --sweep says, and the recipes that come of it."""

from pathlib import Path

import pytest
from conftest import picture

from nst_pipeline.config.pipeline import Config, parse
from nst_pipeline.config.recipe import Bounds, make_recipe
from nst_pipeline.errors import UsageError
from nst_pipeline.preview.sweeps import (
    SHORT_STEPS,
    cell_recipe,
    describe,
    differences,
    parse_sweeps,
    points,
)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    picture().save(tmp_path / "ink.png")
    styles = {"ink": "ink.png", "oil": {"image": "ink.png", "recipe": {"style_weight": 600}}}
    return parse({"styles": styles, "recipe": {"iterations": 300, "seed": 3}}, tmp_path)


def test_values_are_yaml_and_keep_the_text_that_was_typed() -> None:
    weights, layers = parse_sweeps(
        ["style_weight=1e2, 1000,2.5e3", "content_layers=[relu4_2],{relu5_2: 1, relu4_2: 2}"]
    )
    assert [value.text for value in weights.values] == ["1e2", "1000", "2.5e3"]
    assert [v.text for v in layers.values] == ["[relu4_2]", "{relu5_2: 1, relu4_2: 2}"]
    assert layers.values[1].parsed == {"relu5_2": 1, "relu4_2": 2}


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["style_weigth=1"], "--sweep style_weigth: unknown field; did you mean 'style_weight'?"),
        (["style_weight"], "no values; write style_weight=VALUE,VALUE"),
        (["style_weight="], "no values"),
        (["style_weight=1,,2"], "is not YAML"),
        (["style_weight=1]"], "is not YAML"),
        (["style_weight=1, null"], "'null' is no value"),
        (["style_weight=1,-3"], "--sweep style_weight: is -3; input should be greater than"),
        (["name=gatis"], "--sweep name: is 'gatis'; should be 'default', 'gatys'"),
        (["content_layers=[relu9_9]"], "unknown layer 'relu9_9'"),
        (["seed=1", "seed=2"], "--sweep seed: given twice"),
        (["seed=1", "tv_weight=2", "size=64"], "given 3 times; a sheet shows 2 at most"),
    ],
)
def test_a_wrong_sweep_is_refused_with_what_is_wrong(texts: list[str], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_sweeps(texts)
    assert said in str(refused.value)


def test_the_first_sweep_goes_across_and_the_second_down() -> None:
    assert points(()) == [[{}]]
    assert points(parse_sweeps(["seed=1,2"])) == [[{"seed": 1}, {"seed": 2}]]
    assert points(parse_sweeps(["seed=1,2", "tv_weight=5,6,7"])) == [
        [{"seed": seed, "tv_weight": weight} for seed in (1, 2)] for weight in (5, 6, 7)
    ]


def test_a_cell_has_the_recipe_of_the_settings_small_and_short(config: Config) -> None:
    recipe = cell_recipe(config, "oil", 64, None, {})
    assert (recipe.size, recipe.iterations, recipe.seed) == (64, SHORT_STEPS, 3)
    assert recipe.style_weight == 600
    assert cell_recipe(config, "ink", 64, 500, {}).iterations == 500


def test_a_width_and_a_height_are_made_smaller_together(config: Config) -> None:
    exact = config.recipe.model_copy(update={"size": Bounds(width=3000, height=2000)})
    config = config.model_copy(update={"recipe": exact})
    assert cell_recipe(config, "oil", 96, None, {}).size == Bounds(width=96, height=64)
    assert cell_recipe(config, "oil", 96, None, {"size": {"width": 80}}).size == Bounds(width=80)
    assert "size: {width: 96, height: 64, fit: cover}" in describe(
        cell_recipe(config, "oil", 96, None, {})
    )


def test_a_swept_value_is_above_all_others(config: Config) -> None:
    point = {"size": 96, "iterations": 200, "style_weight": "1e2"}
    recipe = cell_recipe(config, "oil", 64, 5, point)
    assert (recipe.size, recipe.iterations, recipe.style_weight) == (96, 200, 100)


def test_a_swept_name_starts_afresh_from_that_recipe(config: Config) -> None:
    recipe = cell_recipe(config, "oil", 64, None, {"name": "tutorial"})
    wanted = make_recipe(name="tutorial", size=64, iterations=SHORT_STEPS)
    assert recipe == wanted


def test_a_recipe_is_described_by_what_is_changed(config: Config) -> None:
    recipe = cell_recipe(config, "oil", 64, None, {})
    text = "default · size: 64 · iterations: 60 · style_weight: 600 · seed: 3"
    assert describe(recipe) == text
    assert describe(recipe, ("name", "size", "seed")) == ("iterations: 60 · style_weight: 600")
    base = cell_recipe(config, None, 64, None, {})
    assert differences(recipe, base) == ["style_weight: 600"]
