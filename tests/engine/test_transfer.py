from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SHARED_IMAGES, picture, wave
from PIL import Image

from nst_pipeline import engine
from nst_pipeline.engine import Recipe, StyleTransfer, TargetCache
from nst_pipeline.engine.devices import resolve_precision
from nst_pipeline.engine.images import fit, to_image, to_tensor
from nst_pipeline.errors import ShapeError, UnavailableError

SMALL = Recipe(size=48, iterations=6, pooling="average")


def transfer(recipe: Recipe = SMALL, **options) -> StyleTransfer:
    options = {"device": "cpu", "precision": "fp32", "weights": "compact"} | options
    return StyleTransfer(recipe, **options)


def test_the_loss_falls_and_the_pastiche_has_the_size_asked_for() -> None:
    (result,) = transfer(Recipe(size=64, iterations=30)).run(picture(80, 60), [picture(seed=2)])
    assert result.pastiche.size == (64, 48)
    assert result.pastiche.mode == "RGB"
    assert result.end.total < 0.1 * result.start.total
    assert result.iterations == 30 and result.stop_reason == "iterations"


def test_losses_at_the_end_are_those_of_the_very_image_that_is_saved() -> None:
    content, style = wave(seed=1), wave(seed=2)
    painter = transfer()
    (result,) = painter.run(content, [style])
    saved = to_tensor(result.pastiche)
    (again,) = painter.run(content, [style], init=saved)
    assert again.start == result.end
    assert result.end.total == pytest.approx(
        result.end.content + result.end.style + result.end.tv, rel=1e-6
    )


def test_a_batch_of_styles_gives_what_each_gives_alone() -> None:
    styles = [picture(seed=seed) for seed in (2, 3, 4)]
    together = transfer(batch=3).run(picture(seed=1), styles)
    alone = [transfer(batch=1).run(picture(seed=1), [style])[0] for style in styles]
    for one, other in zip(together, alone, strict=True):
        assert one.end.total == pytest.approx(other.end.total, rel=1e-2)
        difference = np.asarray(one.pastiche, float) - np.asarray(other.pastiche, float)
        assert np.abs(difference).mean() < 1


def test_the_same_settings_give_the_same_bytes_twice() -> None:
    for recipe in (SMALL, SMALL.model_copy(update={"init": "noise"})):
        first, second = (
            transfer(recipe).run(picture(seed=1), [picture(seed=2)])[0] for _ in range(2)
        )
        assert first.pastiche.tobytes() == second.pastiche.tobytes()


def test_noise_depends_on_the_seed_and_the_content_start_does_not() -> None:
    def paint(**changes: object) -> bytes:
        recipe = SMALL.model_copy(update=changes)
        return transfer(recipe).run(picture(seed=1), [picture(seed=2)])[0].pastiche.tobytes()

    assert paint(init="noise", seed=1) != paint(init="noise", seed=2)
    assert paint(init="content", seed=1) == paint(init="content", seed=2)


@pytest.mark.parametrize(
    "change",
    [
        {"style_weight": 1.0},
        {"content_weight": 50.0},
        {"tv_weight": 100.0},
        {"content_layers": {"relu3_1": 1.0}},
        {"style_layers": {"relu1_1": 1.0}},
        {"style_layers": {"relu1_1": 1.0, "relu2_1": 9.0}},
        {"balanced": False},
        {"statistic": "gram+mean"},
        {"statistic": "covariance"},
        {"style_layers": {"relu1_1": 1.0, "pixels": 1.0}},
        {"style_scale": 0.75},
        {"colors": "content"},
        {"colors": "matched"},
        {"init": "style-colors"},
        {"pooling": "max"},
        {"pooling": "rescaled-average"},
        {"padding": "zeros"},
        {"padding": "reflect"},
        {"scales": (32,)},
        {"tolerance": 0.9, "iterations": 60},
        {"iterations": 3},
        {"history_size": 1},
    ],
    ids=lambda change: "-".join(f"{key}={value}" for key, value in change.items())[:40],
)
def test_every_setting_of_the_recipe_changes_the_picture(change: dict[str, object]) -> None:
    recipe = Recipe.model_validate(SMALL.model_dump() | change)
    plain = transfer().run(picture(seed=1), [picture(seed=2)])[0].pastiche
    changed = transfer(recipe).run(picture(seed=1), [picture(seed=2)])[0].pastiche
    assert plain.tobytes() != changed.tobytes()


def test_total_variation_makes_the_picture_smoother() -> None:
    def roughness(tv_weight: float) -> float:
        recipe = SMALL.model_copy(update={"tv_weight": tv_weight, "iterations": 20})
        pastiche = transfer(recipe).run(picture(seed=1), [picture(seed=2)])[0].pastiche
        return float(np.abs(np.diff(np.asarray(pastiche, float), axis=1)).mean())

    assert roughness(1e4) < 0.7 * roughness(0)


def test_targets_are_computed_once_for_all_contents_and_come_back_from_disk(
    tmp_path: Path,
) -> None:
    targets = TargetCache(tmp_path)
    painter = transfer(targets=targets)
    style = picture(seed=2)
    first = painter.run(picture(seed=1), [style])[0]
    painter.run(picture(seed=5), [style])
    assert (targets.hits, targets.misses) == (1, 1)
    again = TargetCache(tmp_path)
    second = transfer(targets=again).run(picture(seed=1), [style])[0]
    assert (again.hits, again.misses) == (1, 0)
    assert first.pastiche.tobytes() == second.pastiche.tobytes()


@pytest.mark.parametrize(
    "change",
    [
        {"recipe": SMALL.model_copy(update={"size": 64})},
        {"recipe": SMALL.model_copy(update={"pooling": "max"})},
        {"recipe": SMALL.model_copy(update={"style_layers": {"relu1_1": 1.0}})},
        {"precision": "bf16"},
        {"style": picture(seed=9)},
    ],
    ids=["size", "pooling", "layers", "precision", "style"],
)
def test_targets_are_computed_anew_when_what_they_depend_on_changes(change: dict) -> None:
    targets = TargetCache()
    transfer(targets=targets).run(picture(seed=1), [picture(seed=2)])
    options = {"precision": "fp32"} | change
    style = options.pop("style", picture(seed=2))
    transfer(targets=targets, **options).run(picture(seed=1), [style])
    assert targets.misses == 2


def test_targets_serve_recipes_that_differ_in_weights_only() -> None:
    targets = TargetCache()
    for weight in (1.0, 100.0):
        recipe = SMALL.model_copy(update={"style_weight": weight})
        transfer(recipe, targets=targets).run(picture(seed=1), [picture(seed=2)])
    assert (targets.hits, targets.misses) == (1, 1)


def test_progress_names_the_style_and_ends_with_the_last_step() -> None:
    seen: list[tuple[int, int]] = []
    transfer(batch=1).run(
        picture(), [picture(seed=2), picture(seed=3)], lambda i, done, loss: seen.append((i, done))
    )
    assert seen == [(0, 1), (0, 6), (1, 1), (1, 6)]


@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 3, 32, 32), (1, 1, 32, 32)])
def test_a_tensor_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"\(1, 3, H, W\)"):
        transfer().run(torch.rand(shape), [picture()])


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(UnavailableError, match="cuda:99"):
        transfer(device="cuda:99")


def test_precision_is_what_was_asked_for() -> None:
    cpu = torch.device("cpu")
    assert resolve_precision("fp32", cpu) == torch.float32
    assert resolve_precision("bf16", cpu) == torch.bfloat16
    assert transfer(precision="bf16").describe()[1] == "bf16"


def test_bf16_costs_next_to_nothing_of_the_loss() -> None:
    recipe = SMALL.model_copy(update={"iterations": 40})
    ratios = []
    for seed in (1, 3, 5):
        content, style = wave(seed=seed), wave(seed=seed + 1)
        exact = transfer(recipe).run(content, [style])[0]
        fast = transfer(recipe, precision="bf16").run(content, [style])[0]
        judged = transfer(recipe).run(content, [style], init=to_tensor(fast.pastiche))[0].start
        ratios.append(judged.total / exact.end.total)
    # Pictures this small take other ways with every rounding; on the whole none is worse.
    assert np.mean(ratios) <= 1.1


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
    ("before", "after"), [((80, 40), (64, 32)), ((40, 80), (32, 64)), ((900, 30), (64, 32))]
)
def test_the_longer_side_gets_the_size_and_no_side_is_too_short(
    before: tuple[int, int], after: tuple[int, int]
) -> None:
    assert fit(before, 64) == after


def test_without_a_recipe_the_default_of_the_network_is_used() -> None:
    assert transfer(None).recipe == engine.make_recipe("compact")


def test_what_the_engine_exports_is_there() -> None:
    assert all(hasattr(engine, name) for name in engine.__all__)


@pytest.mark.skipif(not SHARED_IMAGES.is_dir(), reason="needs the folder of real paintings")
def test_a_real_photograph_takes_on_the_colours_of_a_real_painting() -> None:
    content = Image.open(SHARED_IMAGES / "content" / "tubingen.jpg")
    style = Image.open(SHARED_IMAGES / "style" / "the_scream.jpg")
    recipe = Recipe(size=96, iterations=40, pooling="average")
    (result,) = transfer(recipe).run(content, [style])

    def colour(image: Image.Image) -> np.ndarray:
        return np.asarray(image.convert("RGB"), float).mean((0, 1))

    distance = np.linalg.norm(colour(result.pastiche) - colour(style))
    assert distance < 0.5 * np.linalg.norm(colour(content) - colour(style))


@pytest.mark.gpu
def test_cuda_gives_the_losses_of_the_cpu_and_the_same_bytes_twice() -> None:
    content, styles = wave(seed=1), [wave(seed=2), wave(seed=3)]
    cpu = transfer().run(content, styles)
    first, second = (transfer(device="cuda").run(content, styles) for _ in range(2))
    for one, other, again in zip(cpu, first, second, strict=True):
        assert one.start.total == pytest.approx(other.start.total, rel=1e-3)
        assert other.pastiche.tobytes() == again.pastiche.tobytes()
