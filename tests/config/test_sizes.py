"""How large a pastiche becomes, and what of its content it shows."""

from typing import Any

import pytest
from pydantic import ValidationError

from nst_pipeline.config.recipe import Bounds, Recipe, RecipeChanges, make_recipe
from nst_pipeline.config.sizes import crop, painted_size, scale

CONTENTS = [(300, 400), (400, 300), (1, 5000), (5000, 1), (333, 333), (32, 47)]
FILLED, FITTED = Bounds(width=300, height=200), Bounds(width=300, height=200, fit="contain")


@pytest.mark.parametrize("content", CONTENTS)
def test_cover_is_exactly_as_large_and_keeps_all_of_one_side(content: tuple[int, int]) -> None:
    assert painted_size(FILLED, content) == (200, 300)
    rows, columns = crop(FILLED, content)
    height, width = rows.stop - rows.start, columns.stop - columns.start
    assert height == content[0] or width == content[1]
    if min(content) > 1:
        assert width / height == pytest.approx(300 / 200, rel=0.02)
    for part, side in zip((rows, columns), content, strict=True):
        assert 0 <= part.start <= side - part.stop <= part.start + 1  # from the middle


@pytest.mark.parametrize("content", CONTENTS)
def test_contain_is_no_larger_exact_on_one_side_and_shows_all(content: tuple[int, int]) -> None:
    height, width = painted_size(FITTED, content)
    assert height <= 200 and width <= 300 and (height == 200 or width == 300)
    assert crop(FITTED, content) == (slice(0, content[0]), slice(0, content[1]))
    wanted = content[1] * height / content[0], content[0] * width / content[1]
    assert abs(wanted[0] - width) <= 1 or abs(wanted[1] - height) <= 1


def test_one_side_alone_gives_the_other_in_proportion() -> None:
    assert painted_size(Bounds(width=600), (300, 400)) == (450, 600)
    assert painted_size(Bounds(height=600), (300, 400)) == (600, 800)
    for fit in ("cover", "contain"):
        assert painted_size(Bounds(height=150, fit=fit), (300, 400)) == (150, 200)


def test_a_number_is_the_longer_side_and_the_original_stays() -> None:
    assert painted_size(512, (300, 400)) == (384, 512)
    assert painted_size("original", (300, 400)) == (300, 400)
    assert scale(800, (300, 400)) == 2 and scale("original", (300, 400)) == 1


@pytest.mark.parametrize("factor", [1, 2, 5])
def test_what_goes_with_a_picture_is_cut_as_it_is_at_any_size(factor: int) -> None:
    rows, columns = crop(FILLED, (1200, 3000))
    assert (rows, columns) == (slice(0, 1200), slice(600, 2400))
    smaller = crop(FILLED, (1200, 3000), (1200 // factor, 3000 // factor))
    assert smaller == tuple(slice(s.start // factor, s.stop // factor) for s in (rows, columns))


@pytest.mark.parametrize(
    ("size", "complaint"),
    [
        ({}, "needs a width, a height or both"),
        ({"fit": "contain"}, "needs a width, a height or both"),
        ({"width": 31}, "is 31x; one side should be 32 or more"),
        ({"width": 8, "height": 31}, "is 8x31; one side should be 32 or more"),
        ({"width": 16385}, "less than or equal to 16384"),
        ({"width": 300, "height": 0}, "greater than or equal to 1"),
        ({"width": 300, "fit": "fill"}, "'cover' or 'contain'"),
        ({"width": 300, "hight": 2}, "Extra inputs"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(size: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        Recipe.model_validate({"size": size})


def test_bounds_are_written_as_they_are_given() -> None:
    assert [str(b) for b in (FILLED, Bounds(width=300), Bounds(height=20, width=40))] == [
        "300x200", "300x", "40x20",
    ]  # fmt: skip
    recipe = make_recipe(size={"height": 64})
    assert recipe.model_dump(mode="json")["size"] == {"height": 64, "fit": "cover"}
    again = RecipeChanges.model_validate({"size": recipe.model_dump(mode="json")["size"]})
    assert make_recipe(again) == recipe


def test_smaller_bounds_have_their_proportions() -> None:
    assert Bounds(width=3000, height=2000).within(96) == Bounds(width=96, height=64)
    assert Bounds(width=9, height=9000).within(64) == Bounds(width=1, height=64)
    assert FITTED.within(96) == 96 and Bounds(width=3000).within(96) == 96
