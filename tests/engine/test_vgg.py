import pickle
from pathlib import Path

import pytest
import torch
from conftest import wave
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nst_pipeline.config.recipe import LAYER_NAMES
from nst_pipeline.config.weights import COMPACT_PATH
from nst_pipeline.engine.losses import extract
from nst_pipeline.engine.vgg import deepest, load_trunk
from nst_pipeline.errors import UnavailableError

WIDTHS = {1: 4, 2: 4, 3: 6, 4: 6, 5: 6}


@pytest.fixture
def narrow_vgg() -> dict[str, Tensor]:
    """A VGG-19 state dict as torchvision has it, but narrow, classifier included."""
    torch.manual_seed(0)
    state, channels = {}, 3
    for index, name in enumerate(LAYER_NAMES):
        if name.startswith("conv"):
            conv = nn.Conv2d(channels, WIDTHS[int(name[4])], 3, padding=1)
            state[f"features.{index}.weight"] = conv.weight.detach()
            state[f"features.{index}.bias"] = conv.bias.detach()
            channels = conv.out_channels
    return state | {"classifier.0.weight": torch.zeros(4096, 100)}


def test_layers_stand_in_the_order_of_torchvision() -> None:
    from torchvision.models import vgg19

    kinds = {nn.Conv2d: "conv", nn.ReLU: "relu", nn.MaxPool2d: "pool"}
    with torch.device("meta"):
        theirs = [kinds[type(layer)] for layer in vgg19().features]
    assert [name[:4] for name in LAYER_NAMES] == theirs
    assert LAYER_NAMES[:5] == ("conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1")
    assert LAYER_NAMES.index("conv4_2") == 21 and LAYER_NAMES[-1] == "pool5"


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


@pytest.mark.parametrize("form", ["torchvision", "features", "paper", "legacy", "safetensors"])
def test_weights_are_read_in_every_form_that_is_about(
    form: str, narrow_vgg: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    convolutions = {k: v for k, v in narrow_vgg.items() if k.startswith("features")}
    if form == "features":
        torch.save({k.removeprefix("features."): v for k, v in convolutions.items()}, path)
    elif form == "paper":
        names = {f"features.{i}": name for i, name in enumerate(LAYER_NAMES)}
        torch.save(
            {f"{names[k.rpartition('.')[0]]}.{k.rpartition('.')[2]}": v
             for k, v in convolutions.items()}, path)  # fmt: skip
    elif form == "safetensors":
        save_file(convolutions, path)
    else:
        torch.save(narrow_vgg, path, _use_new_zipfile_serialization=form != "legacy")
    trunk = load_trunk(path, "relu5_1")
    assert torch.equal(trunk.conv1_1.weight, narrow_vgg["features.0.weight"])
    assert torch.equal(trunk.conv5_1.bias, narrow_vgg["features.28.bias"])


def test_features_equal_those_of_a_plain_sequential(
    narrow_vgg: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "w.pth"
    torch.save(narrow_vgg, path)
    image = wave()
    conv = torch.nn.functional.conv2d
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    first = conv((image - mean) / std, *_layer(narrow_vgg, 0), padding=1)
    second = conv(first.relu(), *_layer(narrow_vgg, 2), padding=1)
    found = extract(load_trunk(path, "conv1_2"), image, {"conv1_1", "conv1_2"})
    torch.testing.assert_close(found["conv1_1"], first)
    torch.testing.assert_close(found["conv1_2"], second)


def _layer(state: dict[str, Tensor], index: int) -> tuple[Tensor, Tensor]:
    return state[f"features.{index}.weight"], state[f"features.{index}.bias"]


def test_compact_network_has_the_topology_up_to_relu5_1_in_at_most_8_mb() -> None:
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
def test_a_state_dict_whose_values_are_no_kernels_is_refused(
    value: object, narrow_vgg: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "w.pth"
    torch.save({**narrow_vgg, 7: "what has no name is passed over"}, path)
    load_trunk(path, "relu1_1")
    torch.save({**narrow_vgg, "features.0.weight": value}, path)
    with pytest.raises(UnavailableError, match=r"w.pth: not a VGG-19 \(conv1_1"):
        load_trunk(path, "relu1_1")


def test_a_state_dict_of_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"layer1.weight": torch.zeros(3, 3)}, path)
    with pytest.raises(UnavailableError, match="not a VGG-19"):
        load_trunk(path, "relu1_1")
