"""Evaluation in tiles gives what evaluation of the whole image gives."""

import numpy as np
import pytest
import torch
from conftest import picture, wave
from safetensors import safe_open

from nst_pipeline.config.weights import COMPACT_PATH
from nst_pipeline.engine import Recipe, StyleTransfer, losses, tiles
from nst_pipeline.engine.losses import LossModel, build_model, extract, style_statistic
from nst_pipeline.engine.memory import SHARE, Need, estimate
from nst_pipeline.engine.tiles import TiledModel, TileMode, Tiling, cut
from nst_pipeline.engine.vgg import deepest, load_trunk
from nst_pipeline.errors import OutOfMemoryError

LAYERS = ("pixels", "relu1_1", "relu2_1", "relu3_1")


def build(
    width: int = 70,
    height: int = 53,
    content_layer: str = "relu2_2",
    style_layers: tuple[str, ...] = LAYERS,
    statistic: str = "gram",
    padding: str = "zeros",
    pooling: str = "average",
    regions: int = 0,
    weighed: bool = False,
    dtype: torch.dtype = torch.float32,
) -> LossModel:
    """Return a model for images of this size."""
    last = deepest((content_layer, *style_layers))
    trunk = load_trunk(COMPACT_PATH, last, pooling, padding).to(dtype)
    content, style = wave(width, height, seed=1), wave(64, 48, seed=2)
    with torch.no_grad():
        statistics = {
            layer: style_statistic(values, statistic).expand(-1, max(1, regions), -1, -1)
            for layer, values in extract(trunk, style, set(style_layers)).items()
        }
        features = extract(trunk, content, {content_layer})
    masks = wave(width, height, seed=3)[:, :regions] if regions else None
    return build_model(
        trunk,
        features,
        statistics,
        {content_layer: 1.0},
        dict.fromkeys(style_layers, 1.0),
        True,
        statistic,
        masks,
        wave(width, height, seed=5)[:, :1] if weighed else None,
    )


def evaluate(model: LossModel | TiledModel, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return both losses, and the gradient of a sum of them that weighs every image its way."""
    image = image.clone().requires_grad_()
    content, style = model(image)
    weights = torch.arange(1.0, len(image) + 1)
    (gradient,) = torch.autograd.grad(((3 * content + style) * weights).sum(), image)
    return content.detach(), style.detach(), gradient


def differences(model: LossModel, image: torch.Tensor, side: int) -> list[float]:
    """Return the relative differences of both losses and of the gradient, in tiles and whole."""
    assert len(cut(model.network, image, side)) > 1
    pairs = zip(evaluate(model, image), evaluate(TiledModel(model, side), image), strict=True)
    return [((tiled - whole).norm() / whole.norm()).item() for whole, tiled in pairs]


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"width": 64, "height": 48},
        {"width": 33, "height": 95},
        {"padding": "replicate"},
        {"padding": "reflect"},
        {"pooling": "max"},
        {"pooling": "rescaled-average", "padding": "reflect"},
        {"statistic": "gram+mean"},
        {"statistic": "covariance"},
        {"regions": 1},
        {"weighed": True},
        {"regions": 1, "weighed": True, "content_layer": "relu4_2"},
        {"regions": 2, "statistic": "covariance"},
        {"content_layer": "relu4_2", "style_layers": ("relu1_1", "relu2_1")},
        {"content_layer": "relu1_1", "style_layers": ("relu5_1",), "width": 200, "height": 33},
        {"content_layer": "conv2_2", "style_layers": ("conv1_2", "conv2_2")},
    ],
    ids=str,
)
def test_losses_and_gradient_are_those_of_the_whole_image(change: dict) -> None:
    model = build(**change)
    image = wave(change.get("width", 70), change.get("height", 53), seed=4)
    assert max(differences(model, image, side=32)) < 1e-4


@pytest.mark.parametrize("side", [12, 16, 33, 69])
def test_tiles_of_any_size_give_the_same(side: int) -> None:
    assert max(differences(build(), wave(70, 53, seed=4), side)) < 1e-4


def test_every_image_of_a_batch_has_its_own_losses_and_gradient() -> None:
    image = torch.cat([wave(70, 53, seed=4), wave(70, 53, seed=5)])
    assert max(differences(build(statistic="gram+mean"), image, side=32)) < 1e-4


def test_a_network_in_bf16_gives_the_same_to_its_rounding() -> None:
    model = build(dtype=torch.bfloat16)
    assert max(differences(model, wave(70, 53, seed=4), side=32)) < 1e-2


def test_no_seam_shows_in_the_gradient() -> None:
    model, image = build(width=151, height=102), wave(151, 102, seed=4)
    whole, tiled = evaluate(model, image)[2], evaluate(TiledModel(model, 48), image)[2]
    error = (tiled - whole).abs().amax((0, 1))
    assert error.max() < 1e-4 * whole.abs().max()
    near = torch.zeros_like(error, dtype=torch.bool)
    for tile in cut(model.network, image, 48):
        for edge in tile.rows.core:
            near[max(0, edge - 2) : edge + 2] = True
        for edge in tile.columns.core:
            near[:, max(0, edge - 2) : edge + 2] = True
    assert 0.05 < near.float().mean() < 0.5
    assert error[near].mean() < 2 * error[~near].mean()


def test_a_halo_one_step_too_narrow_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = tiles._spans
    monkeypatch.setattr(
        tiles, "_spans", lambda length, side, halo, step: real(length, side, halo - step, step)
    )
    assert max(differences(build(), wave(70, 53, seed=4), side=16)) > 1e-3


@pytest.mark.parametrize("size", [(32, 32), (53, 70), (97, 41), (640, 16)])
def test_cores_cover_every_place_of_every_layer_once(size: tuple[int, int]) -> None:
    trunk = load_trunk(COMPACT_PATH, "relu5_1")
    image = torch.zeros(1, 3, *size)
    for stride in (1, 2, 4, 8, 16):
        seen = torch.zeros(1, 1, size[0] // stride, size[1] // stride)
        for tile in cut(trunk, image, 32):
            tile.of_features(seen, stride).add_(1)
        assert (seen == 1).all()
        assert sum(tile.share(stride) for tile in cut(trunk, image, 32)) == pytest.approx(1)


@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("statistic", ["gram", "gram+mean", "covariance"])
def test_features_and_statistics_of_a_large_picture_come_from_tiles(
    statistic: str, weighed: bool
) -> None:
    trunk, image = load_trunk(COMPACT_PATH, "relu3_1"), wave(71, 90)
    whole, tiled = Tiling("off"), Tiling("on", 32)
    weights = wave(71, 90, seed=5)[:, :1] if weighed else None
    layers = {"relu2_2", "relu3_1"}
    torch.testing.assert_close(
        tiled.features(trunk, image, layers),
        whole.features(trunk, image, layers),
        rtol=1e-4,
        atol=1e-2,  # of values in the thousands
    )
    layers |= {"pixels"}
    torch.testing.assert_close(
        tiled.statistics(trunk, image, layers, statistic, weights),
        whole.statistics(trunk, image, layers, statistic, weights),
        rtol=1e-3,
        atol=1e-2,
    )


def transfer(tile: TileMode, **changes: object) -> StyleTransfer:
    options = {"size": 48, "scales": [32], "iterations": [2, 3], "padding": "reflect"}
    options |= {"style_layers": LAYERS, "content_layers": ["relu2_2"]}
    recipe = Recipe.model_validate(options | changes)
    return StyleTransfer(
        recipe, device="cpu", precision="fp32", weights="compact", tile=tile, tile_size=16
    )


def test_a_transfer_in_tiles_paints_the_same_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    tile_counts: list[int] = []
    real = tiles.TiledModel.__call__

    def call(model: TiledModel, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tile_counts.append(len(cut(model.model.network, image, model.side)))
        return real(model, image)

    monkeypatch.setattr(tiles.TiledModel, "__call__", call)
    masks = {"": np.asarray(picture(48, 36, seed=7).convert("L"))}
    changes = {"tv_weight": 15.0, "statistic": "covariance"}
    results = [
        transfer(tile, **changes).run(picture(seed=1), [picture(seed=2)], masks=masks)[0]
        for tile in ("off", "on")
    ]
    assert max(tile_counts) == 9
    off, on = results
    assert on.start.total == pytest.approx(off.start.total, rel=1e-4)
    assert on.end.total == pytest.approx(off.end.total, rel=1e-3)
    assert np.abs(on.pixels.astype(float) - off.pixels).max() <= 3


def widths_to(last: str) -> dict[str, int]:
    """Return the channels of the compact network's convolutions up to one of them."""
    with safe_open(COMPACT_PATH, "pt") as file:
        sizes = {name: file.get_slice(name).get_shape()[0] for name in file.keys()}  # noqa: SIM118
    names = sorted(name.removesuffix(".weight") for name in sizes if name.endswith(".weight"))
    return {name: sizes[f"{name}.weight"] for name in names if name <= last}


def enough(need: Need) -> int:
    """Return the bytes that just suffice for a need."""
    return round(need.total / SHARE) + 1


@pytest.mark.parametrize("regions", [0, 1, 2])
def test_auto_cuts_what_memory_does_not_suffice_for(
    regions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, image = build(regions=regions), wave(70, 53)
    assert isinstance(Tiling("auto", 32).model(model, image, 10), LossModel)
    need = estimate(
        widths_to("conv3_1"),
        ["relu2_2"], ["relu1_1", "relu2_1", "relu3_1"], (53, 70), 1, 10, 4, "average", regions,
    )  # fmt: skip
    monkeypatch.setattr(tiles, "available_bytes", lambda device: enough(need))
    assert isinstance(Tiling("auto", 32).model(model, image, 10), LossModel)
    assert isinstance(Tiling("auto", 32).model(model, image, 11), TiledModel)
    assert isinstance(Tiling("off", 32).model(model, image, 11), LossModel)


@pytest.mark.parametrize("regions", [0, 3])
def test_memory_decides_what_is_painted_together_and_remembered_and_what_is_refused(
    regions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    trunk, image = load_trunk(COMPACT_PATH, "relu2_2", "average"), wave(256, 192)
    layers = ["relu2_2"], ["relu1_1"]
    widths = widths_to("conv2_2")

    def need(batch: int, history_size: int) -> int:
        return enough(
            estimate(widths, *layers, (192, 256), batch, history_size, 4, "average", regions)
        )

    def fit(room: int, mode: tiles.TileMode = "auto", steps: int = 12) -> tuple[int, int]:
        monkeypatch.setattr(tiles, "available_bytes", lambda device: room)
        return Tiling(mode, 64).fit(trunk, layers, image, 4, steps, regions)

    assert fit(2**40) == (4, 12)
    assert fit(need(3, 12)) == (3, 12)
    assert fit(need(3, 12) - 10) == (2, 12)
    assert fit(need(1, 12)) == (1, 12)
    assert fit(need(1, 12) - 10, "off") == (1, 6)
    assert fit(need(1, 1), "off") == (1, 1)
    assert fit(need(1, 0), "off", 0) == (1, 0) and need(1, 0) < need(1, 1)
    assert fit(need(1, 0) - 10, "auto", 0)[0] >= 1
    in_tiles, steps = fit(need(1, 1), "auto")
    assert in_tiles >= 1 and steps > 1
    with pytest.raises(OutOfMemoryError, match="256 x 192 needs .* GB; set tile to 'on', or a sm"):
        fit(need(1, 1) - 10, "off")
    with pytest.raises(OutOfMemoryError, match="256 x 192 needs .* GB; set a smaller recipe.size"):
        fit(1000, "auto")


def test_a_transfer_remembers_as_many_steps_as_memory_lets_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    painter = transfer("off", history_size=12, iterations=1)
    monkeypatch.setattr(Tiling, "fit", lambda *_: (1, 3))
    assert painter.run(picture(), [picture(seed=2)])[0].history_size == 3


@pytest.mark.parametrize("strip", [1, 2, 5, 7])
def test_total_variation_by_strips_is_that_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, strip: int
) -> None:
    monkeypatch.setattr(losses, "STRIP", strip)
    pixels = torch.rand(2, 3, 6, 5, dtype=torch.float64, requires_grad=True)
    rows, columns = pixels.diff(dim=2).square(), pixels.diff(dim=3).square()
    expected = rows.mean((1, 2, 3)) + columns.mean((1, 2, 3))
    torch.testing.assert_close(losses.total_variation(pixels), expected)
    assert torch.autograd.gradcheck(losses.total_variation, pixels)
