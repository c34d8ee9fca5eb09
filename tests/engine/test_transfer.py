"""A content and its styles in, pastiches out: what is painted together, and what fails."""

import inspect
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from conftest import SHARED_IMAGES, picture, wave
from painting import BLUE, RED, small_recipe, transfer
from PIL import Image

from nst_pipeline import engine
from nst_pipeline.engine import Callbacks, Recipe, StyleTransfer, batch, tiles
from nst_pipeline.engine import transfer as transfer_module
from nst_pipeline.engine.images import to_tensor
from nst_pipeline.engine.memory import SHARE
from nst_pipeline.errors import (
    DeviceLostError,
    ImageError,
    OutOfMemoryError,
    ShapeError,
    UnavailableError,
)

SMALL = small_recipe(iterations=6)


def test_the_loss_falls_and_the_pastiche_has_the_size_asked_for() -> None:
    (result,) = transfer(small_recipe(size=64, iterations=30)).run(
        picture(80, 60), [picture(seed=2)]
    )
    assert result.pastiche.size == (64, 48)
    assert result.pastiche.mode == "RGB"
    assert result.end.total < 0.25 * result.start.total
    assert result.iterations == 30 and result.stop_reason == "iterations"


def test_losses_at_the_end_are_those_of_the_very_image_that_is_saved() -> None:
    content, style = wave(seed=1), wave(seed=2)
    painter = transfer(SMALL)
    (result,) = painter.run(content, [style])
    saved = to_tensor(result.pastiche)
    (again,) = painter.run(content, [style], init=saved)
    assert again.start == result.end
    assert result.end.total == pytest.approx(
        result.end.content + result.end.style + result.end.tv, rel=1e-6
    )


def test_a_batch_of_styles_gives_what_each_gives_alone() -> None:
    styles = [picture(seed=seed) for seed in (2, 3, 4)]
    together = transfer(SMALL, batch=3).run(picture(seed=1), styles)
    alone = [transfer(SMALL, batch=1).run(picture(seed=1), [style])[0] for style in styles]
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


@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 3, 32, 32), (1, 1, 32, 32)])
def test_a_tensor_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"\(1, 3, H, W\)"):
        transfer(SMALL).run(torch.rand(shape), [picture()])


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(UnavailableError, match="cuda:99"):
        transfer(SMALL, device="cuda:99")


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


def test_without_a_recipe_the_default_of_the_network_is_used() -> None:
    assert transfer(None).recipe == engine.make_recipe()


def test_the_engine_exports_what_it_names_and_nothing_else() -> None:
    names = {name for name, value in vars(engine).items() if not inspect.ismodule(value)}
    assert {name for name in names if not name.startswith("_")} == set(engine.__all__)


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
    cpu = transfer(SMALL).run(content, styles)
    first, second = (transfer(SMALL, device="cuda").run(content, styles) for _ in range(2))
    for one, other, again in zip(cpu, first, second, strict=True):
        assert one.start.total == pytest.approx(other.start.total, rel=1e-3)
        assert other.pastiche.tobytes() == again.pastiche.tobytes()


# Pictures of any shape


@pytest.mark.parametrize("size", [(200, 20), (20, 200), (1, 1), (3, 50), (31, 33)])
@pytest.mark.parametrize("tile", ["off", "on"])
def test_a_picture_of_any_shape_is_painted_at_its_own_size(
    size: tuple[int, int], tile: tiles.TileMode
) -> None:
    recipe = small_recipe(size="original", tv_weight=1.0, iterations=8)
    engine, style = transfer(recipe, tile=tile, tile_size=32), picture(*size[::-1], seed=2)
    content = picture(*size, seed=1)
    (result,) = engine.run(content, [style])
    assert result.pastiche.size == size
    assert result.end.total < result.start.total
    assert np.abs(result.pixels.astype(int) - np.asarray(content)).mean() > 1
    (again,) = engine.run(content, [style], init=result.pastiche)
    assert again.start == result.end


def test_scales_masks_starts_and_snapshots_of_a_narrow_picture_keep_its_proportions() -> None:
    class Snapshots(Callbacks):
        snapshot_steps = 2
        sizes: ClassVar[list[tuple[int, int]]] = []

        def snapshot(self, index: int, done: int, picture: Image.Image) -> None:
            self.sizes.append(picture.size)

    mask = np.zeros((20, 200), np.uint8)
    mask[:, 100:] = 255
    content, start = picture(200, 20, seed=1), picture(200, 20, seed=5)
    recipe = small_recipe(size="original", scales=(40, 100), iterations=6)
    ((_, results),) = transfer(recipe).paint(
        content, [{"a": RED, "b": BLUE}], Snapshots(), start, {"": mask, "a": mask, "b": 255 - mask}
    )
    assert Snapshots.sizes == [(40, 4), (100, 10), (200, 20)]
    assert not isinstance(results, Exception)
    assert np.array_equal(results[0].pixels[:, :99], np.asarray(content)[:, :99])
    assert np.abs(results[0].pixels[:, 110:].astype(int) - np.asarray(content)[:, 110:]).mean() > 5


@pytest.mark.parametrize("narrow", ["content", "style"])
def test_what_is_added_for_the_network_does_not_count(narrow: str) -> None:
    strip = np.asarray(picture(64, 20, seed=1))
    pictures = [strip, strip.reshape(32, 40, 3)]  # the same pixels in another order
    content, style = pictures if narrow == "content" else pictures[::-1]
    scale = max(style.shape) / max(content.shape)
    recipe = small_recipe(size="original", style_layers=["pixels"], style_scale=scale, iterations=1)
    (result,) = transfer(recipe).run(content, [style])
    assert result.start.style < 1e-6


# What is painted together, and what fails


def outcomes(engine: StyleTransfer, styles: list[Any], **options: Any) -> dict[range, Any]:
    """Return what was painted together, and what came of it: the error, or None for results."""
    found: dict[range, Any] = {}
    for indices, outcome in engine.paint(picture(seed=1), styles, **options):
        found[indices] = outcome if isinstance(outcome, Exception) else None
        assert isinstance(outcome, Exception) or len(outcome) == len(indices)
    return found


def bad() -> Image.Image:
    """Be a style that is no picture."""
    raise ImageError("bad.png: not an image")


def make_scarce(monkeypatch: pytest.MonkeyPatch, batch: int, regions: int = 0) -> None:
    """Have memory that suffices for so many styles of the small recipe together, and no more."""
    engine = transfer(SMALL)
    need = tiles._need(engine._trunk, engine._layers, wave(48, 36), batch, 10, regions)
    monkeypatch.setattr(tiles, "available_bytes", lambda device: round(need.total / SHARE) + 2)


def test_a_style_that_fails_fails_what_was_painted_with_it_and_the_rest_goes_on() -> None:
    found = outcomes(transfer(SMALL, batch=2), [RED, bad, BLUE, RED, BLUE])
    assert list(found) == [range(0, 2), range(2, 4), range(4, 5)]
    first, *others = found.values()
    assert isinstance(first, ImageError) and others == [None, None]


def test_where_memory_makes_batches_smaller_a_style_fails_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_scarce(monkeypatch, 1)
    found = outcomes(transfer(SMALL, batch=4, tile="off"), [RED, bad, BLUE, RED])
    assert list(found) == [range(n, n + 1) for n in range(4)]
    assert [error is None for error in found.values()] == [True, False, True, True]


def test_run_raises_the_first_error() -> None:
    with pytest.raises(ImageError, match="bad"):
        transfer(SMALL).run(picture(seed=1), [RED, bad, BLUE])


def test_what_is_wrong_with_the_content_is_the_error_of_all_styles() -> None:
    engine = transfer(SMALL)
    ((indices, error),) = engine.paint(bad, [RED, BLUE])
    assert indices == range(2) and isinstance(error, ImageError)
    ((indices, error),) = engine.paint(picture(), [RED, BLUE], init=np.zeros((4, 4), np.uint8))
    assert indices == range(2) and isinstance(error, ShapeError)


def test_sets_of_other_regions_are_painted_by_themselves_and_in_order() -> None:
    half = np.full((48, 64), 255, np.uint8)
    masks = {"a": half, "b": half}
    styles = [RED, BLUE, {"a": RED, "b": BLUE}, RED]
    engine = transfer(SMALL, batch=8)
    assert list(outcomes(engine, styles, masks=masks)) == [range(2), range(2, 3), range(3, 4)]
    results = engine.run(picture(seed=1), styles, masks=masks)
    (alone,) = engine.run(picture(seed=1), [RED], masks=masks)
    assert np.abs(results[3].pixels.astype(int) - alone.pixels).mean() < 1


def test_regions_count_in_what_fits_in_memory_together(monkeypatch: pytest.MonkeyPatch) -> None:
    half = np.full((48, 64), 255, np.uint8)
    engine = transfer(SMALL, batch=4, tile="off")
    plain, regional = [RED] * 3, [{"a": RED, "b": BLUE}] * 3
    make_scarce(monkeypatch, 3)
    assert list(outcomes(engine, plain)) == [range(3)]
    assert list(outcomes(engine, regional, masks={"a": half, "b": half}))[0] == range(1)
    make_scarce(monkeypatch, 3, regions=2)
    assert list(outcomes(engine, regional, masks={"a": half, "b": half})) == [range(3)]
    make_scarce(monkeypatch, 3, regions=1)
    assert list(outcomes(engine, plain, masks={"": half})) == [range(3)]
    make_scarce(monkeypatch, 3)
    assert list(outcomes(engine, plain, masks={"": half}))[0] == range(2)


def test_a_picture_that_cannot_fit_is_refused_for_the_styles_it_cannot_fit_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tiles, "available_bytes", lambda device: 10**6)
    found = outcomes(transfer(SMALL, batch=2), [RED, BLUE, RED])
    assert list(found) == [range(2), range(2, 3)]
    for error in found.values():
        assert isinstance(error, OutOfMemoryError)
        assert "the picture of 48 x 36 needs 0.0 GB" in str(error)


def run_out_of_memory(
    monkeypatch: pytest.MonkeyPatch, batch_size: int, history_size: int, last: int = 99
) -> list[tuple[range, int]]:
    """Have the device run out of memory above these sizes; return what was tried.

    Styles after ``last`` need no memory.
    """
    real, tried = batch.Batch.paint, []

    def paint(self: batch.Batch, callbacks: Callbacks) -> list[batch.Result]:
        tried.append((self.indices, self.history_size))
        is_large = len(self.indices) > batch_size or self.history_size > history_size
        if is_large and self.indices.start <= last:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, callbacks)

    monkeypatch.setattr(batch.Batch, "paint", paint)
    return tried


def test_less_memory_means_a_smaller_batch_then_a_shorter_history(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = run_out_of_memory(monkeypatch, batch_size=1, history_size=2)
    engine = transfer(small_recipe(iterations=2, history_size=8), batch=4)
    results = engine.run(picture(), [picture(seed=seed) for seed in range(4)])
    assert [result.history_size for result in results] == [2] * 4
    first = [(range(4), 8), (range(2), 8), (range(1), 8), (range(1), 4), (range(1), 2)]
    assert tried == first + [(range(n, n + 1), 2) for n in (1, 2, 3)]


def test_one_content_that_ran_out_of_memory_leaves_the_next_its_batch_and_history(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = transfer(small_recipe(iterations=2, history_size=8), batch=2)
    with monkeypatch.context() as patch:
        run_out_of_memory(patch, batch_size=1, history_size=2)
        assert engine.run(picture(), [RED, BLUE])[0].history_size == 2
    assert list(outcomes(engine, [RED, BLUE])) == [range(2)]
    assert engine.run(picture(), [RED])[0].history_size == 8


def test_a_style_without_any_memory_fails_alone_and_says_what_was_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = run_out_of_memory(monkeypatch, batch_size=0, history_size=0, last=0)
    found = outcomes(transfer(SMALL, batch=2), [RED, BLUE])
    assert [(indices, error is None) for indices, error in found.items()] == [
        (range(0, 1), False), (range(1, 2), True),
    ]  # fmt: skip
    assert tried[-2:] == [(range(0, 1), 1), (range(1, 2), 10)]
    error = found[range(0, 1)]
    assert isinstance(error, OutOfMemoryError)
    assert isinstance(error.__cause__, torch.OutOfMemoryError)
    assert str(error).startswith("memory: the picture of 48 x 36 needs 0.0 GB (network ")
    assert str(error).endswith("); set a smaller recipe.size")
    whole = transfer(SMALL, tile="off")
    assert str(outcomes(whole, [RED])[range(1)]).endswith(
        "set tile to 'on', or a smaller recipe.size"
    )


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_a_content_without_any_memory_fails_once_and_says_its_size(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make_scene(*_: object) -> None:
        raise error

    monkeypatch.setattr(transfer_module, "make_scene", make_scene)
    found = outcomes(transfer(SMALL), [RED, BLUE])
    assert list(found) == [range(2)] and isinstance(found[range(2)], OutOfMemoryError)
    assert "the picture of 48 x 36 needs more memory than there is" in str(found[range(2)])

    def content() -> None:
        raise error

    ((indices, told),) = transfer(SMALL).paint(content, [RED, BLUE])
    assert indices == range(2) and isinstance(told, OutOfMemoryError)
    assert str(told) == "memory: the content needs more than there is; give it smaller"


def test_a_network_that_memory_has_no_room_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def trunk(*_: object) -> None:
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"
        )

    monkeypatch.setattr(transfer_module, "_trunk", trunk)
    with pytest.raises(OutOfMemoryError, match=r"^device: cpu: no memory is left for the network"):
        transfer(SMALL)


def test_a_device_that_breaks_before_the_network_is_there_is_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(transfer_module, "resolve_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "synchronize", broken)
    monkeypatch.setattr(transfer_module, "_trunk", broken)
    with pytest.raises(UnavailableError, match="device: cuda: CUDA error: unspecified launch"):
        StyleTransfer(SMALL, precision="fp32", weights="compact")


def test_a_lost_device_ends_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    def paint(*_: object) -> None:
        raise DeviceLostError("device: cuda: lost")

    monkeypatch.setattr(batch.Batch, "paint", paint)
    with pytest.raises(DeviceLostError):
        outcomes(transfer(SMALL), [RED, BLUE])


class Stop(Callbacks):
    """Raises an error at the third step."""

    def __init__(self, error: BaseException) -> None:
        self.error, self.steps = error, 0

    def check(self) -> None:
        self.steps += 1
        if self.steps == 3:
            raise self.error


def test_a_check_ends_the_batch_by_an_error_and_everything_by_what_is_none() -> None:
    engine, error = transfer(SMALL), ValueError("enough")
    assert outcomes(engine, [RED, BLUE], callbacks=Stop(error)) == {
        range(0, 1): error, range(1, 2): None,
    }  # fmt: skip
    stop = Stop(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        outcomes(engine, [RED, BLUE], callbacks=stop)
    assert stop.steps == 3
    assert engine.run(picture(), [RED])  # and it can go on afterwards
