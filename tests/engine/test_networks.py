"""Whatever network a file holds, the engine asks it for its layers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SHARED, picture, wave
from painting import narrow_vgg, small_recipe, transfer, with_paper_names
from safetensors.torch import load_file, save_file

from nst_pipeline.config.networks import VGG16, VGG19, file_layers
from nst_pipeline.engine import Recipe
from nst_pipeline.engine.losses import extract
from nst_pipeline.engine.vgg import load_trunk
from nst_pipeline.errors import ConfigError

REAL_VGG16 = SHARED / "weights" / "vgg16.safetensors"
BOTH = pytest.mark.parametrize("layers", [VGG19, VGG16], ids=["vgg19", "vgg16"])


def write(folder: Path, layers: tuple[str, ...]) -> Path:
    path = folder / "w.safetensors"
    save_file(with_paper_names(narrow_vgg(layers, (8, 8, 12, 12, 12)), layers), path)
    return path


def deep_recipe(layers: tuple[str, ...]) -> Recipe:
    """Return a recipe that compares the last layers of the network's blocks, to its very end."""
    lasts = [layers[layers.index(f"pool{block}") - 1] for block in range(1, 6)]
    return small_recipe(style_layers=lasts, content_layers=["pool3"], iterations=3)


@BOTH
def test_a_picture_is_painted_alike_whole_and_in_tiles(
    layers: tuple[str, ...], tmp_path: Path
) -> None:
    content, style, weights = picture(seed=1), picture(seed=2), str(write(tmp_path, layers))
    whole, tiled = (
        transfer(deep_recipe(layers), weights=weights, tile=tile, tile_size=16).run(
            content, [style]
        )[0]
        for tile in ("off", "on")
    )
    pixels = [np.asarray(result.pastiche).astype(int) for result in (whole, tiled)]
    assert np.abs(pixels[0] - pixels[1]).max() <= 1
    assert not np.array_equal(pixels[0], np.asarray(content.resize(whole.pastiche.size)))


def test_a_recipe_with_a_layer_that_the_network_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"content_layers: .* have no relu3_4; their layers are"):
        transfer(small_recipe(content_layers=["relu3_4"]), weights=str(write(tmp_path, VGG16)))


def test_the_compact_network_says_which_layers_it_has() -> None:
    with pytest.raises(ConfigError, match=r"weights compact have no relu5_2; .*, relu5_1$"):
        transfer(small_recipe(style_layers=["relu5_2"]))


@pytest.mark.skipif(not REAL_VGG16.is_file(), reason="needs real weights of VGG-16")
def test_real_features_of_vgg_16_are_those_of_a_vgg_19_with_identities(tmp_path: Path) -> None:
    state = {name: value.float() for name, value in load_file(REAL_VGG16).items()}
    for name, width in (("conv3_4", 256), ("conv4_4", 512), ("conv5_4", 512)):
        kernel = torch.zeros(width, width, 3, 3)
        kernel[range(width), range(width), 1, 1] = 1
        state |= {f"{name}.weight": kernel, f"{name}.bias": torch.zeros(width)}
    as_vgg19 = tmp_path / "vgg19.safetensors"
    save_file(state, as_vgg19)
    assert (file_layers(REAL_VGG16), file_layers(as_vgg19)) == (VGG16, VGG19)
    layers = {"relu1_1", "relu3_3", "pool3", "relu4_2", "conv5_1", "relu5_3"}
    found, expected = (
        extract(load_trunk(path, "relu5_3"), wave(64, 48), layers)
        for path in (REAL_VGG16, as_vgg19)
    )
    for layer in layers:
        torch.testing.assert_close(found[layer], expected[layer])
