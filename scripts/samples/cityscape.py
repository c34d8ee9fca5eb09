"""A canal between gabled houses at dusk, ray cast from convex solids."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .common import Array, blur, fbm, grade, mix, sample, shrink, smoothstep

WIDTH, HEIGHT, ZOOM = 768, 512, 2
EYE_X, EYE_Z = 1.3, 4.2
FOCAL, HORIZON, CENTRE = 0.82, 0.565, 0.47  # fractions of the width, height and width
BANK, FRONT, QUAY = 7.0, 10.5, 1.1
AFTERGLOW = np.array([-0.75, 0.62, 0.22], np.float32)
BRIDGE = 58.0
LAMPS = [(s * 7.7, y, QUAY + 3.6) for y in range(9, 130, 11) for s in (-1, 1)]
Plane = tuple[tuple[float, float, float], float]


@dataclass
class Solid:
    """A convex solid: its half-spaces, the box around it and how it is painted."""

    planes: list[Plane]
    low: tuple[float, float, float]
    high: tuple[float, float, float]
    kind: str = "plain"
    colour: tuple[float, float, float] = (0.2, 0.2, 0.2)
    seed: int = 0
    storey: float = 3.1
    bay: float = 1.9
    lit: float = 0.4
    table: Array = field(default_factory=lambda: np.zeros((16, 16), np.float32))


def _box(
    low: tuple[float, float, float], high: tuple[float, float, float], **more: object
) -> Solid:
    planes: list[Plane] = []
    for axis in range(3):
        unit = [0.0, 0.0, 0.0]
        unit[axis] = 1.0
        planes.append(((unit[0], unit[1], unit[2]), high[axis]))
        planes.append(((-unit[0], -unit[1], -unit[2]), -low[axis]))
    return Solid(planes, low, high, **more)  # type: ignore[arg-type]


def _house(rng: np.random.Generator, side: int, y0: float, y1: float, gable: bool) -> list[Solid]:
    """A house whose front stands on the quay, with a chimney."""
    walls = rng.uniform(8.5, 14.0)
    near, far = (FRONT, FRONT + 11) if side > 0 else (-FRONT - 11, -FRONT)
    pitch = rng.uniform(0.9, 1.4) if gable else rng.uniform(0.7, 0.95)
    half = (y1 - y0) / 2 if gable else 5.5
    top = QUAY + walls + half * pitch
    palette = [
        (0.34, 0.15, 0.10),
        (0.40, 0.27, 0.16),
        (0.27, 0.12, 0.10),
        (0.44, 0.36, 0.27),
        (0.22, 0.20, 0.21),
        (0.36, 0.20, 0.10),
    ]
    house = _box(
        (near, y0, 0),
        (far, y1, top),
        kind="house",
        colour=palette[rng.integers(len(palette))],
        seed=int(rng.integers(1 << 20)),
        storey=rng.uniform(2.7, 3.4),
        bay=(y1 - y0) / round((y1 - y0) / 1.9),
        lit=rng.uniform(0.2, 0.5),
        table=rng.uniform(0, 1, (16, 16)).astype(np.float32),
    )
    norm = float(np.hypot(1, pitch))
    middle = (y0 + y1) / 2 if gable else (near + far) / 2
    for sign in (-1, 1):
        slope = sign * pitch / norm
        normal = (0.0, slope, 1 / norm) if gable else (slope, 0.0, 1 / norm)
        house.planes.append((normal, slope * middle + top / norm))
    cy, cx = (y0 + 0.6, side * (FRONT + rng.uniform(2.5, 5)))
    stack = _box(
        (cx - 0.5, cy - 0.4, QUAY + walls),
        (cx + 0.5, cy + 0.5, top + rng.uniform(0.3, 1.3)),
        colour=(0.2, 0.11, 0.08),
    )
    return [house, stack]


def _tower() -> list[Solid]:
    """A church beyond the bend: shaft, belfry and spire."""
    x, y = -3.2, 150.0
    shaft = _box((x - 4.5, y, 0), (x + 4.5, y + 9, 32), kind="tower", colour=(0.27, 0.21, 0.18))
    belfry = _box(
        (x - 3.6, y + 1, 32), (x + 3.6, y + 8, 42), kind="tower", colour=(0.27, 0.22, 0.19)
    )
    spire = _box((x - 4, y + 0.5, 42), (x + 4, y + 8.5, 66), colour=(0.10, 0.13, 0.15))
    for sx, sy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        slope = 24 / 4.0
        norm = float(np.hypot(1, slope))
        spire.planes.append(
            (
                (sx * slope / norm, sy * slope / norm, 1 / norm),
                (sx * slope * x + sy * slope * (y + 4.5) + 66) / norm,
            )
        )
    return [shaft, belfry, spire]


def _boat(x: float, y: float, length: float, colour: tuple[float, float, float]) -> list[Solid]:
    hull = _box((x - 1.1, y, -0.2), (x + 1.1, y + length, 0.75), colour=colour)
    for sign in (-1, 1):
        hull.planes.append(((sign * 0.86, 0.0, -0.5), sign * 0.86 * x + 0.72))
        hull.planes.append(((sign * 0.8, -0.6, 0.0), sign * 0.8 * x - 0.6 * y + 0.35))
    cabin = _box(
        (x - 0.7, y + length * 0.35, 0.7),
        (x + 0.7, y + length * 0.8, 1.45),
        kind="cabin",
        colour=(0.33, 0.28, 0.22),
    )
    return [hull, cabin]


def _city() -> list[Solid]:
    """All solids, nearest first so that hidden ones cost no shading."""
    rng = np.random.default_rng(1889)
    solids = []
    for side in (-1, 1):
        x0, x1 = sorted((side * BANK, side * 90))
        solids.append(_box((x0, -5, -1), (x1, 300, QUAY), kind="quay", colour=(0.20, 0.18, 0.17)))
        y = 5.0 if side > 0 else 8.0
        while y < 135:
            width = rng.uniform(4.6, 8.2)
            solids += _house(rng, side, y, y + width, bool(rng.random() < 0.6))
            y += width
    for x in np.arange(-44, 44, 7.3):  # the row that closes the view
        solids += _house_row(rng, float(x))
    for lx, ly, lz in LAMPS:
        solids.append(
            _box(
                (lx - 0.06, ly - 0.06, QUAY),
                (lx + 0.06, ly + 0.06, lz - 0.1),
                colour=(0.03, 0.03, 0.035),
            )
        )
        solids.append(
            _box(
                (lx - 0.2, ly - 0.2, lz + 0.28),
                (lx + 0.2, ly + 0.2, lz + 0.36),
                colour=(0.03, 0.03, 0.035),
            )
        )
    solids += (
        _boat(-5.4, 13.5, 8, (0.10, 0.16, 0.22))
        + _boat(5.6, 21, 9, (0.26, 0.07, 0.05))
        + _boat(-5.6, 31, 8, (0.07, 0.13, 0.09))
    )
    return sorted(solids + _tower(), key=lambda s: s.low[1])


def _house_row(rng: np.random.Generator, x: float) -> list[Solid]:
    top = QUAY + rng.uniform(10, 17)
    return [
        _box(
            (x, 140, 0),
            (x + 7.3, 150, top),
            kind="house",
            colour=(0.25, 0.17, 0.14),
            storey=3.2,
            bay=1.8,
            lit=0.5,
            table=rng.uniform(0, 1, (16, 16)).astype(np.float32),
        )
    ]


def _windows(solid: Solid, s: Array, z: Array) -> tuple[Array, Array, Array]:
    """Masks of glass and frame on a wall, and the light each window gives."""
    i, j = np.floor(s / solid.bay), np.floor(z / solid.storey)
    u, v = s / solid.bay - i - 0.5, z / solid.storey - j - 0.5
    shop = j < 1
    half_w = np.where(shop, 0.40, 0.29)
    half_h = np.where(shop, 0.36, 0.33)
    edge = np.maximum(np.abs(u) - half_w, (np.abs(v + 0.02) - half_h) * solid.storey / solid.bay)
    bars = np.minimum(np.abs(u), np.abs(v - 0.10) * solid.storey / solid.bay)
    glass = (edge < -0.035) & (bars > 0.022)
    frame = (edge < 0.03) & ~glass
    key = solid.table[i.astype(int) % 16, j.astype(int) % 16]
    on = key < solid.lit + 0.25 * shop
    level = 0.35 + 1.5 * ((key * 37.7) % 1)
    curtain = 1 - 0.55 * smoothstep(0.10, 0.24, np.abs(u)) * (((key * 91.3) % 1) > 0.4)
    glow = on * level * curtain * (0.65 + 0.7 * (v + 0.4))
    return glass, frame, np.asarray(glow, np.float32)


def _facade(solid: Solid, s: Array, z: Array, near: Array, colour: Array) -> tuple[Array, Array]:
    """Brick, bands and windows of a front: its colour, and the light it gives of itself."""
    level = z - QUAY
    if solid.kind == "cabin":
        s, level = s + 0.2, (z - 0.55) * 3.2
    brick = (np.abs((level / 0.22) % 1 - 0.5) > 0.42) & near
    colour = colour * np.where(brick, 1.14, 1.0)[..., None]
    glass, frame, glow = _windows(solid, s, level)
    sky = mix([0.10, 0.11, 0.17], [0.30, 0.22, 0.24], smoothstep(2, 12, level))
    colour = mix(colour, [0.46, 0.43, 0.38], frame * 0.85)
    colour = np.where(glass[..., None], 0.02, colour)
    warm = mix([1.0, 0.40, 0.09], [1.0, 0.62, 0.26], np.clip(glow * 0.6, 0, 1))
    emitted = glass[..., None] * (warm * (1.5 * glow)[..., None] + sky * 0.4)
    band = (np.abs((level + 0.18) / solid.storey % 1 - 0.02) < 0.035) & ~glass
    plinth = np.abs(level - 0.3) < 0.25
    colour = np.where((band | plinth)[..., None], colour * 1.25 + 0.03, colour)
    return colour, emitted.astype(np.float32)


def _lamp_light(p: Array, normal: tuple[float, float, float]) -> Array:
    """Warm light that the street lamps throw on a surface."""
    total = np.zeros(p.shape[:-1], np.float32)
    for lamp in LAMPS:
        if abs(lamp[1] - p[..., 1].mean()) > 30 and p[..., 1].std() < 20:
            continue
        to = np.array(lamp, np.float32) - p
        square = (to * to).sum(-1)
        cosine = np.maximum(to @ np.array(normal, np.float32), 0) / np.sqrt(square + 0.01)
        total += cosine / (square + 0.6)
    return total


def _paint(solid: Solid, p: Array, normal: tuple[float, float, float], noise: Array) -> Array:
    """Light leaving the points ``p`` of one face."""
    x, y, z = p[..., 0], p[..., 1], p[..., 2]
    s = y - solid.low[1] if abs(normal[0]) > 0.7 else x - solid.low[0]
    rough = sample(noise, (s * 42 + solid.seed) % 1000, (z * 42 + solid.seed * 3 + 0 * s) % 1000)
    streak = sample(noise, (s * 60 + solid.seed) % 1000, (z * 5) % 1000)
    colour = np.array(solid.colour, np.float32) * (1 + 0.5 * rough + 0.25 * streak)[..., None]
    emitted = np.zeros_like(p)
    wall = abs(normal[2]) < 0.1
    if solid.kind == "house" and not wall:
        rows = 0.75 + 0.25 * np.sin(z * 22) + 0.5 * rough
        colour = np.array([0.10, 0.085, 0.085], np.float32) * np.clip(rows, 0.2, 2)[..., None]
    if solid.kind in ("house", "cabin") and wall and (abs(normal[0]) > 0.7 or solid.low[1] > 100):
        colour, emitted = _facade(solid, s, z, y < 40, colour)
    if solid.kind == "quay" and wall:
        course = (np.abs((z / 0.36) % 1 - 0.5) > 0.44) | (
            np.abs((s / 0.9 + np.floor(z / 0.36) * 0.5) % 1 - 0.5) > 0.475
        )
        colour = (
            colour * np.where(course, 0.55, 1.0)[..., None] * smoothstep(-0.5, 0.7, z)[..., None]
        )
    if solid.kind == "tower":
        slit = (np.abs((s / 3) % 1 - 0.5) < 0.12) & (np.abs((z / 8) % 1 - 0.5) < 0.26)
        colour = np.where(slit[..., None], 0.03, colour)
    away = max(0.0, float(np.dot(normal, AFTERGLOW)))
    ambient = np.array([0.20, 0.23, 0.42]) * (0.6 + 0.4 * normal[2]) + away * np.array(
        [1.15, 0.50, 0.30]
    )
    lamps = _lamp_light(p, normal)[..., None] * np.array([9.0, 4.6, 1.7])
    low = 0.55 + 0.45 * smoothstep(QUAY, QUAY + 7, z)
    return np.asarray(colour * (ambient * low[..., None] + lamps) + emitted, np.float32)


def _sky(noise: Array, u: Array, v: Array) -> Array:
    """Dusk from orange through rose to deep blue, with clouds lit from below."""
    rise = np.maximum(v, 0)
    glow = np.exp(-((u + 0.22) ** 2) * 3.2)
    sky = mix([0.86, 0.42, 0.26], [0.50, 0.27, 0.36], smoothstep(0.02, 0.22, rise))
    sky = mix(sky, [0.16, 0.18, 0.40], smoothstep(0.12, 0.42, rise))
    sky = mix(sky, [0.045, 0.075, 0.22], smoothstep(0.32, 0.78, rise))
    sky = sky + (glow * np.exp(-rise * 6.5))[..., None] * [0.75, 0.36, 0.06]
    depth = 0.30 / (rise + 0.13)
    cloud = sample(noise, (u * depth * 420 + 520), depth * 330 + 60)
    under = sample(noise, (u * depth * 420 + 508), depth * 330 + 78)
    cover = smoothstep(-0.06, 0.28, cloud) * smoothstep(0.0, 0.10, rise)
    fire = np.clip(0.30 + 2.2 * (cloud - under), 0, 1) * np.exp(-rise * 1.1) * (0.45 + 0.75 * glow)
    tone = mix([0.17, 0.14, 0.25], [1.35, 0.52, 0.26], fire)
    return mix(sky, tone, cover * 0.85)


def _clip(solid: Solid, eye: Array, u: Array, v: Array) -> tuple[Array, Array]:
    """Depth at which rays enter a convex solid (infinite for a miss), and by which plane."""
    enter = np.full(np.broadcast_shapes(u.shape, v.shape), 0.3, np.float32)
    leave = np.full_like(enter, np.inf)
    face = np.full(enter.shape, -1, np.int32)
    for number, (n, d) in enumerate(solid.planes):
        toward = n[0] * u + n[1] + n[2] * v + np.float32(1e-7)
        t = (d - float(np.dot(n, eye))) / toward
        later = (toward < 0) & (t > enter)
        face = np.where(later, number, face)
        enter = np.where(later, t, enter)
        leave = np.where(toward > 0, np.minimum(leave, t), leave)
    return np.where((enter < leave) & (face >= 0), enter, np.inf).astype(np.float32), face


def _span(values: list[float], scale: float, centre: float, limit: int) -> slice:
    low, high = min(values) * scale + centre, max(values) * scale + centre
    return slice(max(0, int(low) - 1), max(0, min(limit, int(high) + 2)))


def _bridge(eye: Array, u: Array, v: Array, noise: Array) -> tuple[Array, Array]:
    """Where the bridge covers the view, and its colour."""
    x, z = eye[0] + u * BRIDGE + 0 * v, eye[2] + v * BRIDGE + 0 * u
    deck = QUAY + 2.5 * (1 - (x / 10.5) ** 2)
    arch = (np.abs(x) < 5.2) & (z < 2.75 * np.sqrt(np.maximum(1 - (x / 5.2) ** 2, 0)))
    solid = (np.abs(x) < 10.5) & (z < deck + 0.7) & (z > -0.3) & ~arch
    rough = sample(noise, (x * 40 + 500) % 1000, (z * 40 + 300) % 1000)
    colour = np.array([0.105, 0.095, 0.11]) * (1 + 0.7 * rough)[..., None]
    cap = np.abs(z - deck - 0.62) < 0.1
    return solid, np.asarray(np.where(cap[..., None], colour * 2.2, colour), np.float32)


def _trees(eye: Array, u: Array, v: Array, depth: Array, image: Array, noise: Array) -> None:
    """Quay trees as clumps of leaves that stop rays by chance, far ones first."""
    for y, x, size in (
        (47.0, -8.9, 2.6),
        (41.0, 8.9, 2.4),
        (30.5, -8.9, 2.5),
        (25.5, 9.0, 2.3),
        (15.0, -9.2, 2.1),
    ):
        px, pz = eye[0] + u * y - x, eye[2] + v * y - (QUAY + 5.4)
        leaf = sample(noise, px * 75 + 500 + 0 * pz, pz * 75 + 480 + y + 0 * px)
        clump = sample(noise, px * 30 + 150 + y * 14 + 0 * pz, pz * 30 + 400 + 0 * px)
        radius = np.hypot(px / size, pz / (size * 0.95))
        crown = 1.0 - radius + 0.75 * clump + 0.55 * leaf > 0.12
        trunk = (np.abs(px + 0.05 * np.sin(pz * 2)) < 0.13) & (pz < 0) & (pz > -5.4)
        here = (crown | trunk) & (depth > y) & (radius < 1.7)
        under = np.clip(-pz / size * 0.6 + 0.3 + 0.8 * leaf, 0, 1.5)
        tone = mix([0.018, 0.022, 0.035], [0.30, 0.17, 0.05], np.clip(under * 0.55, 0, 1) + 0 * px)
        image[here] = tone[here]
        depth[here] = y


def _view(eye: Array, u: Array, v: Array, city: list[Solid], noise: Array) -> tuple[Array, Array]:
    """Renders everything above the water for a grid of rays ``(u, 1, v)``."""
    rows, cols, scale = v.shape[0], u.shape[1], FOCAL * WIDTH * ZOOM
    image, depth = _sky(noise, u + 0 * v, v + 0 * u), np.full((rows, cols), np.inf, np.float32)
    flip = 1 if v[0, 0] < v[-1, 0] else -1
    for solid in city:
        near = [max(solid.low[1], 0.8), max(solid.high[1], 0.8)]
        across = [(x - eye[0]) / t for x in (solid.low[0], solid.high[0]) for t in near]
        rise = [flip * (z - eye[2]) / t for z in (solid.low[2], solid.high[2]) for t in near]
        part = (
            _span(rise, scale, -flip * float(v[0, 0]) * scale, rows),
            _span(across, scale, CENTRE * cols, cols),
        )
        if part[0].start >= part[0].stop or part[1].start >= part[1].stop:
            continue
        su, sv = u[:, part[1]], v[part[0]]
        t, face = _clip(solid, eye, su, sv)
        seen = t < depth[part]
        depth[part] = np.where(seen, t, depth[part])
        for number in np.unique(face[seen]):
            mine = seen & (face == number)
            d = t[mine]
            p = np.stack(
                [eye[0] + (su + 0 * sv)[mine] * d, d, eye[2] + (sv + 0 * su)[mine] * d], -1
            )
            image[part][mine] = _paint(solid, p.astype(np.float32), solid.planes[number][0], noise)
    covered, stone = _bridge(eye, u, v, noise)
    covered &= depth > BRIDGE
    image[covered], depth[covered] = stone[covered], BRIDGE
    _trees(eye, u, v, depth, image, noise)
    fog = np.where(np.isinf(depth), 0, 1 - np.exp(-np.maximum(depth - 12, 0) / 210))
    image = mix(
        image,
        mix([0.24, 0.17, 0.25], [0.62, 0.32, 0.22], np.exp(-((u + 0.2) ** 2) * 4) + 0 * v),
        fog,
    )
    for lx, ly, lz in LAMPS:  # the lanterns themselves
        far = np.hypot((u - (lx - eye[0]) / ly), (v - (lz + 0.08 - eye[2]) / ly)) * ly
        image += ((depth >= ly - 0.5) * smoothstep(0.26, 0.16, far))[..., None] * np.array(
            [9.0, 5.6, 2.6], np.float32
        )
    return image, depth


def _reflect(rng: np.random.Generator, mirror: Array, below: Array, cols: int) -> Array:
    """The mirrored view broken up by ripples that lengthen toward the viewer."""
    x = np.arange(cols, dtype=np.float32)[None]
    waves = fbm(rng, (1000, 1000), (10, 60), 5, 0.62)
    t = 900 / (below + 9)
    shake = sample(waves, ((x - cols / 2) * t * 0.045 + 500) % 998, (t * 26) % 998 + 0 * x)
    reach = 3 + 0.13 * below
    total = np.zeros((below.shape[0], cols, 3), np.float32)
    for tap in np.linspace(-1, 1, 7):  # rough water smears every light into a streak
        row = below + (shake + 0.55 * tap) * reach
        total += sample(mirror, x + shake * reach * 0.16, row) / 7
    fresnel = 0.50 + 0.38 * np.exp(-below / 160) + 0.22 * shake
    return mix([0.016, 0.024, 0.045], total, np.clip(fresnel, 0, 1))


def cityscape() -> Array:
    """Renders the canal.

    Returns:
        Display values, rows by columns by three.
    """
    rng = np.random.default_rng(7)
    width, height = WIDTH * ZOOM, HEIGHT * ZOOM
    scale = FOCAL * width
    noise = fbm(rng, (1001, 1001), 120, 8, 0.62)
    city = _city()
    u = ((np.arange(width, dtype=np.float32) - CENTRE * width) / scale)[None]
    row = np.arange(height, dtype=np.float32)[:, None]
    v = (HORIZON * height - row) / scale
    image, depth = _view(np.array([EYE_X, 0, EYE_Z], np.float32), u, v, city, noise)
    up = np.arange(int(height * 0.56), dtype=np.float32)[:, None] / scale
    mirror, _ = _view(np.array([EYE_X, 0, -EYE_Z], np.float32), u, up, city, noise)
    first = int(HORIZON * height) + 1
    surface = np.where(v < 0, EYE_Z / np.maximum(-v, 1e-6), np.inf)
    water = (surface < depth) & (np.abs(EYE_X + u * surface) < BANK + 0.01)
    lake = np.zeros_like(image)
    lake[first:] = _reflect(rng, mirror, row[first:] - HORIZON * height, width)
    image = mix(image, lake, water)
    hot = np.clip(image - 0.9, 0, 6)
    image = image + 0.25 * blur(hot, 5) + 0.28 * blur(hot, 20) + 0.16 * blur(hot, 60)
    image = grade(image, 0.64)
    image = mix(image, smoothstep(0, 1, image), 0.4)
    return shrink(image, WIDTH, HEIGHT)
