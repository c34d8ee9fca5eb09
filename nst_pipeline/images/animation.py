"""Snapshots of a picture in the making, and the animation of them."""

import io
from pathlib import Path, PurePath

from PIL import Image

from nst_pipeline.config.settings import OutputSettings
from nst_pipeline.files import fitted_name
from nst_pipeline.images.colour import in_grey

FRAMES = 30
"""Snapshots that an animation takes where the settings do not say how often."""
LONGEST_SIDE = 640
"""Of an animation, in pixels; snapshots that are files of their own keep their size."""
FRAME_MS, LAST_FRAME_MS = 100, 2000

Frames = list[tuple[int, Image.Image]]
"""Snapshots, each with the steps done by then."""


def snapshot_steps(settings: OutputSettings, steps: int) -> int:
    """Return how many steps lie between two snapshots; 0: none are taken.

    Args:
        settings: of the outputs.
        steps: of the whole job.
    """
    if settings.snapshots or settings.making == "none":
        return settings.snapshots
    return max(1, steps // FRAMES)


def animate(frames: Frames, result: Image.Image, kind: str, is_grey: bool = False) -> bytes:
    """Return an animated GIF or WebP that ends with the result.

    Args:
        frames: the snapshots before it, of any size.
        result: the finished picture.
        kind: ``gif`` or ``webp``.
        is_grey: whether only the luminance is shown.
    """
    scale = min(1.0, LONGEST_SIDE / max(result.size))
    width, height = (max(1, round(side * scale)) for side in result.size)
    pictures = [
        picture.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
        for picture in (*(picture for _, picture in frames), result)
    ]
    if is_grey:
        pictures = [in_grey(picture) for picture in pictures]
    durations = [FRAME_MS] * len(frames) + [LAST_FRAME_MS]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer, kind, save_all=True, append_images=pictures[1:], duration=durations, loop=0
    )
    return buffer.getvalue()


def extra_path(output: Path, suffix: str) -> Path:
    """Return the path of a file that goes with a result, such as ``photo-ink`` and ``.gif``.

    Args:
        output: the result.
        suffix: what follows its stem; one such as ``.steps/00010.png`` lies in a folder.
    """
    first, *rest = PurePath(suffix).parts
    return output.parent.joinpath(fitted_name(output.stem, first), *rest)
