import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from nst_pipeline.config.networks import LAYER_NAMES, VGG16, VGG19, file_layers, identify
from nst_pipeline.errors import UnavailableError


@pytest.mark.parametrize(("name", "layers"), [("vgg19", VGG19), ("vgg16", VGG16)])
def test_layers_stand_in_the_order_of_torchvision(name: str, layers: tuple[str, ...]) -> None:
    from torch import nn
    from torchvision.models import get_model

    kinds = {nn.Conv2d: "conv", nn.ReLU: "relu", nn.MaxPool2d: "pool"}
    with torch.device("meta"):
        theirs = [kinds[type(layer)] for layer in get_model(name).features]
    assert [layer[:4] for layer in layers] == theirs
    assert layers[:5] == ("conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1")
    assert layers[-1] == "pool5"


def test_vgg_16_has_its_layers_in_the_order_of_all_layers() -> None:
    assert [layer for layer in LAYER_NAMES if layer in VGG16] == list(VGG16)


def convolutions(layers: tuple[str, ...], names: str) -> list[str]:
    """Return the names of a network's convolutions: the paper's, or torchvision's."""
    found = [(index, layer) for index, layer in enumerate(layers) if layer.startswith("conv")]
    return [layer if names == "paper" else f"features.{index}" for index, layer in found]


@pytest.mark.parametrize("names", ["paper", "torchvision"])
@pytest.mark.parametrize("layers", [VGG19, VGG16], ids=["vgg19", "vgg16"])
def test_a_network_is_known_by_the_names_of_its_convolutions(
    layers: tuple[str, ...], names: str
) -> None:
    given = convolutions(layers, names)
    found, own = identify([*given, "classifier.0", "classifier.3"])
    assert found == layers
    assert own == dict(zip(convolutions(layers, "paper"), given, strict=True))


def test_a_network_cut_short_has_the_layers_before_the_cut() -> None:
    found, _ = identify(convolutions(VGG16, "paper")[:11])
    assert found == VGG16[: VGG16.index("relu5_1") + 1]
    found, _ = identify(convolutions(VGG19, "torchvision")[:13])
    assert found == VGG19[: VGG19.index("relu5_1") + 1]
    # Nobody can tell whether pool3 comes next.
    assert identify(convolutions(VGG16, "torchvision")[:7])[0][-1] == "relu3_3"


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["classifier.0"],
        ["layer1", "layer2"],
        [f"features.{i}" for i in (0, 2, 5, 7, 10, 12, 15, 17, 20, 22)],  # VGG-13
        [f"features.{i}" for i in (0, 1, 3, 4)],  # with batch norm
        ["conv1_1", "conv2_1"],
        [*convolutions(VGG19, "paper")[:7], *convolutions(VGG19, "paper")[8:]],
    ],
    ids=["nothing", "classifier", "other", "vgg13", "batch-norm", "a-gap", "a-late-gap"],
)
def test_another_network_is_refused(names: list[str]) -> None:
    with pytest.raises(ValueError, match="neither a VGG-19 nor a VGG-16"):
        identify(names)


def test_a_file_of_another_network_is_told_with_what_is_expected(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"layer1.weight": torch.zeros(3, 3)}, path)
    with pytest.raises(
        UnavailableError, match=r"other.pth: neither .* keys like features.0.weight"
    ):
        file_layers(path)


class _Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('code of the file was run')",))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "content",
    [b"", b"not weights at all", pickle.dumps(_Malicious(), 2), pickle.dumps([1, 2], 2),
     b"\x80\x02\x8d" + b"\xff" * 7 + b"\x0f", b"PK\x05\x06" + bytes(18)],
    ids=["empty", "text", "malicious", "list", "huge", "empty-zip"],
)  # fmt: skip
def test_a_file_that_is_no_state_dict_is_told(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    with pytest.raises(UnavailableError, match=f"bad{suffix}: not a state dict: ."):
        file_layers(path)


def test_a_zip_that_is_damaged_is_told(tmp_path: Path) -> None:
    path, whole = tmp_path / "bad.pth", tmp_path / "whole.zip"
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", pickle.dumps(["conv1_1.weight"] * 5, 2))
    data = bytearray(whole.read_bytes())
    data[45:60] = b"\xff" * 15
    path.write_bytes(data)
    with pytest.raises(UnavailableError, match=r"bad.pth: not a state dict"):
        file_layers(path)
