"""Loss curves: how the loss fell, scale by scale."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

POINTS = 100
"""The most points of a curve that is kept."""


@dataclass(frozen=True)
class LossCurve:
    """How the best loss so far fell at one scale; losses of two scales cannot be compared.

    Attributes:
        size: of the pastiche at this scale, (height, width).
        steps: done over all scales, ascending.
        losses: the best loss after each, finite.
    """

    size: tuple[int, int]
    steps: list[int]
    losses: list[float]


class LossCurves:
    """The losses of a batch, as the optimisers report them.

    Attributes:
        rows: a list for each report: the scale, the steps done over all scales, and the best loss
            of each style.
    """

    def __init__(self, rows: Sequence[Sequence[float]] = ()) -> None:
        """Begin with the rows of a checkpoint, or with none."""
        self.rows = [list(row) for row in rows]

    def add(self, scale: int, done: int, losses: Sequence[float]) -> None:
        """Take the best loss of each style after ``done`` steps."""
        self.rows.append([scale, done, *losses])

    def of(self, style: int, sizes: Sequence[tuple[int, int]]) -> tuple[LossCurve, ...]:
        """Return the curves of one style of the batch, by scale, `POINTS` points together at most.

        Args:
            style: its place in the batch.
            sizes: of the pastiche at each scale.
        """
        found: list[LossCurve] = []
        room = POINTS
        for scale, size in enumerate(sizes):
            points = [
                (int(row[1]), float(f"{row[2 + style]:.6g}"))
                for row in self.rows
                if row[0] == scale and math.isfinite(row[2 + style])
            ]
            kept = _thinned(points, room // (len(sizes) - scale))
            room -= len(kept)
            if kept:
                found.append(LossCurve(size, [step for step, _ in kept], [x for _, x in kept]))
        return tuple(found)


def _thinned(points: list[tuple[int, float]], count: int) -> list[tuple[int, float]]:
    """Return at most ``count`` of the points, evenly, the first and the last among them."""
    if len(points) <= count:
        return points
    if count < 2:
        return points[-1:] if count else []
    last = len(points) - 1
    return [points[round(index * last / (count - 1))] for index in range(count)]
