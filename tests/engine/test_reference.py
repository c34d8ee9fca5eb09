"""The engine against the tutorial's own code, with the same weights."""

from pathlib import Path

import pytest
import torch
from conftest import wave
from PIL import Image
from reference import Reference, load_vgg
from torch import nn

import nst_pipeline
from nst_pipeline.config.recipe import RecipeChanges
from nst_pipeline.config.weights import COMPACT_PATH
from nst_pipeline.engine import Recipe, StyleTransfer, make_recipe
from nst_pipeline.engine.batch import Objective
from nst_pipeline.engine.images import to_tensor

SAMPLES = Path(nst_pipeline.__file__).parent / "samples"
CONTENT, STYLE = wave(64, 64, seed=1), wave(64, 64, seed=2)


def _engine(iterations: int, pooling: str) -> StyleTransfer:
    changes = RecipeChanges(
        name="tutorial", size="original", iterations=iterations, pooling=pooling
    )
    recipe = make_recipe(changes)
    return StyleTransfer(recipe, device="cpu", precision="fp32", weights="compact")


@pytest.mark.parametrize("pooling", ["max", "average"])
def test_loss_and_gradient_are_those_of_the_tutorial(
    pooling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = nn.MaxPool2d if pooling == "max" else nn.AvgPool2d
    reference = Reference(load_vgg(COMPACT_PATH, lambda: pool(2)), CONTENT, STYLE)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    evaluate = Objective.__call__

    def record(objective: Objective, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(evaluate(objective, pixels))
        return seen[-1]

    monkeypatch.setattr(Objective, "__call__", record)
    start = wave(64, 64, seed=3)
    _engine(1, pooling).run(CONTENT, [STYLE], init=start)
    image = start.clone().requires_grad_()
    loss = reference.loss(image)
    loss.backward()
    assert seen[0][0].item() == pytest.approx(loss.item(), rel=1e-5)
    difference = (seen[0][1] - image.grad).norm() / image.grad.norm()
    assert difference <= 1e-4


def _sample(name: str) -> torch.Tensor:
    with Image.open(SAMPLES / name) as image:
        return to_tensor(image.convert("RGB").resize((64, 64)))


@pytest.mark.parametrize(
    ("content", "style"),
    [("cityscape", "woodcut"), ("landscape", "mosaic"), ("still-life", "brushwork")],
)
def test_after_50_iterations_the_result_is_as_good_as_the_tutorials_by_its_own_loss(
    content: str, style: str
) -> None:
    images = _sample(f"contents/{content}.jpg"), _sample(f"styles/{style}.jpg")
    reference = Reference(load_vgg(COMPACT_PATH, lambda: nn.MaxPool2d(2)), *images)
    theirs = reference.loss(reference.run(images[0], 50)).item()
    # Its loop stops only after whole rounds of 20 evaluations, so that 50 make 60.
    (result,) = _engine(59, "max").run(images[0], [images[1]])
    ours = reference.loss(to_tensor(result.pastiche)).item()
    assert ours <= 1.02 * theirs
    assert ours < 0.1 * reference.loss(images[0]).item()


def test_recipe_tutorial_holds_the_numbers_of_the_tutorial() -> None:
    recipe = make_recipe(RecipeChanges(name="tutorial"))
    assert recipe == Recipe(
        name="tutorial",
        size=256,
        scales=1,
        iterations=300,
        content_layers=["conv2_2"],
        style_layers=["conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1"],
        content_weight=1,
        style_weight=1e6,
        tv_weight=0,
        statistic="gram",
        balanced=False,
        pooling="max",
        padding="zeros",
        init="content",
        history_size=100,
    )
