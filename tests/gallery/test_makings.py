"""How pieces were made: the recipe of the run that made them, whatever the settings say now."""

from pathlib import Path

import yaml
from exhibition import change, contents, data, make_exhibition, pieces, refresh, settings
from support import draw, run_once

from nst_pipeline.config.recipe import make_recipe
from nst_pipeline.folders import PRIVATE
from nst_pipeline.gallery.known import read_known


def recipe_text(home: Path, name: str, style: str) -> str:
    known = read_known(home / "outbox/gallery", PRIVATE)
    return known.recipes[pieces(home)[name, style]["recipe"]].yaml


def test_a_recipe_is_yaml_that_can_be_pasted_and_paints_the_same(tmp_path: Path) -> None:
    home = make_exhibition(tmp_path / "home", is_hostile=False)
    change(home, folders={"trip": {"recipe": {"style_weight": 7, "scales": [32, 48]}}},
           recipe={"size": 64, "iterations": 2, "content_layers": {"relu3_1": 0.5}})  # fmt: skip
    run_once(settings(home))
    refresh(home)
    plain = yaml.safe_load(recipe_text(home, "boat.png", "ink"))
    assert make_recipe(**plain["recipe"]) == settings(home).style_recipe("ink")
    deep = yaml.safe_load(recipe_text(home, "hill.png", "ink"))["recipe"]
    assert (deep["style_weight"], deep["scales"]) == (7, [32, 48])
    labels = {one.label for one in read_known(home / "outbox/gallery", PRIVATE).recipes.values()}
    assert labels == {
        "default, size 64, iterations 2, content_layers {relu3_1: 0.5}",
        "default, size 64, scales [32, 48], iterations 2, content_layers {relu3_1: 0.5}, "
        "style_weight 7",
    }


def test_a_picture_painted_by_two_recipes_is_shown_twice_where_both_are_kept(
    tmp_path: Path,
) -> None:
    home = make_exhibition(
        tmp_path / "home", is_hostile=False, output={"name": "{content}-{style}-{size}"}
    )
    change(home, recipe={"size": 48, "iterations": 2})
    run_once(settings(home))
    refresh(home)
    boat = contents(home)["boat.png"]
    details = data(home, f"{boat['id']}.js")
    assert len(boat["pieces"]) == 4 and len({one["recipe"] for one in boat["pieces"]}) == 2
    assert {details["pieces"][one["id"]]["url"] for one in boat["pieces"]} == {
        f"../boat-{style}-{size}.png" for style in ("ink", "oil") for size in (32, 48)
    }


def test_only_the_last_of_two_recipes_is_shown_where_it_replaced_the_other(tmp_path: Path) -> None:
    home = make_exhibition(tmp_path / "home", is_hostile=False)
    refresh(home)
    change(home, recipe={"size": 48, "iterations": 2})
    run_once(settings(home))
    refresh(home)
    assert len(contents(home)["boat.png"]["pieces"]) == 2
    assert "size: 48" in recipe_text(home, "boat.png", "ink")
    draw(home / "inbox/boat.png", 90)
    run_once(settings(home))
    refresh(home)
    assert len(contents(home)["boat.png"]["pieces"]) == 2
