import json
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import evaluate_compact as ec  # noqa: E402
from compact_judge import judge  # noqa: E402
from compact_network import NAMES, load_teacher  # noqa: E402

import nst_pipeline  # noqa: E402

SAMPLES = Path(nst_pipeline.__file__).with_name("samples")

CONTENT, STYLE = "contents/cityscape.jpg", "styles/mosaic.jpg"


def write_network(path, seed):
    torch.manual_seed(seed)
    weights = {}
    for name, (inputs, outputs) in zip(NAMES, pairwise((3, *[8] * 11)), strict=True):
        weights[f"conv{name}.weight"] = torch.randn(outputs, inputs, 3, 3) * (2 / inputs / 9) ** 0.5
        weights[f"conv{name}.bias"] = torch.zeros(outputs)
    save_file(weights, path)
    return path


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_network(tmp_path_factory.mktemp("judge") / "vgg16.safetensors", 0)


def rung(style, content):
    return ec.Rung(1.0, style, content, (), Image.new("RGB", (1, 1)))


def test_a_picture_is_no_distance_from_itself_and_nearer_to_what_it_resembles(teacher):
    trunk = load_teacher(teacher)
    content = Image.open(SAMPLES / CONTENT).convert("RGB").resize((96, 64))
    style = Image.open(SAMPLES / STYLE).convert("RGB").resize((96, 64))
    assert judge(trunk, content, style, content).content < 1e-8
    assert judge(trunk, content, style, style).style < 1e-8
    near = judge(trunk, content, style, Image.blend(content, style, 0.2))
    far = judge(trunk, content, style, Image.blend(content, style, 0.8))
    assert near.content < far.content and near.style > far.style


def test_the_style_loss_is_read_off_between_the_nearest_rungs():
    rungs = [rung(0.04, 4.0), rung(0.16, 1.0), rung(0.01, 16.0)]
    assert ec.style_at(rungs, 2.0) == (pytest.approx(0.08), True)
    assert ec.style_at(rungs, 8.0) == (pytest.approx(0.02), True)
    assert ec.style_at(rungs, 0.25) == (pytest.approx(0.64), False)


def test_entries_paint_pairs_along_a_ladder_and_are_compared_at_equal_content(
    teacher, tmp_path, capsys
):
    other = write_network(tmp_path / "other.safetensors", 1)
    arguments = {
        "folder": SAMPLES,
        "teacher": teacher,
        "entries": [f"first={teacher}", f"second={other},{{tv_weight: 3}}"],
        "pairs": f"{CONTENT}:{STYLE}",
        "output": tmp_path / "sheet.jpg",
        "kept": tmp_path / "kept",
        "size": 48,
        "recipe": "{iterations: 2, scales: 1, style_weight: 10}",
        "ladder": "0.5,1,4",
    }
    ec.pictures_command(**arguments)
    facts = json.loads((tmp_path / "sheet.json").read_text())
    assert facts["recipes"]["second"]["tv_weight"] == 3
    first, second = facts["scores"]
    assert (first["pair"], first["entry"]) == ("cityscape x mosaic", "first")
    assert first["content"] == second["content"] == pytest.approx(first["nearest"][2])
    assert first["style"] == pytest.approx(first["nearest"][1])
    assert "second: " in capsys.readouterr().out
    with Image.open(tmp_path / "sheet.jpg") as sheet:
        assert sheet.size == (4 * ec.CELL[0], ec.CELL[1] + 14)
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "kept").iterdir()}
    assert len(kept) == 6
    ec.pictures_command(**arguments)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "kept").iterdir()} == kept
