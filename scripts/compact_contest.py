"""Networks that paint the same pairs, coarse to fine, at equal content similarity."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from compact_measures import coherence, content_similarity, fit, marginals
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from rich.console import Console

from nst_pipeline.digests import digest, file_digest
from nst_pipeline.engine import Recipe, StyleTransfer, TargetCache

TRIES = 5
TOLERANCE = 0.015

console = Console()


@dataclass(frozen=True)
class Pair:
    """A content and a style at the evaluation's size, and how far apart they are.

    Attributes:
        name: content x style.
        content: the content picture.
        style: the style picture.
        distance: the marginals of the content itself, which others are given as a share of.
    """

    name: str
    content: Image.Image
    style: Image.Image
    distance: float


@dataclass(frozen=True)
class Score:
    """What one network made of one pair.

    Attributes:
        pair: name of the pair.
        network: name of the network.
        style_weight: the weight that met the content similarity asked for.
        coherence: see `compact_measures`.
        marginals: as a share of the content's own distance to the style.
        content: content similarity met.
    """

    pair: str
    network: str
    style_weight: float
    coherence: float
    marginals: float
    content: float


def load_pairs(folder: Path, names: list[str], size: int) -> list[Pair]:
    """Load `content:style` names from the folders `content` and `style`."""
    pairs = []
    for name in names:
        content, style = (
            fit(Image.open(next((folder / kind).glob(f"{stem}.*"))), size)
            for kind, stem in zip(("content", "style"), name.split(":"), strict=True)
        )
        pairs.append(Pair(name.replace(":", " x "), content, style, marginals(content, style)))
    return pairs


def paint(
    weights: Path, pair: Pair, recipe: Recipe, sizes: list[int], targets: TargetCache
) -> Image.Image:
    """Paint a pair coarse to fine, each size starting from the result of the one before."""
    pastiche: Image.Image | None = None
    for size, share in zip(sizes, (1.0, 0.7, 0.5, 0.4), strict=False):
        steps = max(1, round(recipe.iterations * share))
        scaled = recipe.model_copy(update={"size": size, "scales": 1, "iterations": steps})
        transfer = StyleTransfer(scaled, weights=str(weights), targets=targets)
        pastiche = transfer.run(pair.content, [pair.style], init=pastiche)[0].pastiche
    assert pastiche is not None
    return pastiche


def match(
    attempt: Callable[[float], Image.Image],
    similarity: Callable[[Image.Image], float],
    wanted: float,
    first: float,
) -> tuple[float, Image.Image]:
    """Search the style weight whose pastiche has the content similarity wanted.

    The similarity falls as the weight's logarithm grows: strides until it is enclosed, then the
    straight line between the nearest two. Returns the nearest of `TRIES` tries.
    """
    tries: list[tuple[float, float, Image.Image]] = []
    at, stride = math.log(first), 1.2
    for _ in range(TRIES):
        picture = attempt(math.exp(at))
        gap = similarity(picture) - wanted
        tries.append((at, gap, picture))
        if abs(gap) <= TOLERANCE:
            break
        low = max((t for t in tries if t[1] > 0), key=lambda t: t[0], default=None)
        high = min((t for t in tries if t[1] < 0), key=lambda t: t[0], default=None)
        if low and high:
            share = min(0.85, max(0.15, low[1] / (low[1] - high[1])))
            at = low[0] + share * (high[0] - low[0])
        else:
            at += stride if gap > 0 else -stride
            stride *= 1.5
    best = min(tries, key=lambda t: abs(t[1]))
    return math.exp(best[0]), best[2]


class Contest:
    """Networks that paint pairs by one recipe.

    Attributes:
        scores: the measures, in the order of painting.
        pictures: the pastiches by pair and network.
    """

    def __init__(
        self, networks: dict[str, Path], recipe: Recipe, sizes: list[int], kept: Path | None
    ) -> None:
        """Take the weights files by name; the first network's pictures set the similarity.

        Args:
            networks: weights files by name.
            recipe: of all of them; only the style weight is searched.
            sizes: longer sides, coarse to fine.
            kept: folder of finished pictures, from which an interrupted run goes on.
        """
        self._networks, self._recipe, self._sizes, self._kept = networks, recipe, sizes, kept
        self._targets = TargetCache()
        self._first = dict.fromkeys(networks, recipe.style_weight)
        self.scores: list[Score] = []
        self.pictures: dict[tuple[str, str], Image.Image] = {}

    def run(self, pair: Pair) -> None:
        """Paint a pair with every network and measure the results."""
        wanted = None
        for name, path in self._networks.items():
            weight, picture = self._remember(path, pair, wanted, self._first[name])
            # A network far from the recipe's weight begins the next search in its reach again.
            usual = self._recipe.style_weight
            self._first[name] = min(max(weight, usual / 20), usual * 20)
            self.add(pair, name, weight, picture)
            wanted = self.scores[-1].content if wanted is None else wanted

    def _remember(
        self, path: Path, pair: Pair, wanted: float | None, first: float
    ) -> tuple[float, Image.Image]:
        facts = [file_digest(path), self._recipe.pixels(), self._sizes, pair.name, wanted]
        file = self._kept / f"{digest(facts)[:16]}.png" if self._kept else None
        if file and file.exists():
            with Image.open(file) as image:
                return float(image.text["style_weight"]), image.convert("RGB")
        attempt = functools.partial(self._paint, path, pair)
        if wanted is None:
            weight = self._recipe.style_weight
            picture = attempt(weight)
        else:
            similarity = functools.partial(content_similarity, pair.content)
            weight, picture = match(attempt, similarity, wanted, first)
        if file:
            note = PngInfo()
            note.add_text("style_weight", str(weight))
            picture.save(file, pnginfo=note)
        return weight, picture

    def add(self, pair: Pair, name: str, weight: float, picture: Image.Image) -> None:
        """Measure a picture and keep it."""
        score = measure(pair, name, weight, picture)
        self.scores.append(score)
        self.pictures[pair.name, name] = picture
        console.print(
            f"{pair.name}, {name}: style weight {weight:.3g}, coherence {score.coherence:.3f}, "
            f"marginals {score.marginals:.3f}, content {score.content:.3f}"
        )

    def _paint(self, path: Path, pair: Pair, weight: float) -> Image.Image:
        # The total variation goes with the style, or a small weight would only blur.
        share = weight / self._recipe.style_weight
        changes = {"style_weight": weight, "tv_weight": self._recipe.tv_weight * share}
        recipe = self._recipe.model_copy(update=changes)
        return paint(path, pair, recipe, self._sizes, self._targets)


def measure(pair: Pair, network: str, weight: float, picture: Image.Image) -> Score:
    """Return the measures of one picture."""
    return Score(
        pair.name,
        network,
        weight,
        coherence(picture, pair.style),
        marginals(picture, pair.style) / pair.distance,
        content_similarity(pair.content, picture),
    )
