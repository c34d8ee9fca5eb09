"""Jobs: one content x one style, what makes each unique, and where its result goes. Pure."""

import functools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from nst_pipeline.errors import ConfigError
from nst_pipeline.files import shown
from nst_pipeline.inbox import Found
from nst_pipeline.outbox import output_name
from nst_pipeline.recipe import Recipe, digest
from nst_pipeline.settings import NAME_FIELDS, OutputSettings
from nst_pipeline.weights import Weights


@dataclass(frozen=True)
class Content:
    """A picture to paint, known by its bytes.

    Attributes:
        found: the file.
        sha256: of its bytes.
        companions: the files beside it that say how it is painted, by their kind (``mask``,
            ``mask.NAME``, ``init``), each with the SHA-256 of its bytes.
    """

    found: Found
    sha256: str
    companions: Mapping[str, tuple[Path, str]] = field(default_factory=dict, hash=False)

    @property
    def path(self) -> Path:
        """The file."""
        return self.found.path

    @property
    def digest(self) -> str:
        """SHA-256 over its bytes and its companions'; without companions, its own."""
        if not self.companions:
            return self.sha256
        return digest([self.sha256, self.beside()])

    def beside(self) -> dict[str, str]:
        """Return the digests of the companions, by their kind."""
        return {kind: sha256 for kind, (_, sha256) in self.companions.items()}


Source = tuple[Path, str, float]
"""A style image: its file, the SHA-256 of its bytes, and its share of its region."""


@dataclass(frozen=True)
class Style:
    """A style's images with the recipe that it is painted by.

    Attributes:
        name: of the style.
        sources: the images by the region that they are for; ``""`` is the whole picture. The
            shares of a region sum to 1.
        recipe: how it is painted.
    """

    name: str
    sources: Mapping[str, tuple[Source, ...]] = field(hash=False)
    recipe: Recipe

    @property
    def path(self) -> Path:
        """The image; of several, the first."""
        return next(iter(self.sources.values()))[0][0]

    @functools.cached_property
    def paths(self) -> frozenset[Path]:
        """All images."""
        return frozenset(path for images in self.sources.values() for path, _, _ in images)

    @property
    def is_plain(self) -> bool:
        """Whether it is one image for the whole picture."""
        return list(self.sources) == [""] and len(self.sources[""]) == 1

    @functools.cached_property
    def sha256(self) -> str:
        """SHA-256 over the images' bytes, shares and regions; of a plain style, the image's."""
        if self.is_plain:
            return self.sources[""][0][1]
        return digest(
            {
                region: sorted([sha256, share] for _, sha256, share in images)
                for region, images in self.sources.items()
            }
        )

    @functools.cached_property
    def pixels(self) -> dict[str, Any]:
        """What of the recipe can change a pixel."""
        return self.recipe.pixels()


@dataclass(frozen=True)
class Job:
    """One content x one style.

    Attributes:
        content: the picture.
        style: the style.
        weights: the network's weights.
        precision: as configured.
        encoding: how the result is encoded.
        output: the result's absolute path.
    """

    content: Content
    style: Style
    weights: Weights
    precision: str
    encoding: OutputSettings
    output: Path

    @functools.cached_property
    def key(self) -> str:
        """SHA-256 over everything that decides the output's bytes."""
        return digest(
            {
                "content": self.content.digest,
                "style": self.style.sha256,
                "recipe": self.style.pixels,
                "weights": self.weights.sha256,
                "precision": self.precision,
                "encoding": _pixels(self.encoding),
            }
        )

    def made_by(self) -> dict[str, Any]:
        """Return how the result is made, as its metadata holds it."""
        return {
            "style": self.style.name,
            "style_sha256": self.style.sha256,
            "content_sha256": self.content.sha256,
            "weights": PurePath(self.weights.id).name,
            "weights_sha256": self.weights.sha256,
            "recipe": self.style.recipe.model_dump(mode="json"),
            "job": self.key,
        } | ({"companions": self.content.beside()} if self.content.companions else {})


@functools.lru_cache(maxsize=8)
def _pixels(encoding: OutputSettings) -> dict[str, Any]:
    return encoding.pixels()


def plan(
    contents: list[Content],
    styles: list[Style],
    outbox: Path,
    encoding: OutputSettings,
    weights: Weights,
    precision: str,
    neighbours: Iterable[tuple[PurePath, str]] = (),
) -> list[Job]:
    """Return every content x style, all styles of a content before the next content.

    Contents whose names would clash keep more of their path: two of one stem in a folder keep
    their suffix, two from different places keep their folders.

    Args:
        contents: what to paint.
        styles: how.
        outbox: where the results go.
        encoding: how they are named and encoded.
        weights: the network's weights.
        precision: as configured.
        neighbours: folder and stem of the files that have their results already.

    Raises:
        ConfigError: two jobs would still write the same file, or an input would be overwritten.
    """
    places = _places([content.found for content in contents], neighbours)
    jobs = [
        Job(content, style, weights, precision, encoding,
            outbox / output_name(encoding, folder, content=stem, style=style.name,
                                 recipe=style.recipe.name, size=style.recipe.size))
        for content, (folder, stem) in zip(contents, places, strict=True)
        for style in styles
    ]  # fmt: skip
    _check_outputs(jobs)
    return jobs


def _places(
    found: list[Found], neighbours: Iterable[tuple[PurePath, str]]
) -> list[tuple[PurePath, str]]:
    """Return each content's folder in the outbox and the name that stands for it there."""
    places = [(item.folder, item.path.stem) for item in found]
    counts = Counter((item.folder, item.path.name) for item in found)
    stems = Counter(places)
    stems.update(neighbours)
    result = []
    for item, place in zip(found, places, strict=True):
        if counts[item.folder, item.path.name] > 1:
            result.append((PurePath(*item.path.parent.parts[1:]), place[1]))
        elif stems[place] > 1:
            result.append((item.folder, item.path.name))
        else:
            result.append(place)
    return result


def _check_outputs(jobs: list[Job]) -> None:
    inputs = {job.content.path for job in jobs}
    inputs |= {path for job in jobs for path, _ in job.content.companions.values()}
    inputs |= frozenset[Path]().union(*{job.style.paths for job in jobs})
    seen: dict[Path, Job] = {}
    problems = []
    for job in jobs:
        other = seen.setdefault(job.output, job)
        if other is not job:
            problems.append(
                f"output.name: {_title(other)} and {_title(job)} would both be written to "
                f"{shown(job.output)}; use more of {', '.join(f'{{{f}}}' for f in NAME_FIELDS)}"
            )
        if job.output in inputs:
            problems.append(f"{shown(job.output)}: would overwrite an input; choose another outbox")
    if problems:
        raise ConfigError(problems)


def _title(job: Job) -> str:
    return f"{shown(job.content.path)} in {job.style.name}"
