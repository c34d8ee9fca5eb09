"""What people wait for: seconds to a picture as good as the tutorial's in its 300 evaluations.

Its best counts, for its loop may end by exploding.

Every way paints the same pictures, and one judge looks at what each has after so many seconds:
content loss + style weight x style loss of `compact_judge`, with the default recipe's style weight.
The clock starts with the pictures open and the library loaded, and stops while pictures are kept
for the judge.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from compact_judge import judge
from compact_network import Trunk, load_teacher
from PIL import Image
from reference import Reference, load_vgg
from torch import Tensor, nn

from benchmarks import rival, workload
from nst_pipeline.config.recipe import RecipeChanges
from nst_pipeline.config.weights import COMPACT_PATH
from nst_pipeline.engine import Callbacks, Recipe, StyleTransfer, images, make_recipe
from nst_pipeline.engine.devices import Precision

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

    def keep(self, picture: Tensor) -> None:
        """Keep a copy, outside the time."""
        now = time.perf_counter()
        self.kept.append((now - self._begun, picture.detach().clamp(0, 1).clone()))
        self._begun += time.perf_counter() - now


Way = Callable[[Diary], None]


def measure(
    rounds: int | None = None,
    sizes: Sequence[int] | None = None,
    images: Path | None = None,
    judge: Path | None = None,
    quick: bool = False,
    iterations: int = 300,
    curves: bool = False,
) -> list[Row]:
    """Return a row a size and way, or with ``curves`` a row for each look.

    Args:
        rounds: times that each way paints, in turn; None: once.
        sizes: longer sides of the picture.
        images: folder of pictures, of which the first content and style are painted; None: noise.
        judge: VGG-16's convolutions, which judge, and by which the tutorial and the rival paint;
            None: the network shipped.
        quick: tiny.
        iterations: evaluations of the tutorial.
        curves: what each way had, and when.
    """
    network = judge or COMPACT_PATH
    steps = min(iterations, QUICK_STEPS) if quick else iterations
    ours = QUICK_STEPS if quick else Recipe().iterations
    rows: list[Row] = []
    for size in sizes or (workload.QUICK_SIZES if quick else workload.SIZES):
        ((content, style),) = workload.pictures(images, size, 1)
        found = _paint(network, content, style, rounds or 1, steps, ours)
        goals = [min(curve, key=lambda look: look[1]) for curve in found["tutorial"]]
        for way, each in found.items():
            facts: Row = {"size": size, "painted by": way}
            if curves:
                rows += [facts | {"seconds": at, "loss": loss} for at, loss in each[0]]
            else:
                rows.append(facts | _row(each, goals))
    return rows


def _paint(
    network: Path, content: Tensor, style: Tensor, rounds: int, iterations: int, ours: Iterations
) -> dict[str, list[Curve]]:
    """Return a curve a round for each way, with so many steps of the tutorial and of ours."""
    ways = {
        "tutorial": _tutorial(network, content, style, iterations),
        "rival": _rival(network, content, style, iterations),
    }
    for name, path in {network.stem: network, "compact": COMPACT_PATH}.items():
        for precision in ("fp32", "bf16"):
            ways[f"{name}, {precision}"] = _ours(path, precision, content, style, ours)
    trunk, found = load_teacher(network), {name: list[Curve]() for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            diary = Diary()
            way(diary)
            found[name].append(_judged(trunk, content, style, diary))
    return found


def _tutorial(network: Path, content: Tensor, style: Tensor, iterations: int) -> Way:
    class Watched(Reference):
        """The tutorial's losses, which see every picture."""

        diary: Diary
        evaluations = 0

        def loss(self, image: Tensor) -> Tensor:
            if self.evaluations % max(1, iterations // LOOKS) == 0:
                self.diary.keep(image)
            self.evaluations += 1
            return super().loss(image)

    def paint(diary: Diary) -> None:
        losses = Watched(load_vgg(network, lambda: nn.MaxPool2d(2)), content, style)
        losses.diary = diary
        diary.keep(losses.run(content, iterations - 1, frozen=False))

    return paint


def _rival(network: Path, content: Tensor, style: Tensor, iterations: int) -> Way:
    def paint(diary: Diary) -> None:
        steps = 0

        def look(picture: Tensor) -> None:
            nonlocal steps
            steps += 1
            if steps % max(1, iterations // LOOKS) == 0 and picture.shape == content.shape:
                diary.keep(picture)

        rival.paint(network, content, style, max(1, iterations // 2), look)

    return paint


def _ours(
    network: Path, precision: Precision, content: Tensor, style: Tensor, iterations: Iterations
) -> Way:
    class Looks(Callbacks):
        """Keeps the pictures of the last scale."""

        snapshot_steps = 4

        def __init__(self, diary: Diary) -> None:
            self._diary = diary

        def snapshot(self, index: int, done: int, picture: Image.Image) -> None:
            if picture.size == (content.shape[3], content.shape[2]):
                self._diary.keep(images.to_tensor(picture))

    def paint(diary: Diary) -> None:
        recipe = make_recipe(RecipeChanges(size=max(content.shape[-2:]), iterations=iterations))
        transfer = StyleTransfer(recipe, "cpu", precision, str(network))
        ((_, outcome),) = transfer.paint(content, [style], Looks(diary))
        if isinstance(outcome, Exception):
            raise outcome
        diary.keep(images.to_tensor(outcome[0].pixels))

    return paint


def _judged(trunk: Trunk, content: Tensor, style: Tensor, diary: Diary) -> Curve:
    there = [images.to_image(one) for one in (content, style)]
    found = []
    for at, picture in diary.kept:
        verdict = judge(trunk, *there, images.to_image(picture))
        found.append((at, verdict.content + STYLE_WEIGHT * verdict.style))
    return found


def _row(found: list[Curve], goals: list[tuple[float, float]]) -> Row:
    """Return when a way was as good as the tutorial at its best, round by round."""
    reached = [next((at for at, loss in curve if loss <= goal), None)
               for curve, (_, goal) in zip(found, goals, strict=True)]  # fmt: skip
    row: Row = {
        "rounds": len(found),
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
