"""The styles that are there when a plan is made, and which of them a picture is painted in."""

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from nst_pipeline.config.pipeline import Config
from nst_pipeline.config.weights import Weights
from nst_pipeline.errors import (
    BeingWrittenError,
    ConfigError,
    ImageError,
    NoStylesError,
    UnreadableError,
)
from nst_pipeline.files import shown
from nst_pipeline.inbox.patience import Patience
from nst_pipeline.inbox.reading import BEING_WRITTEN
from nst_pipeline.inbox.scanner import SourceFile, some_of
from nst_pipeline.inbox.style_folders import FoundStyles
from nst_pipeline.jobs.file_table import Known
from nst_pipeline.jobs.job import PlannedStyle, StyleImage
from nst_pipeline.jobs.ledger import Ledger
from nst_pipeline.jobs.looking import style_digest

CHUNK = 256
"""Files that the ledger is asked about together."""


@dataclass(frozen=True)
class Palette:
    """The styles of a plan.

    Attributes:
        config: the settings, with the images in place of their folders.
        styles: of the inbox at large.
        by_folder: of the inbox's subfolders with styles or a recipe of their own.
        arriving: images of folders of styles that are still written to.
        notes: of what is passed over in folders of styles, a line each.
    """

    config: Config
    styles: list[PlannedStyle]
    by_folder: dict[str, list[PlannedStyle]] = field(default_factory=dict)
    arriving: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def of(self, found: SourceFile) -> list[PlannedStyle]:
        """Return the styles that a picture is painted in, by the folder that it lies in."""
        return self._of_folder(found.path.parent) if self.by_folder else self.styles

    @functools.cached_property
    def _of_folder(self) -> Callable[[Path], list[PlannedStyle]]:
        inbox = Path(os.path.realpath(self.config.inbox))

        @functools.cache
        def styles_of(folder: Path) -> list[PlannedStyle]:
            real = Path(os.path.realpath(folder))
            if not real.is_relative_to(inbox):
                return self.styles
            entry = self.config.folder_of(real.relative_to(inbox))
            return self.styles if entry is None else self.by_folder[entry]

        return styles_of


def make_palette(
    config: Config,
    found: FoundStyles,
    ledger: Ledger,
    network: Weights,
    terms: str,
    patience: Patience | None = None,
) -> Palette:
    """Return the styles that are there, with their images' digests and their recipes.

    An image of a folder of styles that is none is left out, with a note.

    Args:
        config: the settings.
        found: what is in their folders of styles.
        ledger: remembers what was looked at.
        network: the network's weights.
        terms: as `looking.terms_of` returns them.
        patience: notes which image is looked at; None: nobody does.

    Raises:
        ConfigError: another image that is none, or a recipe with a layer that the network lacks.
        NoStylesError: nothing is left.
        UnreadableError: another image that cannot be read now.
    """
    problems = config.layer_problems(network)
    arriving, notes = list(found.arriving), list(found.notes)
    sources: dict[str, dict[str, tuple[StyleImage, ...]]] = {}
    known = _known(found, ledger)
    for name, settings in found.config.styles.items():
        file, digests = found.files.get(name), dict[Path, str]()
        try:
            for path in settings.paths():
                digests[path] = style_digest(
                    path, config, ledger, terms, file, known if file else None, patience
                )
        except ImageError as error:
            if file and isinstance(error, BeingWrittenError):
                arriving.append(file.path)
            elif file:
                # One that cannot be read now holds the sources back, as one that arrives does.
                arriving += [file.path] if isinstance(error, UnreadableError) else []
                notes.append(f"{error}; mend or remove the file")
            elif isinstance(error, UnreadableError | BeingWrittenError):
                raise UnreadableError(f"styles.{name}: {error}") from error
            else:
                problems.append(f"styles.{name}: {error}")
            continue
        sources[name] = {
            region: tuple((path, digests[path], share) for path, share in images)
            for region, images in settings.sources().items()
        }
    if problems:
        raise ConfigError(problems)
    if not sources:
        written = [f"{shown(path)}: {BEING_WRITTEN}" for path in arriving]
        raise NoStylesError(["styles: none is there to paint in", *some_of([*notes, *written])])
    return _with_recipes(found.config, sources, arriving, notes)


def _known(found: FoundStyles, ledger: Ledger) -> Known:
    """Return what the ledger remembers of the images in folders of styles."""
    paths = [file.path for file in found.files.values()]
    known: Known = {}
    for first in range(0, len(paths), CHUNK):
        known |= ledger.files.known(paths[first : first + CHUNK])
    return known


def _with_recipes(
    config: Config,
    sources: dict[str, dict[str, tuple[StyleImage, ...]]],
    arriving: list[Path],
    notes: list[str],
) -> Palette:
    """Return the palette of the styles that have sources."""
    folders = {
        place: folder
        if folder.styles is None
        else folder.model_copy(update={"styles": tuple(n for n in folder.styles if n in sources)})
        for place, folder in config.folders.items()
    }
    styles = {name: config.styles[name] for name in sources}
    config = config.model_copy(update={"styles": styles, "folders": folders})

    def planned(folder: str | None) -> list[PlannedStyle]:
        recipes = config.recipes(folder)
        return [PlannedStyle(name, sources[name], recipe) for name, recipe in recipes.items()]

    by_folder = {place: planned(place) for place in folders}
    return Palette(config, planned(None), by_folder, arriving, notes)
