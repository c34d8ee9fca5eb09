"""Coarse to fine: the scales of a content."""

from typing import Any

import pytest

from nst_pipeline.engine import Recipe
from nst_pipeline.engine.scales import Scale, plan_scales


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
    ],
)
def test_scales_grow_to_the_size_asked_for_and_share_the_steps(
    changes: dict[str, Any], sizes: list[tuple[int, int]], steps: list[int]
) -> None:
    scales = plan_scales(Recipe(**changes), (300, 400))
    assert [scale.size for scale in scales] == sizes
    assert [scale.iterations for scale in scales] == steps
    assert scales[-1] == Scale(sizes[-1], max(sizes[-1]), steps[-1])
