import hashlib
from pathlib import Path

import pytest
import torch
from mirror import stand_in
from painting import narrow_vgg, with_paper_names
from safetensors.torch import save_file

from nst_pipeline.config.networks import VGG16, VGG19
from nst_pipeline.config.pipeline import parse
from nst_pipeline.config.recipe import RECIPES, check_layers, make_recipe
from nst_pipeline.config.weights import COMPACT_PATH, PUBLISHED, is_downloadable, resolve
from nst_pipeline.errors import ConfigError, UnavailableError


def put(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the weights published as ``network`` on disk."""
    given = stand_in(network, monkeypatch)
    given.published.path.parent.mkdir(parents=True, exist_ok=True)
    given.published.path.write_bytes(given.data)


def test_auto_takes_the_compact_network_and_says_how_to_get_a_better_one() -> None:
    found = resolve("auto")
    assert found.id == "compact" and found.path == COMPACT_PATH
    assert "nst-pipeline weights fetch" in found.note
    assert found.sha256 == hashlib.sha256(found.path.read_bytes()).hexdigest()
    assert "weights fetch" not in resolve("compact").note


def test_auto_prefers_vgg_19_to_vgg_16_to_the_compact_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put("vgg16", monkeypatch)
    found = resolve("auto")
    assert (found.id, found.layers) == ("vgg16", VGG16)
    put("imagenet", monkeypatch)
    found = resolve("auto")
    assert (found.id, found.layers) == ("imagenet", VGG19)
    assert resolve("vgg16").id == "vgg16" and resolve("compact").id == "compact"


@pytest.mark.parametrize(
    ("network", "command"),
    [("imagenet", "`nst-pipeline weights fetch`"), ("vgg16", "`nst-pipeline weights fetch vgg16`")],
)
def test_weights_that_are_not_there_are_an_error_that_tells_the_cure(
    network: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnavailableError, match=f"{command} downloads"):
        resolve(network)
    assert is_downloadable(network)
    put(network, monkeypatch)
    assert not is_downloadable(network)


@pytest.mark.parametrize("network", PUBLISHED)
def test_a_damaged_file_is_told_with_its_cure(
    network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(network, monkeypatch)
    path = PUBLISHED[network].path
    path.write_bytes(path.read_bytes()[:-1])
    for choice in (network, "auto"):
        with pytest.raises(UnavailableError, match=f"{path}: damaged .*; delete it, then `nst-"):
            resolve(choice)


@pytest.mark.parametrize("layers", [VGG19, VGG16], ids=["vgg19", "vgg16"])
def test_a_file_s_network_is_found_from_the_file(layers: tuple[str, ...], tmp_path: Path) -> None:
    torch.save(narrow_vgg(layers), tmp_path / "a.pth")
    assert resolve(str(tmp_path / "a.pth")).layers == layers
    save_file(with_paper_names(narrow_vgg(layers), layers), tmp_path / "b.safetensors")
    assert resolve(str(tmp_path / "b.safetensors")).layers == layers


def test_every_recipe_names_layers_of_both_networks_and_of_the_compact_one(
    tmp_path: Path,
) -> None:
    torch.save(narrow_vgg(VGG16), tmp_path / "vgg16.pth")
    torch.save(narrow_vgg(VGG19), tmp_path / "vgg19.pth")
    for choice in ("compact", str(tmp_path / "vgg16.pth"), str(tmp_path / "vgg19.pth")):
        weights = resolve(choice)
        for name in RECIPES:
            check_layers(make_recipe(name=name), weights)


def test_layers_that_a_network_lacks_are_told_where_they_stand_with_those_there_are(
    tmp_path: Path,
) -> None:
    torch.save(narrow_vgg(VGG16), tmp_path / "vgg16.pth")
    (tmp_path / "a.png").touch()
    styles = {
        "as-all": "a.png",
        "own": {"image": "a.png", "recipe": {"content_layers": {"relu4_4": 1, "relu4_2": 1}}},
        "fine": {"image": "a.png", "recipe": "sketch"},
    }
    recipe = {"style_layers": ["pixels", "relu3_4", "conv5_4", "relu1_1"]}
    config = parse({"styles": styles, "recipe": recipe}, tmp_path)
    weights = resolve(str(tmp_path / "vgg16.pth"))
    told = f"their layers are {', '.join(VGG16)}"
    assert config.layer_problems(weights) == [
        f"recipe.style_layers: the weights {weights.id} have no relu3_4, conv5_4; {told}",
        f"styles.own.recipe.content_layers: the weights {weights.id} have no relu4_4; {told}",
    ]
    with pytest.raises(ConfigError, match=r"recipe\.style_layers: .* no relu3_4, conv5_4; their"):
        check_layers(config.style_recipe("own"), weights)
