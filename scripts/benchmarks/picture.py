"""What people wait for: seconds to a picture as good as the tutorial's in its 300 evaluations.

Its best counts, for its loop may end by exploding.

Every way paints the same pictures, and one judge looks at what each has after so many seconds:
content loss + style weight x style loss of `compact_judge`, with the default recipe's style weight.
Ours in bf16 is there where ``precision: auto`` takes it.
The clock starts with the pictures open and the library loaded, and stops while pictures are kept
for the judge.
"""

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from compact_judge import judge
from compact_network import Trunk, load_teacher
from PIL import Image
from reference import Reference, load_vgg
from torch import Tensor, nn

from benchmarks import pairs, rival, workload
from nst_pipeline.config.recipe import RecipeChanges
from nst_pipeline.config.weights import COMPACT_PATH
from nst_pipeline.engine import Callbacks, Recipe, StyleTransfer, images, make_recipe
from nst_pipeline.engine.devices import Precision, is_fast_at_bf16, resolve_device

Row = dict[str, object]
Curve = list[tuple[float, float]]
"""Seconds, and the judged loss of the picture that there was then."""

Iterations = int | tuple[int, ...]

STYLE_WEIGHT = Recipe().style_weight
LOOKS = 30
"""Pictures that are kept of a way, about."""
QUICK_STEPS = 20


@dataclass
class Diary:
    """The pictures of a way, and when it had them.

    Attributes:
        kept: seconds of work, and the picture, (1, 3, H, W) in [0, 1].
    """

    kept: list[tuple[float, Tensor]] = field(default_factory=list)
    _begun: float = field(default_factory=time.perf_counter)
    _paused: float | None = None

    def pause(self) -> None:
        """Stop the clock until a picture is kept, which is about to be made."""
        pairs.synchronise()
        self._paused = time.perf_counter()

    def keep(self, picture: Tensor) -> None:
        """Keep a copy, outside the time."""
        if self._paused is None:
            self.pause()
        assert self._paused is not None
        self.kept.append((self._paused - self._begun, picture.detach().clamp(0, 1).cpu()))
        self._begun += time.perf_counter() - self._paused
        self._paused = None


Way = Callable[[Tensor, Tensor, Diary], None]
"""Paints a content in a style, and notes in the diary what there is when."""


def measure(
    rounds: int | None = None,
    sizes: Sequence[int] | None = None,
    device: str = "auto",
    images: Path | None = None,
    judge: Path | None = None,
    quick: bool = False,
    iterations: int = 300,
    curves: bool = False,
) -> list[Row]:
    """Return a row a size and way, or with ``curves`` a row for each look.

    Args:
        rounds: pairs of pictures, each painted once in each way; None: one.
        sizes: longer sides of the picture.
        device: as `StyleTransfer` takes it.
        images: folder of pictures; None: noise.
        judge: VGG-16's convolutions, which judge, and by which the tutorial and the rival paint;
            None: the network shipped.
        quick: tiny.
        iterations: evaluations of the tutorial.
        curves: what each way had, and when.
    """
    network, place = judge or COMPACT_PATH, resolve_device(device)
    if place.type != "cpu":
        is_fast_at_bf16(place)  # a GPU's libraries are loaded when they first compute
    steps = min(iterations, QUICK_STEPS) if quick else iterations
    ours = QUICK_STEPS if quick else Recipe().iterations
    rows: list[Row] = []
    for size in sizes or (workload.QUICK_SIZES if quick else workload.SIZES):
        shown = list(workload.pictures(images, size, rounds or 1))
        found = _paint(network, place, shown, steps, ours)
        goals = [min(curve, key=lambda look: look[1]) for curve in found["tutorial"]]
        for way, each in found.items():
            facts: Row = {"size": size, "painted by": way}
            if curves:
                rows += [
                    facts | {"pair": pair, "seconds": at, "loss": loss}
                    for pair, curve in enumerate(each)
                    for at, loss in curve
                ]
            else:
                rows.append(facts | _row(each, goals))
    return rows


def _paint(
    network: Path,
    device: torch.device,
    pictures: Sequence[tuple[Tensor, Tensor]],
    iterations: int,
    ours: Iterations,
) -> dict[str, list[Curve]]:
    """Return a curve a pair for each way, with so many steps of the tutorial and of ours."""
    ways: dict[str, Way] = {
        "tutorial": functools.partial(_tutorial, network, iterations),
        "rival": functools.partial(_rival, network, iterations),
    }
    for name, path in {network.stem: network, "compact": COMPACT_PATH}.items():
        for precision in workload.precisions(device):
            ways[f"{name}, {precision}"] = functools.partial(_ours, path, precision, ours)
    trunk = load_teacher(network).to(device)
    found = {name: list[Curve]() for name in ways}
    for content, style in pictures:
        there = content.to(device), style.to(device)
        for name, way in ways.items():
            diary = Diary()
            way(*there, diary)
            found[name].append(_judged(trunk, content, style, diary))
    return found


def _tutorial(network: Path, iterations: int, content: Tensor, style: Tensor, diary: Diary) -> None:
    class Watched(Reference):
        """The tutorial's losses, which see every picture."""

        evaluations = 0

        def loss(self, image: Tensor) -> Tensor:
            if self.evaluations % max(1, iterations // LOOKS) == 0:
                diary.keep(image)
            self.evaluations += 1
            return super().loss(image)

    with content.device as device:
        losses = Watched(load_vgg(network, lambda: nn.MaxPool2d(2)).to(device), content, style)
    diary.keep(losses.run(content, iterations - 1, frozen=False))


def _rival(network: Path, iterations: int, content: Tensor, style: Tensor, diary: Diary) -> None:
    steps = 0

    def look(picture: Tensor) -> None:
        nonlocal steps
        steps += 1
        if steps % max(1, iterations // LOOKS) == 0 and picture.shape == content.shape:
            diary.keep(picture)

    rival.paint(network, content, style, max(1, iterations // 2), look)


def _ours(
    network: Path,
    precision: Precision,
    iterations: Iterations,
    content: Tensor,
    style: Tensor,
    diary: Diary,
) -> None:
    class Looks(Callbacks):
        """Keeps the pictures of the last scale."""

        snapshot_steps = 4
        steps = 0

        def check(self) -> None:
            self.steps += 1
            if self.steps % self.snapshot_steps == 0:
                diary.pause()

        def snapshot(self, index: int, done: int, picture: Image.Image) -> None:
            diary.keep(images.to_tensor(picture))

    recipe = make_recipe(RecipeChanges(size=max(content.shape[-2:]), iterations=iterations))
    transfer = StyleTransfer(recipe, str(content.device), precision, str(network))
    ((_, outcome),) = transfer.paint(content.cpu(), [style.cpu()], Looks())
    if isinstance(outcome, Exception):
        raise outcome
    diary.keep(images.to_tensor(outcome[0].pixels))
    diary.kept = [look for look in diary.kept if look[1].shape == content.shape]


def _judged(trunk: Trunk, content: Tensor, style: Tensor, diary: Diary) -> Curve:
    there = [images.to_image(one) for one in (content, style)]
    found = []
    for at, picture in diary.kept:
        verdict = judge(trunk, *there, images.to_image(picture))
        found.append((at, verdict.loss(STYLE_WEIGHT)))
    return found


def _row(found: list[Curve], goals: list[tuple[float, float]]) -> Row:
    """Return when a way was as good as the tutorial at its best, pair by pair."""
    reached = [next((at for at, loss in curve if loss <= goal), None)
               for curve, (_, goal) in zip(found, goals, strict=True)]  # fmt: skip
    row: Row = {
        "pairs": len(found),
        "seconds in all": statistics.median(curve[-1][0] for curve in found),
        "loss in the end": statistics.median(curve[-1][1] for curve in found),
    }
    if None in reached:
        return row | {"as good after s": "never"}
    times = [at for at in reached if at is not None]
    ratios = [seconds / at for (seconds, _), at in zip(goals, times, strict=True)]
    return row | {
        "as good after s": statistics.median(times),
        "sooner": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios),
    }  # fmt: skip
