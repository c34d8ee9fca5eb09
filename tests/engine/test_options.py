"""What each option of a recipe does to the picture."""

from typing import Any

import numpy as np
import pytest
import torch
from conftest import picture, wave
from PIL import Image

from nst_pipeline.engine import (
    Callbacks,
    Checkpoint,
    Recipe,
    Result,
    Style,
    StyleTransfer,
    read_checkpoint,
)
from nst_pipeline.engine.colour import grey, match_colours, match_luminance, moments
from nst_pipeline.engine.images import quantise, to_tensor
from nst_pipeline.engine.losses import gram_matrix, style_statistic
from nst_pipeline.engine.scales import Scale, plan_scales
from nst_pipeline.errors import ImageError, ShapeError

PLAIN: dict[str, Any] = {"size": 48, "iterations": 12, "pooling": "average"}
RED = Image.new("RGB", (64, 48), (200, 40, 30))
BLUE = Image.new("RGB", (64, 48), (30, 60, 200))


def painter(bits: Any = 8, **changes: Any) -> StyleTransfer:
    recipe = Recipe(**PLAIN | changes)
    return StyleTransfer(recipe, device="cpu", precision="fp32", weights="compact", bits=bits)


def paint(
    style: Any = None, content: Any = None, start: Any = None, masks: Any = None, **changes: Any
) -> Result:
    content = picture(seed=1) if content is None else content
    style = picture(seed=2) if style is None else style
    (result,) = painter(**changes).run(content, [style], init=start, masks=masks)
    return result


def colour(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(-1, 3).astype(float).mean(0)


@pytest.mark.parametrize(
    ("changes", "sizes", "steps"),
    [
        ({"size": 512}, [(96, 128), (192, 256), (384, 512)], [171, 86, 43]),
        ({"size": 256}, [(96, 128), (192, 256)], [200, 100]),
        ({"size": 96}, [(72, 96)], [300]),
        ({"size": 512, "scales": 1}, [(384, 512)], [300]),
        ({"size": 256, "scales": [64, 512]}, [(48, 64), (192, 256)], [200, 100]),
        ({"size": 256, "iterations": [9, 5, 2]}, [(96, 128), (136, 181), (192, 256)], [9, 5, 2]),
        ({"size": 512, "iterations": 2}, [(192, 256), (384, 512)], [1, 1]),
        ({"size": "original"}, [(96, 128), (169, 226), (300, 400)], [171, 86, 43]),
    ],
)
def test_scales_grow_to_the_size_asked_for_and_share_the_steps(
    changes: dict[str, Any], sizes: list[tuple[int, int]], steps: list[int]
) -> None:
    scales = plan_scales(Recipe(**changes), (300, 400))
    assert [scale.size for scale in scales] == sizes
    assert [scale.iterations for scale in scales] == steps
    assert scales[-1] == Scale(sizes[-1], max(sizes[-1]), steps[-1])


def test_all_steps_of_all_scales_are_done_and_told() -> None:
    seen: list[int] = []
    recipe = Recipe(**PLAIN | {"size": 64, "scales": (32,), "iterations": (4, 3)})
    transfer = StyleTransfer(recipe, device="cpu", weights="compact")
    (result,) = transfer.run(picture(), [picture(seed=2)], lambda _, done, __: seen.append(done))
    assert result.iterations == recipe.steps == 7
    assert seen == [1, 4, 5, 7]
    assert result.pixels.shape == (48, 64, 3)


def test_the_original_size_is_kept() -> None:
    assert paint(content=picture(70, 50), size="original", iterations=1).pixels.shape == (50, 70, 3)


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


def test_a_blend_has_the_weighted_mean_of_the_statistics() -> None:
    red, blue = (paint(style, iterations=40).pixels for style in (RED, BLUE))
    mixed = paint(Style((RED, BLUE), (3, 1)), iterations=40).pixels
    only = paint(Style((RED, BLUE), (1, 0)), iterations=40).pixels
    assert np.array_equal(only, red)
    assert colour(red)[0] > colour(mixed)[0] > colour(blue)[0]
    assert colour(red)[2] < colour(mixed)[2] < colour(blue)[2]


def test_pixels_as_a_style_layer_bring_the_colours_of_the_style() -> None:
    def distance(layers: dict[str, float]) -> float:
        result = paint(RED, style_layers=layers, statistic="gram+mean", iterations=30)
        return float(np.abs(colour(result.pixels) - (200, 40, 30)).mean())

    assert distance({"relu3_1": 1, "pixels": 1}) < 0.5 * distance({"relu3_1": 1})


def test_the_contents_colours_are_kept_where_asked_for() -> None:
    content = to_tensor(picture(seed=1))
    result = paint(RED, content, size="original", colors="content", bits=16, iterations=8)
    painted = to_tensor(result.pixels)
    inside = ((painted > 0.01) & (painted < 0.99)).all(1, keepdim=True).expand_as(painted)
    chroma, wanted = painted - grey(painted), content - grey(content)
    assert inside.float().mean() > 0.5
    torch.testing.assert_close(chroma[inside], wanted[inside], rtol=0, atol=1e-4)
    assert (grey(painted) - grey(content)).abs().mean() > 0.02


def test_a_matched_style_leaves_the_contents_colours_on_the_whole() -> None:
    content = picture(seed=1)
    wanted = colour(np.asarray(content))
    reddish = Image.blend(picture(seed=6), RED, 0.7)

    def distance(colors: str) -> float:
        pixels = paint(reddish, content, colors=colors, iterations=40).pixels
        return float(np.abs(colour(pixels) - wanted).mean())

    assert distance("matched") < 0.6 * distance("style")


def test_colours_are_matched_in_mean_and_covariance() -> None:
    pixels, reference = 0.3 + 0.2 * wave(seed=1), 0.3 + 0.3 * wave(seed=2)
    matched = match_colours(pixels, moments(reference))
    flat = [x.double().flatten(2)[0] for x in (matched, reference)]
    torch.testing.assert_close(flat[0].mean(1), flat[1].mean(1), rtol=0, atol=1e-3)
    torch.testing.assert_close(torch.cov(flat[0]), torch.cov(flat[1]), rtol=0.02, atol=1e-4)


def test_luminance_is_matched_in_mean_and_deviation() -> None:
    matched = match_luminance(0.4 + 0.1 * wave(seed=1), 0.2 + 0.5 * wave(seed=2))
    wanted = grey(0.2 + 0.5 * wave(seed=2))
    assert matched.mean().item() == pytest.approx(wanted.mean().item(), abs=1e-3)
    assert matched.std().item() == pytest.approx(wanted.std().item(), rel=0.02)


def test_a_start_in_the_colours_of_the_style_has_them() -> None:
    result = paint(RED, init="style-colors", iterations=1, style_weight=0)
    assert np.abs(colour(result.pixels) - (200, 40, 30)).max() < 12


def test_a_start_from_a_picture_is_that_picture() -> None:
    start = picture(48, 36, seed=7)
    result = paint(start=start, iterations=1, content_weight=1e-6, style_weight=0)
    assert np.abs(result.pixels.astype(int) - np.asarray(start, int)).mean() < 10
    with pytest.raises(ImageError, match=r"NAME\.init\.png"):
        painter(init="image").run(picture(), [picture(seed=2)])


def test_black_of_a_mask_stays_and_white_is_painted() -> None:
    mask = np.zeros((48, 64), np.uint8)
    mask[:, 32:] = 255
    content = picture(64, 48, seed=1)
    result = paint(content=content, size="original", masks={"": mask})
    before = np.asarray(content)
    assert np.array_equal(result.pixels[:, :31], before[:, :31])
    assert np.abs(result.pixels[:, 34:].astype(int) - before[:, 34:]).mean() > 5


def test_the_soft_edge_of_a_mask_blends() -> None:
    content = picture(64, 48, seed=1)

    def change(value: int) -> float:
        mask = np.full((48, 64), value, np.uint8)
        pixels = paint(content=content, size="original", masks={"": mask}, iterations=20).pixels
        return float(np.abs(pixels.astype(int) - np.asarray(content)).mean())

    assert change(0) == 0
    assert 0 < change(60) < 0.8 * change(255)


def test_every_region_gets_its_own_style() -> None:
    left = np.zeros((48, 64), np.uint8)
    left[:, :32] = 255
    masks = {"left": left, "right": 255 - left}
    pixels = paint({"left": RED, "right": BLUE}, masks=masks, iterations=40, size=64).pixels
    assert colour(pixels[:, :24])[0] > colour(pixels[:, :24])[2] + 40
    assert colour(pixels[:, 40:])[2] > colour(pixels[:, 40:])[0] + 40


def test_a_region_without_a_mask_is_an_error_that_names_the_file() -> None:
    with pytest.raises(ImageError, match=r"NAME\.mask\.sky\.png"):
        paint({"sky": RED, "sea": BLUE}, masks={"sea": np.zeros((8, 8), np.uint8)})


def test_sets_of_other_regions_are_painted_apart_and_in_order() -> None:
    half = np.full((48, 64), 255, np.uint8)
    transfer = painter(iterations=2)
    transfer.batch = 8
    styles = [RED, BLUE, {"a": RED, "b": BLUE}, RED]
    results = transfer.run(picture(seed=1), styles, masks={"a": half, "b": half})
    again = transfer.run(picture(seed=1), [RED])
    assert len(results) == 4
    assert np.abs(results[3].pixels.astype(int) - again[0].pixels).mean() < 1


def test_an_image_that_hardly_changes_any_more_is_left() -> None:
    result = paint(iterations=200, tolerance=0.2)
    assert result.stop_reason == "settled"
    assert result.iterations < 200


def test_16_bits_are_used_to_the_last() -> None:
    result = paint(bits=16)
    assert result.pixels.dtype == np.uint16
    assert len(np.unique(result.pixels % 257)) > 100
    assert np.asarray(result.pastiche).dtype == np.uint8


def test_16_bits_of_a_content_reach_the_engine() -> None:
    fine = (np.random.default_rng(0).random((40, 40, 3)) * 65535).astype(np.uint16)
    assert np.array_equal(quantise(to_tensor(fine), 16), fine)
    with pytest.raises(ShapeError, match="uint8 or uint16"):
        to_tensor(fine.astype(np.int32))


class Notes(Callbacks):
    """Keeps everything; ends the work at a step if asked to."""

    def __init__(self, stop_at: int | None = None, kept: Checkpoint | None = None) -> None:
        self.pictures: list[tuple[int, int, Image.Image]] = []
        self.kept, self.steps, self.stop_at = kept, 0, stop_at

    def snapshot(self, index: int, done: int, picture: Image.Image) -> None:
        self.pictures.append((index, done, picture))

    def checkpoint(self, indices: range, checkpoint: Checkpoint) -> None:
        assert indices == range(0, 2)
        self.kept = read_checkpoint(checkpoint.to_bytes())

    def resume(self, indices: range) -> Checkpoint | None:
        return self.kept

    def check(self) -> None:
        self.steps += 1
        if self.steps == self.stop_at:
            raise KeyboardInterrupt


def test_snapshots_are_taken_every_so_many_steps_over_all_scales() -> None:
    notes = Notes()
    notes.snapshot_steps = 3
    list(painter(size=64, scales=(32,), iterations=(4, 5)).paint(picture(), [RED], notes))
    assert [(index, done) for index, done, _ in notes.pictures] == [(0, 3), (0, 6), (0, 9)]
    assert notes.pictures[0][2].size == (32, 32) and notes.pictures[1][2].size == (64, 48)


def test_every_scale_goes_on_from_the_one_before() -> None:
    notes = Notes()
    notes.snapshot_steps = 1
    list(painter(size=64, scales=(32,), iterations=(8, 2)).paint(picture(), [RED], notes))
    pictures = [np.asarray(shown.resize((64, 48)), float) for _, _, shown in notes.pictures]
    assert np.abs(pictures[8] - pictures[7]).mean() < 0.5 * np.abs(pictures[7] - pictures[0]).mean()


@pytest.mark.parametrize("stop_at", [3, 7, 11], ids=["coarse", "between", "fine"])
def test_work_resumed_from_a_checkpoint_ends_as_if_never_interrupted(stop_at: int) -> None:
    def fresh() -> StyleTransfer:
        transfer = painter(size=64, scales=(32,), iterations=(7, 6))
        transfer.batch = 2
        return transfer

    styles = [picture(seed=2), picture(seed=3)]
    whole = list(fresh().paint(picture(seed=1), styles))
    stopped = Notes(stop_at)
    stopped.checkpoint_seconds = 0
    with pytest.raises(KeyboardInterrupt):
        list(fresh().paint(picture(seed=1), styles, stopped))
    goes_on = Notes(kept=stopped.kept)
    resumed = list(fresh().paint(picture(seed=1), styles, goes_on))
    for one, other in zip(whole, resumed, strict=True):
        assert np.array_equal(one.pixels, other.pixels)
        assert (one.iterations, one.end) == (other.iterations, other.end)
    assert goes_on.steps == 13 - stop_at


def test_a_damaged_checkpoint_or_one_of_other_work_is_none() -> None:
    notes = Notes(stop_at=3)
    notes.checkpoint_seconds = 0
    transfer = painter(iterations=4)
    transfer.batch = 2
    with pytest.raises(KeyboardInterrupt):
        list(transfer.paint(picture(seed=1), [RED, BLUE], notes))
    assert notes.kept
    data = notes.kept.to_bytes()
    assert read_checkpoint(data[:-9]) is None
    assert read_checkpoint(b"") is None
    other = painter(iterations=4, history_size=3)
    other.batch = 2
    goes_on = Notes(kept=notes.kept)
    list(other.paint(picture(seed=1), [RED, BLUE], goes_on))
    assert goes_on.steps == 4
