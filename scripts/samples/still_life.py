"""Fruit, a bowl, a jug and a cloth on a table, ray marched from distance functions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .common import Array, blur, fbm, grade, mix, normalise, sample, smoothstep

WIDTH, HEIGHT = 768, 576
EYE = np.array([0.25, -7.3, 2.9], np.float32)
TARGET = np.array([0.06, 0.0, 0.80], np.float32)
KEY = np.array([-0.74, -0.40, 0.54], np.float32) / np.float32(1.0)
WALL = 2.3  # where the wall stands behind the table
Shape = Callable[[Array], Array]


def _smooth_max(a: Array, b: Array, k: float) -> Array:
    h = np.maximum(k - np.abs(a - b), 0) / k
    return np.asarray(np.maximum(a, b) + h * h * k * 0.25, np.float32)


def _smooth_min(a: Array, b: Array, k: float) -> Array:
    return -_smooth_max(-a, -b, k)


def _turned(p: Array, profile: list[tuple[float, float]], wall: float, r: Array) -> Array:
    """Distance to a lathe shape: a polyline of (radius, height), given a thickness."""
    z = p[:, 2]
    best = np.full(len(p), 9.0, np.float32)
    for (r0, z0), (r1, z1) in zip(profile, profile[1:], strict=False):
        dr, dz = r1 - r0, z1 - z0
        t = np.clip(((r - r0) * dr + (z - z0) * dz) / (dr * dr + dz * dz), 0, 1)
        best = np.minimum(best, np.hypot(r - r0 - t * dr, z - z0 - t * dz))
    return np.asarray(best - wall, np.float32)


def _curve(points: list[tuple[float, float]], count: int = 14) -> list[tuple[float, float]]:
    """Catmull-Rom curve through a few points of a profile."""
    pts = np.array([points[0], *points, points[-1]], np.float64)
    out = []
    for i in range(1, len(pts) - 2):
        a, b, c, d = pts[i - 1 : i + 3]
        for t in np.linspace(0, 1, count // 3 + 1, endpoint=False):
            out.append(
                0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2)
                + 0.5 * (3 * b - 3 * c + d - a) * t**3
            )
    out.append(pts[-1])
    return [(float(r), float(z)) for r, z in out]


JUG = _curve(
    [
        (0.02, 0.03),
        (0.40, 0.03),
        (0.66, 0.55),
        (0.58, 1.15),
        (0.29, 1.62),
        (0.27, 1.88),
        (0.36, 2.05),
    ],
    24,
)
BOWL = _curve([(0.02, 0.10), (0.34, 0.10), (0.72, 0.36), (0.98, 0.72)], 18)
JUG_AT = np.array([-1.18, 0.55, 0.0], np.float32)
BOWL_AT = np.array([0.72, 0.25, 0.0], np.float32)


def _jug(p: Array) -> Array:
    q = p - JUG_AT
    body = _turned(q, JUG, 0.035, np.hypot(q[:, 0], q[:, 1]))
    # The handle is a bent ring to the left of the neck.
    ring = np.hypot((q[:, 0] + 0.50) * 1.0, (q[:, 2] - 1.36) * 0.86) - 0.36
    handle = np.hypot(ring, q[:, 1]) - 0.062
    handle = np.maximum(handle, q[:, 0] + 0.28)
    return _smooth_min(body, handle, 0.10) * 0.85


def _bowl(p: Array) -> Array:
    q = p - BOWL_AT
    r = np.hypot(q[:, 0], q[:, 1])
    foot = np.hypot(r - 0.34, q[:, 2] - 0.05) - 0.055
    return _smooth_min(_turned(q, BOWL, 0.032, r), foot, 0.06)


def _apple(centre: tuple[float, float, float], size: float, tilt: tuple[float, float]) -> Shape:
    """An apple: a ball dimpled at the stalk and narrowed below."""
    axis = normalise(np.array([tilt[0], tilt[1], 1.0], np.float32))

    def distance(p: Array) -> Array:
        q = (p - np.array(centre, np.float32)) / size
        h = q @ axis
        r = np.sqrt(np.maximum((q * q).sum(1) - h * h, 0))
        ball = np.hypot(r - 0.24, h * (1.02 + 0.10 * h)) - 0.76 - 0.05 * h
        angle = np.hypot(r, h - 0.86 - 0.02)
        stalk = np.maximum(
            np.hypot(r - 0.10 * (h - 0.6) ** 2, 0 * r) - 0.035, np.abs(h - 0.82) - 0.26
        )
        return np.minimum(_smooth_max(ball, 0.20 - angle, 0.2), stalk) * size * 0.85

    return distance


def _ball(centre: tuple[float, float, float], size: float) -> Shape:
    def distance(p: Array) -> Array:
        q = p - np.array(centre, np.float32)
        return np.asarray(np.sqrt((q * q).sum(1)) - size, np.float32)

    return distance


def _pear(centre: tuple[float, float, float], lean: tuple[float, float, float]) -> Shape:
    """A pear: a large ball melted into a small one along ``lean``, with a stalk."""
    base, axis = np.array(centre, np.float32), np.array(lean, np.float32)

    def distance(p: Array) -> Array:
        q = p - base
        big = np.sqrt((q * q).sum(1)) - 0.36
        top = q - axis * 0.55
        small = np.sqrt((top * top).sum(1)) - 0.17
        t = np.clip(q @ axis, 0.6, 0.98)
        stem = q - axis * t[:, None]
        stem[:, 0] += 0.35 * (t - 0.6) ** 2
        return np.minimum(_smooth_min(big, small, 0.42), np.sqrt((stem * stem).sum(1)) - 0.02) * 0.9

    return distance


def _lemon(p: Array) -> Array:
    q = p - np.array((0.76, 0.12, 1.20), np.float32)
    along = q @ normalise(np.array((0.82, -0.42, 0.30), np.float32))
    r = np.sqrt(np.maximum((q * q).sum(1) - along * along, 0))
    # Two arcs that cross make a spindle; the smooth union adds the nipples.
    spindle = np.hypot(along * 0.80, r + 0.06) - 0.33
    tips = np.hypot(np.abs(along) - 0.37, r) - 0.045
    return _smooth_min(spindle, tips, 0.14) * 0.9


def _grapes() -> list[tuple[float, float, float]]:
    rng = np.random.default_rng(5)
    places: list[tuple[float, float, float]] = []
    for layer, count in ((0, 16), (1, 8), (2, 3)):
        for _ in range(count * 20):
            if sum(1 for g in places if g[2] == 0.115 + 0.15 * layer) >= count:
                break
            reach = 1.0 - 0.28 * layer
            x = 0.02 + rng.uniform(-0.62, 0.5) * reach
            y = -1.12 + rng.uniform(-0.24, 0.24) * reach
            z = 0.115 + 0.15 * layer
            if all((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2 > 0.041 for a, b, c in places):
                places.append((x, y, z))
    return places


def _cluster(p: Array) -> Array:
    best = np.full(len(p), 9.0, np.float32)
    for place in _GRAPES:
        q = p - np.array(place, np.float32)
        best = np.minimum(best, np.sqrt((q * q).sum(1)) - 0.122)
    return best


_GRAPES = _grapes()
# Every shape with a bounding ball, which spares most points the full formula.
SCENE: list[tuple[str, Shape, tuple[float, float, float], float]] = [
    ("jug", _jug, (-1.22, 0.55, 1.0), 1.28),
    ("bowl", _bowl, (0.72, 0.25, 0.45), 1.08),
    ("red", _apple((0.42, 0.02, 0.78), 0.40, (-0.25, -0.35)), (0.42, 0.02, 0.78), 0.52),
    ("green", _apple((0.80, 0.62, 0.84), 0.39, (0.2, -0.2)), (0.80, 0.62, 0.84), 0.52),
    ("orange", _ball((1.12, 0.05, 0.82), 0.37), (1.12, 0.05, 0.82), 0.38),
    ("lemon", _lemon, (0.76, 0.12, 1.20), 0.46),
    ("orange2", _ball((-1.08, -0.92, 0.37), 0.37), (-1.08, -0.92, 0.37), 0.38),
    ("red2", _apple((1.58, -1.02, 0.36), 0.39, (0.55, -0.5)), (1.58, -1.02, 0.36), 0.52),
    ("pear", _pear((-0.42, -0.28, 0.36), (-0.10, -0.12, 0.98)), (-0.45, -0.3, 0.65), 0.85),
    ("grapes", _cluster, (-0.03, -1.12, 0.25), 0.85),
]


class _Cloth:
    """A table cloth whose folds are a height map over the table."""

    def __init__(self) -> None:
        rng = np.random.default_rng(21)
        size = 512
        y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
        warp = fbm(rng, (size, size), 200, 3)
        fold = np.sin((x * 0.95 + y * 0.5 + 0.12 * warp) * 40) * (
            0.35 + smoothstep(-0.3, 0.4, fbm(rng, (size, size), 120, 2))
        )
        crease = fbm(rng, (size, size), 130, 5, 0.45, ridged=True)
        self.height: Array = np.asarray(0.075 * fold + 0.09 * np.maximum(crease, 0), np.float32)
        self.height = blur(self.height, 3)
        self.edge = fbm(rng, (2, size), 150, 3)[0]

    def inside(self, x: Array, y: Array) -> Array:
        """How far within the cloth's outline a table point lies (negative is outside)."""
        wave = np.interp(x, np.linspace(-4, 4, len(self.edge)), self.edge)
        right = 1.25 - 0.55 * y - 0.25 * wave - x
        front = y + 2.15 + 0.10 * wave + 0.22 * x
        return np.asarray(np.minimum(np.minimum(right, front), 1.75 - y - 0.2 * wave), np.float32)

    def lift(self, x: Array, y: Array) -> Array:
        """Height of the cloth above the bare table."""
        folds = sample(self.height, (x + 4) / 8 * 511, (y + 4) / 8 * 511) + 0.02
        return np.asarray(
            np.maximum(folds, 0.004) * smoothstep(0.0, 0.10, self.inside(x, y)), np.float32
        )


CLOTH = _Cloth()


def _fabric(p: Array) -> Array:
    """Distance to the table and the cloth that lies on it."""
    ground = (p[:, 2] - 0.2) * np.float32(0.9)
    low = np.flatnonzero(p[:, 2] < 0.35)  # the folds only matter near the table
    ground[low] = (p[low, 2] - CLOTH.lift(p[low, 0], p[low, 1])) * np.float32(0.8)
    return np.asarray(ground, np.float32)


def _field(p: Array) -> Array:
    """Distance to the nearest surface; a bounding ball stands in for a far object."""
    nearest = np.minimum(_fabric(p), WALL - p[:, 1])
    for _, shape, centre, radius in SCENE:
        q = p - np.array(centre, np.float32)
        bound = np.sqrt((q * q).sum(1)) - radius
        near = np.flatnonzero((bound <= 0.1) & (bound < nearest))
        nearest = np.where(bound > 0.1, np.minimum(nearest, bound), nearest)
        if near.size:
            nearest[near] = np.minimum(nearest[near], shape(p[near]))
    return np.asarray(nearest, np.float32)


def _enter(start: Array, ray: Array, centre: Array, radius: float) -> tuple[Array, Array, Array]:
    """Rays that cross a ball, and where each goes in and comes out."""
    to = centre - start
    middle = (to * ray).sum(-1)
    gap = radius * radius - (np.asarray((to * to).sum(-1)) - middle * middle)
    hit = np.flatnonzero((gap > 0) & (middle > -radius))
    half = np.sqrt(gap[hit])
    return hit, np.maximum(middle[hit] - half, 0.02), middle[hit] + half


def _advance(shape: Shape, start: Array, ray: Array, begin: Array, end: Array) -> Array:
    """Sphere tracing of one shape between two depths (infinite for a miss)."""
    travelled, active = begin.astype(np.float32), np.arange(len(ray))
    result = np.full(len(ray), np.inf, np.float32)
    for _ in range(90):
        step = shape(start + ray[active] * travelled[active, None])
        arrived = active[step < 0.0012]
        result[arrived] = travelled[arrived]
        travelled[active] += step
        active = active[(step >= 0.0012) & (travelled[active] < end[active])]
        if not active.size:
            break
    return result


def _march(ray: Array) -> tuple[Array, Array]:
    """Depth of the first surface on each ray from the eye, and its number."""
    wall = ((WALL - EYE[1]) / ray[:, 1]).astype(np.float32)
    table = np.where(ray[:, 2] < 0, -(EYE[2] - 0.2) / np.minimum(ray[:, 2], -1e-6), 99).astype(
        np.float32
    )
    best, index = wall.copy(), np.ones(len(ray), np.int32)
    low = np.flatnonzero(table < wall)
    depth = _advance(_fabric, EYE, ray[low], table[low], wall[low])
    best[low], index[low] = np.minimum(best[low], depth), np.where(depth < wall[low], 0, 1)
    for number, (_, shape, centre, radius) in enumerate(SCENE, start=2):
        hit, begin, end = _enter(EYE, ray, np.array(centre, np.float32), radius)
        depth = _advance(shape, EYE, ray[hit], begin, np.minimum(end, best[hit]))
        closer = depth < best[hit]
        best[hit[closer]], index[hit[closer]] = depth[closer], number
    return best, index


def _shadow(p: Array, softness: float) -> Array:
    """Share of the wide key light that passes the objects, one object at a time."""
    seen = np.ones(len(p), np.float32)
    for _, shape, centre, radius in SCENE:
        hit, travelled, end = _enter(p, KEY, np.array(centre, np.float32), radius + 0.45)
        active = np.arange(len(hit))
        for _ in range(40):
            at, far = hit[active], travelled[active]
            step = shape(p[at] + KEY * far[:, None])
            seen[at] = np.minimum(seen[at], 0.5 + 0.5 * softness * step / far)
            travelled[active] += np.clip(step * 0.8, 0.025, 0.30)
            active = active[(seen[at] > 0) & (travelled[active] < end[active])]
            if not active.size:
                break
    return smoothstep(0, 1, np.maximum(seen, 0))


def _normals(p: Array, index: Array) -> Array:
    """Gradient of each point's own distance function, by a tetrahedron of four taps."""
    total = np.zeros_like(p)
    total[index == 1] = (0, -1, 0)
    shapes = {0: _fabric} | {n: s[1] for n, s in enumerate(SCENE, start=2)}
    for number, shape in shapes.items():
        mine = np.flatnonzero(index == number)
        if not mine.size:
            continue
        for corner in ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)):
            tap = np.array(corner, np.float32)
            total[mine] += tap * shape(p[mine] + tap * np.float32(0.0022))[:, None]
    return normalise(total)


def _occlusion(p: Array, normal: Array) -> Array:
    """Ambient occlusion from five taps along the normal."""
    dark = np.zeros(len(p), np.float32)
    for tap, weight in ((0.05, 1.0), (0.12, 0.8), (0.24, 0.55), (0.42, 0.36)):
        dark += weight * (tap - _field(p + normal * np.float32(tap)))
    return np.clip(1 - 1.05 * dark, 0.08, 1).astype(np.float32)


def _ground_colour(p: Array, grain: Array, noise: Array) -> tuple[Array, Array]:
    """Striped linen over a planked table: colour and gloss."""
    x, y = p[:, 0], p[:, 1]
    plank = np.floor((y + 10) / 0.62)
    tone = sample(grain, (x + 4 + plank * 1.7) % 8 * 63, (y + 4) * 63)
    wood = mix([0.10, 0.042, 0.018], [0.34, 0.165, 0.072], np.clip(0.5 + 0.9 * tone, 0, 1))
    gap = np.abs((y + 10) / 0.62 - plank - 0.5)
    wood *= (1 - 0.8 * smoothstep(0.485, 0.497, gap))[:, None]
    weave = (
        0.94
        + 0.06 * np.sin(x * 210) * np.sin(y * 210)
        + 0.06 * sample(noise, (x + 4) * 60, (y + 4) * 60)
    )
    linen = np.array([0.74, 0.69, 0.60]) * weave[:, None]
    depth = CLOTH.inside(x, y)
    band = smoothstep(0.10, 0.12, depth) * smoothstep(0.26, 0.24, depth)
    band += smoothstep(0.31, 0.32, depth) * smoothstep(0.36, 0.35, depth)
    linen = mix(linen, np.array([0.10, 0.17, 0.36]) * weave[:, None], band * 0.9)
    cloth = smoothstep(0.0, 0.012, depth)
    return mix(wood, linen, cloth), np.asarray(0.35 * (1 - cloth), np.float32)


def _fold(t: Array) -> Array:
    """Runs a coordinate to and fro over the noise, which leaves no seam."""
    return np.asarray(np.abs(t % 1000 - 500), np.float32)


def _skin(name: str, p: Array, noise: Array) -> tuple[Array, float]:
    """Colour and gloss of one object's surface."""
    angle, z = np.arctan2(p[:, 1], p[:, 0]), p[:, 2]
    mottle = sample(noise, (p[:, 0] + 4) * 60, (p[:, 2] * 1.3 + p[:, 1] * 0.6 + 3) * 60)
    fine = sample(noise, _fold(p[:, 0] * 180), _fold((p[:, 2] * 3 + p[:, 1]) * 60))
    if name == "jug":
        q = p - JUG_AT
        angle = np.arctan2(q[:, 1], q[:, 0])
        glaze = mix([0.055, 0.16, 0.22], [0.10, 0.30, 0.36], np.clip(0.5 + mottle, 0, 1))
        drip = z - 1.28 - 0.10 * np.sin(angle * 3) - 0.06 * np.sin(angle * 7 + 1) - 0.25 * mottle
        clay = mix([0.42, 0.24, 0.14], [0.62, 0.42, 0.27], np.clip(0.5 + fine, 0, 1))
        return mix(clay, glaze, smoothstep(0.03, -0.03, -drip - 0.62)), 0.9
    if name == "bowl":
        q = p - BOWL_AT
        angle = np.arctan2(q[:, 1], q[:, 0])
        white = np.array([0.80, 0.78, 0.73]) * (1 + 0.05 * fine[:, None])
        wave = np.abs(z - 0.46 - 0.055 * np.sin(angle * 14)) - 0.030
        lines = np.minimum(np.minimum(wave, np.abs(z - 0.66) - 0.018), np.abs(z - 0.27) - 0.012)
        return mix(white, [0.06, 0.12, 0.38], smoothstep(0.008, -0.008, lines)), 0.9
    if name.startswith("red"):
        streak = 0.5 + 0.5 * np.sin(angle * 26 + 5 * fine + 4 * mottle) * 0.22 + 1.2 * mottle
        return mix(
            [0.46, 0.028, 0.022], [0.75, 0.36, 0.08], np.clip(streak - 0.35, 0, 1) * 0.8
        ), 0.6
    if name == "green":
        return mix(
            [0.24, 0.34, 0.035], [0.56, 0.57, 0.12], np.clip(0.5 + mottle + 0.4 * fine, 0, 1)
        ), 0.6
    if name.startswith("orange"):
        return mix([0.72, 0.21, 0.012], [0.86, 0.36, 0.03], np.clip(0.5 + mottle, 0, 1)), 0.45
    if name == "grapes":
        bloom = np.clip(0.45 + 1.3 * mottle, 0, 1)
        return mix([0.035, 0.008, 0.03], [0.10, 0.055, 0.13], bloom), 0.7
    if name == "lemon":
        return mix([0.74, 0.50, 0.02], [0.80, 0.62, 0.07], np.clip(0.5 + mottle, 0, 1)), 0.5
    blush = np.clip(0.35 + 1.4 * mottle + 0.4 * fine, 0, 1)
    specks = sample(noise, _fold(p[:, 0] * 700), _fold((p[:, 2] - 0.4 * p[:, 1]) * 700))
    freckle = 1 - 0.22 * smoothstep(0.30, 0.42, specks)
    return freckle[:, None] * mix([0.47, 0.42, 0.07], [0.58, 0.20, 0.04], blush * 0.8), 0.4


def _surface(p: Array, index: Array) -> tuple[Array, Array]:
    """Colour and gloss of every hit."""
    rng = np.random.default_rng(8)
    noise = fbm(rng, (512, 512), 60, 6, 0.6)
    grain = fbm(rng, (512, 512), (10, 220), 5, 0.65)
    wall = 0.5 + 0.55 * sample(noise, (p[:, 0] + 4) * 62, (p[:, 2] + 2) * 62)
    colour = mix([0.115, 0.105, 0.085], [0.25, 0.225, 0.175], np.clip(wall, 0, 1))
    gloss = np.zeros(len(p), np.float32)
    table = index == 0
    colour[table], gloss[table] = _ground_colour(p[table], grain, noise)
    for number, (name, *_) in enumerate(SCENE, start=2):
        mine = index == number
        if mine.any():
            colour[mine], gloss[mine] = _skin(name, p[mine], noise)
    return colour, gloss


def _shade(p: Array, ray: Array, index: Array) -> Array:
    """Window light from the left, cool fill from the room, and reflections of the window."""
    normal = _normals(p, index)
    colour, gloss = _surface(p, index)
    pitted = np.isin(index, [n for n, s in enumerate(SCENE, start=2) if s[0].startswith("orange")])
    if pitted.any():
        q = p[pitted] @ np.array([[71, 23, -31], [-29, 67, 37], [41, -43, 59]], np.float32)
        jitter = np.sin(q + 2.1 * np.sin(q[:, [1, 2, 0]] * 1.37 + 1))
        normal[pitted] = normalise(normal[pitted] + 0.035 * jitter)
    open_sky = _occlusion(p, normal)
    facing = normal @ KEY
    lit = np.zeros(len(p), np.float32)
    bright = np.flatnonzero(facing > -0.1)
    lit[bright] = _shadow(p[bright] + normal[bright] * np.float32(0.012), 5.0)
    wrap = np.maximum((facing + 0.08) / 1.08, 0) * lit
    fade = np.exp(-0.06 * np.maximum(p[:, 0] + 2.2, 0) ** 2) * (
        1 - 0.22 * smoothstep(1.4, 4.0, p[:, 2])
    )
    fill = open_sky * (0.55 + 0.35 * normal[:, 2])
    bounce = open_sky * np.maximum(-normal[:, 2], 0) * 0.6
    light = (wrap * fade)[:, None] * [2.7, 2.2, 1.6] + fill[:, None] * [0.13, 0.16, 0.22]
    light = light + bounce[:, None] * [0.55, 0.42, 0.30]
    mirror = ray - 2 * (ray * normal).sum(1, keepdims=True) * normal
    fresnel = 0.04 + 0.96 * (1 - np.clip(-(ray * normal).sum(1), 0, 1)) ** 5
    hot = mirror @ KEY
    spot = smoothstep(0.93, 0.975, hot) * 5.0 + np.exp((hot - 1) * 14) * 0.9
    shine = gloss * (
        fresnel * 0.7 * (0.35 + 0.4 * np.maximum(mirror[:, 2], 0)) * open_sky + 0.07 * spot * lit
    )
    return np.asarray(colour * light + shine[:, None] * [1.0, 0.96, 0.88], np.float32)


def _look(x: Array, y: Array) -> Array:
    """Display colour of the rays through the given pixel positions."""
    forward = normalise(TARGET - EYE)
    right = normalise(np.cross(forward, [0, 0, 1]).astype(np.float32))
    up = np.cross(right, forward)
    u, v = (x - WIDTH / 2) / WIDTH / 1.62, -(y - HEIGHT / 2) / WIDTH / 1.62
    ray = normalise((forward + u[:, None] * right + v[:, None] * up).astype(np.float32))
    image = np.zeros_like(ray)
    for part in np.array_split(np.arange(len(ray)), max(1, len(ray) // 40_000)):
        depth, index = _march(ray[part])
        image[part] = _shade(EYE + ray[part] * depth[:, None], ray[part], index)
    vignette = 1 - 1.43 * (u * u + v * v)
    return grade(image * vignette[:, None], 0.74)


def still_life() -> Array:
    """Renders the table, then once more with nine rays a pixel wherever there is an edge.

    Returns:
        Display values, rows by columns by three.
    """
    y, x = (v.ravel().astype(np.float32) for v in np.mgrid[0:HEIGHT, 0:WIDTH])
    image = _look(x, y).reshape(HEIGHT, WIDTH, 3)
    edge = np.zeros((HEIGHT, WIDTH), bool)
    for axis in (0, 1):
        jump = np.abs(np.diff(image, axis=axis)).max(-1) > 0.06
        first, last = (
            ((slice(None, -1),), (slice(1, None),))
            if axis == 0
            else ((slice(None), slice(None, -1)), (slice(None), slice(1, None)))
        )
        edge[first] |= jump
        edge[last] |= jump
    where = np.flatnonzero(edge)
    shifts = [(dx, dy) for dx in (-1 / 3, 0, 1 / 3) for dy in (-1 / 3, 0, 1 / 3)]
    fine = np.mean(
        [_look(x[where] + np.float32(dx), y[where] + np.float32(dy)) for dx, dy in shifts], axis=0
    )
    image[edge] = fine
    glow = np.maximum(image - 0.72, 0)
    return np.asarray(image + 0.10 * blur(glow, 8), np.float32)
