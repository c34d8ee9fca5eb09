"""Paints the cells of a sheet: small pictures of contents in styles and recipes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from nst_pipeline import __version__
from nst_pipeline.config.pipeline import Config
from nst_pipeline.config.recipe import Recipe, recipe_digest
from nst_pipeline.config.settings import StyleSettings
from nst_pipeline.config.sizes import crop, painted_size
from nst_pipeline.config.weights import Weights
from nst_pipeline.digests import digest
from nst_pipeline.errors import (
    CannotCreateError,
    ImageError,
    OutOfMemoryError,
    PipelineError,
    UsageError,
)
from nst_pipeline.files import shown
from nst_pipeline.images.apart import try_apart
from nst_pipeline.images.colour import in_grey
from nst_pipeline.images.decoding import Decoded, Pixels, check_need, decode, to_depth
from nst_pipeline.inbox import reading
from nst_pipeline.inbox.companions import (
    by_kind,
    engine_arguments,
    missing_companion,
    used,
    visible,
)
from nst_pipeline.inbox.patience import STYLE_LOOKS_NAME, Patience
from nst_pipeline.inbox.scanner import SourceFile
from nst_pipeline.jobs.looking import as_listed, terms_of
from nst_pipeline.preview.sheet import mosaic

if TYPE_CHECKING:
    from nst_pipeline import engine

SOFTWARE = "nst-pipeline preview"
"""How the PNG text ``Software`` of a sheet begins."""

BATCH_PIXELS = 8 * 256**2
"""Pixels painted together on a CPU, for which a batch of large pictures needs much memory."""

SWATCH_SIDE = 192
"""Longer side of the small pictures beside names; the sheet makes them smaller still."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A content or a style, as the sheet shows it.

    Attributes:
        name: of the file or the style.
        picture: small, mode RGB, or RGBA if something is transparent; None: it cannot be read.
        reason: why it has none.
        companions: kinds of the files beside it.
    """

    name: str
    picture: Image.Image | None
    reason: str = ""
    companions: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class PreviewJob:
    """A picture to paint: the content's number, the style's name, and the recipe."""

    content: int
    style: str
    recipe: Recipe

    @functools.cached_property
    def recipe_digest(self) -> str:
        """The digest of what in the recipe decides the pixels."""
        return recipe_digest(self.recipe)

    @functools.cached_property
    def key(self) -> str:
        """The digest of all that decides the pixels."""
        return digest([self.content, self.style, self.recipe_digest])


@dataclass(frozen=True, eq=False)
class Rendered:
    """What came of a job: a picture, or the reason why there is none."""

    picture: Image.Image | None
    reason: str = ""


OnProgress = Callable[[PreviewJob, int, int], None]
"""Takes a job, the steps done, and those in all."""


class Renderer:
    """Paints contents small, one after the other; what goes wrong with one becomes its reason.

    Attributes:
        styles: what the sheet shows of each style, by name.
        notes: what else is in the files that were read, for people.
    """

    def __init__(
        self,
        config: Config,
        network: Weights,
        size: int,
        on_progress: OnProgress,
        check: Callable[[], None],
    ) -> None:
        """Read the styles.

        Args:
            config: says what styles there are, where and how to paint; its folders are left alone.
            network: the weights.
            size: longer side of what the sheet shows of a content, in pixels.
            on_progress: called every ten steps of a job.
            check: called before each step; any but an ``Exception`` that it raises ends everything.
        """
        from nst_pipeline.engine import TargetCache

        self._config, self._network, self._size = config, network, size
        self._on_progress, self._check = on_progress, check
        self.notes: list[str] = []
        self._terms = terms_of(config.limits)
        self._patience = Patience(
            0,
            config.state / "preview-looks.json",
            also_known=(config.state / STYLE_LOOKS_NAME,),
            is_shared=True,
        )
        self._targets = TargetCache(None, config.limits.cache_bytes)
        self._styles: dict[str, engine.Style | dict[str, engine.Style]] = {}
        read = functools.cache(lambda path: visible(path, self._decode(path, config.root_of(path))))
        self.styles = {n: self._read_style(n, s, read) for n, s in config.styles.items()}

    def paint(
        self, found: SourceFile, jobs: list[PreviewJob]
    ) -> tuple[Subject, dict[str, Rendered]]:
        """Paint a content's jobs, those of equal recipes together.

        Whatever goes wrong with a picture is its reason, and stops no other.

        Args:
            found: the content.
            jobs: what to paint; equal ones are painted once.

        Returns:
            What the sheet shows of the content, and what came of each job, by its key.

        Raises:
            UnavailableError: no such device or weights.
            DeviceLostError: the device broke.
        """
        name, kinds = shown(found.path.name), tuple(one.kind for one in found.companions)
        try:
            content, extras = self._read_content(found)
        except ImageError as error:
            failed = Rendered(None, str(error))
            return Subject(name, None, str(error), kinds), {job.key: failed for job in jobs}
        rendered: dict[str, Rendered] = {}
        groups: dict[str, list[PreviewJob]] = {}
        for job in {job.key: job for job in jobs}.values():
            regions, needs_init = (
                self._config.styles[job.style].sources(),
                job.recipe.init == "image",
            )
            reason = self.styles[job.style].reason
            reason = reason or missing_companion(found.path, regions, needs_init, kinds)
            if reason:
                rendered[job.key] = Rendered(None, reason)
            else:
                groups.setdefault(job.recipe_digest, []).append(job)
        for group in groups.values():
            rendered |= self._paint_group(group, content, extras)
        return Subject(name, thumbnail(as_image(content), self._size), "", kinds), rendered

    def _paint_group(
        self, group: list[PreviewJob], content: Decoded, extras: dict[str, Any]
    ) -> dict[str, Rendered]:
        """Paint jobs of one recipe."""
        from nst_pipeline.engine import FunctionCallbacks

        try:
            transfer = self._transfer(group[0].recipe)
        except OutOfMemoryError as error:
            return {job.key: Rendered(None, str(error)) for job in group}
        rendered: dict[str, Rendered] = {}
        alpha, size = content.alpha, group[0].recipe.size
        if alpha is not None:
            alpha = alpha[crop(size, alpha.shape)]
        callbacks = FunctionCallbacks(
            lambda index, done, total, _: self._on_progress(group[index], done, total), self._check
        )
        styles = [self._styles[job.style] for job in group]
        for indices, outcome in transfer.paint(content, styles, callbacks, **extras):
            jobs = [group[index] for index in indices]
            if isinstance(outcome, Exception):
                rendered |= {job.key: Rendered(None, explain(outcome)) for job in jobs}
            else:
                rendered |= {
                    job.key: Rendered(None, result.problem)
                    if result.problem
                    else Rendered(with_alpha(self._as_saved(result.pastiche), alpha))
                    for job, result in zip(jobs, outcome, strict=True)
                }
        return rendered

    def _as_saved(self, pastiche: Image.Image) -> Image.Image:
        if self._config.output.mode == "grey":
            return in_grey(pastiche).convert("RGB")
        return pastiche

    def _transfer(self, recipe: Recipe) -> engine.StyleTransfer:
        from nst_pipeline.engine import StyleTransfer

        config = self._config
        transfer = StyleTransfer(
            recipe, config.device, config.precision, self._network, self._targets, tile=config.tile
        )
        transfer.batch = batch_for(config, recipe, transfer.batch)
        return transfer

    def _read_content(self, found: SourceFile) -> tuple[Decoded, dict[str, Any]]:
        """Return a content, and what the engine takes of its companions."""
        companions = by_kind(found.path, found.companions)
        content = self._decode(found.path, found.root)
        regions = [name for style in self._config.styles.values() for name in style.sources()]
        decoded = (
            (kind, companions[kind].path, self._decode(companions[kind].path, found.root))
            for kind in used(companions, regions)
        )
        return content, engine_arguments(found.path, content.pixels, decoded)

    def _read_style(
        self, name: str, settings: StyleSettings, read: Callable[[Path], Decoded]
    ) -> Subject:
        """Remember a style as the engine takes it; return what the sheet shows of it."""
        from nst_pipeline.engine import make_style

        try:
            regions = {
                region: [(read(path), share) for path, share in images]
                for region, images in settings.sources().items()
            }
        except ImageError as error:
            return Subject(name, None, str(error))
        self._styles[name] = make_style(regions)
        rows = [
            [(as_image(picture), share) for picture, share in images] for images in regions.values()
        ]
        first = rows[0][0][0]
        swatch = thumbnail(first, SWATCH_SIDE) if settings.image else mosaic(rows, SWATCH_SIDE)
        return Subject(name, swatch)

    def _decode(self, path: Path, root: Path | None = None) -> Decoded:
        limits, seen = self._config.limits, as_listed(path, self._terms)
        data = reading.read(path, limits.max_bytes, root=root)
        self._patience.begin_look(seen)
        try:
            if self._patience.is_suspect(seen):
                try_apart(data, shown(path), limits.max_pixels)
            check_need(data, shown(path), limits.max_pixels, limits.memory_bytes)
            picture = decode(data, shown(path), limits.max_pixels)
            self._patience.forget(path)
        finally:
            self._patience.end_look()
        if picture.note and picture.note not in self.notes:
            self.notes.append(picture.note)
        return picture


def explain(error: Exception) -> str:
    """Return an error as a reason; one that we did not foresee with its kind."""
    return str(error) if isinstance(error, PipelineError) else f"{type(error).__name__}: {error}"


def batch_for(config: Config, recipe: Recipe, usual: int) -> int:
    """Return how many styles to paint together: small pictures go together on a CPU, too."""
    if config.limits.batch != "auto":
        return config.limits.batch
    if recipe.size == "original":
        return usual
    height, width = painted_size(recipe.size, (1, 1))
    return max(usual, BATCH_PIXELS // (height * width))


def as_image(picture: Decoded) -> Image.Image:
    """Return a picture in 8 bits, mode RGB, or RGBA if something is transparent."""
    return with_alpha(Image.fromarray(to_depth(picture.pixels, 8)), picture.alpha)


def with_alpha(picture: Image.Image, alpha: Pixels | None) -> Image.Image:
    """Return an RGB picture with the transparency of ``alpha`` ((H, W), any size), if given."""
    if alpha is None:
        return picture
    picture = picture.copy()
    picture.putalpha(Image.fromarray(to_depth(alpha, 8)).resize(picture.size))
    return picture


def thumbnail(picture: Image.Image, size: int) -> Image.Image:
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
    except Exception:  # noqa: BLE001 - Pillow raises anything for a damaged file
        return False


def software_name() -> str:
    """Return what a sheet names as its maker."""
    return f"{SOFTWARE} {__version__}"
