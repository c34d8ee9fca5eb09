import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import train_compact as tc  # noqa: E402
import typer  # noqa: E402
from compact_network import NAMES, CompactNetwork, fold, normalise, start_from  # noqa: E402

from nst_pipeline.engine.vgg import load_trunk  # noqa: E402

NARROW = (4, 4, 6, 6, 8, 8, 8, 8, 10, 10, 10, 10, 12)
SETTINGS = tc.Settings(steps=6, widths=NARROW, batch=4, size=32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for index, (height, width) in enumerate([(40, 60), (60, 40), (50, 50), (64, 48)]):
        small = rng.integers(0, 256, (5, 5, 3), np.uint8)
        Image.fromarray(small).resize((width, height)).save(folder / f"{index}.png")
    (folder / "notes.txt").write_text("not a picture")
    return folder


@pytest.fixture(scope="module")
def photographs(folder):
    return tc.load_photographs(folder)


def begin(photographs, settings=SETTINGS, init=None):
    return tc.Training(photographs, settings, "cpu", init)


def run_folded(weights, x):
    """The same topology written out by hand."""
    for name in NAMES:
        if name.endswith("_1") and name != "1_1":
            x = F.avg_pool2d(x, 2)
        weight, bias = weights[f"conv{name}.weight"], weights[f"conv{name}.bias"]
        x = F.relu(F.conv2d(x, weight, bias, padding=1))
    return x


def lively_network(widths=NARROW):
    """A network whose batch norm is not what it was at the start."""
    torch.manual_seed(1)
    network = CompactNetwork(widths)
    for norm in network.norms.values():
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.normal_(norm.bias)
        torch.nn.init.normal_(norm.running_mean)
        torch.nn.init.uniform_(norm.running_var, 0.5, 1.5)
    return network.eval()


def test_photographs_are_read_in_order_and_known_by_digest(folder, photographs, tmp_path):
    assert len(photographs) == 4
    assert photographs.aspects[0] == pytest.approx(1.5)
    assert tc.load_photographs(folder).digest == photographs.digest
    for path in folder.glob("*.png"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    Image.new("RGB", (9, 9)).save(tmp_path / "2.png")
    assert tc.load_photographs(tmp_path).digest != photographs.digest


def test_a_folder_without_photographs_is_refused(tmp_path):
    with pytest.raises(typer.BadParameter, match="0 pictures"):
        tc.load_photographs(tmp_path)


def test_a_batch_depends_on_seed_and_step_alone(photographs):
    clean, noise, labels = tc.make_batch(photographs, SETTINGS, 3)
    again = tc.make_batch(photographs, SETTINGS, 3)
    assert all(torch.equal(a, b) for a, b in zip((clean, noise, labels), again, strict=True))
    assert not torch.equal(clean, tc.make_batch(photographs, SETTINGS, 4)[0])
    assert not torch.equal(clean, tc.make_batch(photographs, replace(SETTINGS, seed=1), 3)[0])
    assert clean.shape == noise.shape == (4, 3, 32, 32)
    assert clean.min() >= 0 and clean.max() <= 1
    assert labels.shape == (4, 4)
    assert (labels[:2] == labels[:2, :1]).all(), "a whole crop is one photograph"


def test_folding_keeps_what_the_network_computes():
    network = lively_network()
    x = torch.randn(2, 3, 32, 32)
    expected = network(x)["5_1"]
    assert expected.abs().max() > 0
    torch.testing.assert_close(run_folded(fold(network), x), expected, rtol=1e-4, atol=1e-5)


def test_starting_from_narrower_weights_keeps_their_function():
    narrow = lively_network()
    wide = CompactNetwork(tuple(w + 3 for w in NARROW))
    x = torch.randn(4, 3, 32, 32)
    start_from(wide, fold(narrow), x)
    wide.train()
    kept = wide(x)["5_1"][:, : NARROW[-1]]
    torch.testing.assert_close(kept, narrow(x)["5_1"], rtol=1e-3, atol=1e-4)


def test_starting_from_wider_weights_is_refused():
    with pytest.raises(typer.BadParameter, match="wider"):
        start_from(CompactNetwork(NARROW), fold(lively_network((32, *NARROW[1:]))), torch.rand(1))


def test_learning_lowers_the_loss(photographs):
    training = begin(photographs, replace(SETTINGS, steps=60, learning_rate=1e-2))
    losses = [training.advance()["loss"] for _ in range(60)]
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:5])


def test_an_interrupted_run_equals_an_uninterrupted_one(photographs, tmp_path):
    whole = begin(photographs)
    for _ in range(SETTINGS.steps):
        whole.advance()
    first = begin(photographs)
    for _ in range(3):
        first.advance()
    first.save(tmp_path / "checkpoint")
    second = begin(photographs)
    second.resume(tmp_path / "checkpoint")
    for _ in range(3):
        second.advance()
    a, b = fold(whole.network), fold(second.network)
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_checkpoint_of_other_settings_is_refused(photographs, tmp_path):
    begin(photographs).save(tmp_path / "checkpoint")
    other = begin(photographs, replace(SETTINGS, seed=5))
    with pytest.raises(typer.BadParameter, match="other settings"):
        other.resume(tmp_path / "checkpoint")


def test_the_length_of_a_run_can_change_until_the_rate_falls(photographs, tmp_path):
    training = begin(photographs, replace(SETTINGS, steps=100))
    training.save(tmp_path / "early")
    begin(photographs, replace(SETTINGS, steps=50)).resume(tmp_path / "early")
    training.step = 60
    training.save(tmp_path / "late")
    with pytest.raises(typer.BadParameter, match="other settings"):
        begin(photographs, replace(SETTINGS, steps=80)).resume(tmp_path / "late")


def test_the_command_writes_weights_the_engine_can_load(folder, photographs, tmp_path):
    init, output = tmp_path / "init.safetensors", tmp_path / "out.safetensors"
    first = begin(photographs)
    tc.write_weights(first, init)
    tc.main(
        folder,
        output,
        steps=2,
        seed=7,
        widths=",".join(map(str, NARROW)),
        batch=4,
        size=32,
        init=init,
        save_every=1,
    )
    weights = load_file(output)
    assert set(weights) == {f"conv{n}.{kind}" for n in NAMES for kind in ("weight", "bias")}
    assert all(w.dtype == torch.float16 and w.isfinite().all() for w in weights.values())
    with safe_open(output, "pt") as file:
        facts = file.metadata()
    assert facts["channels"] == ",".join(map(str, NARROW))
    assert (facts["photographs"], facts["photographs_sha256"]) == ("4", photographs.digest)
    assert (facts["steps"], facts["seed"]) == ("2", "7")
    assert len(facts["init_sha256"]) == 64
    assert {"topology", "date", "program", "settings", "torch"} <= set(facts)
    trunk = load_trunk(output, "relu5_1", "average")
    x = normalise(torch.rand(1, 3, 32, 32))
    expected = run_folded({k: w.float() for k, w in weights.items()}, x)
    torch.testing.assert_close(trunk(x), expected, rtol=1e-4, atol=1e-5)


def test_the_log_and_the_checkpoint_lie_beside_the_weights(photographs, tmp_path):
    training, output = begin(photographs), tmp_path / "out.safetensors"
    tc.train(training, output, save_every=4)
    assert (tmp_path / "out.checkpoint").is_file()
    last = json.loads((tmp_path / "out.log.jsonl").read_text().splitlines()[-1])
    assert last["step"] == SETTINGS.steps
    assert {"loss", "entropy", "error", "right", "seconds"} <= set(last)
    assert not list(tmp_path.glob("*.part"))
