"""Pictures to tensors and back."""

import numpy as np
import pytest
import torch
from conftest import picture

from nst_pipeline.engine.images import fit, quantise, to_image, to_tensor
from nst_pipeline.errors import ShapeError


def test_16_bits_of_a_content_reach_the_engine() -> None:
    fine = (np.random.default_rng(0).random((40, 40, 3)) * 65535).astype(np.uint16)
    assert np.array_equal(quantise(to_tensor(fine), 16), fine)
    with pytest.raises(ShapeError, match="uint8 or uint16"):
        to_tensor(fine.astype(np.int32))


def test_images_survive_the_way_to_a_tensor_and_back() -> None:
    image = picture()
    tensor = to_tensor(image)
    assert tensor.shape == (1, 3, 48, 64) and tensor.dtype == torch.float32
    assert tensor.min() >= 0 and tensor.max() <= 1
    assert to_image(tensor).tobytes() == image.tobytes()


def test_values_outside_of_an_image_are_clamped_when_it_is_saved() -> None:
    pixels = torch.tensor([-1.0, 0.5, 2.0]).view(1, 3, 1, 1)
    assert to_image(pixels).getpixel((0, 0)) == (0, 128, 255)


@pytest.mark.parametrize(
    ("before", "after"),
    [((80, 40), (64, 32)), ((40, 80), (32, 64)), ((900, 30), (64, 2)), ((900, 1), (64, 1))],
)
def test_the_longer_side_gets_the_size_and_the_other_keeps_the_proportions(
    before: tuple[int, int], after: tuple[int, int]
) -> None:
    assert fit(before, 64) == after
