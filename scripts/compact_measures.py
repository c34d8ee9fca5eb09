"""Model-free measures of a pastiche: numpy and Pillow only, no network that could be tuned to.

Each is blind to something, so read them together and look at the picture:

- `coherence` sees strokes, but not whether the colours are the style's; a blurred picture, or one
  that copies a few patches of the style over and over, scores well.
- `marginals` sees colours and the histograms of linear filters, but no strokes: noise with the
  right spectrum is perfect to it, and random networks do best on it.
- `content_similarity` sees where the content's edges are, but neither its colours nor its meaning.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float32]

LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


def fit(image: Image.Image, size: int) -> Image.Image:
    """Return an image in RGB, its longer side scaled to `size` pixels."""
    scale = size / max(image.size)
    width, height = (round(side * scale) for side in image.size)
    return image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)


def _octave(image: Image.Image, octave: int) -> Array:
    """Return the picture shrunk `octave` times by two, (H, W, 3) in [0, 1]."""
    size = (max(16, image.width >> octave), max(16, image.height >> octave))
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS), np.float32) / 255


def _patches(picture: Array, side: int, count: int, rng: np.random.Generator) -> Array:
    """Return at most `count` square patches drawn from a picture, (N, 3 * side * side)."""
    views = np.lib.stride_tricks.sliding_window_view(picture, (side, side), axis=(0, 1))
    views = views.reshape(-1, 3 * side * side)
    if count < len(views):
        views = views[rng.integers(0, len(views), count)]
    return views.astype(np.float32)


def _centred(patches: Array) -> Array:
    """Take each colour channel's mean off each patch."""
    channels = patches.reshape(len(patches), 3, -1)
    return (channels - channels.mean(2, keepdims=True)).reshape(len(patches), -1)


def coherence(pastiche: Image.Image, style: Image.Image) -> float:
    """Return how well patches of the style explain patches of the pastiche; 1 is a copy.

    Over three octaves: one minus the squared distance of a patch (7 or 9 pixels, mean colour taken
    off) to its nearest neighbour among the style's, as a share of the patches' energy.
    """
    shares = []
    for side, octave in ((7, 0), (9, 1), (9, 2)):
        rng = np.random.default_rng(0)
        queries = _centred(_patches(_octave(pastiche, octave), side, 1500, rng))
        known = _centred(_patches(_octave(style, octave), side, 20000, rng))
        energy = np.square(queries).sum(1)
        distances = energy[:, None] + np.square(known).sum(1) - 2 * queries @ known.T
        shares.append(1 - np.maximum(distances, 0).min(1).sum() / energy.sum())
    return float(np.mean(shares))


def marginals(pastiche: Image.Image, style: Image.Image) -> float:
    """Return the sliced Wasserstein-1 distance of 7 x 7 patches, the mean of three octaves."""
    distances = []
    for octave in range(3):
        rng = np.random.default_rng(octave)
        slices = rng.normal(size=(147, 128)).astype(np.float32)
        slices /= np.linalg.norm(slices, axis=0)
        p, q = (_patches(_octave(image, octave), 7, 20000, rng) for image in (pastiche, style))
        n = min(len(p), len(q))
        gaps = np.sort(p[:n] @ slices, 0) - np.sort(q[:n] @ slices, 0)
        distances.append(np.abs(gaps).mean())
    return float(np.mean(distances))


def content_similarity(content: Image.Image, pastiche: Image.Image) -> float:
    """Return the correlation of the luminance gradients' magnitudes, the mean of two octaves."""
    pastiche = pastiche.resize(content.size, Image.Resampling.LANCZOS)
    correlations = []
    for octave in (1, 2):
        edges = [
            np.hypot(*np.gradient(_octave(image, octave) @ LUMINANCE)).ravel()
            for image in (content, pastiche)
        ]
        correlations.append(np.corrcoef(*edges)[0, 1])
    return float(np.mean(correlations))
