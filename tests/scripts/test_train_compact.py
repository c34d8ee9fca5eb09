import json
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import train_compact as tc  # noqa: E402
import typer  # noqa: E402
from compact_network import (  # noqa: E402
    NAMES,
    Trunk,
    fit_heads,
    leading_channels,
    load_teacher,
    start_from,
)

TEACHER = (8, 8, 10, 10, 12, 12, 12, 16, 16, 16, 20)
NARROW = (6, 6, 8, 8, 8, 8, 8, 10, 10, 10, 20)
SETTINGS = tc.Settings(
    steps=6, widths=NARROW, batch=4, size=32, slots=4, lifetime=4, pace=2, held_out=2
)


def random_weights(widths, seed=0):
    torch.manual_seed(seed)
    weights = {}
    for name, (inputs, outputs) in zip(NAMES, pairwise((3, *widths)), strict=True):
        weights[f"conv{name}.weight"] = torch.randn(outputs, inputs, 3, 3) * (2 / inputs / 9) ** 0.5
        weights[f"conv{name}.bias"] = torch.randn(outputs) * 0.1
    return weights


@pytest.fixture(scope="module")
def teacher_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "vgg16.safetensors"
    extra = {"conv5_2.weight": torch.zeros(20, 20, 3, 3), "conv5_2.bias": torch.zeros(20)}
    save_file({k: v.half() for k, v in (random_weights(TEACHER) | extra).items()}, path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for index in range(6):
        small = rng.integers(0, 256, (6, 6, 3), np.uint8)
        Image.fromarray(small).resize((60, 40 + 4 * index)).save(folder / f"{index}.png")
    (folder / "notes.txt").write_text("not a picture")
    return folder


@pytest.fixture(scope="module")
def pictures(folder):
    return tc.load_pictures(folder, [folder / "0.png"], SETTINGS.held_out)


@pytest.fixture
def begin(teacher_file, pictures):
    def begin(**changes):
        return tc.Training(
            load_teacher(teacher_file), pictures, replace(SETTINGS, **changes), "cpu"
        )

    return begin


def advance(training, steps):
    """Learn from so many batches."""
    for _, clean in zip(range(steps), tc.clean_batches(training, 0), strict=False):
        training.advance(clean)


def run_by_hand(weights, x):
    """The same topology written out."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (tc.MEAN, tc.STD))
    x = (x - mean) / std
    for name in NAMES:
        if name in ("2_1", "3_1", "4_1", "5_1"):
            x = F.max_pool2d(x, 2)
        x = F.pad(x, (1, 1, 1, 1), mode="replicate")
        x = F.relu(F.conv2d(x, weights[f"conv{name}.weight"], weights[f"conv{name}.bias"]))
    return x


def test_the_trunk_computes_vgg_16_to_relu5_1():
    weights, x = random_weights(TEACHER), torch.rand(2, 3, 32, 48)
    expected = run_by_hand(weights, x)
    torch.testing.assert_close(Trunk(weights)(x)["5_1"], expected, rtol=1e-4, atol=1e-5)


def test_a_file_of_another_network_is_refused_as_teacher(tmp_path):
    save_file({"layer.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(typer.BadParameter, match=r"other.safetensors: not VGG-16's weights"):
        load_teacher(tmp_path / "other.safetensors")


def test_channels_that_explain_the_others_are_kept():
    torch.manual_seed(0)
    two = torch.randn(500, 2)
    copies = torch.stack([two[:, 0], two[:, 1], two[:, 0] * 0.5, two.sum(1) * 0.1], 1)
    assert leading_channels(copies, 2).tolist() == [0, 1]


def test_a_student_as_wide_as_its_teacher_starts_as_its_equal():
    teacher, x = Trunk(random_weights(TEACHER)), torch.rand(160, 3, 32, 32)
    generator = torch.Generator().manual_seed(0)
    student = start_from(teacher, TEACHER, x, generator)
    heads = fit_heads(teacher, student, x, generator)
    ours, theirs = student(x)["3_3"], teacher(x)["3_3"]
    assert (ours - theirs).square().mean() < 1e-3 * theirs.var()
    assert heads["5_1"].shape == (20, 21)


def test_photographs_are_read_in_order_known_by_digest_and_the_last_are_held_out(folder, pictures):
    assert [p.shape for p in pictures.photographs] == [(40 + 4 * i, 60, 3) for i in range(4)]
    assert [p.shape for p in pictures.held_out] == [(56, 60, 3), (60, 60, 3)]
    assert len(pictures.paintings) == 1
    assert tc.load_pictures(folder, [folder / "0.png"], 2).digest == pictures.digest
    assert tc.load_pictures(folder, [folder / "1.png"], 2).digest != pictures.digest


def test_a_folder_of_too_few_photographs_is_refused(tmp_path):
    with pytest.raises(typer.BadParameter, match="0 pictures; 2 are held out"):
        tc.load_pictures(tmp_path, [], 2)


def test_a_batch_is_photographs_and_pastiches_of_the_student(begin):
    training = begin()
    training.pastiches.advance()
    clean = tc.CleanPictures(training.pictures, training.settings)
    batch = training.batch(clean[0])
    assert batch.shape == (4, 3, 32, 32)
    assert batch.min() >= 0 and batch.max() <= 1
    kept = training.pastiches.kept
    assert all(any(torch.equal(x, k) for k in kept) for x in batch[2:])
    assert torch.equal(batch, training.batch(clean[0])), "a function of the seed and the step"
    assert not torch.equal(clean[0], clean[1])


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of one core
def test_pictures_drawn_ahead_by_other_processes_are_the_same(begin):
    training = begin()
    ahead = list(tc.clean_batches(training, 2))
    assert len(ahead) == SETTINGS.steps
    for one, other in zip(ahead, tc.clean_batches(training, 0), strict=True):
        assert torch.equal(one, other)


def test_pastiches_come_nearer_to_their_styles_and_start_anew_after_their_lifetime(begin):
    training = begin(lifetime=40, pace=20)
    pastiches, student = training.pastiches, training.student
    pastiches.age.zero_()
    before = tc.gram(student(pastiches.x)["1_1"])
    targets = tc.gram(student(pastiches.style)["1_1"])
    styles = pastiches.style.clone()
    pastiches.advance()
    after = tc.gram(student(pastiches.x)["1_1"])
    assert tc.relative_error(after, targets).sum() < tc.relative_error(before, targets).sum()
    pastiches.advance()
    assert torch.equal(pastiches.style, styles)
    pastiches.advance()
    assert not torch.equal(pastiches.style, styles)
    assert (pastiches.age == 20).all()
    assert all(p.requires_grad for p in student.parameters())


def test_learning_brings_the_student_nearer_on_pictures_that_it_never_sees(begin):
    training = begin(steps=60, learning_rate=3e-3)
    with torch.no_grad():  # the fit that it starts from leaves little to learn
        for parameter in training.student.parameters():
            parameter *= 0.7
    before = dict(training.judge())["held out"]["loss"]
    advance(training, 60)
    assert dict(training.judge())["held out"]["loss"] < 0.95 * before


def test_an_interrupted_run_equals_an_uninterrupted_one(begin, tmp_path):
    whole, first = begin(), begin()
    advance(whole, SETTINGS.steps)
    advance(first, 3)
    first.save(tmp_path / "checkpoint")
    second = begin()
    second.resume(tmp_path / "checkpoint")
    advance(second, 3)
    a, b = whole.student.weights(), second.student.weights()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_run_goes_on_from_the_weights_of_an_earlier_one(begin, teacher_file, pictures, tmp_path):
    first = begin()
    advance(first, SETTINGS.steps)
    tc.write_weights(first, tmp_path / "first.safetensors")
    student = load_teacher(tmp_path / "first.safetensors").requires_grad_(True)
    assert student.widths() == NARROW
    second = tc.Training(load_teacher(teacher_file), pictures, SETTINGS, "cpu", student)
    a, b = (dict(t.judge())["held out"]["loss"] for t in (first, second))
    assert b < 1.05 * a
    advance(second, 2)
    assert second.step == 2


def test_a_checkpoint_of_other_settings_is_refused(begin, tmp_path):
    begin().save(tmp_path / "checkpoint")
    with pytest.raises(typer.BadParameter, match="other settings"):
        begin(seed=5).resume(tmp_path / "checkpoint")


def test_the_length_of_a_run_can_change_until_the_rate_falls(begin, tmp_path):
    training = begin(steps=100)
    training.save(tmp_path / "early")
    begin(steps=50).resume(tmp_path / "early")
    training.step = 70
    training.save(tmp_path / "late")
    with pytest.raises(typer.BadParameter, match="other settings"):
        begin(steps=80).resume(tmp_path / "late")


def test_the_command_writes_weights_with_the_facts_of_their_making(folder, teacher_file, tmp_path):
    output = tmp_path / "out.safetensors"
    tc.main(
        teacher_file, folder, output, painting=[folder / "0.png"], steps=2, seed=7,
        widths=",".join(map(str, NARROW)), batch=4, size=32, slots=4, lifetime=4, pace=2,
        held_out=2, save_every=1,
    )  # fmt: skip
    weights = load_file(output)
    assert set(weights) == {f"conv{n}.{kind}" for n in NAMES for kind in ("weight", "bias")}
    assert all(w.dtype == torch.float16 and w.isfinite().all() for w in weights.values())
    with safe_open(output, "pt") as file:
        facts = file.metadata()
    assert facts["channels"] == ",".join(map(str, NARROW))
    assert (facts["photographs"], facts["paintings"], facts["steps"]) == ("4", "1", "2")
    assert "Simonyan and A. Zisserman, CC BY 4.0" in facts["teacher"]
    assert json.loads(facts["settings"])["seed"] == 7
    assert (tmp_path / "out.checkpoint").is_file()
    lines = [json.loads(x) for x in (tmp_path / "out.log.jsonl").read_text().splitlines()]
    assert [(x["step"], x["of"]) for x in lines[-2:]] == [(2, "held out"), (2, "pastiches")]
    assert {"loss", "relu5_1", "gram5_1", "seconds"} <= set(lines[-1])
    assert not list(tmp_path.glob("*.part"))
