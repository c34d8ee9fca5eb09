"""Smalti and stone laid in courses that follow rosettes and waves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .common import Array, blur, fbm, mix, relight, shrink, smoothstep

SIZE, ZOOM = 640, 2
TILE = 15.5  # side of a tessera in final pixels
ROUNDS = 16
# Rosettes as x, y and radius in fractions of the side, and their number of petals.
ROSETTES = [
    (0.34, 0.36, 0.245, 8),
    (0.77, 0.71, 0.185, 6),
    (0.83, 0.19, 0.125, 5),
    (0.16, 0.85, 0.14, 5),
]
PALETTE = {
    "night": (0.05, 0.10, 0.28),
    "blue": (0.07, 0.25, 0.56),
    "sky": (0.20, 0.52, 0.72),
    "sea": (0.06, 0.47, 0.47),
    "cream": (0.93, 0.87, 0.72),
    "gold": (0.90, 0.65, 0.16),
    "orange": (0.85, 0.40, 0.10),
    "brick": (0.63, 0.15, 0.10),
    "wine": (0.33, 0.06, 0.12),
}
WAVES = (
    "night",
    "blue",
    "blue",
    "sky",
    "cream",
    "sea",
    "sea",
    "gold",
    "brick",
    "wine",
    "night",
    "blue",
    "sky",
)
PETALS = ("brick", "orange", "gold", "gold", "cream")
COURSE = TILE / SIZE * 0.98  # height of a row of tesserae


def _whole(radius: float) -> float:
    """Rounds a radius to whole courses, so that the rim is one clean ring."""
    return round(radius / COURSE) * COURSE


def _design(rng: np.random.Generator, n: int) -> tuple[Array, Array, NDArray[np.int64]]:
    """Direction of the courses, depth counted across them, and the colour wanted."""
    names = list(PALETTE)
    y, x = np.mgrid[0:n, 0:n].astype(np.float32) / n
    near = np.zeros((n, n), np.float32)
    for cx, cy, radius, _ in ROSETTES:
        near += np.exp(-(np.hypot(x - cx, y - cy) - _whole(radius)) * 45)
    field = np.maximum(-np.log(near) / 45, 0)
    field += 0.06 * fbm(rng, (n, n), n * 0.4, 2) * smoothstep(0.02, 0.10, field)
    wanted = np.array([names.index(w) for w in WAVES])
    colour = wanted[np.floor(np.maximum(field, 0) / COURSE).astype(int) % len(WAVES)]
    for cx, cy, size, petals in ROSETTES:
        radius = _whole(size)
        d, turn = np.hypot(x - cx, y - cy), np.arctan2(y - cy, x - cx)
        inside = d < radius
        field = np.where(inside, d, field)
        lobe = radius * (0.36 + 0.46 * np.abs(np.cos(turn * petals / 2)) ** 0.8)
        step = np.clip(d / lobe * len(PETALS), 0, len(PETALS) - 1).astype(int)
        petal = np.array([names.index(w) for w in reversed(PETALS)])[step]
        ground = np.where(d > radius - COURSE, names.index("cream"), names.index("wine"))
        inner = np.where((d < lobe) & (d < radius - COURSE), petal, ground)
        inner = np.where(d < radius * 0.17, names.index("sea"), inner)
        colour = np.where(inside, inner, colour)
    smooth = blur(field, 3 * n / SIZE)
    dy, dx = np.gradient(smooth)
    return np.asarray(np.arctan2(dy, dx), np.float32), field.astype(np.float32), colour


def _cells(seeds: Array, turn: Array, n: int, tile: float) -> tuple[Array, Array, Array]:
    """Nearest seed of every pixel in a squarish metric, its distance and the runner-up's."""
    owner = np.zeros((n, n), np.int32)
    first, second = np.full((2, n, n), 1e3, np.float32)
    reach = int(tile * 1.7)
    for i, (sx, sy) in enumerate(seeds):
        x0, y0 = max(0, int(sx) - reach), max(0, int(sy) - reach)
        part = slice(y0, int(sy) + reach), slice(x0, int(sx) + reach)
        near, far = first[part], second[part]
        dx = np.arange(x0, x0 + near.shape[1], dtype=np.float32)[None] - sx
        dy = np.arange(y0, y0 + near.shape[0], dtype=np.float32)[:, None] - sy
        c, s = np.float32(np.cos(turn[i])), np.float32(np.sin(turn[i]))
        u, v = (dx * c + dy * s) ** 2, (dy * c - dx * s) ** 2
        distance = np.sqrt(np.sqrt(u * u + v * v))
        wins = distance < near
        second[part] = np.where(wins, near, np.minimum(far, distance))
        first[part] = np.where(wins, distance, near)
        owner[part][wins] = i
    return owner, first, second


def _lay(rng: np.random.Generator, angle: Array, field: Array) -> tuple[Array, Array]:
    """Places the tesserae: Lloyd's method settles them into courses."""
    n = angle.shape[0]
    across = round(n / TILE)
    y, x = (np.mgrid[0:across, 0:across].reshape(2, -1) + 0.5) * (n / across)
    seeds = np.stack([x, y], 1).astype(np.float32) + rng.normal(
        0, TILE * 0.3, (across**2, 2)
    ).astype(np.float32)
    py, px = (v.ravel() for v in np.mgrid[0:n, 0:n])
    for _ in range(ROUNDS):
        seeds = np.clip(seeds, 0, n - 1).astype(np.float32)
        at = seeds[:, 1].astype(int), seeds[:, 0].astype(int)
        turn, depth = angle[at], field[at] / COURSE
        slide = 0.6 * (np.floor(depth) + 0.5 - depth) * COURSE * n  # onto the middle of a row
        seeds += np.stack([np.cos(turn), np.sin(turn)], 1) * slide[:, None]
        owner = _cells(seeds, turn, n, TILE)[0].ravel()
        count = np.maximum(np.bincount(owner, minlength=len(seeds)), 1)
        seeds = np.stack([np.bincount(owner, w, len(seeds)) / count for w in (px, py)], 1).astype(
            np.float32
        )
    return seeds, turn + rng.normal(0, 0.07, len(turn)).astype(np.float32)


def _glass(rng: np.random.Generator, wanted: NDArray[np.int64]) -> Array:
    """Colour of each tessera: its palette entry, now and then a neighbour's, never quite even."""
    palette = np.array(list(PALETTE.values()), np.float32)
    swap = rng.random(len(wanted)) < 0.07
    index = np.where(
        swap, np.clip(wanted + rng.choice([-1, 1], len(wanted)), 0, len(palette) - 1), wanted
    )
    value = rng.normal(1.0, 0.17, (len(wanted), 1))
    return np.clip(
        palette[index.astype(int)] * value + rng.normal(0, 0.022, (len(wanted), 3)), 0.01, 1
    ).astype(np.float32)


def mosaic() -> Array:
    """Lays the mosaic.

    Returns:
        Display values, rows by columns by three.
    """
    rng = np.random.default_rng(547)
    angle, field, wanted = _design(rng, SIZE)
    seeds, turn = _lay(rng, angle, field)
    place = np.clip(seeds, 0, SIZE - 1).astype(int)
    glass = _glass(rng, wanted[place[:, 1], place[:, 0]])
    n = SIZE * ZOOM
    wobble = fbm(rng, (n, n), 22, 3) * 2.6  # hand-cut edges are never straight
    owner, first, second = _cells(seeds * ZOOM, turn, n, TILE * ZOOM)
    edge = np.minimum((second - first) / 2, TILE * ZOOM * 0.60 - first) + wobble - 1.9
    body = smoothstep(0.0, 1.6, edge)
    y, x = np.mgrid[0:n, 0:n].astype(np.float32)
    tilt = rng.normal(0, 0.10, (2, len(seeds))).astype(np.float32)
    flat = tilt[0][owner] * (x - seeds[owner, 0] * ZOOM) + tilt[1][owner] * (
        y - seeds[owner, 1] * ZOOM
    )
    grain, sand = fbm(rng, (n, n), 26, 5, 0.65), fbm(rng, (n, n), 5, 3, 0.8)
    height = (
        body * (5.0 + flat + 0.8 * grain)
        + 1.2 * np.sqrt(np.clip(edge, 0, 7))
        + (1 - body) * sand * 0.9
    )
    shade = relight(blur(height, 1), (-0.65, -0.6, 0.8), 0.42)
    stone = glass[owner] * (1 + 0.28 * grain + 0.10 * sand)[..., None]
    grout = np.array([0.50, 0.45, 0.38]) * (1 + 0.35 * sand)[..., None]
    shadow = 0.55 + 0.45 * smoothstep(-3.4, 0.8, edge)  # the joints lie deep
    picture = mix(grout * shadow[..., None], stone, body) * np.minimum(shade, 1.5)[..., None]
    gleam = body * np.maximum(shade - 1.10, 0) * 0.55
    return shrink(np.clip(picture + gleam[..., None], 0, 1) ** np.float32(0.92), SIZE, SIZE)
