"""Styles, their blends, and the targets that are remembered of them."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import picture
from painting import BLUE, RED, mean_colour, paint, small_recipe, transfer
from safetensors.torch import load_file, save_file

from nst_pipeline.engine import Style, TargetCache, make_style

SMALL = small_recipe(iterations=6)


def test_a_blend_has_the_weighted_mean_of_the_statistics() -> None:
    colours = {"style_layers": ["pixels"], "statistic": "gram+mean", "iterations": 40}
    red, blue = (paint(style, **colours).pixels for style in (RED, BLUE))
    mixed = paint(Style((RED, BLUE), (3, 1)), **colours).pixels
    only = paint(Style((RED, BLUE), (1, 0)), **colours).pixels
    assert np.array_equal(only, red)
    assert mean_colour(red)[0] > mean_colour(mixed)[0] > mean_colour(blue)[0]
    assert mean_colour(red)[2] < mean_colour(mixed)[2] < mean_colour(blue)[2]


def test_a_style_is_made_of_pictures_with_weights_and_one_for_each_region() -> None:
    whole = make_style({"": [(RED, 3), (BLUE, 1)]})
    assert isinstance(whole, Style)
    assert (whole.images, whole.shares()) == ((RED, BLUE), [0.75, 0.25])
    parts = make_style({"sky": [(RED, 1)], "sea": [(BLUE, 0.5), (RED, 0.5)]})
    assert isinstance(parts, dict) and list(parts) == ["sky", "sea"]
    assert parts["sky"].images == (RED,) and parts["sea"].images == (BLUE, RED)


def test_targets_are_computed_once_for_all_contents_and_come_back_from_disk(
    tmp_path: Path,
) -> None:
    targets = TargetCache(tmp_path)
    painter = transfer(SMALL, targets=targets)
    style = picture(seed=2)
    first = painter.run(picture(seed=1), [style])[0]
    painter.run(picture(seed=5), [style])
    assert (targets.hits, targets.misses) == (1, 1)
    again = TargetCache(tmp_path)
    second = transfer(SMALL, targets=again).run(picture(seed=1), [style])[0]
    assert (again.hits, again.misses) == (1, 0)
    assert first.pastiche.tobytes() == second.pastiche.tobytes()


def test_targets_that_are_used_are_known_by_their_time(tmp_path: Path) -> None:
    transfer(SMALL, targets=TargetCache(tmp_path)).run(picture(seed=1), [picture(seed=2)])
    (path,) = tmp_path.iterdir()
    os.utime(path, (0, 0))
    transfer(SMALL, targets=TargetCache(tmp_path)).run(picture(seed=5), [picture(seed=2)])
    assert path.stat().st_mtime > 0


@pytest.mark.parametrize("statistic", ["gram", "gram+mean", "covariance"])
@pytest.mark.parametrize("damage", ["nan", "infinity", "narrower", "less", "more", "doubles"])
def test_targets_on_disk_that_are_none_are_computed_anew_and_replaced(
    tmp_path: Path, damage: str, statistic: str
) -> None:
    recipe = SMALL.model_copy(update={"statistic": statistic})
    painter = transfer(recipe, targets=TargetCache(tmp_path))
    whole = painter.run(picture(seed=1), [picture(seed=2)])[0]
    (path,) = tmp_path.iterdir()
    targets = load_file(path)
    name = sorted(targets)[0]
    if damage in ("nan", "infinity"):
        targets[name][0, 0, 0, 0] = float(damage)
    elif damage == "narrower":
        targets[name] = targets[name][..., 1:].contiguous()
    elif damage == "less":
        del targets[name]
    elif damage == "more":
        targets["relu9_9"] = torch.zeros(1)
    else:
        targets = {layer: target.double() for layer, target in targets.items()}
    save_file(targets, path)
    for misses in (1, 0):
        again = TargetCache(tmp_path)
        result = transfer(recipe, targets=again).run(picture(seed=1), [picture(seed=2)])[0]
        assert (again.misses, result.end) == (misses, whole.end)


@pytest.mark.parametrize(
    "change",
    [
        {"recipe": SMALL.model_copy(update={"size": 64})},
        {"recipe": SMALL.model_copy(update={"pooling": "average"})},
        {"recipe": SMALL.model_copy(update={"style_layers": {"relu1_1": 1.0}})},
        {"precision": "bf16"},
        {"style": picture(seed=9)},
    ],
    ids=["size", "pooling", "layers", "precision", "style"],
)
def test_targets_are_computed_anew_when_what_they_depend_on_changes(change: dict) -> None:
    targets = TargetCache()
    transfer(SMALL, targets=targets).run(picture(seed=1), [picture(seed=2)])
    options = {"recipe": SMALL, "style": picture(seed=2)} | change
    style = options.pop("style")
    transfer(targets=targets, **options).run(picture(seed=1), [style])
    assert targets.misses == 2


def test_targets_serve_recipes_that_differ_in_weights_only() -> None:
    targets = TargetCache()
    for weight in (1.0, 100.0):
        recipe = SMALL.model_copy(update={"style_weight": weight})
        transfer(recipe, targets=targets).run(picture(seed=1), [picture(seed=2)])
    assert (targets.hits, targets.misses) == (1, 1)
