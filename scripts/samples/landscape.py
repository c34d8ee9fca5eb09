"""A mountain lake in morning haze, ray cast from a height field."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from .common import Array, blur, fbm, grade, mix, normalise, sample, shrink, smoothstep

WIDTH, HEIGHT, ZOOM = 768, 512, 2
GRID = 2048  # map cells; the map is one unit wide, about ten kilometres
HORIZON, FOCAL = 0.56, 0.95  # fractions of the height and of the width
CAMERA = (0.5, 0.0, 0.014)
SUN = np.array([-0.8, -0.28, 0.46], np.float32)
HAZE = np.array([0.50, 0.61, 0.76], np.float32)
SUN_HAZE = np.array([1.0, 0.79, 0.55], np.float32)


def _terrain(rng: np.random.Generator) -> Array:
    """Heights of the valley; negative cells lie under the lake."""
    y, x = np.mgrid[0:GRID, 0:GRID].astype(np.float32) / GRID
    wobble = fbm(rng, (GRID, GRID), 700, 4)
    ridges = fbm(rng, (GRID, GRID), 420, 9, 0.5, ridged=True)
    bumps = fbm(rng, (GRID, GRID), 160, 7, 0.5)
    far = 0.23 * np.exp(-(((y - 0.88 + 0.06 * wobble) / 0.13) ** 2))
    far *= 0.55 + 0.75 * np.exp(-(((x - 0.6) / 0.16) ** 2)) + 0.35 * wobble
    left = 0.20 * np.exp(-(((x - 0.13) / 0.16) ** 2) - ((y - 0.60) / 0.15) ** 2)
    right = 0.12 * np.exp(-(((x - 0.93) / 0.17) ** 2) - ((y - 0.50) / 0.13) ** 2)
    spur = 0.050 * np.exp(-(((x - 0.31) / 0.08) ** 2) - ((y - 0.36) / 0.04) ** 2)
    cape = 0.036 * np.exp(-(((x - 0.655) / 0.075) ** 2) - ((y - 0.29) / 0.020) ** 2)
    mass = far + left + right
    base = 0.034 * smoothstep(0.40, 0.62, y + 0.03 * wobble) - 0.012 + spur + cape
    height = base + mass * (0.62 + 0.62 * ridges) + 0.008 * bumps
    return np.asarray(height, np.float32)


def _forest(rng: np.random.Generator, height: Array, steep: Array) -> tuple[Array, Array]:
    """Where firs stand, and their cone-shaped crowns as extra height."""
    cover = smoothstep(0.002, 0.006, height) * smoothstep(0.085, 0.05, height + 0.3 * steep * 0.03)
    cover *= smoothstep(1.6, 0.9, steep)
    near = np.arange(GRID, dtype=np.float32)[:, None] < 0.40 * GRID  # the capes are all wood
    cover *= smoothstep(-0.35, -0.05, fbm(rng, (GRID, GRID), 120, 5) + 0.5 * near)
    crowns = np.zeros((GRID, GRID), np.float32)
    count = 190_000
    px, py = rng.integers(4, GRID - 4, (2, count))
    size = rng.uniform(0.5, 1.0, count).astype(np.float32)
    keep = cover[py, px] > rng.uniform(0.1, 1, count)
    px, py, size = px[keep], py[keep], size[keep]
    for dy in range(-3, 4):
        for dx in range(-3, 4):
            cone = size * (1 - np.hypot(dx, dy) / 3.3)
            np.maximum.at(crowns, (py + dy, px + dx), np.maximum(cone, 0).astype(np.float32))
    return cover, crowns


def _lit_map(rng: np.random.Generator, height: Array) -> tuple[Array, Array]:
    """Colours every map cell with sun, sky light and cast shadows."""
    dy, dx = np.gradient(height * GRID)
    cover, crowns = _forest(rng, height, np.hypot(dx, dy))
    full = height + 0.0042 * crowns
    dy, dx = np.gradient(full * GRID)
    normal = normalise(np.stack([-dx, -dy, np.ones_like(dx)], -1))
    light = np.maximum(normal @ (SUN / np.linalg.norm(SUN)), 0)
    # The sun stands off the left edge, so a running maximum along a row casts its shadow.
    slope = np.float32(0.52) * np.arange(GRID, dtype=np.float32) / GRID
    roof = np.maximum.accumulate(full + slope, 1) - slope
    light *= 1 - smoothstep(0.0005, 0.004, roof - full)
    fine = fbm(rng, (GRID, GRID), 60, 6, 0.65)
    strata = fbm(rng, (GRID, GRID), (14, 90), 4)
    rock = mix(
        [0.23, 0.20, 0.18], [0.46, 0.40, 0.34], np.clip(0.5 + 0.7 * fine + 0.4 * strata, 0, 1)
    )
    grass = mix([0.10, 0.13, 0.04], [0.30, 0.27, 0.09], np.clip(0.5 + fine, 0, 1))
    colour = mix(
        rock, grass, smoothstep(0.72, 0.86, normal[..., 2]) * smoothstep(0.11, 0.06, height)
    )
    snow = smoothstep(0.115, 0.155, height + 0.03 * fine) * smoothstep(0.38, 0.62, normal[..., 2])
    colour = mix(colour, [0.90, 0.92, 0.96], snow)
    fir = mix([0.020, 0.045, 0.022], [0.085, 0.13, 0.045], np.clip(crowns * 0.9 + 0.4 * fine, 0, 1))
    colour = mix(colour, fir, np.maximum(cover * 0.75, smoothstep(0.05, 0.3, crowns)))
    colour = mix(colour, [0.40, 0.36, 0.28], smoothstep(0.0022, 0.0008, height))  # shore
    sky = 0.30 + 0.25 * normal[..., 2]
    lit = light[..., None] * np.array([3.1, 2.4, 1.6]) + sky[..., None] * [0.42, 0.57, 0.85]
    return full, np.asarray(colour * lit, np.float32)


def _cast(height: Array, eye: float, width: int, rows: Array) -> tuple[Array, Array, Array]:
    """First hit of every ray: depth (infinite for sky) and map position.

    A camera without roll sees each map column as a profile, so the running minimum of the
    projected rows is the skyline so far, and a sorted search finds what every pixel meets.
    """
    depth = np.geomspace(0.03, 0.98, 1500).astype(np.float32)[:, None]
    across = (np.arange(width, dtype=np.float32) - width / 2) / (FOCAL * width)
    x, y = (CAMERA[0] + across * depth) * GRID, (CAMERA[1] + 0 * across + depth) * GRID
    z = sample(height, x, y)
    z = np.where(z < 0, -1, z) if eye < 0 else np.maximum(z, 0)
    skyline = np.minimum.accumulate(-(z - eye) / depth * FOCAL * width, 0)
    index = np.stack([np.searchsorted(-skyline[:, c], -rows) for c in range(width)], 1)
    hit = np.minimum(index, len(depth) - 1)
    columns = np.arange(width)
    distance = np.where(index < len(depth), depth[hit, 0], np.inf).astype(np.float32)
    return distance, x[hit, columns], y[hit, columns]


def _sky(rng: np.random.Generator, width: int, rows: Array) -> Array:
    """Sky with a bank of sunlit cumulus; ``rows`` are pixels below the horizon."""
    up = np.maximum(-rows / width, 0)[:, None]
    across = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None]
    sky = mix([0.86, 0.80, 0.74], [0.36, 0.56, 0.86], smoothstep(0.0, 0.22, up + 0 * across))
    sky = mix(sky, [0.12, 0.29, 0.62], smoothstep(0.12, 0.50, up + 0 * across))
    glow = np.exp(-np.hypot(across + 0.62, (up - 0.12) * 1.3) * 2.8)
    sky = mix(sky, SUN_HAZE * 1.15, np.clip(glow * 1.1, 0, 1))
    size = 1400
    field = fbm(rng, (size, size), 330, 9, 0.53) + 0.35 * fbm(rng, (size, size), 120, 6, 0.6)
    depth = 0.22 / (up + 0.13)  # clouds crowd together toward the horizon
    u, v = (across * depth * 1.05 + 0.5) * size * 0.8 + 90, depth * size * 0.52 + 0 * across
    cloud = sample(field, u, v)
    toward = sample(field, u - 34, v + 10)  # thinner on the sunward side means brighter
    cover = smoothstep(-0.06, 0.16, cloud + 0.06 - 0.30 * np.abs(up - 0.20))
    bright = np.clip(0.70 + 1.6 * (cloud - toward) - 0.45 * smoothstep(0.1, 0.6, cloud), 0, 1)
    puff = mix([0.40, 0.46, 0.58], [1.5, 1.33, 1.12], bright)
    return mix(sky, puff, cover * 0.94 * smoothstep(0.015, 0.09, up))


def _air(colour: Array, distance: Array, width: int) -> Array:
    """Haze that thickens with distance and warms toward the sun."""
    across = np.linspace(0, 1, width, dtype=np.float32)[None]
    tint = mix(SUN_HAZE * 0.78, HAZE, np.clip(across * 1.6 + 0.1, 0, 1) + 0 * distance)
    return mix(colour, tint, (1 - np.exp(-np.maximum(distance - 0.10, 0) * 0.85)) * 0.95)


def _water(rng: np.random.Generator, image: Array, mirror: Array, rows: Array) -> Array:
    """Lake pixels: the mirrored view, shaken by ripples that shrink with distance."""
    height, width = image.shape[:2]
    below = np.maximum(rows, 0)[:, None]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    ripples = fbm(rng, (900, 900), (16, 50), 5, 0.6)
    scale = 1 / (below + 12)
    u, v = (x - width / 2) * scale * 60 + 450, scale * 9000
    shake = sample(ripples, u % 898, v % 898 + 0 * x)
    calm = smoothstep(
        -0.25, 0.35, sample(fbm(rng, (300, 300), (9, 90), 3), x * 300 / width, below * 0.6 + 0 * x)
    )
    shift = shake * (5 + 0.10 * below) * (0.25 + 0.75 * calm)
    seen = sample(mirror, x + shift * 0.5, below + shift + 2)
    grazing = np.exp(-below / (0.55 * height)) + 0 * x
    deep = mix([0.045, 0.11, 0.12], [0.03, 0.07, 0.11], grazing)
    colour = mix(deep, seen * [0.86, 0.92, 0.96], 0.42 + 0.5 * grazing)
    return np.asarray(colour + (0.035 * shake * calm)[..., None], np.float32)


def _fir(draw: ImageDraw.ImageDraw, rng: np.random.Generator, x: float, y: float, h: float) -> None:
    """A dark fir in the foreground, its left flank catching the sun."""
    draw.polygon([(x - h * 0.011, y), (x + h * 0.011, y), (x, y - h)], fill=(34, 26, 20, 255))
    for level in np.arange(0.05, 0.985, 0.0105):
        reach = h * (0.20 * (1 - level) ** 0.85 + 0.006) * rng.uniform(0.7, 1.12)
        for side in (*(-1, 1) * 2, 0.35, -0.35):
            length = reach * side * rng.uniform(0.7, 1.1)
            droop = abs(length) * rng.uniform(0.12, 0.42)
            top = y - h * level + rng.normal(0, h * 0.004)
            for t in np.linspace(0.05, 1, max(5, int(abs(length) / 4))):
                px, py = x + length * t, top + droop * t**1.6 - abs(length) * 0.06 * t
                needle = h * 0.017 * (1.25 - 0.75 * t)
                glow = np.clip(0.30 - 0.62 * side * t + rng.normal(0, 0.16), 0, 1) ** 1.6
                shade = np.array([16, 27, 22]) + glow * np.array([104, 96, 40])
                end = (
                    px + rng.normal(side * 0.3, 0.5) * needle,
                    py + rng.uniform(0.4, 1.3) * needle,
                )
                draw.line([(px, py), end], fill=(*shade.astype(int), 255), width=2)


def _foreground(rng: np.random.Generator, image: Array) -> Array:
    """Paints the near bank with its grass, boulders and firs over the view."""
    height, width = image.shape[:2]
    layer = Image.new("RGBA", (width, height))
    draw = ImageDraw.Draw(layer)
    x = np.arange(width)
    bank = (
        0.935 - 0.10 * smoothstep(0.45, 0.0, x / width) - 0.075 * smoothstep(0.72, 1.0, x / width)
    )
    bank = height * (bank + 0.018 * fbm(rng, (2, width), 260, 5)[0])
    draw.polygon(
        [(0, height), *zip(x.tolist(), bank.tolist(), strict=True), (width, height)],
        fill=(30, 33, 18, 255),
    )
    for fx, size in ((0.205, 0.40), (0.035, 0.62), (0.125, 0.80), (0.965, 0.55), (0.885, 0.33)):
        _fir(draw, rng, fx * width, bank[int(fx * width)] + 14, size * height)
    patches = fbm(rng, (height, width), (60, 220), 4)
    blades = rng.uniform(0, 1, (15000, 4))
    for bx, depth, lean, tone in blades[np.argsort(blades[:, 1])]:
        column = min(int(bx * width), width - 1)
        py = bank[column] + 4 + depth * (height - bank[column] + 26)
        size = height * (0.012 + 0.034 * depth) * (0.6 + 0.8 * tone)
        patch = patches[min(int(py), height - 1), column]
        lit = np.clip(0.08 + 0.7 * tone + 0.55 * patch - 0.25 * depth, 0, 1) ** 1.5
        shade = np.array([22, 27, 14]) + lit * np.array([178, 150, 62])
        tip = (column + (lean - 0.35) * size, py - size)
        draw.line(
            [(column, py), tip], fill=(*shade.astype(int), 255), width=2 if depth < 0.6 else 3
        )
    paint = np.asarray(layer, np.float32) / 255
    return mix(image, paint[..., :3], paint[..., 3])


def landscape() -> Array:
    """Renders the lake.

    Returns:
        Display values, rows by columns by three.
    """
    rng = np.random.default_rng(11)
    width, height = WIDTH * ZOOM, HEIGHT * ZOOM
    rows = np.arange(height, dtype=np.float32) - HORIZON * height
    terrain = _terrain(rng)
    full, lit = _lit_map(rng, terrain)
    views = []
    sky_seed = rng.integers(1 << 30)
    # The lake shows the scene as a camera under the surface would see it, upside down.
    for eye, view_rows in ((CAMERA[2], rows), (-CAMERA[2], -np.arange(height, dtype=np.float32))):
        distance, x, y = _cast(np.where(terrain > 0.0005, full, -0.02), eye, width, view_rows)
        ground = _air(sample(lit, x, y), np.minimum(distance, 2), width)
        sky = _sky(np.random.default_rng(sky_seed), width, view_rows)
        views.append(mix(ground, sky, np.isinf(distance)))
        if eye > 0:
            lake = (rows[:, None] > 0) & (np.isinf(distance) | (sample(terrain, x, y) <= 0.0005))
    image = mix(views[0], _water(rng, views[0], views[1], rows), lake)
    image = grade(image + 0.12 * blur(np.maximum(image - 0.7, 0), 30), 0.66)
    image = mix(image, smoothstep(0.0, 1.0, image), 0.45)
    return shrink(_foreground(rng, image), WIDTH, HEIGHT)
