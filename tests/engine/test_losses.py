from typing import Any

import pytest
import torch
from conftest import wave
from torch import nn

from nst_pipeline.config.weights import COMPACT_PATH
from nst_pipeline.engine.losses import (
    ContentLoss,
    Normalization,
    StyleLoss,
    build_model,
    extract,
    gram_matrix,
    style_statistic,
    sum_of_products,
    total_variation,
)
from nst_pipeline.engine.vgg import load_trunk
from nst_pipeline.errors import ShapeError


def test_gram_matrix_equals_the_one_computed_by_hand() -> None:
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])  # 2 channels of 1 x 2
    by_hand = torch.tensor([[[1 + 4.0, 3 + 8.0], [3 + 8.0, 9 + 16.0]]]) / (2 * 1 * 2)
    assert torch.equal(gram_matrix(features), by_hand)


@pytest.mark.parametrize("count", [64, 67, 8, 5])
def test_parts_of_the_places_sum_up_to_the_whole(count: int) -> None:
    rows = torch.rand(2, count, 3, dtype=torch.float64)
    torch.testing.assert_close(sum_of_products(rows, 8 if count > 7 else 1), rows.mT @ rows)
    apart = rows[:, :, :2]  # which do not lie side by side in memory
    torch.testing.assert_close(sum_of_products(apart, 4), apart.mT @ apart)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(384, 512), (383, 509), (24, 32)])
def test_a_gpu_gives_the_gram_matrix_of_the_cpu(size: tuple[int, int], dtype: torch.dtype) -> None:
    features = torch.randn(2, 64, *size).to(dtype).contiguous(memory_format=torch.channels_last)
    right = gram_matrix(features.double())
    found = gram_matrix(features.cuda()).cpu().double()
    torch.testing.assert_close(found, right, rtol=0, atol=1e-4 * float(right.max()))


def test_gram_matrix_keeps_the_images_of_a_batch_apart() -> None:
    batch = torch.rand(3, 4, 5, 6)
    together = gram_matrix(batch)
    alone = torch.cat([gram_matrix(image[None]) for image in batch])
    torch.testing.assert_close(together, alone)


def test_gram_matrix_of_bf16_features_is_float32_and_accumulated_so() -> None:
    features = torch.full((1, 2, 64, 64), 1.0078125, dtype=torch.bfloat16)
    gram = gram_matrix(features)
    assert gram.dtype == torch.float32
    torch.testing.assert_close(gram, torch.full((1, 2, 2), 1.0078125**2 / 2), rtol=1e-5, atol=0)


def test_gram_matrix_and_its_gradient_do_not_depend_on_the_memory_format() -> None:
    target = torch.rand(2, 4, 4)
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        features = torch.rand(2, 4, 5, 6).to(memory_format=memory_format).requires_grad_()
        gram = gram_matrix(features)
        (gradient,) = torch.autograd.grad((gram - target).square().sum(), features)
        results.append((gram.detach(), gradient))
    torch.testing.assert_close(*results)


def test_gram_matrix_refuses_features_without_a_batch() -> None:
    with pytest.raises(ShapeError, match=r"\(4, 5, 6\)"):
        gram_matrix(torch.rand(4, 5, 6))


def test_gradients_of_all_losses_are_exact() -> None:
    torch.manual_seed(0)
    features = torch.rand(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    content = ContentLoss(torch.rand(1, 3, 4, 5, dtype=torch.float64), torch.tensor([0.5]))
    style = StyleLoss(gram_matrix(torch.rand(2, 3, 4, 5, dtype=torch.float64))[:, None])

    def losses(x: torch.Tensor) -> torch.Tensor:
        style(content(x))
        return torch.stack([content.loss, style.loss, total_variation(x)])

    assert torch.autograd.gradcheck(losses, features)


def test_total_variation_equals_the_one_computed_by_hand() -> None:
    pixels = torch.tensor([[[[0.0, 1.0], [2.0, 4.0]]]])
    down, across = (2**2 + 3**2) / 2, (1**2 + 2**2) / 2
    assert total_variation(pixels).item() == down + across


def test_normalization_uses_the_statistics_of_imagenet() -> None:
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    torch.testing.assert_close(Normalization()(mean + std), torch.ones(1, 3, 1, 1))


def _model(balanced: bool, style_weights: dict[str, float] | None = None):
    trunk = load_trunk(COMPACT_PATH, "relu3_1")
    content, style = wave(seed=1), wave(seed=2)
    style_weights = style_weights or {"relu1_1": 1.0, "relu2_1": 1.0}
    grams = {
        layer: style_statistic(f) for layer, f in extract(trunk, style, set(style_weights)).items()
    }
    features = extract(trunk, content, {"conv2_2"})
    model = build_model(trunk, features, grams, {"conv2_2": 1.0}, style_weights, balanced)
    return model, content, style


def test_model_is_one_sequential_with_the_losses_after_their_layers_cut_after_the_last() -> None:
    model, _, _ = _model(balanced=False)
    assert isinstance(model.network, nn.Sequential)
    assert [name for name, _ in model.network.named_children()] == [
        "normalization", "conv1_1", "relu1_1", "style_relu1_1", "conv1_2", "relu1_2", "pool1",
        "conv2_1", "relu2_1", "style_relu2_1", "conv2_2", "content_conv2_2",
    ]  # fmt: skip


def test_losses_vanish_on_their_own_targets() -> None:
    model, content, style = _model(balanced=True)
    assert model(content)[0].item() == 0
    assert model(style)[1].item() < 1e-12
    assert model(style)[0].item() > 0.01


def test_losses_of_a_batch_are_those_of_its_images() -> None:
    model, content, style = _model(balanced=True)
    together = model(torch.cat([content, style]))
    alone = [model(image) for image in (content, style)]
    for term in (0, 1):
        expected = torch.cat([losses[term] for losses in alone])
        torch.testing.assert_close(together[term], expected, rtol=1e-5, atol=1e-9)


def test_balanced_style_loss_is_a_fraction_of_the_energy_of_the_target() -> None:
    model, _, _ = _model(balanced=True, style_weights={"relu1_1": 3.0, "relu2_1": 1.0})
    for loss in model.style.values():
        loss(torch.zeros(1, loss.target.shape[2], 8, 8))
    # With no features at all the difference is the target itself: a loss of 1, shared 3 to 1.
    assert model.style["relu1_1"].loss.item() == pytest.approx(0.75)
    assert model.style["relu2_1"].loss.item() == pytest.approx(0.25)


def test_plain_loss_is_the_mean_squared_error_times_the_weight() -> None:
    model, _, _ = _model(balanced=False, style_weights={"relu1_1": 3.0})
    loss = model.style["relu1_1"]
    loss(torch.zeros(1, loss.target.shape[2], 8, 8))
    assert loss.loss.item() == pytest.approx(3 * loss.target.square().mean().item())


def test_losses_are_float32_when_the_network_runs_in_bf16() -> None:
    trunk = load_trunk(COMPACT_PATH, "relu1_1").to(torch.bfloat16)
    features = extract(trunk, wave(), {"relu1_1"})
    grams = {layer: style_statistic(values) for layer, values in features.items()}
    model = build_model(trunk, features, grams, {"relu1_1": 1.0}, {"relu1_1": 1.0}, True)
    content, style = model(wave(seed=5))
    assert features["relu1_1"].dtype == torch.bfloat16
    assert content.dtype == style.dtype == torch.float32


def test_statistics_are_those_computed_by_hand() -> None:
    features = torch.rand(2, 3, 4, 5)
    flat = features.flatten(2)
    mean = flat.mean(2)
    gram = gram_matrix(features)
    covariance = torch.stack([torch.cov(f, correction=0) for f in flat]) / 3
    assert torch.equal(style_statistic(features, "gram"), gram[:, None])
    expected = torch.cat([gram, mean[:, :, None]], 2)[:, None]
    torch.testing.assert_close(style_statistic(features, "gram+mean"), expected)
    expected = torch.cat([covariance, mean[:, :, None]], 2)[:, None]
    torch.testing.assert_close(style_statistic(features, "covariance"), expected)


@pytest.mark.parametrize("kind", ["gram", "gram+mean", "covariance"])
def test_a_guide_restricts_a_statistic_to_its_region(kind: Any) -> None:
    features = torch.rand(1, 3, 4, 6)
    left = torch.zeros(1, 1, 4, 6)
    left[..., :3] = 2  # half of the places, mean 1
    guided = style_statistic(features, kind, torch.cat([left, 2 - left], 1))
    halves = [style_statistic(half, kind) for half in features.split(3, dim=3)]
    torch.testing.assert_close(guided, torch.cat(halves, 1))
