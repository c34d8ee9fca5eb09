"""Flow fields and the paths that strokes and cuts follow along them."""

from __future__ import annotations

import numpy as np

from .common import Array, sample


def swirl(
    shape: tuple[int, int], centres: list[tuple[float, float, float, float]], base: Array
) -> Array:
    """Adds whirls to a field of angles.

    Args:
        shape: Rows and columns.
        centres: Whirls as (x, y, radius, turn), the first three in pixels; ``turn`` is 1 or -1.
        base: Angle of the undisturbed flow.

    Returns:
        Angles in radians.
    """
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    vx, vy = np.cos(base) * 0.8, np.sin(base) * 0.8
    for cx, cy, radius, turn in centres:
        dx, dy = x - cx, y - cy
        distance = np.hypot(dx, dy) + 1e-3
        pull = 3.2 * np.exp(-((distance / radius) ** 2) * 0.9)
        vx += pull * turn * (-dy / distance)
        vy += pull * turn * (dx / distance)
    return np.asarray(np.arctan2(vy, vx), np.float32)


def trace(angle: Array, x: Array, y: Array, steps: int, step: float) -> tuple[Array, Array]:
    """Follows the flow from many starts at once.

    Args:
        angle: Field of angles.
        x: Start columns.
        y: Start rows.
        steps: Points a path has.
        step: Pixels between points.

    Returns:
        Columns and rows, a path per row of the arrays.
    """
    cosine, sine = np.cos(angle), np.sin(angle)
    xs, ys = np.empty((2, len(x), steps), np.float32)
    for i in range(steps):
        xs[:, i], ys[:, i] = x, y
        x = x + step * sample(cosine, x, y)
        y = y + step * sample(sine, x, y)
    return xs, ys
