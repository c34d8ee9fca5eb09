"""Hidden pixels: filled from the visible ones, and decide nothing."""

from typing import Any

import numpy as np
import pytest
import torch
from conftest import picture, wave
from painting import BLUE, RED, mean_colour, paint, small_recipe, transfer
from PIL import Image

from nst_pipeline.engine import Style, StyleTransfer, TargetCache, alpha
from nst_pipeline.engine.alpha import Seen, SeenWhole, fill_hidden, see
from nst_pipeline.errors import ImageError, ShapeError
from nst_pipeline.images.decoding import Decoded

HIDDEN = ["black", "white", "lime", "noise"]


def disc(width: int = 64, height: int = 48) -> np.ndarray:
    """Return an alpha (H, W) that is opaque within a soft-edged disc and hides all else."""
    y, x = np.mgrid[0:height, 0:width]
    distance = np.hypot(x - width * 0.45, y - height * 0.5)
    return (np.clip(height * 0.4 - distance, 0, 4) / 4 * 255).round().astype(np.uint8)


def cut_out(hidden: str, seed: int = 1, deep: bool = False) -> Decoded:
    """Return a picture of which a disc is seen, over hidden pixels of some colour."""
    image, alpha = picture(seed=seed), disc()
    below = picture(seed=99) if hidden == "noise" else Image.new("RGB", image.size, hidden)
    pixels = np.where(alpha[..., None] > 0, image, below)
    scale = np.uint16(257) if deep else np.uint8(1)
    return Decoded(pixels * scale, alpha * scale, b"")


def rgba(cut: Decoded) -> Image.Image:
    return Image.fromarray(np.dstack([cut.pixels, cut.alpha]))


# What is hidden is filled


@pytest.mark.parametrize("size", [(64, 48), (33, 47), (1, 1), (1, 9), (100, 3)])
def test_visible_pixels_stay_and_hidden_ones_lie_between_them(size: tuple[int, int]) -> None:
    pixels = wave(*size)
    alpha = (torch.rand(1, 1, *pixels.shape[2:], generator=torch.manual_seed(0)) - 0.8).relu()
    alpha[..., 0, 0] = 1
    seen = (alpha > 0).expand_as(pixels)
    filled = fill_hidden(pixels, alpha)
    assert torch.equal(filled[seen], pixels[seen])
    for channel, values, shown in zip(filled[0], pixels[0], seen[0], strict=True):
        assert channel.min() >= values[shown].min() - 1e-6
        assert channel.max() <= values[shown].max() + 1e-6


@pytest.mark.parametrize("colour", [0.0, 1.0, 1e6])
def test_hidden_colours_do_not_show(colour: float) -> None:
    pixels, alpha = wave(), torch.from_numpy(disc() / 255).float()[None, None]
    below = torch.where(alpha > 0, pixels, colour)
    assert torch.equal(fill_hidden(below, alpha), fill_hidden(pixels, alpha))


def test_what_is_filled_begins_as_the_edge_is_and_goes_over_smoothly() -> None:
    pixels, alpha = torch.zeros(1, 3, 64, 256), torch.zeros(1, 1, 64, 256)
    pixels[..., :32] = torch.tensor([0.9, 0.1, 0.1]).view(1, 3, 1, 1)
    pixels[..., 224:] = torch.tensor([0.1, 0.1, 0.9]).view(1, 3, 1, 1)
    alpha[..., :32], alpha[..., 224:] = 1, 1
    filled = fill_hidden(pixels, alpha)
    assert (filled[..., 32:36] - pixels[..., 31:32]).abs().max() < 0.03
    assert (filled[..., 220:224] - pixels[..., 224:225]).abs().max() < 0.03
    assert filled.diff(dim=3).abs().max() < 0.04 and filled.diff(dim=2).abs().max() < 1e-6


def test_the_fainter_a_pixel_the_less_it_decides_what_is_filled() -> None:
    pixels, alpha = torch.zeros(1, 3, 1, 4), torch.zeros(1, 1, 1, 4)
    pixels[..., 0], alpha[..., 0] = 1, 1
    alpha[..., 1] = 1 / 255
    assert fill_hidden(pixels, alpha)[0, 0, 0, 3] > 0.99


def test_a_picture_of_no_visible_pixel_is_filled_with_grey() -> None:
    assert (fill_hidden(wave(), torch.zeros(1, 1, 48, 64)) == 0.5).all()


def test_an_alpha_that_hides_nothing_is_none() -> None:
    image = np.asarray(picture())
    assert see(Decoded(image, np.full(image.shape[:2], 255, np.uint8), b"")).alpha is None
    assert see(picture().convert("RGBA")).alpha is None
    assert see(picture()).alpha is None


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(48, 64), (20, 27), (100, 90)])
def test_a_large_picture_is_seen_as_a_small_one_is(
    monkeypatch: pytest.MonkeyPatch, kind: type, size: tuple[int, int]
) -> None:
    image = (np.asarray(picture()).astype(kind) * (np.iinfo(kind).max // 255))[:, ::-1]
    small = see(image).at(size, torch.device("cpu"))
    monkeypatch.setattr(alpha, "LARGE_PIXELS", 100)
    large = see(image)
    assert isinstance(large, SeenWhole) and large.size == (48, 64)
    assert torch.equal(large.at(size, torch.device("cpu")).pixels, small.pixels)
    assert isinstance(see(cut_out("lime")), Seen)
    with pytest.raises(ShapeError):
        see(np.zeros((100, 100, 4), np.uint8))


def test_pictures_of_all_kinds_have_their_alpha() -> None:
    cut = cut_out("lime")
    pixels, alpha = see(cut)
    assert alpha is not None and np.array_equal((alpha[0, 0] * 255).round(), cut.alpha)
    for other in (rgba(cut), cut_out("lime", deep=True), lambda: cut):
        assert torch.equal(see(other).pixels, pixels) and torch.equal(see(other).alpha, alpha)
    palette = Image.new("P", (4, 4), 1)
    palette.info["transparency"] = 1
    assert not see(palette).alpha.any()


# What is hidden decides nothing


@pytest.mark.parametrize(
    "changes",
    [
        {"init": "style-colors", "tv_weight": 15.0},
        {"init": "noise", "colors": "matched", "statistic": "covariance"},
        {"colors": "content", "scales": [32]},
        {"size": "original"},
    ],
    ids=str,
)
def test_a_cut_out_is_painted_alike_over_all_hidden_colours(changes: dict[str, Any]) -> None:
    over = [paint(content=cut_out(hidden), **changes).pixels for hidden in HIDDEN]
    assert all(np.array_equal(over[0], other) for other in over[1:])
    opaque = paint(content=cut_out("black").pixels, **changes).pixels
    assert not np.array_equal(over[0], opaque)


@pytest.mark.parametrize("hidden", HIDDEN[1:])
@pytest.mark.parametrize("init", ["style-colors", "content"])
@pytest.mark.parametrize("colors", ["style", "content", "matched"])
def test_a_style_and_a_start_are_alike_over_all_hidden_colours(
    hidden: str, init: str, colors: str
) -> None:
    changes: dict[str, Any] = {"init": init, "colors": colors, "iterations": 3}
    ours, other = (paint(cut_out(h, seed=2), **changes).pixels for h in ("black", hidden))
    assert np.array_equal(ours, other)
    ours, other = (paint(start=cut_out(h, seed=5), **changes).pixels for h in ("black", hidden))
    assert np.array_equal(ours, other)


def test_a_cut_out_with_masks_regions_and_in_tiles_is_painted_alike() -> None:
    left = np.zeros((48, 64), np.uint8)
    left[:, :32] = 255
    masks, style = {"a": left, "b": 255 - left, "": left // 2 + 60}, {"a": RED, "b": BLUE}
    over = []
    for hidden in ("black", "lime"):
        for tile in ("off", "on"):
            engine = transfer(small_recipe(size=96, iterations=5), tile=tile, tile_size=32)
            over.append(engine.run(cut_out(hidden), [style], masks=masks)[0])
    black, black_in_tiles, lime, lime_in_tiles = (one.pixels.astype(int) for one in over)
    assert np.array_equal(black, lime) and np.array_equal(black_in_tiles, lime_in_tiles)
    assert np.abs(black - black_in_tiles).max() <= 3
    assert over[1].start.total == pytest.approx(over[0].start.total, rel=1e-4)


def test_a_batch_of_a_cut_out_gives_what_each_style_gives_alone() -> None:
    styles = [picture(seed=2), cut_out("lime", seed=3)]
    together = transfer(small_recipe(), batch=2).run(cut_out("black"), styles)
    for one, style in zip(together, styles, strict=True):
        alone = transfer(small_recipe()).run(cut_out("black"), [style])[0]
        assert one.start.total == pytest.approx(alone.start.total, rel=1e-4)
        assert np.abs(one.pixels.astype(float) - alone.pixels).mean() < 2


def half_hidden(seen: Image.Image, hidden: str) -> Image.Image:
    """Return a picture of twice the width, its right half hidden."""
    width, height = seen.size
    wide = Image.new("RGBA", (2 * width, height), Image.new("RGB", (1, 1), hidden).getpixel((0, 0)))
    wide.putalpha(0)
    wide.paste(seen, (0, 0))
    return wide


def test_a_style_has_the_colours_that_are_seen_of_it() -> None:
    cut, whole, flat = (
        mean_colour(paint(style, iterations=40).pixels)
        for style in (half_hidden(RED, "blue"), RED, half_hidden(RED, "blue").convert("RGB"))
    )
    assert np.abs(cut - whole).max() < 5 < np.abs(flat - whole).max()


def test_a_start_in_the_colours_of_a_style_matches_what_is_seen_to_what_is_seen() -> None:
    changes: dict[str, Any] = {"init": "style-colors", "size": "original", "iterations": 1}
    changes |= {"content_weight": 1e-6, "style_weight": 1e-6}
    content, style = picture(seed=1), picture(seed=4)
    style.paste("blue", (56, 0, 64, 48))  # what the hidden half is filled with
    whole = mean_colour(paint(style, content, **changes).pixels)
    cut_style = paint(half_hidden(style, "lime"), content, **changes).pixels
    cut_content = paint(style, half_hidden(content, "lime"), **changes).pixels[:, :64]
    assert np.abs(mean_colour(cut_style) - whole).max() < 2
    assert np.abs(mean_colour(cut_content) - whole).max() < 2


@pytest.mark.parametrize("colors", ["style", "content", "matched"])
def test_statistics_and_colours_of_a_style_are_those_of_what_is_seen(colors: str) -> None:
    changes: dict[str, Any] = {"colors": colors, "size": "original", "iterations": 1}
    changes |= {"content_layers": ["relu1_1"], "style_layers": ["relu1_1"]}
    content, style = picture(seed=1), picture(seed=4)
    whole = paint(style, content, **changes).start.style
    cut_style = paint(half_hidden(style, "lime"), content, style_scale=2.0, **changes).start.style
    wide = half_hidden(content, "lime")
    cut_content = paint(style, wide, style_scale=0.5, **changes).start.style
    assert cut_style == pytest.approx(whole, rel=0.1)
    assert cut_content == pytest.approx(whole, rel=0.1)


def test_losses_are_means_over_what_is_seen() -> None:
    content, start = picture(64, 64, seed=1), picture(64, 64, seed=5)
    wide, wide_start = half_hidden(content, "lime"), half_hidden(start, "lime")
    changes: dict[str, Any] = {"size": "original", "tv_weight": 15.0, "iterations": 1}
    changes |= {"content_layers": ["relu1_1"], "style_layers": ["relu1_1"]}
    alone = paint(content=content, start=start, **changes).start
    changes["style_scale"] = 0.5  # for the style is as large as the content
    cut = paint(content=wide, start=wide_start, **changes).start
    flat = paint(content=wide.convert("RGB"), start=wide_start.convert("RGB"), **changes).start
    for term in ("content", "style", "tv"):
        assert getattr(cut, term) == pytest.approx(getattr(alone, term), rel=0.05), term
    assert flat.content != pytest.approx(alone.content, rel=0.2)
    assert flat.style != pytest.approx(alone.style, rel=0.2)


def test_targets_know_how_much_of_a_style_is_seen() -> None:
    targets, pixels = TargetCache(), np.asarray(picture(seed=2))
    engine = transfer(small_recipe(iterations=1), targets=targets)
    for least, misses in ((1, 1), (100, 2), (1, 2)):  # nothing is hidden, the pixels are equal
        engine.run(picture(), [Decoded(pixels, disc().clip(least), b"")])
        assert targets.misses == misses


# Next to nothing is seen


@pytest.mark.parametrize("pixels", [0, 1])
@pytest.mark.parametrize("changes", [{}, {"colors": "content"}, {"colors": "matched"}], ids=str)
def test_a_content_of_next_to_no_visible_pixel_is_painted(
    pixels: int, changes: dict[str, Any]
) -> None:
    alpha = np.zeros((48, 64), np.uint8)
    alpha[47, 63 : 63 + pixels] = 1
    result = paint(content=Decoded(np.asarray(picture()), alpha, b""), size=40, **changes)
    assert result.pixels.shape == (30, 40, 3) and result.stop_reason == "iterations"


def test_a_style_of_one_visible_pixel_is_painted() -> None:
    alpha = np.zeros((37, 51), np.uint8)
    alpha[36, 50] = 255
    style = Decoded(np.asarray(picture(51, 37)), alpha, b"")
    result = paint(style, iterations=20)
    assert 0 < result.end.total < result.start.total


def test_a_style_of_no_visible_pixel_is_an_error_of_its_own() -> None:
    nothing = Decoded(np.asarray(picture()), np.zeros((48, 64), np.uint8), b"")
    engine: StyleTransfer = transfer(small_recipe(iterations=1))
    for style in (nothing, Style((RED, nothing))):
        outcomes = dict(engine.paint(picture(), [style, BLUE]))
        error = outcomes[range(1)]
        assert isinstance(error, ImageError) and "all of the picture is transparent" in str(error)
        assert not isinstance(outcomes[range(1, 2)], Exception)
