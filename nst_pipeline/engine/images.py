"""PIL images to tensors and back. The only module here that meets PIL's (width, height)."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def fit(image: Image.Image, size: int) -> Image.Image:
    """Return ``image`` scaled so that its longer side has ``size`` pixels (Lanczos).

    Sides never become shorter than 32 pixels, which the five poolings of VGG-19 need.
    """
    scale = size / max(image.size)
    width, height = (max(32, round(side * scale)) for side in image.size)
    if (width, height) == image.size:
        return image
    return image.resize((width, height), Image.Resampling.LANCZOS)


def to_tensor(image: Image.Image) -> Tensor:
    """Return an image as a (1, 3, H, W) float32 tensor in [0, 1]."""
    pixels = torch.from_numpy(np.array(image.convert("RGB")))
    return pixels.permute(2, 0, 1)[None].contiguous().float() / 255


def to_image(pixels: Tensor) -> Image.Image:
    """Return a (1, 3, H, W) or (3, H, W) tensor as an 8-bit image, clamped to [0, 1]."""
    return Image.fromarray(quantise(pixels).to("cpu").numpy())


def quantise(pixels: Tensor) -> Tensor:
    """Return pixels as an image file holds them: (H, W, 3), uint8."""
    pixels = pixels.detach().reshape(pixels.shape[-3:])
    return (pixels.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)
