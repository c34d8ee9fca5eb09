"""Colours of whole pictures: their luminance, and one picture's colours given to another.

Everything takes and gives (1, 3, H, W) or (B, 3, H, W), float32. An ``alpha`` (1, 1, H, W) says how
much each pixel counts; None: all count alike.
"""

import torch
from torch import Tensor

from nst_pipeline.engine.devices import in_float64

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luminance (ITU-R BT.601)."""

SMALLEST_VARIANCE = 1e-5

Moments = tuple[Tensor, Tensor]
"""Mean (3,) and covariance (3, 3) of a picture's colours, float64."""


def grey(pixels: Tensor) -> Tensor:
    """Return the luminance in all three channels."""
    weights = torch.tensor(LUMA, device=pixels.device).view(1, 3, 1, 1)
    return (pixels * weights).sum(1, keepdim=True).expand_as(pixels).contiguous()


def with_colours_of(pixels: Tensor, source: Tensor) -> Tensor:
    """Return the luminance of ``pixels`` with the colours (YIQ's I and Q) of ``source``.

    Adding the difference of the luminances to all channels leaves I and Q as they are.
    """
    return (source + grey(pixels) - grey(source)).clamp(0, 1)


def match_luminance(
    pixels: Tensor,
    reference: Tensor,
    alpha: Tensor | None = None,
    reference_alpha: Tensor | None = None,
) -> Tensor:
    """Return grey ``pixels`` with mean and deviation of ``reference`` (Gatys et al. 2016a, 5.1)."""
    pixels = grey(pixels)
    deviation, mean = _spread(pixels, alpha)
    wanted_deviation, wanted_mean = _spread(grey(reference), reference_alpha)
    scaled = (pixels - mean) * (wanted_deviation / deviation.clamp_min(1e-4))
    return (scaled + wanted_mean).clamp(0, 1)


def match_colours(pixels: Tensor, wanted: Moments, alpha: Tensor | None = None) -> Tensor:
    """Return ``pixels`` with a mean and covariance of colours (Gatys et al. 2016a, eq. 6).

    The linear map is the symmetric one, Cs^(-1/2) (Cs^(1/2) Cr Cs^(1/2))^(1/2) Cs^(-1/2): of all
    that match the covariances it moves the colours least.
    """
    mean, covariance = moments(pixels, alpha)
    wanted_mean, wanted_covariance = (one.to(mean) for one in wanted)
    root, inverse = _power(covariance, 0.5), _power(covariance, -0.5)
    change = (inverse @ _power(root @ wanted_covariance @ root, 0.5) @ inverse).to(pixels)
    flat = pixels.permute(0, 2, 3, 1) - mean.to(pixels)
    return (flat @ change.T + wanted_mean.to(pixels)).permute(0, 3, 1, 2).clamp(0, 1).contiguous()


def moments(pixels: Tensor, alpha: Tensor | None = None) -> Moments:
    """Return the mean colour (3,) and the covariance (3, 3), float64."""
    flat = in_float64(pixels.permute(0, 2, 3, 1).reshape(-1, 3))
    if alpha is None:
        mean = flat.mean(0)
        covariance = (flat - mean).T @ (flat - mean) / len(flat)
    else:
        alpha = in_float64(alpha)
        shares = (alpha / alpha.sum()).reshape(-1, 1)
        mean = (shares * flat).sum(0)
        covariance = (shares * (flat - mean)).T @ (flat - mean)
    return mean, covariance + SMALLEST_VARIANCE * torch.eye(3).to(covariance)


def _spread(pixels: Tensor, alpha: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the deviation and the mean of grey pixels."""
    if alpha is None:
        return torch.std_mean(pixels)
    shares, values = alpha / alpha.sum(), pixels[:, :1]
    mean = (shares * values).sum()
    return (shares * (values - mean).square()).sum().sqrt(), mean


def _power(matrix: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    power: Tensor = vectors @ torch.diag(values.clamp_min(1e-12) ** exponent) @ vectors.T
    return power
