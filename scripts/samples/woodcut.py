"""A print in two inks: a mountain, a sun and a heavy sea, carved gouge by gouge."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from .common import Array, blur, fbm, mix, smoothstep

SIZE, ZOOM = 672, 3
SUN = (0.70, 0.27, 0.105)
PEAK = (0.34, 0.15)
CLOUDS = [
    (0.10, 0.17, 0.055),
    (0.17, 0.20, 0.045),
    (0.04, 0.215, 0.05),
    (0.92, 0.44, 0.055),
    (0.85, 0.465, 0.045),
    (0.99, 0.475, 0.055),
    (0.76, 0.485, 0.03),
    (0.55, 0.07, 0.04),
    (0.49, 0.09, 0.03),
    (0.61, 0.085, 0.03),
]
PAPER, INK, RED = (0.93, 0.87, 0.74), (0.085, 0.095, 0.15), (0.78, 0.27, 0.15)
Plan = tuple[Array, Array, Array, Array]


def _sky(x: Array, y: Array) -> Plan:
    """Region, flow, tone and spacing of the sky with its sun and clouds."""
    dx, dy = x - SUN[0], y - SUN[1]
    d, turn = np.hypot(dx, dy), np.arctan2(dy, dx)
    region = np.zeros_like(x)
    angle, gap = turn.copy(), 8.0 + 9.0 * d
    beam = 0.5 + 0.5 * np.cos(turn * 14 + 0.6)
    tone = 0.48 + 0.50 * beam * smoothstep(0.9, 0.2, d)
    disc = d < SUN[2]
    region[disc] = 1
    angle = np.where(disc, turn + np.pi / 2, angle)
    tone, gap = np.where(disc, 0.62, tone), np.where(disc, 9.0, gap)
    for number, (cx, cy, r) in enumerate(CLOUDS):
        e = np.hypot((x - cx) * 0.85, y - cy) / r
        puff = e < 1
        region[puff] = 2 + number
        swirl = np.arctan2(y - cy, (x - cx) * 0.85) + np.pi / 2 + 0.35
        angle = np.where(puff, swirl, angle)
        tone = np.where(puff, 0.97 - 0.45 * smoothstep(0.1, 1.0, (y - cy) / r), tone)
        gap = np.where(puff, 9.0, gap)
    return region, angle, tone, gap


def _land(rng: np.random.Generator, x: Array, y: Array, plan: Plan) -> Plan:
    """Adds the peak and the hills at its foot."""
    region, angle, tone, gap = plan
    rough = fbm(rng, x.shape, x.shape[0] * 0.12, 4)
    ridge = (
        PEAK[1]
        + 0.88 * np.abs(x - PEAK[0]) ** 0.86 * (1 - 0.28 * np.abs(x - PEAK[0]))
        + 0.020 * rough
    )
    peak = y > ridge
    side = x - PEAK[0] - 0.05 * np.sin(y * 22) - 0.06 * rough
    fall = np.arctan2(y - PEAK[1] + 0.06, x - PEAK[0]) + 0.55 * rough
    snow = y < PEAK[1] + 0.15 + 0.05 * np.sin(x * 70) + 0.04 * rough
    light = np.clip(0.12 + 0.78 * smoothstep(-0.02, 0.05, side) + 0.25 * rough, 0.06, 0.9)
    light = np.where(snow, np.where(side > -0.01, 1.0, 0.62), light)
    region = np.where(peak, 30, region)
    angle, tone = np.where(peak, fall, angle), np.where(peak, light, tone)
    gap = np.where(peak, 9.5, gap)
    for number, (base, lift, phase, speed) in enumerate(
        ((0.55, 0.045, 0.3, 9.0), (0.60, 0.05, 2.4, 7.0))
    ):
        crest = base - lift * np.sin(x * speed + phase) + 0.012 * rough
        hill = y > crest
        slope = np.arctan(-lift * speed * np.cos(x * speed + phase))
        region = np.where(hill, 31 + number, region)
        bend = slope + 0.9 * np.sign(np.cos(x * speed + phase)) * smoothstep(0.0, 0.12, y - crest)
        angle = np.where(hill, bend + 0.3 * rough, angle)
        tone = np.where(hill, np.clip(0.72 - 5.5 * (y - crest) + 0.2 * rough, 0.12, 1), tone)
        gap = np.where(hill, 8.5, gap)
    return region, angle, tone, gap


def _sea(rng: np.random.Generator, x: Array, y: Array, plan: Plan) -> Plan:
    """Adds rows of waves that steepen and grow toward the viewer."""
    region, angle, tone, gap = plan
    rough = fbm(rng, x.shape, x.shape[0] * 0.10, 4)
    rows = (
        (0.645, 0.022, 21.0, 0.2),
        (0.70, 0.038, 14.5, 1.7),
        (0.775, 0.058, 10.5, 3.9),
        (0.875, 0.075, 8.3, 0.4),
        (0.985, 0.06, 7.2, 2.6),
    )
    for number, (base, lift, speed, phase) in enumerate(rows):
        # Bending the phase by the height leans the crests over to the right.
        arg = x * speed + phase - 16 * lift * np.clip(1 - (y - base + lift) / (2 * lift), 0, 1)
        crest = base - lift * (2 * (0.5 + 0.5 * np.sin(arg)) ** 1.6 - 1) + 0.006 * rough
        wave = y > crest
        depth = y - crest
        slope = np.arctan(-lift * speed * np.cos(arg) * 1.3)
        region = np.where(wave, 40 + number, region)
        angle = np.where(
            wave, slope * (1 - 0.45 * smoothstep(0, 0.14, depth)) + 0.35 * rough, angle
        )
        foam = smoothstep(0.055, 0.020, depth / (0.35 + 10 * lift))
        stripe = 0.5 + 0.5 * np.sin(depth * 120 / (0.5 + 9 * lift) + 2.5 * rough)
        tone = np.where(
            wave,
            np.clip(0.20 + 0.85 * foam + 0.55 * stripe * (np.cos(arg + 0.6) > -0.3), 0.08, 1),
            tone,
        )
        gap = np.where(wave, 8.0 + 3.0 * number / 4, gap)
    return region, angle, tone, gap


def _outline(region: Array) -> Array:
    """The key lines left standing between regions, thicker here and thinner there."""
    change = np.zeros(region.shape, np.float32)
    for axis in (0, 1):
        change[np.roll(region, 1, axis) != region] = 1
    change[:2], change[:, :2] = 0, 0
    swell = 1 + 0.35 * np.sin(np.arange(SIZE, dtype=np.float32) / 37)[None]
    return smoothstep(0.07, 0.15, blur(change, 2) * swell)


class _Block:
    """The wood: where it may still be cut, and the cuts made so far."""

    def __init__(self, plan: Plan) -> None:
        self.region, angle, self.tone, self.gap = plan
        self.cosine, self.sine = np.cos(angle), np.sin(angle)
        self.line = _outline(self.region)
        self.taken = self.line > 0.5
        self.image = Image.new("L", (SIZE * ZOOM, SIZE * ZOOM), 0)
        self.draw = ImageDraw.Draw(self.image)

    def follow(self, x: float, y: float, way: int, limit: int) -> list[tuple[float, float]]:
        """Traces one half of a cut until it meets an edge or an older cut."""
        home, points = self.region[int(y), int(x)], []
        for _ in range(limit):
            px, py = int(x), int(y)
            x, y = x + way * 2 * float(self.cosine[py, px]), y + way * 2 * float(self.sine[py, px])
            if not (0 <= x < SIZE and 0 <= y < SIZE):
                break
            if self.taken[int(y), int(x)] or self.region[int(y), int(x)] != home:
                break
            points.append((x, y))
        return points

    def claim(self, points: Array, room: float) -> None:
        """Marks the wood on both sides of a cut as used."""
        r = max(2, round(room * 0.70))
        yy, xx = np.mgrid[-r : r + 1, -r : r + 1]
        disc_y, disc_x = (v[(yy * yy + xx * xx) <= r * r] for v in (yy, xx))
        py = np.clip(points[:, 1].astype(int)[:, None] + disc_y, 0, SIZE - 1)
        px = np.clip(points[:, 0].astype(int)[:, None] + disc_x, 0, SIZE - 1)
        self.taken[py, px] = True

    def cut(self, points: Array, rng: np.random.Generator) -> None:
        """Drives a gouge along the points: a sharp entry, a swell, a blunt lift."""
        t = np.linspace(0, 1, len(points))
        if rng.random() < 0.5:
            t = t[::-1]
        px, py = points[:, 0].astype(int), points[:, 1].astype(int)
        bite = np.sqrt(np.minimum(t / 0.55, 1)) * np.minimum((1 - t) / 0.10, 1) ** 0.5
        width = self.gap[py, px] * np.clip(self.tone[py, px] * 1.0, 0.10, 1) * bite
        width = width * rng.uniform(0.85, 1.08) + rng.normal(0, 0.16, len(t))
        half = np.convolve(np.maximum(width, 0.2), np.ones(3) / 3, "same")[:, None] / 2
        step = np.gradient(points, axis=0)
        side = np.stack([-step[:, 1], step[:, 0]], 1) / (np.hypot(*step.T)[:, None] + 1e-6)
        outline = np.concatenate([points + side * half, (points - side * half)[::-1]]) * ZOOM
        self.draw.polygon([(float(a), float(b)) for a, b in outline], fill=255)


def _carve(rng: np.random.Generator, plan: Plan) -> Array:
    """Fills the block with cuts at the planned spacing; 1 is wood cut away."""
    block = _Block(plan)
    for sx, sy in rng.uniform(0, SIZE, (26000, 2)):
        if block.taken[int(sy), int(sx)]:
            continue
        limit = int(rng.uniform(14, 34))
        points = np.array(
            block.follow(sx, sy, -1, limit)[::-1] + [(sx, sy)] + block.follow(sx, sy, 1, limit),
            np.float64,
        )
        room = float(block.gap[int(sy), int(sx)])
        if len(points) < 4:
            continue
        block.claim(points, room)
        block.cut(points, rng)
    wood = block.image.resize((SIZE, SIZE), Image.Resampling.BOX)
    return np.asarray(wood, np.float32) / 255 * (1 - block.line)


def woodcut() -> Array:
    """Carves and prints the block.

    Returns:
        Display values, rows by columns by three.
    """
    rng = np.random.default_rng(1831)
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / SIZE
    plan = _sea(rng, x, y, _land(rng, x, y, _sky(x, y)))
    cut = _carve(rng, plan)
    grain = fbm(rng, (SIZE, SIZE), (5, 260), 4, 0.7)
    fibre, mottle = fbm(rng, (SIZE, SIZE), (40, 14), 5, 0.7), fbm(rng, (SIZE, SIZE), 5, 3, 0.8)
    paper = np.array(PAPER) * (1 + 0.05 * fibre + 0.03 * mottle)[..., None]
    region = plan[0]
    red = np.where(region == 1, 1.0, 0.0)
    red = np.maximum(
        red,
        (region == 0)
        * smoothstep(0.62, 0.30, y)
        * smoothstep(0.55, 0.12, np.hypot(x - SUN[0], y - SUN[1]))
        * 0.9,
    )
    red = np.maximum(red, ((region == 31) | (region == 32)) * 0.55)
    red = np.roll(blur(red.astype(np.float32), 1), (2, -2), (0, 1))  # the second block never fits
    first = mix(
        paper,
        paper * np.array(RED) * 1.08,
        np.clip(red * (0.93 + 0.30 * grain + 0.18 * mottle), 0, 1),
    )
    ink = smoothstep(0.62, 0.38, cut + 0.10 * mottle)
    worn = np.clip(0.97 - 0.32 * smoothstep(0.12, 0.62, grain + 0.35 * mottle), 0, 1)
    return np.clip(mix(first, np.array(INK) * (1 + 0.4 * mottle)[..., None], ink * worn), 0, 1)
