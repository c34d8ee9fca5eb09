"""Pictures made small, for pages to show."""

import io

from PIL import Image

from nst_pipeline.images.decoding import Decoded, decode, to_depth

GLIMPSE_QUALITY, THUMBNAIL_QUALITY = 88, 82


def as_picture(decoded: Decoded) -> Image.Image:
    """Return what was decoded as 8-bit RGB, with its alpha if it has some."""
    picture = Image.fromarray(to_depth(decoded.pixels, 8))
    if decoded.alpha is not None:
        picture.putalpha(Image.fromarray(to_depth(decoded.alpha, 8)))
    return picture


def as_jpeg(picture: Image.Image) -> bytes:
    """Return an opaque picture as JPEG: quickly made, and gone after a look."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=GLIMPSE_QUALITY, subsampling=0)
    return buffer.getvalue()


def thumbnail(data: bytes, name: str, max_pixels: int, side: int) -> bytes:
    """Return an image file as WebP, with its alpha, that is no larger than it is and than ``side``.

    Args:
        data: the whole file.
        name: of the file, for messages.
        max_pixels: refused above this, before any pixel is decoded.
        side: the longer side, at most, in pixels.

    Raises:
        ImageError: not an image, cut short, damaged or too large.
    """
    picture = as_picture(decode(data, name, max_pixels))
    picture.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=THUMBNAIL_QUALITY)
    return buffer.getvalue()
