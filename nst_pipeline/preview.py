"""Previews: small paintings of contents in styles and recipes, as the cells of a sheet."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from nst_pipeline import __version__, inbox
from nst_pipeline.config import Config
from nst_pipeline.decoding import decode, to_depth
from nst_pipeline.engine_thread import recipe_digest
from nst_pipeline.errors import (
    CannotCreateError,
    DeviceLostError,
    ImageError,
    PipelineError,
    UnavailableError,
    UsageError,
)
from nst_pipeline.files import shown
from nst_pipeline.recipe import Recipe, digest
from nst_pipeline.weights import Weights

if TYPE_CHECKING:
    from nst_pipeline.engine import StyleTransfer

SOFTWARE = "nst-pipeline preview"
"""How the PNG text ``Software`` of a sheet begins."""

TOGETHER = 8 * 256**2
"""Pixels painted together on a CPU, for which a batch of large pictures needs much memory."""


@dataclass(frozen=True, eq=False)
class Source:
    """A content or a style.

    Attributes:
        name: of the file or the style.
        picture: mode RGB, or RGBA if something is transparent; None: it cannot be read.
        reason: why it has none.
    """

    name: str
    picture: Image.Image | None
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Spot:
    """A picture to paint: the content's number, the style's name, and the recipe."""

    content: int
    style: str
    recipe: Recipe

    @functools.cached_property
    def key(self) -> str:
        """What decides the pixels."""
        return digest([self.content, self.style, self.recipe.pixels()])


@dataclass(frozen=True, eq=False)
class Painted:
    """What became of a spot: a picture, or the reason why there is none."""

    picture: Image.Image | None
    reason: str = ""


OnStep = Callable[[Spot, int, float], None]
"""Takes a spot, the steps done, and the best loss so far."""


def read_source(path: Path, name: str, config: Config) -> Source:
    """Decode a picture, or say why that is impossible."""
    try:
        data = inbox.read(path, config.limits.max_bytes)
        decoded = decode(data, shown(path), config.limits.max_pixels)
    except ImageError as error:
        return Source(name, None, str(error))
    alpha = None if decoded.alpha is None else Image.fromarray(to_depth(decoded.alpha, 8))
    return Source(name, veiled(Image.fromarray(to_depth(decoded.pixels, 8)), alpha))


def paint(
    spots: list[Spot],
    contents: list[Source],
    styles: dict[str, Source],
    config: Config,
    network: Weights,
    on_step: OnStep,
    check: Callable[[], None],
) -> dict[str, Painted]:
    """Paint every spot, those of one content with equal recipes together.

    Whatever goes wrong with a picture is its reason, and stops no other.

    Args:
        spots: what to paint; equal ones are painted once.
        contents: by number.
        styles: by name.
        config: says where and how to paint; its folders are left alone.
        network: the weights.
        on_step: told of the progress.
        check: called before each step; whatever it raises ends everything.

    Returns:
        What became of each spot, by its key.

    Raises:
        UnavailableError: no such device or weights.
        DeviceLostError: the device broke.
    """
    from nst_pipeline.engine import StyleTransfer, TargetCache

    targets = TargetCache(None, config.limits.cache_bytes)
    painted: dict[str, Painted] = {}
    groups: dict[tuple[int, str], list[Spot]] = {}
    for spot in {spot.key: spot for spot in spots}.values():
        if wrong := contents[spot.content].reason or styles[spot.style].reason:
            painted[spot.key] = Painted(None, wrong)
        else:
            groups.setdefault((spot.content, recipe_digest(spot.recipe)), []).append(spot)
    for group in groups.values():
        try:
            transfer = StyleTransfer(
                group[0].recipe, config.device, config.precision, network, targets
            )
            transfer.batch = batch_for(config, group[0].recipe, transfer.batch)
            results = _paint_group(transfer, group, contents, styles, on_step, check)
        except (DeviceLostError, UnavailableError):
            raise
        except PipelineError as error:
            results = [Painted(None, str(error))] * len(group)
        except Exception as error:  # noqa: BLE001 - one bad picture must not stop the others
            results = [Painted(None, f"{type(error).__name__}: {error}")] * len(group)
        painted |= dict(zip((spot.key for spot in group), results, strict=True))
    return painted


def batch_for(config: Config, recipe: Recipe, usual: int) -> int:
    """Return how many styles to paint together: small pictures go together on a CPU, too."""
    if config.limits.batch != "auto":
        return config.limits.batch
    return max(usual, TOGETHER // recipe.size**2) if recipe.size != "original" else usual


def _paint_group(
    transfer: StyleTransfer,
    group: list[Spot],
    contents: list[Source],
    styles: dict[str, Source],
    on_step: OnStep,
    check: Callable[[], None],
) -> list[Painted]:
    content = contents[group[0].content].picture
    chosen = [styles[spot.style].picture for spot in group]
    assert content
    results = transfer.run(
        content.convert("RGB"),
        [style.convert("RGB") for style in chosen if style],
        on_step=lambda index, done, loss: on_step(group[index], done, loss),
        check=check,
    )
    alpha = content.getchannel("A") if content.mode == "RGBA" else None
    return [Painted(veiled(result.pastiche, alpha)) for result in results]


def veiled(picture: Image.Image, alpha: Image.Image | None) -> Image.Image:
    """Return an RGB picture with the transparency of ``alpha`` (mode L, any size), if given."""
    if alpha is None:
        return picture
    picture = picture.copy()
    picture.putalpha(alpha.resize(picture.size))
    return picture


def small(picture: Image.Image, size: int) -> Image.Image:
    """Return a picture scaled so that its longer side has ``size`` pixels."""
    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def check_target(path: Path, config: Config, sources: list[Path], force: bool) -> None:
    """See that a sheet may be written to ``path``.

    Raises:
        UsageError: it is no PNG file's name, lies in the inbox, or is a picture to be read.
        CannotCreateError: something else than a sheet has that name.
    """
    if path.suffix.lower() != ".png":
        raise UsageError(f"--output {shown(path)}: a sheet is a PNG file; give a name with .png")
    real = path.resolve()
    if real.is_relative_to(config.inbox.resolve()):
        raise UsageError(
            f"--output {shown(path)}: lies in the inbox, where it would be painted; "
            "name another place with -o"
        )
    if real in {source.resolve() for source in sources}:
        raise UsageError(f"--output {shown(path)}: is one of the pictures; give another name")
    if path.is_dir():
        raise CannotCreateError(f"{shown(path)}: is a folder; give a file's name with -o")
    if path.exists() and not force and not is_sheet(path):
        raise CannotCreateError(
            f"{shown(path)}: exists and is no preview; give another name with -o, or replace it "
            "with --force"
        )


def is_sheet(path: Path) -> bool:
    """Tell whether a file is a sheet made by this program."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return str(image.info.get("Software", "")).startswith(SOFTWARE)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def software() -> str:
    """Return what a sheet names as its maker."""
    return f"{SOFTWARE} {__version__}"
