from typing import Any

import pytest
from pydantic import ValidationError

from nst_pipeline.config.recipe import (
    LARGEST_SIDE,
    RECIPES,
    RecipeChanges,
    make_recipe,
    plan_sides,
    step_costs,
)
from nst_pipeline.digests import digest
from nst_pipeline.engine import Recipe

OTHER_VALUES: dict[str, Any] = {
    "size": 300,
    "scales": (64,),
    "statistic": "gram",
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
    "optimizer": "adam",
    "learning_rate": 0.5,
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


def test_nothing_named_is_the_recipe_default() -> None:
    recipe = make_recipe()
    assert recipe.name == "default" and recipe == Recipe()
    assert recipe.size == 512 and recipe.balanced


def test_gatys_has_the_layers_and_the_losses_of_the_paper() -> None:
    recipe = make_recipe(name="gatys")
    assert list(recipe.content_layers) == ["relu4_2"]
    assert recipe.style_layers == {f"relu{block}_1": 1.0 for block in range(1, 6)}
    assert (recipe.statistic, recipe.tv_weight, recipe.init) == ("gram", 0, "content")


def test_the_tutorial_s_losses_are_not_balanced_and_know_no_smoothness() -> None:
    recipe = make_recipe(name="tutorial")
    assert (recipe.statistic, recipe.tv_weight, recipe.init) == ("gram", 0, "content")
    assert not recipe.balanced and recipe.scales == 1


@pytest.mark.parametrize("name", RECIPES)
def test_every_named_recipe_is_valid(name: str) -> None:
    assert make_recipe(RecipeChanges(name=name)).name == name


def test_later_changes_win_and_the_earlier_ones_stay() -> None:
    recipe = make_recipe(RecipeChanges(size=300, iterations=9), RecipeChanges(iterations=7))
    assert (recipe.size, recipe.iterations) == (300, 7)


def test_a_change_that_names_a_recipe_starts_afresh_from_it() -> None:
    recipe = make_recipe(RecipeChanges(size=300), RecipeChanges(name="tutorial"))
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


@pytest.mark.parametrize("count", range(1, 9))
def test_sides_never_shrink_and_end_at_the_size_in_as_many_scales_as_asked_for(count: int) -> None:
    iterations = tuple(range(1, count + 1))
    for final in (*range(32, 400), 512, 1000, 4096, LARGEST_SIDE):
        plan = plan_sides(Recipe(size=final, iterations=iterations), 999)
        sides, steps = zip(*plan, strict=True)
        assert list(sides) == sorted(sides) and sides[-1] == final and sides[0] >= 32
        assert steps == iterations


@pytest.mark.parametrize(
    ("size", "count", "sides"),
    [
        (64, 3, [32, 45, 64]),
        (128, 3, [32, 64, 128]),
        (100, 2, [50, 100]),
        (32, 2, [32, 32]),
        (129, 2, [128, 129]),
        (256, 3, [128, 181, 256]),
        (1024, 4, [128, 256, 512, 1024]),
    ],
)
def test_a_list_of_iterations_begins_small_and_about_doubles(
    size: int, count: int, sides: list[int]
) -> None:
    plan = plan_sides(Recipe(size=size, iterations=(5,) * count), 999)
    assert plan == [(side, 5) for side in sides]


def test_a_content_below_the_shortest_side_keeps_its_size() -> None:
    recipe = Recipe(size="original", iterations=(5, 6))
    assert plan_sides(recipe, 20) == [(20, 5), (20, 6)]


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"iterations": 300}, 300),
        ({"iterations": 2, "scales": (64, 128, 256)}, 2),
        ({"scales": 1, "iterations": (100, 100)}, 100),
        ({"scales": (64, 128, 256), "iterations": (100,)}, 400),
        ({"scales": (64, 128, 512), "iterations": (100, 20)}, 140),
        ({"iterations": (9, 5, 2)}, 16),
        ({"size": 64, "iterations": (9, 5, 2)}, 16),
        ({"size": "original", "scales": (64, 128), "iterations": (100, 20)}, 140),
        ({"size": "original", "iterations": (100, 20)}, 120),
        ({"size": {"width": 300, "height": 200}, "iterations": 300}, 300),
        ({"size": {"width": 200, "height": 64}, "scales": (64, 128), "iterations": (9,)}, 27),
        ({"size": {"height": 64}, "scales": (64, 128), "iterations": (9,)}, 27),
    ],
    ids=str,
)
def test_steps_are_those_of_all_scales(changes: dict[str, Any], steps: int) -> None:
    recipe = Recipe.model_validate(changes)
    assert recipe.steps == steps
    if isinstance(recipe.size, int):
        assert steps == sum(count for _, count in plan_sides(recipe, 20))


@pytest.mark.parametrize("longer_side", [20, 64, 65, 300, 16384, 40000])
def test_no_content_takes_more_steps_than_are_told_of_the_original_size(longer_side: int) -> None:
    recipe = Recipe(size="original", scales=(64, 16384), iterations=(7, 5))
    done = sum(count for _, count in plan_sides(recipe, longer_side))
    assert done <= recipe.steps == 17
    assert longer_side < 20000 or done == 17


def test_steps_cost_what_their_pixels_and_a_little_more_do() -> None:
    costs = step_costs(make_recipe(size=256, scales=[128], iterations=[2, 1]))
    fine, coarse = costs[-1], costs[0]
    assert costs == [coarse, coarse, fine] and 2.5 < fine / coarse < 4
    assert sum(step_costs(make_recipe(size=512))) > 1.5 * sum(step_costs(make_recipe(size=256)))
