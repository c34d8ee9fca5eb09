"""Coarse to fine: the scales of a content."""

from typing import Any

import pytest

from nst_pipeline.engine import Recipe
from nst_pipeline.engine.scales import Scale, plan_scales
from nst_pipeline.errors import ImageError


@pytest.mark.parametrize(
    ("changes", "sizes", "steps"),
    [
        ({"size": 512}, [(96, 128), (192, 256), (384, 512)], [68, 48, 34]),
        ({"size": 256}, [(96, 128), (192, 256)], [88, 62]),
        ({"size": 96}, [(72, 96)], [150]),
        ({"size": 512, "scales": 1}, [(384, 512)], [150]),
        ({"size": 256, "scales": [64, 512]}, [(48, 64), (192, 256)], [100, 50]),
        ({"size": 256, "iterations": [9, 5, 2]}, [(96, 128), (136, 181), (192, 256)], [9, 5, 2]),
        ({"size": 512, "iterations": 2}, [(192, 256), (384, 512)], [1, 1]),
        ({"size": "original"}, [(96, 128), (169, 226), (300, 400)], [64, 49, 37]),
        ({"size": {"width": 256}}, [(96, 128), (192, 256)], [88, 62]),
        ({"size": {"width": 200, "height": 256}}, [(128, 100), (256, 200)], [88, 62]),
        (
            {"size": {"width": 256, "height": 256, "fit": "contain"}, "scales": [64, 512]},
            [(48, 64), (192, 256)],
            [100, 50],
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
