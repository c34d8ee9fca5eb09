"""Thick, swirling oil paint: layers of bristled strokes, lit from the upper left."""

from __future__ import annotations

import numpy as np

from .common import Array, blur, fbm, mix, relight, resize, sample, shrink, smoothstep
from .strokes import swirl, trace

SIZE, ZOOM = 672, 2
COOL = np.array(
    [
        [0.03, 0.05, 0.20],
        [0.05, 0.13, 0.42],
        [0.11, 0.33, 0.66],
        [0.25, 0.60, 0.72],
        [0.74, 0.86, 0.74],
    ]
)
WARM = np.array(
    [
        [0.26, 0.06, 0.09],
        [0.68, 0.20, 0.07],
        [0.92, 0.50, 0.08],
        [0.98, 0.78, 0.24],
        [1.0, 0.95, 0.70],
    ]
)
EARTH = np.array(
    [
        [0.03, 0.09, 0.14],
        [0.05, 0.24, 0.22],
        [0.22, 0.43, 0.20],
        [0.62, 0.62, 0.20],
        [0.93, 0.84, 0.48],
    ]
)
# Whirls as x, y, radius and turn, in fractions of the side.
WHIRLS = [
    (0.37, 0.33, 0.24, 1),
    (0.86, 0.17, 0.14, -1),
    (0.69, 0.61, 0.17, -1),
    (0.12, 0.70, 0.15, -1),
    (0.42, 0.88, 0.13, 1),
    (0.95, 0.90, 0.15, 1),
]
# Width and length of the strokes of each pass, in final pixels, and how many there are.
PASSES = ((44, 160, 620), (30, 130, 1000), (19, 95, 1500), (11, 52, 900))


def _ramp(palette: Array, t: Array) -> Array:
    place = np.clip(t, 0, 0.9999) * (len(palette) - 1)
    low = place.astype(int)
    return mix(palette[low], palette[low + 1], place - low)


def _streaks(rng: np.random.Generator, angle: Array) -> Array:
    """Noise smeared along the flow: bands of light and dark that strokes can follow."""
    small = angle.shape[0] // 8
    field = angle[::8, ::8]
    noise = fbm(rng, (small, small), 11, 2)
    y, x = (v.ravel().astype(np.float32) for v in np.mgrid[0:small, 0:small])
    total = np.zeros(small * small, np.float32)
    for way in (0.0, np.pi):
        xs, ys = trace(np.asarray(field + way, np.float32), x, y, 26, 1.0)
        total += sample(noise, xs, ys).mean(1)
    band = total.reshape(small, small)
    band = (band - band.mean()) / band.std()
    return resize(band, angle.shape[1], angle.shape[0])


def _plan(rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    """The picture the painter has in mind: flow angles and colours."""
    y, x = np.mgrid[0:n, 0:n].astype(np.float32) / n
    base = 0.35 + 1.5 * fbm(rng, (n, n), n * 0.6, 2)
    angle = swirl((n, n), [(cx * n, cy * n, r * n, turn) for cx, cy, r, turn in WHIRLS], base)
    band = _streaks(rng, angle)
    region = fbm(rng, (n, n), n * 0.45, 3)
    heart = np.zeros((n, n), np.float32)
    for number, (cx, cy, radius, _) in enumerate(WHIRLS):
        d = np.hypot(x - cx, y - cy) / radius
        heart = np.maximum(heart, np.exp(-(d**2) * 2.2) * (1.0 if number % 3 != 1 else 0.75))
    tone = 0.42 + 0.23 * band + 0.25 * region + 0.20 * heart
    hill = y - 0.76 - 0.12 * np.sin(x * 6.0 + 0.6) - 0.03 * band
    colour = mix(_ramp(COOL, tone), _ramp(EARTH, tone), smoothstep(-0.02, 0.02, hill))
    warm = heart + 0.17 * band + 0.22 * region
    return angle, mix(colour, _ramp(WARM, tone + 0.08), smoothstep(0.36, 0.46, warm))


def _stroke(
    rng: np.random.Generator, width: float, count: int, drag: Array
) -> tuple[Array, Array, Array]:
    """Bristles of one stroke: offsets across, and paint depth and opacity along and across."""
    lanes = max(5, int(width / 0.7))
    across = np.linspace(-1, 1, lanes, dtype=np.float32)
    bristle = rng.normal(0, 1, lanes).astype(np.float32)
    bristle = np.convolve(bristle, [0.25, 0.5, 0.25], "same")
    along = np.linspace(0, 1, count, dtype=np.float32)
    row, col = rng.integers(drag.shape[0] - lanes), rng.integers(drag.shape[1] - count)
    dry = drag[row : row + lanes, col : col + count]
    edge = np.abs(across) ** 4  # paint is pushed out to the sides of the brush
    depth = 0.62 + 0.32 * bristle[:, None] + 0.25 * dry + 0.55 * (edge * (1 - 0.5 * edge))[:, None]
    depth = depth * (0.75 + 0.5 * np.exp(-(((along - 0.93) / 0.06) ** 2)))
    taper = np.minimum(smoothstep(0, 0.08, along), 0.55 + 0.45 * smoothstep(1.0, 0.8, along))
    reach = np.sqrt(np.maximum(1 - across**2 * 0.8, 0))[:, None]
    there = (np.abs(across)[:, None] < taper) & (
        along < 0.80 + 0.20 * reach + 0.05 * bristle[:, None]
    )
    there &= ~((along > 0.62) & (dry + 0.35 * bristle[:, None] < -0.42))
    return across * width / 2, depth.astype(np.float32), there


def _lay(
    rng: np.random.Generator,
    canvas: Array,
    relief: Array,
    path: tuple[Array, Array],
    paint: tuple[Array, Array],
    width: float,
    drag: Array,
) -> None:
    """Puts one stroke on the canvas, colour and relief."""
    n = len(canvas)
    xs, ys = path
    offset, depth, there = _stroke(rng, width, len(xs), drag)
    dx, dy = np.gradient(xs), np.gradient(ys)
    length = np.hypot(dx, dy) + 1e-6
    px = np.rint(xs - dy / length * offset[:, None]).astype(int)
    py = np.rint(ys + dx / length * offset[:, None]).astype(int)
    there &= (px >= 0) & (px < n) & (py >= 0) & (py < n)
    blend = rng.uniform(0, 1, len(offset)) ** 2  # a loaded brush carries two paints side by side
    lane = mix(paint[0], paint[1], np.convolve(blend, np.ones(3) / 3, "same"))
    colour = np.broadcast_to(lane[:, None], (*px.shape, 3)) * (0.90 + 0.14 * depth)[..., None]
    spot = py[there], px[there]
    canvas[spot] = colour[there]
    relief[spot] = 0.45 * relief[spot] + depth[there] * np.float32(0.9 + width * 0.02)


def _mixed(rng: np.random.Generator, plan: Array, x: float, y: float) -> tuple[Array, Array]:
    """The two paints on the brush: the colour planned at a point, and one from nearby."""
    near = rng.normal(0, 40, 2)
    first, other = sample(plan, x + np.array([0, near[0]]), y + np.array([0, near[1]]))
    shift = rng.normal(0, 0.075) + rng.normal(0, 0.045, 3)
    second = 0.5 * (first + other) - 1.5 * shift
    return np.clip(first + shift, 0.02, 1), np.clip(second, 0.02, 1)


def brushwork() -> Array:
    """Paints the canvas.

    Returns:
        Display values, rows by columns by three.
    """
    rng = np.random.default_rng(1853)
    n = SIZE * ZOOM
    angle, plan = _plan(rng, n)
    canvas, relief = plan * np.float32(0.55), np.zeros((n, n), np.float32)
    drag = fbm(rng, (500, 2400), (2.5, 70), 2)
    for width, length, count in PASSES:
        cells = int(np.ceil(np.sqrt(count)))
        grid = rng.permutation(cells * cells)  # one start in every cell leaves no bare patches
        x = ((grid % cells) + rng.uniform(0, 1, cells**2)) * n / cells
        y = ((grid // cells) + rng.uniform(0, 1, cells**2)) * n / cells
        steps = int(length * ZOOM / 0.8)
        xs, ys = trace(angle, x.astype(np.float32) - 0.3 * length, y.astype(np.float32), steps, 0.8)
        for i in range(len(xs)):
            part = int(steps * rng.uniform(0.45, 1))
            paint = _mixed(rng, plan, xs[i, part // 2], ys[i, part // 2])
            broad = width * ZOOM * rng.uniform(0.7, 1.15)
            _lay(rng, canvas, relief, (xs[i, :part], ys[i, :part]), paint, broad, drag)
    relief = blur(relief, 1)
    shade = relight(relief, (-0.6, -0.7, 0.75), 2.6)
    gloss = np.minimum(np.maximum(shade - 1.22, 0), 0.7)
    lit = canvas * (0.40 + 0.60 * np.minimum(shade, 1.6))[..., None]
    lit = lit + gloss[..., None] * np.array([0.22, 0.23, 0.25])
    return shrink(np.clip(lit, 0, 1), SIZE, SIZE)
