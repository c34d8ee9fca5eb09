"""Jobs: one content x one style, what makes each unique, and where its result goes. Pure."""

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any, NamedTuple

from nst_pipeline.config.recipe import Recipe, step_costs
from nst_pipeline.config.settings import NAME_FIELDS, OutputSettings
from nst_pipeline.config.weights import Weights
from nst_pipeline.digests import bytes_digest, canonical, digest
from nst_pipeline.errors import ConfigError
from nst_pipeline.files import MOST_ROOM, fitted_name, shown
from nst_pipeline.images.encoding import SUFFIXES
from nst_pipeline.inbox.companions import missing_companion
from nst_pipeline.inbox.scanner import SourceFile

Companions = Mapping[str, tuple[Path, str]]
"""Files beside a content that say how it is painted, by kind, each with its SHA-256."""
NO_COMPANIONS: Companions = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Content:
    """A picture to paint, known by its bytes.

    Attributes:
        found: the file.
        sha256: of its bytes.
        companions: the files beside it that say how it is painted, by their kind (``mask``,
            ``mask.NAME``, ``init``), each with the SHA-256 of its bytes.
    """

    found: SourceFile
    sha256: str
    companions: Companions = field(default_factory=lambda: NO_COMPANIONS, hash=False)

    @property
    def path(self) -> Path:
        """The file."""
        return self.found.path

    @property
    def digest(self) -> str:
        """SHA-256 over its bytes and its companions'; without companions, its own."""
        if not self.companions:
            return self.sha256
        return digest([self.sha256, self.companion_digests()])

    def companion_digests(self) -> dict[str, str]:
        """Return the digests of the companions, by their kind."""
        return {kind: sha256 for kind, (_, sha256) in self.companions.items()}


StyleImage = tuple[Path, str, float]
"""A style image: its file, the SHA-256 of its bytes, and its share of its region."""


@dataclass(frozen=True)
class PlannedStyle:
    """A style's images with the recipe that it is painted by.

    Attributes:
        name: of the style.
        sources: the images by the region that they are for; ``""`` is the whole picture. The
            shares of a region sum to 1.
        recipe: how it is painted.
    """

    name: str
    sources: Mapping[str, tuple[StyleImage, ...]] = field(hash=False)
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
    def cost(self) -> int:
        """What a job costs: pixels x steps, with what `step_costs` adds."""
        return sum(step_costs(self.recipe))

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
    style: PlannedStyle
    weights: Weights
    precision: str
    encoding: OutputSettings
    output: Path

    @functools.cached_property
    def key(self) -> str:
        """SHA-256 over everything that decides the output's bytes."""
        return digest(_deciding(self.content.digest, self))

    def lack(self) -> str:
        """Say which companion the content lacks that its style asks for; empty: it has all."""
        path, needs_init = self.content.path, self.style.recipe.init == "image"
        reason = missing_companion(path, self.style.sources, needs_init, self.content.companions)
        return reason and f"{shown(path)} in {self.style.name}: {reason}"

    def made_by(self) -> dict[str, Any]:
        """Return how the result is made, as its metadata holds it."""
        return {
            "style": self.style.name,
            "style_sha256": self.style.sha256,
            "content_sha256": self.content.sha256,
            "weights": PurePath(self.weights.id).name,
            "weights_sha256": self.weights.sha256,
            "recipe": {"name": self.style.recipe.name, **self.style.pixels},
            "job": self.key,
        } | ({"companions": self.content.companion_digests()} if self.content.companions else {})


class JobTemplate(NamedTuple):
    """A `Job` without its content and its place: how a style is painted and saved."""

    style: PlannedStyle
    weights: Weights
    precision: str
    encoding: OutputSettings

    def keys(self) -> Callable[[str], str]:
        """Return what makes a job's key of its content's digest: that of `Job`, only faster."""
        mark = "the content's digest"
        before, after = canonical(_deciding(mark, self)).encode().split(mark.encode())
        return lambda sha256: bytes_digest(before + sha256.encode() + after)

    def names(self) -> Callable[[str], str]:
        """Return what makes an output's name in its folder of what stands for the content.

        In a name that no file system would take, the content's is shortened if that suffices: by
        the rest people tell the results of one content apart. A part that would lead to another
        folder, as ``..`` from a picture that is called ``...jpg``, gets an underscore.
        """
        style, recipe = self.style, self.style.recipe
        template = str(PurePath(self.encoding.name))
        suffix = SUFFIXES[self.encoding.format]

        def parts(content: str) -> list[str]:
            filled = template.format(
                content=content, style=style.name, recipe=recipe.name, size=recipe.size
            )
            *folders, stem = (f"_{n}" if n in ("", ".", "..") else n for n in filled.split("/"))
            return [*folders, f"{stem}{suffix}"]

        def name(content: str) -> str:
            whole = parts(content)
            if all(fitted_name(part, "") == part for part in whole):
                return "/".join(whole)
            rest = max(len(os.fsencode(part)) for part in parts(""))
            *folders, last = parts(fitted_name(content, "", room=min(rest, MOST_ROOM)))
            stem = last.removesuffix(suffix)
            return "/".join([*(fitted_name(f, "") for f in folders), fitted_name(stem, suffix)])

        return name


class Candidate(NamedTuple):
    """A job before anything is known of it, small, for there may be very many.

    ``output`` is the result's absolute path, and ``key`` that of `Job`.
    """

    content: Content
    template: JobTemplate
    output: str
    key: str

    def job(self) -> Job:
        """Return the job."""
        return Job(self.content, *self.template, Path(self.output))

    def may_be_at(self, place: str, outbox: Path) -> bool:
        """Tell whether a place for the output is what the settings say, be it not the only one.

        Other contents beside this one, and the paths that were named, decide about the folder and
        whether the suffix is a part of the name; both may have been others when it was painted.
        """
        if place == self.output:
            return True
        path, name = self.content.path, self.template.names()
        whole = PurePath(os.path.normpath(path.parent))
        ends = [f"/{name(path.stem)}", f"/{name(path.name)}"]
        folders = [PurePath(place.removesuffix(end)) for end in ends if place.endswith(end)]
        return any(
            folder.is_relative_to(outbox) and _ends(whole, folder.relative_to(outbox))
            for folder in folders
        )


def _ends(folder: PurePath, end: PurePath) -> bool:
    return not end.parts or folder.parts[-len(end.parts) :] == end.parts


def _deciding(content: str, how: Job | JobTemplate) -> dict[str, Any]:
    """Return everything that decides an output's bytes, but the machine.

    Device, threads and libraries round otherwise, which gives another picture as good. With them
    here, finished work would be painted anew wherever it is moved, or when a core is taken away.
    """
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


def pair(
    contents: list[Content],
    styles: list[PlannedStyle],
    outbox: Path,
    encoding: OutputSettings,
    weights: Weights,
    precision: str,
    neighbours: Iterable[tuple[PurePath, str]] = (),
    styles_of: Callable[[SourceFile], list[PlannedStyle]] | None = None,
) -> Iterator[Candidate]:
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
        styles_of: returns those of ``styles``, be it with other recipes, that are for a content; by
            default, all are.

    Raises:
        ConfigError: two jobs would still write the same file, or an input would be overwritten.
    """
    places = _places([content.found for content in contents], neighbours)
    lists: dict[int, list[JobTemplate]] = {}

    def templates_of(content: Content) -> list[JobTemplate]:
        some = styles_of(content.found) if styles_of else styles
        if id(some) not in lists:
            lists[id(some)] = [JobTemplate(one, weights, precision, encoding) for one in some]
        return lists[id(some)]

    inputs = {str(content.path) for content in contents}
    inputs |= {str(path) for one in contents for path, _ in one.companions.values()}
    inputs |= {str(path) for style in styles for path in style.paths}
    seen: set[int] = set()  # of the names only the hashes, for want of room
    for item in _candidates(contents, places, templates_of, outbox):
        name = hash(item.output)
        if name in seen or item.output in inputs:
            _refuse_clashes(_candidates(contents, places, templates_of, outbox), inputs)
        seen.add(name)
        yield item


def _candidates(
    contents: list[Content],
    places: list[tuple[PurePath, str]],
    templates_of: Callable[[Content], list[JobTemplate]],
    outbox: Path,
) -> Iterator[Candidate]:
    keyed: dict[int, list[tuple[JobTemplate, Callable[[str], str], Callable[[str], str]]]] = {}
    folders: dict[PurePath, str] = {}
    for content, (folder, stem) in zip(contents, places, strict=True):
        place = folders.get(folder) or folders.setdefault(folder, f"{outbox / folder}/")
        sha256, templates = content.digest, templates_of(content)
        if id(templates) not in keyed:
            keyed[id(templates)] = [(one, one.keys(), one.names()) for one in templates]
        for template, key, name in keyed[id(templates)]:
            yield Candidate(content, template, place + name(stem), key(sha256))


def _places(
    found: list[SourceFile], neighbours: Iterable[tuple[PurePath, str]]
) -> list[tuple[PurePath, str]]:
    """Return each content's folder in the outbox and the name that stands for it there."""
    folders = _folders(found)
    places = [(folder, item.path.stem) for folder, item in zip(folders, found, strict=True)]
    stems = Counter(places)
    stems.update(neighbours)
    return [
        (place[0], item.path.name) if stems[place] > 1 else place
        for item, place in zip(found, places, strict=True)
    ]


def _folders(found: list[SourceFile]) -> list[PurePath]:
    """Return the folder of each file in the outbox: the same for no two of one name.

    Where the same one was named from several places, the shortest ends of these that differ.
    """
    alike: dict[tuple[PurePath, str], list[int]] = {}
    for index, item in enumerate(found):
        alike.setdefault((item.folder, item.path.name), []).append(index)
    folders = [item.folder for item in found]
    taken = Counter({place: len(several) for place, several in alike.items()})
    for (folder, name), several in alike.items():
        if len(several) == 1:
            continue
        taken[folder, name] -= len(several)
        # As it was named, a folder may lead up and out (../x/photo.jpg).
        wholes = [os.path.normpath(found[index].path.parent).split("/")[1:] for index in several]
        different, longest = len(set(map(tuple, wholes))), max(map(len, wholes))
        length = next(
            n for n in range(1, longest + 2)
            if n > longest
            or len({tuple(parts[-n:]) for parts in wholes}) == different
            and not any(taken[PurePath(*parts[-n:]), name] for parts in wholes)
        )  # fmt: skip
        for index, parts in zip(several, wholes, strict=True):
            folders[index] = PurePath(*parts[-length:])
            taken[folders[index], name] += 1
    return folders


def _refuse_clashes(planned: Iterator[Candidate], inputs: set[str]) -> None:
    seen: dict[str, Candidate] = {}
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


def _title(item: Candidate) -> str:
    return f"{shown(item.content.path)} in {item.template.style.name}"
