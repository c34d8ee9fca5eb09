"""Noise, sampling, blurring and saving shared by the sample pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

Array = NDArray[np.float32]


def smoothstep(low: float, high: float, x: ArrayLike) -> Array:
    """Returns the cubic ramp from 0 at ``low`` to 1 at ``high``."""
    t = np.clip((np.asarray(x, np.float32) - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def mix(a: ArrayLike, b: ArrayLike, t: ArrayLike) -> Array:
    """Blends colour ``a`` into colour ``b``; ``t`` has one value a pixel, and no channels."""
    first, second = np.asarray(a, np.float32), np.asarray(b, np.float32)
    return np.asarray(first + (second - first) * np.asarray(t, np.float32)[..., None], np.float32)


def normalise(v: Array) -> Array:
    """Scales vectors along the last axis to unit length."""
    length = np.sqrt((v * v).sum(-1, keepdims=True))
    return np.asarray(v / np.maximum(length, 1e-9), np.float32)


def resize(image: Array, width: int, height: int) -> Array:
    """Resamples a single-channel float image."""
    picture = Image.fromarray(np.asarray(image, np.float32))
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC), np.float32)


def fbm(
    rng: np.random.Generator,
    shape: tuple[int, int],
    scale: float | tuple[float, float],
    octaves: int = 5,
    gain: float = 0.5,
    ridged: bool = False,
) -> Array:
    """Fractal noise of about zero mean and unit range.

    Args:
        rng: Where the lattice values come from.
        shape: Rows and columns.
        scale: Size in pixels of the largest features, or sizes down and across.
        octaves: How many doublings of frequency.
        gain: Amplitude ratio from one octave to the next.
        ridged: Folds every octave, which makes crests instead of hills.

    Returns:
        The noise field.
    """
    rows, cols = shape
    down, across = scale if isinstance(scale, tuple) else (scale, scale)
    total, weight, amplitude = np.zeros(shape, np.float32), 0.0, 1.0
    for octave in range(octaves):
        cell_y, cell_x = max(down / 2**octave, 1.0), max(across / 2**octave, 1.0)
        grid_h, grid_w = int(np.ceil(rows / cell_y)) + 2, int(np.ceil(cols / cell_x)) + 2
        lattice = rng.uniform(-1, 1, (grid_h, grid_w)).astype(np.float32)
        layer = resize(lattice, round(grid_w * cell_x), round(grid_h * cell_y))
        y0, x0 = round(cell_y * 0.7), round(cell_x * 0.7)
        layer = layer[y0 : y0 + rows, x0 : x0 + cols]
        if ridged:
            layer = 1 - 2.4 * np.abs(layer)
        total += amplitude * layer
        weight += amplitude
        amplitude *= gain
    return np.asarray(total / weight, np.float32)


def sample(image: Array, x: Array, y: Array) -> Array:
    """Bilinear look-up at pixel coordinates, clamped at the borders."""
    rows, cols = image.shape[:2]
    x, y = np.clip(x, 0, cols - 1.001), np.clip(y, 0, rows - 1.001)
    x0, y0 = x.astype(np.int32), y.astype(np.int32)
    fx, fy = (x - x0).astype(np.float32), (y - y0).astype(np.float32)
    if image.ndim == 3:
        fx, fy = fx[..., None], fy[..., None]
    top = image[y0, x0] * (1 - fx) + image[y0, x0 + 1] * fx
    low = image[y0 + 1, x0] * (1 - fx) + image[y0 + 1, x0 + 1] * fx
    return np.asarray(top * (1 - fy) + low * fy, np.float32)


def blur(image: Array, radius: float, axes: tuple[int, ...] = (0, 1)) -> Array:
    """Three box passes along each axis, close to a Gaussian of that radius."""
    half = max(1, round(radius))
    for axis in axes * 3:
        pad = [(0, 0)] * image.ndim
        pad[axis] = (half + 1, half)
        total = np.cumsum(np.pad(image, pad, mode="edge"), axis=axis, dtype=np.float64)
        span = 2 * half + 1
        upper = np.take(total, range(span, total.shape[axis]), axis)
        lower = np.take(total, range(total.shape[axis] - span), axis)
        image = np.asarray((upper - lower) / span, np.float32)
    return image


def relight(height: Array, light: tuple[float, float, float], strength: float) -> Array:
    """Diffuse light, 1 on flat ground, over a height field given in pixels."""
    dy, dx = np.gradient(height * strength)
    lx, ly, lz = np.asarray(light) / np.linalg.norm(light)
    shade = (-dx * lx - dy * ly + lz) / np.sqrt(dx * dx + dy * dy + 1) / lz
    return np.asarray(np.maximum(shade, 0), np.float32)


def shrink(image: Array, width: int, height: int) -> Array:
    """Averages a supersampled colour image down to its final size."""
    layers = [Image.fromarray(np.ascontiguousarray(image[..., c])) for c in range(3)]
    small = [layer.resize((width, height), Image.Resampling.BOX) for layer in layers]
    return np.stack([np.asarray(layer, np.float32) for layer in small], -1)


def grade(linear: Array, exposure: float = 1.0) -> Array:
    """Filmic curve from linear light to display values between 0 and 1."""
    x = np.maximum(linear * exposure, 0)
    return np.asarray((x * (2.51 * x + 0.03)) / (x * (2.43 * x + 0.59) + 0.14), np.float32).clip(
        0, 1
    ) ** np.float32(1 / 2.2)


def save(image: Array, path: Path, quality: int = 89) -> None:
    """Writes display values between 0 and 1 as a JPEG."""
    data = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(data).save(path, quality=quality, subsampling="4:2:0", optimize=True)
