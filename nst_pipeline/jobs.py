"""Jobs: one content x one style, what makes each unique, and where its result goes. Pure."""

import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from nst_pipeline.config import NAME_FIELDS, OutputSettings
from nst_pipeline.errors import ConfigError
from nst_pipeline.files import shown
from nst_pipeline.inbox import Found
from nst_pipeline.outbox import output_namer
from nst_pipeline.recipe import Recipe, canonical, digest
from nst_pipeline.weights import Weights


@dataclass(frozen=True, slots=True)
class Content:
    """A picture to paint, known by its bytes."""

    found: Found
    sha256: str

    @property
    def path(self) -> Path:
        """The file."""
        return self.found.path


@dataclass(frozen=True)
class Style:
    """A style image with the recipe that it is painted by."""

    name: str
    path: Path
    sha256: str
    recipe: Recipe

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
        return digest(_deciding(self.content.sha256, self))

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
        }


class Manner(NamedTuple):
    """How a style is painted and saved: a `Job` without its content and its place."""

    style: Style
    weights: Weights
    precision: str
    encoding: OutputSettings

    def keys(self) -> Callable[[str], str]:
        """Return what makes a job's key of its content's digest: that of `Job`, only faster."""
        mark = "the content's digest"
        before, after = canonical(_deciding(mark, self)).encode().split(mark.encode())
        return lambda sha256: hashlib.sha256(before + sha256.encode() + after).hexdigest()

    def names(self) -> Callable[[str], str]:
        """Return what makes an output's name in its folder of what stands for the content."""
        style = self.style
        return output_namer(
            self.encoding, style=style.name, recipe=style.recipe.name, size=style.recipe.size
        )


class Planned(NamedTuple):
    """A job before anything is known of it; there may be very many.

    ``output`` is the result's absolute path, and ``key`` that of `Job`.
    """

    content: Content
    manner: Manner
    output: str
    key: str

    def job(self) -> Job:
        """Return the job."""
        return Job(self.content, *self.manner, Path(self.output))


def _deciding(content: str, how: Job | Manner) -> dict[str, Any]:
    """Return everything that decides an output's bytes."""
    return {
        "content": content,
        "style": how.style.sha256,
        "recipe": how.style.pixels,
        "weights": how.weights.sha256,
        "precision": how.precision,
        "encoding": _pixels(how.encoding),
    }


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
) -> Iterator[Planned]:
    """Give every content x style, all styles of a content before the next content.

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
    manners = [Manner(style, weights, precision, encoding) for style in styles]
    inputs = {str(content.path) for content in contents} | {str(style.path) for style in styles}
    seen: set[int] = set()  # of the names only the hashes, for want of room
    for item in _planned(contents, places, manners, outbox):
        name = hash(item.output)
        if name in seen or item.output in inputs:
            _refuse_clashes(_planned(contents, places, manners, outbox), inputs)
        seen.add(name)
        yield item


def _planned(
    contents: list[Content],
    places: list[tuple[PurePath, str]],
    manners: list[Manner],
    outbox: Path,
) -> Iterator[Planned]:
    keyed = [(manner, manner.keys(), manner.names()) for manner in manners]
    folders: dict[PurePath, str] = {}
    for content, (folder, stem) in zip(contents, places, strict=True):
        place = folders.get(folder) or folders.setdefault(folder, f"{outbox / folder}/")
        for manner, key, name in keyed:
            yield Planned(content, manner, place + name(stem), key(content.sha256))


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


def _refuse_clashes(planned: Iterator[Planned], inputs: set[str]) -> None:
    seen: dict[str, Planned] = {}
    problems = []
    for item in planned:
        other = seen.setdefault(item.output, item)
        if other is not item:
            problems.append(
                f"output.name: {_title(other)} and {_title(item)} would both be written to "
                f"{shown(item.output)}; use more of {', '.join(f'{{{f}}}' for f in NAME_FIELDS)}"
            )
        if item.output in inputs:
            problems.append(
                f"{shown(item.output)}: would overwrite an input; choose another outbox"
            )
    if problems:
        raise ConfigError(problems)


def _title(item: Planned) -> str:
    return f"{shown(item.content.path)} in {item.manner.style.name}"
