import pickle
from pathlib import Path

import pytest
import torch
from conftest import wave
from painting import narrow_vgg, with_paper_names
from safetensors.torch import load_file, save_file

from nst_pipeline.config.networks import VGG16, VGG19, file_layers
from nst_pipeline.config.weights import COMPACT_PATH
from nst_pipeline.engine.losses import extract
from nst_pipeline.engine.vgg import deepest, load_trunk
from nst_pipeline.errors import UnavailableError

BOTH = pytest.mark.parametrize("layers", [VGG19, VGG16], ids=["vgg19", "vgg16"])


def test_deepest_layer_is_the_last_in_the_network() -> None:
    assert deepest(["relu4_2", "conv5_1", "relu1_1"]) == "conv5_1"


def test_trunk_is_frozen_in_eval_mode_and_cut_after_the_layer_asked_for() -> None:
    trunk = load_trunk(COMPACT_PATH, "relu2_1")
    assert [name for name, _ in trunk.named_children()][-1] == "relu2_1"
    assert not trunk.training
    assert not any(parameter.requires_grad for parameter in trunk.parameters())


@pytest.mark.parametrize(("pooling", "expected"), [("max", 4.0), ("average", 2.5)])
def test_pooling_is_what_was_asked_for(pooling: str, expected: float) -> None:
    trunk = load_trunk(COMPACT_PATH, "pool1", pooling)  # type: ignore[arg-type]
    assert trunk.pool1(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])).item() == expected


@BOTH
@pytest.mark.parametrize("form", ["torchvision", "features", "paper", "legacy", "safetensors"])
def test_weights_are_read_in_every_form_that_is_about(
    form: str, layers: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    state = narrow_vgg(layers)
    convolutions = {k: v for k, v in state.items() if k.startswith("features")}
    if form == "features":
        torch.save({k.removeprefix("features."): v for k, v in convolutions.items()}, path)
    elif form == "paper":
        torch.save(with_paper_names(state, layers), path)
    elif form == "safetensors":
        save_file(convolutions, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form != "legacy")
    trunk = load_trunk(path, layers[-2])
    assert [name for name, _ in trunk.named_children()] == list(layers[:-1])
    for name in ("conv1_1", "conv3_3", "conv4_1", layers[-3]):
        layer, index = trunk.get_submodule(name), layers.index(name)
        assert torch.equal(layer.weight, state[f"features.{index}.weight"])
        assert torch.equal(layer.bias, state[f"features.{index}.bias"])
    assert file_layers(path) == layers


@BOTH
def test_features_equal_those_of_torchvision_s_network(
    layers: tuple[str, ...], tmp_path: Path
) -> None:
    from torchvision.models import vgg16, vgg19

    path, image = tmp_path / "w.pth", wave()
    torch.manual_seed(0)
    with torch.device("meta"):
        network = (vgg19 if layers == VGG19 else vgg16)().features
    network = network.to_empty(device="cpu").eval()
    state = {
        name: torch.randn(value.shape) * (2 / (9 * value[0].numel())) ** 0.5
        if value.ndim == 4
        else torch.zeros(value.shape)
        for name, value in network.state_dict().items()
    }
    network.load_state_dict(state)
    torch.save(state, path)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    with torch.no_grad():
        expected = network((image - mean) / std)
    (found,) = extract(load_trunk(path, "pool5"), image, {"pool5"}).values()
    torch.testing.assert_close(found, expected)


def test_compact_network_has_layers_up_to_relu5_1_in_at_most_8_mb() -> None:
    assert file_layers(COMPACT_PATH)[-1] == "relu5_1"
    load_trunk(COMPACT_PATH, "relu5_1")
    assert COMPACT_PATH.stat().st_size <= 8 * 2**20
    assert all(tensor.isfinite().all() for tensor in load_file(COMPACT_PATH).values())


class _Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('code of the file was run')",))


@pytest.mark.parametrize(
    "content",
    [b"", b"not weights at all", pickle.dumps(_Malicious(), 2), pickle.dumps([1, 2], 2)],
    ids=["empty", "text", "malicious", "list"],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_is_no_state_dict_is_refused(
    content: bytes, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    with pytest.raises(UnavailableError, match="bad"):
        load_trunk(path, "relu1_1")


@pytest.mark.parametrize(
    "value",
    ["text", None, [1.0], torch.zeros(3, 3), torch.zeros(4, 3, 3, 3, dtype=torch.int32),
     torch.full((4, 3, 3, 3), float("nan")), torch.zeros(4, 3, 3, 3, device="meta"),
     torch.zeros(4, 5, 3, 3), torch.zeros(5, 3, 3, 3), torch.tensor(1.0)],
    ids=str,
)  # fmt: skip
def test_a_state_dict_whose_values_are_no_kernels_is_refused(value: object, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    state = narrow_vgg(VGG19)
    torch.save({**state, 7: "what has no name is passed over"}, path)
    load_trunk(path, "relu1_1")
    torch.save({**state, "features.0.weight": value}, path)
    with pytest.raises(UnavailableError, match=r"w.pth: .*conv1_1"):
        load_trunk(path, "relu1_1")


def test_kernels_of_another_size_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"conv1_1.weight": torch.zeros(4, 3, 5, 5), "conv1_1.bias": torch.zeros(4)}, path)
    with pytest.raises(UnavailableError, match=r"shape \(4, 3, 5, 5\); expected keys like"):
        load_trunk(path, "relu1_1")


def test_convolutions_without_biases_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"conv1_1.weight": torch.zeros(4, 3, 3, 3)}, path)
    with pytest.raises(UnavailableError, match=r"conv1_1.bias"):
        load_trunk(path, "relu1_1")


def test_a_layer_that_a_file_lacks_is_told_with_those_it_has(tmp_path: Path) -> None:
    path = tmp_path / "short.safetensors"
    save_file(with_paper_names(narrow_vgg(VGG16[:7]), VGG16), path)
    with pytest.raises(UnavailableError, match="no layer relu4_1, but conv1_1, .*, relu2_1$"):
        load_trunk(path, "relu4_1")
