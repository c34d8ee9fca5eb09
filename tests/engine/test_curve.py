"""Loss curves: by scale, bounded, and finite."""

import math

import pytest
from conftest import picture
from painting import RED, small_recipe, transfer

from nst_pipeline.engine.curve import POINTS, LossCurves

SIZES = [(24, 32), (48, 64)]


def test_a_curve_falls_from_the_first_step_to_the_last_of_each_scale() -> None:
    recipe = small_recipe(size=64, scales=(32,), iterations=(12, 25))
    (result,) = transfer(recipe).run(picture(), [RED])
    assert [one.size for one in result.curve] == SIZES
    assert [one.steps for one in result.curve] == [[1, 10, 12], [13, 22, 32, 37]]
    for one in result.curve:
        assert one.losses == sorted(one.losses, reverse=True)
        assert all(map(math.isfinite, one.losses))


@pytest.mark.parametrize("counts", [(5000, 3), (700, 900), (60, 60), (3, 5000)])
def test_a_long_curve_keeps_its_ends_and_no_more_than_its_points(counts: tuple[int, int]) -> None:
    curves, done = LossCurves(), 0
    for scale, count in enumerate(counts):
        for _ in range(count):
            done += 1
            curves.add(scale, done, [1e9, 1 / done])
    found = curves.of(1, SIZES)
    assert sum(len(one.steps) for one in found) <= POINTS
    assert (found[0].steps[0], found[-1].steps[-1]) == (1, sum(counts))
    assert (found[0].steps[-1], found[1].steps[0]) == (counts[0], counts[0] + 1)
    assert all(one.steps == sorted(set(one.steps)) for one in found)


def test_what_is_no_number_is_left_out_and_many_scales_are_still_bounded() -> None:
    curves = LossCurves([[0, 1, math.inf], [0, 2, math.nan], [0, 3, 2.0]])
    assert [(one.steps, one.losses) for one in curves.of(0, SIZES)] == [([3], [2.0])]
    rows = [[scale, scale * 10 + step, 1.0] for scale in range(150) for step in range(10)]
    many = LossCurves(rows).of(0, [(32, 32)] * 150)
    assert sum(len(one.steps) for one in many) <= POINTS
