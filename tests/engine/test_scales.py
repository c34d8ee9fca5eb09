"""Coarse to fine: the scales of a content."""

from typing import Any

import pytest

from nst_pipeline.engine import Recipe
from nst_pipeline.engine.scales import Scale, plan_scales
from nst_pipeline.errors import ImageError


@pytest.mark.parametrize(
    ("changes", "sizes", "steps"),
    [
        (
            {"size": 512},
            [(96, 128), (136, 181), (192, 256), (272, 362), (384, 512)],
            [106, 75, 54, 38, 27],
        ),
        ({"size": 256}, [(96, 128), (136, 181), (192, 256)], [136, 96, 68]),
        ({"size": 96}, [(72, 96)], [300]),
        ({"size": 512, "scales": 1}, [(384, 512)], [300]),
        ({"size": 256, "scales": [64, 512]}, [(48, 64), (192, 256)], [239, 61]),
        ({"size": 256, "iterations": [9, 5, 2]}, [(96, 128), (136, 181), (192, 256)], [9, 5, 2]),
        ({"size": 512, "iterations": 2}, [(272, 362), (384, 512)], [1, 1]),
        (
            {"size": "original"},
            [(96, 128), (140, 187), (206, 274), (300, 400)],
            [121, 83, 57, 39],
        ),
        ({"size": {"width": 256}}, [(96, 128), (136, 181), (192, 256)], [136, 96, 68]),
        (
            {"size": {"width": 200, "height": 256}},
            [(128, 100), (181, 141), (256, 200)],
            [136, 96, 68],
        ),
        (
            {"size": {"width": 256, "height": 256, "fit": "contain"}, "scales": [64, 512]},
            [(48, 64), (192, 256)],
            [239, 61],
        ),
    ],
)
def test_scales_grow_to_the_size_asked_for_and_share_the_steps(
    changes: dict[str, Any], sizes: list[tuple[int, int]], steps: list[int]
) -> None:
    scales = plan_scales(Recipe(**changes), (300, 400))
    assert [scale.size for scale in scales] == sizes
    assert [scale.iterations for scale in scales] == steps
    assert scales[-1] == Scale(sizes[-1], max(sizes[-1]), steps[-1])


def test_a_side_that_follows_and_is_too_long_is_refused_with_the_picture_and_a_way_out() -> None:
    with pytest.raises(ImageError) as refused:
        plan_scales(Recipe(size={"width": 300}), (8000, 40))
    assert str(refused.value) == (
        "size: 300x makes the picture of 40 x 8000 pixels 300 x 60000; 16384 is the most: "
        "give width and height"
    )
