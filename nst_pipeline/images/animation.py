"""How a picture came about: its snapshots, as files and as one animation."""

import io
from pathlib import Path, PurePath

from PIL import Image

from nst_pipeline.config.settings import OutputSettings
from nst_pipeline.files import fitted_name

FRAMES = 30
"""Of an animation, if nobody says how many snapshots to take."""
LONGEST_SIDE = 640
"""Of an animation, in pixels; the snapshots themselves are as large as they were."""
FRAME_MS, LAST_FRAME_MS = 100, 2000

Frames = list[tuple[int, Image.Image]]
"""Unfinished pictures with the steps done by then."""


def snapshot_steps(settings: OutputSettings, steps: int) -> int:
    """Return after how many steps a snapshot is due; 0: never.

    Args:
        settings: say what is wanted.
        steps: that the whole work takes.
    """
    if settings.snapshots or settings.making == "none":
        return settings.snapshots
    return max(1, steps // FRAMES)


def animate(frames: Frames, result: Image.Image, kind: str) -> bytes:
    """Return an animated GIF or WebP that ends with the result.

    Args:
        frames: what came before it, of any size.
        result: the finished picture.
        kind: ``gif`` or ``webp``.
    """
    scale = min(1.0, LONGEST_SIDE / max(result.size))
    width, height = (max(1, round(side * scale)) for side in result.size)
    pictures = [
        picture.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
        for picture in (*(picture for _, picture in frames), result)
    ]
    durations = [FRAME_MS] * len(frames) + [LAST_FRAME_MS]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer, kind, save_all=True, append_images=pictures[1:], duration=durations, loop=0
    )
    return buffer.getvalue()


def extra_path(output: Path, suffix: str) -> Path:
    """Return the path of a file that goes with a result: ``photo-ink`` and ``.gif``, say.

    Args:
        output: the result.
        suffix: what follows its stem; one such as ``.steps/00010.png`` lies in a folder.
    """
    first, *rest = PurePath(suffix).parts
    return output.parent.joinpath(fitted_name(output.stem, first), *rest)
