from typing import Any

import pytest
from pydantic import ValidationError

from nst_pipeline.config.recipe import NETWORK_DEFAULTS, RECIPES, RecipeChanges
from nst_pipeline.digests import digest
from nst_pipeline.engine import Recipe, make_recipe

OTHER_VALUES: dict[str, Any] = {
    "size": 300,
    "scales": (64,),
    "statistic": "covariance",
    "style_scale": 2.0,
    "colors": "matched",
    "padding": "reflect",
    "tolerance": 0.1,
    "iterations": 7,
    "content_layers": {"relu3_1": 1.0},
    "style_layers": {"relu1_1": 2.0},
    "content_weight": 3.0,
    "style_weight": 4.0,
    "tv_weight": 5.0,
    "balanced": False,
    "pooling": "average",
    "init": "noise",
    "history_size": 6,
    "seed": 8,
}


def test_every_field_of_the_recipe_but_its_name_changes_the_key() -> None:
    plain = digest(Recipe().pixels())
    for field in set(Recipe.model_fields) - {"name"}:
        changed = Recipe.model_validate({field: OTHER_VALUES[field]})
        assert digest(changed.pixels()) != plain, field
    assert digest(Recipe(name="tutorial").pixels()) == plain


def test_the_key_does_not_depend_on_the_order_of_layers() -> None:
    one = Recipe(style_layers={"relu1_1": 1, "relu2_1": 2})
    other = Recipe(style_layers={"relu2_1": 2, "relu1_1": 1})
    assert digest(one.pixels()) == digest(other.pixels())


def test_gatys_is_the_default_and_has_the_layers_of_the_paper() -> None:
    recipe = make_recipe("imagenet")
    assert recipe.name == "gatys" and recipe == Recipe()
    assert list(recipe.content_layers) == ["relu4_2"]
    assert list(recipe.style_layers) == [f"relu{block}_1" for block in range(1, 6)]
    assert recipe.size == 512 and recipe.balanced


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("network", ["imagenet", "weights.pth", *NETWORK_DEFAULTS])
def test_every_named_recipe_is_valid_for_every_network(name: str, network: str) -> None:
    assert make_recipe(network, RecipeChanges(name=name)).name == name


def test_the_network_decides_defaults_that_nobody_set() -> None:
    assert make_recipe("compact").pooling == "average"
    assert make_recipe("imagenet").pooling == "max"
    assert make_recipe("compact", RecipeChanges(pooling="max")).pooling == "max"


def test_later_changes_win_and_the_earlier_ones_stay() -> None:
    recipe = make_recipe(
        "imagenet", RecipeChanges(size=300, iterations=9), RecipeChanges(iterations=7)
    )
    assert (recipe.size, recipe.iterations) == (300, 7)


def test_a_change_that_names_a_recipe_starts_afresh_from_it() -> None:
    recipe = make_recipe("imagenet", RecipeChanges(size=300), RecipeChanges(name="tutorial"))
    assert recipe.size == 256


def test_layers_may_be_a_list_of_equal_weights() -> None:
    assert Recipe(style_layers=["conv1_1", "relu2_1"]).style_layers == {
        "conv1_1": 1.0,
        "relu2_1": 1.0,
    }


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("style_layers", ["relu9_1"], "unknown layer 'relu9_1'"),
        ("style_layers", [], "at least one layer"),
        ("content_layers", {"relu1_1": 0}, "at least one layer"),
        ("content_layers", {"relu1_1": -1}, "greater than or equal to 0"),
        ("style_weight", float("nan"), "finite"),
        ("size", 8, "greater than or equal to 32"),
        ("iteration", 3, "Extra inputs"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(field: str, value: Any, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        Recipe.model_validate({field: value})


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Recipe().size = 3  # type: ignore[misc]
