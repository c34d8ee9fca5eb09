"""A batch through all scales: what it calls back, and how it goes on from a checkpoint."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from conftest import picture
from painting import BLUE, RED, small_recipe, transfer
from PIL import Image

from nst_pipeline.engine import (
    Callbacks,
    Checkpoint,
    Result,
    StyleTransfer,
    batch,
    read_checkpoint,
)


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 64, "scales": (32,), "iterations": (4, 3)},
        {"size": 64, "scales": 1, "iterations": (5, 5)},
        {"size": 64, "scales": (32, 48), "iterations": (3,)},
        {"size": 64, "scales": (32, 48), "iterations": 12},
        {"size": 64, "iterations": (3, 2, 2)},
    ],
    ids=str,
)
def test_all_steps_of_all_scales_are_done_and_counted_as_the_recipe_says(
    changes: dict[str, Any],
) -> None:
    recipe = small_recipe(**changes)
    reported: list[tuple[int, int, int]] = []
    (result,) = transfer(recipe).run(
        picture(), [picture(seed=2)], lambda i, done, total, _: reported.append((i, done, total))
    )
    assert result.iterations == recipe.steps
    assert reported[0] == (0, 1, recipe.steps) and reported[-1] == (0, recipe.steps, recipe.steps)
    assert {total for _, _, total in reported} == {recipe.steps}
    assert reported == sorted(reported)
    assert result.pixels.shape == (48, 64, 3)


def test_progress_is_reported_of_each_style_by_its_index() -> None:
    reported: list[tuple[int, int]] = []
    engine = transfer(small_recipe(iterations=6), batch=1)
    styles = [picture(seed=2), picture(seed=3)]
    engine.run(picture(), styles, lambda i, done, *_: reported.append((i, done)))
    assert reported == [(0, 1), (0, 6), (1, 1), (1, 6)]


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
    list(
        transfer(small_recipe(size=64, scales=(32,), iterations=(4, 5))).paint(
            picture(), [RED], notes
        )
    )
    assert [(index, done) for index, done, _ in notes.pictures] == [(0, 3), (0, 6), (0, 9)]
    assert notes.pictures[0][2].size == (32, 24) and notes.pictures[1][2].size == (64, 48)


class Onlooker(Callbacks):
    """Wants a glimpse after each step."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, tuple[int, int]]] = []

    def wants_glimpse(self) -> bool:
        return True

    def glimpse(self, index: int, done: int, picture: Image.Image) -> None:
        self.seen.append((index, done, picture.size))
        picture.paste((0, 0, 0), (0, 0, *picture.size))  # it is a copy: nobody minds


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
@pytest.mark.parametrize("colors", ["style", "content"])
def test_whoever_looks_on_changes_no_byte(optimizer: str, colors: str) -> None:
    recipe = small_recipe(
        size=64, scales=(32,), iterations=(4, 5), optimizer=optimizer, colors=colors
    )
    onlooker = Onlooker()

    def results(callbacks: Callbacks | None) -> list[bytes]:
        engine = transfer(recipe, batch=2)
        batches = engine.paint(picture(seed=1), [RED, BLUE], callbacks)
        return [one.pixels.tobytes() for _, done in batches for one in done]

    assert results(onlooker) == results(Callbacks())
    sizes = {done: (32, 24) if done <= 4 else (64, 48) for done in range(1, 10)}
    assert onlooker.seen == [(i, done, size) for done, size in sizes.items() for i in (0, 1)]


def test_a_glimpse_is_no_larger_than_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "GLIMPSE_SIDE", 16)
    onlooker = Onlooker()
    engine = transfer(small_recipe(size=64, scales=1, iterations=2))
    ((_, (result,)),) = engine.paint(picture(), [RED], onlooker)
    assert onlooker.seen == [(0, 1, (16, 12)), (0, 2, (16, 12))]
    assert result.pixels.shape == (48, 64, 3)


def test_a_glimpse_that_memory_has_no_room_for_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(batch._ScaleReporter, "_finished", full)
    onlooker = Onlooker()
    engine = transfer(small_recipe(size=32, scales=1, iterations=2))
    ((_, results),) = engine.paint(picture(), [RED], onlooker)
    assert not isinstance(results, Exception) and not onlooker.seen


def test_every_scale_goes_on_from_the_one_before() -> None:
    notes = Notes()
    notes.snapshot_steps = 1
    list(
        transfer(small_recipe(size=64, scales=(32,), iterations=(20, 2))).paint(
            picture(), [RED], notes
        )
    )
    pictures = [np.asarray(taken.resize((64, 48)), float) for _, _, taken in notes.pictures]
    last, first = pictures[19], pictures[20]
    assert np.abs(first - last).mean() < 0.5 * np.abs(last - pictures[0]).mean()


def resumable(optimizer: str, tile: str) -> StyleTransfer:
    made = small_recipe(size=64, scales=(32,), iterations=(7, 6), optimizer=optimizer)
    return transfer(made, batch=2, tile=tile, tile_size=32)


STYLES = [picture(seed=2), picture(seed=3)]


@cache
def uninterrupted(optimizer: str, tile: str) -> list[Result]:
    return resumable(optimizer, tile).run(picture(seed=1), STYLES)


@pytest.mark.parametrize("tile", ["off", "on"])
@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
@pytest.mark.parametrize("stop_at", [3, 7, 11], ids=["coarse", "between", "fine"])
def test_work_resumed_from_a_checkpoint_ends_as_if_never_interrupted(
    stop_at: int, optimizer: str, tile: str
) -> None:
    stopped = Notes(stop_at)
    stopped.checkpoint_seconds = 0
    with pytest.raises(KeyboardInterrupt):
        list(resumable(optimizer, tile).paint(picture(seed=1), STYLES, stopped))
    goes_on = Notes(kept=stopped.kept)
    ((indices, resumed),) = resumable(optimizer, tile).paint(picture(seed=1), STYLES, goes_on)
    assert indices == range(2) and isinstance(resumed, list)
    for one, other in zip(uninterrupted(optimizer, tile), resumed, strict=True):
        assert np.array_equal(one.pixels, other.pixels)
        assert (one.iterations, one.end) == (other.iterations, other.end)
        assert one.curve == other.curve and [c.size for c in one.curve] == [(24, 32), (48, 64)]
    assert goes_on.steps == 13 - stop_at


@pytest.mark.parametrize("damage", ["nan", "smaller", "less", "scale"])
def test_work_with_a_checkpoint_that_is_none_is_begun_anew(damage: str) -> None:
    stopped, painter = Notes(stop_at=3), transfer(small_recipe(iterations=4), batch=2)
    stopped.checkpoint_seconds = 0
    whole = painter.run(picture(seed=1), [RED, BLUE])
    with pytest.raises(KeyboardInterrupt):
        list(painter.paint(picture(seed=1), [RED, BLUE], stopped))
    assert stopped.kept
    tensors, scale = dict(stopped.kept.tensors), stopped.kept.scale
    if damage == "nan":
        tensors["point"] = tensors["point"] * float("nan")
    elif damage == "smaller":
        tensors["point"] = tensors["point"][..., 1:]
    elif damage == "less":
        del tensors["done"]
    else:
        scale = 7
    goes_on = Notes(kept=replace(stopped.kept, scale=scale, tensors=tensors))
    ((_, again),) = painter.paint(picture(seed=1), [RED, BLUE], goes_on)
    assert goes_on.steps == 4 and isinstance(again, list)
    assert [one.end for one in again] == [one.end for one in whole]


@pytest.mark.parametrize(("weight", "is_one"), [(1e300, False), (1.0, True)])
def test_a_pastiche_whose_loss_is_not_finite_is_none(weight: float, is_one: bool) -> None:
    (result,) = transfer(small_recipe(iterations=2, style_weight=weight)).run(picture(), [RED])
    assert (not result.problem) == is_one
    assert is_one or result.problem.startswith("the loss is inf")


def test_a_damaged_checkpoint_or_one_of_other_work_is_none() -> None:
    notes = Notes(stop_at=3)
    notes.checkpoint_seconds = 0
    painter = transfer(small_recipe(iterations=4), batch=2)
    with pytest.raises(KeyboardInterrupt):
        list(painter.paint(picture(seed=1), [RED, BLUE], notes))
    assert notes.kept
    data = notes.kept.to_bytes()
    assert read_checkpoint(data[:-9]) is None
    assert read_checkpoint(b"") is None
    other = transfer(small_recipe(iterations=4, history_size=3), batch=2)
    goes_on = Notes(kept=notes.kept)
    list(other.paint(picture(seed=1), [RED, BLUE], goes_on))
    assert goes_on.steps == 4
