"""Judge networks and recipes by the pictures they paint: VGG-16's verdict, at equal content.

Every entry, a network's file with a recipe, paints the same pairs along a ladder of style weights;
the total variation's weight goes with the style's. VGG-16 judges each picture (`compact_judge`).
Along one entry's ladder the style loss falls as the content loss rises; the entries are compared
by the style loss where their content loss is that of the first entry at the recipe's own weight,
read off their ladders between the nearest rungs. The measures of `compact_measures` are those of
the picture nearest to it.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
import yaml
from compact_judge import judge
from compact_measures import coherence, fit, marginals
from compact_network import Trunk, load_teacher
from PIL import Image, ImageDraw, ImageOps
from PIL.PngImagePlugin import PngInfo
from rich.console import Console
from rich.table import Table
from torch import Tensor

from nst_pipeline.config.recipe import RecipeChanges
from nst_pipeline.digests import digest, file_digest
from nst_pipeline.engine import Recipe, StyleTransfer, TargetCache, make_recipe
from nst_pipeline.engine.convolution import prepare
from nst_pipeline.engine.losses import build_model, extract, style_statistic
from nst_pipeline.engine.vgg import load_trunk

CELL = (240, 180)

app = typer.Typer(add_completion=False, help=__doc__)
console = Console()


@dataclass(frozen=True)
class Entry:
    """A network and the recipe it paints by."""

    name: str
    weights: Path
    recipe: Recipe


@dataclass(frozen=True)
class Pair:
    """A content and a style."""

    name: str
    content: Image.Image
    style: Image.Image


@dataclass(frozen=True)
class Rung:
    """One picture of an entry's ladder, and VGG-16's verdict on it."""

    style_weight: float
    style: float
    content: float
    layers: tuple[float, ...]
    picture: Image.Image


@dataclass(frozen=True)
class Score:
    """What an entry made of a pair at the content loss asked for.

    Attributes:
        pair, entry: their names.
        content: the content loss asked for.
        style: the style loss there.
        inside: whether it lies between two rungs; else it is continued from the nearest two.
        nearest: style weight, style loss and content loss of the nearest picture.
        coherence, marginals: of that picture; see `compact_measures`.
    """

    pair: str
    entry: str
    content: float
    style: float
    inside: bool
    nearest: tuple[float, float, float]
    coherence: float
    marginals: float


def load_pair(folder: Path, name: str, size: int) -> Pair:
    """Load a `content:style` pair: files by their paths from `folder`, scaled to `size`."""
    content, style = (fit(Image.open(folder / part), size) for part in name.split(":", maxsplit=1))
    stems = [Path(part).stem for part in name.split(":", maxsplit=1)]
    return Pair(" x ".join(stems), content, style)


def load_entry(text: str, shared: RecipeChanges, size: int) -> Entry:
    """Read NAME=FILE or NAME=FILE,{field: value, ...}."""
    name, rest = text.split("=", 1)
    path, _, changes = rest.partition(",")
    own = RecipeChanges.model_validate(yaml.safe_load(changes) or {})
    return Entry(name, Path(path), make_recipe(shared, own, size=size))


def climb(
    entry: Entry, pair: Pair, ladder: list[float], trunk: Trunk, kept: Path, targets: TargetCache
) -> list[Rung]:
    """Paint a pair at each multiple of the recipe's style weight, and judge the pictures."""
    rungs = []
    for share in ladder:
        changes = {
            "style_weight": entry.recipe.style_weight * share,
            "tv_weight": entry.recipe.tv_weight * share,
        }
        recipe = entry.recipe.model_copy(update=changes)
        picture = paint(entry.weights, recipe, pair, kept, targets)
        verdict = judge(trunk, pair.content, pair.style, picture)
        rungs.append(Rung(recipe.style_weight, **asdict(verdict), picture=picture))
        console.print(
            f"{pair.name}, {entry.name}: style weight {recipe.style_weight:.3g}: "
            f"style {verdict.style:.4f}, content {verdict.content:.4f}, layers "
            + " ".join(f"{v:.4f}" for v in verdict.layers)
        )
    return rungs


def paint(
    weights: Path, recipe: Recipe, pair: Pair, kept: Path, targets: TargetCache
) -> Image.Image:
    """Return the picture, from the folder of finished ones if it is there."""
    pixels = [hashlib.sha256(p.tobytes()).hexdigest() for p in (pair.content, pair.style)]
    file = kept / f"{digest([file_digest(weights), recipe.pixels(), *pixels])[:20]}.png"
    if file.exists():
        with Image.open(file) as image:
            return image.convert("RGB")
    transfer = StyleTransfer(recipe, weights=str(weights), targets=targets)
    picture = transfer.run(pair.content, [pair.style])[0].pastiche
    note = PngInfo()
    note.add_text("pair", pair.name)
    note.add_text("recipe", recipe.model_dump_json())
    picture.save(file, pnginfo=note)
    return picture


def style_at(rungs: list[Rung], content: float) -> tuple[float, bool]:
    """Return the style loss where the content loss is as given, and whether rungs enclose it.

    A straight line between the logarithms of the nearest two rungs.
    """
    rungs = sorted(rungs, key=lambda r: r.content)
    contents = [math.log(r.content) for r in rungs]
    at = math.log(content)
    i = int(np.clip(np.searchsorted(contents, at), 1, len(rungs) - 1))
    (x0, y0), (x1, y1) = ((contents[k], math.log(rungs[k].style)) for k in (i - 1, i))
    slope = (y1 - y0) / max(x1 - x0, 1e-9)
    return math.exp(y0 + slope * (at - x0)), contents[0] <= at <= contents[-1]


def score(pair: Pair, entry: Entry, rungs: list[Rung], content: float) -> tuple[Score, Rung]:
    """Return the score at a content loss, and the rung nearest to it."""
    style, inside = style_at(rungs, content)
    near = min(rungs, key=lambda r: abs(math.log(r.content / content)))
    distance = marginals(near.picture, pair.style) / marginals(pair.content, pair.style)
    nearest = (near.style_weight, near.style, near.content)
    found = Score(
        pair.name, entry.name, content, style, inside, nearest,
        coherence(near.picture, pair.style), distance,
    )  # fmt: skip
    return found, near


def grid(rows: list[tuple[Pair, list[tuple[str, Image.Image]]]]) -> Image.Image:
    """Draw one row a pair: content, style, and what each entry made of them."""
    width, height = CELL
    columns = max(len(cells) for _, cells in rows) + 2
    sheet = Image.new("RGB", (width * columns, (height + 14) * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (pair, cells) in enumerate(rows):
        shown = [("content", pair.content), ("style", pair.style), *cells]
        for column, (title, picture) in enumerate(shown):
            small = ImageOps.contain(picture, CELL, Image.Resampling.LANCZOS)
            at = (column * width, row * (height + 14))
            sheet.paste(small, (at[0], at[1] + 14))
            draw.text((at[0] + 3, at[1] + 1), title, fill="black")
    return sheet


def show(scores: list[Score], entries: list[str]) -> None:
    """Print the table, and each entry's style loss as a multiple of the first one's."""
    table = Table("pair", "content", *(f"{name}\nstyle (x) coh. marg." for name in entries))
    by = {(s.pair, s.entry): s for s in scores}
    ratios: dict[str, list[float]] = {name: [] for name in entries}
    for pair in dict.fromkeys(s.pair for s in scores):
        cells = []
        for name in entries:
            own = by[pair, name]
            ratios[name].append(own.style / by[pair, entries[0]].style)
            mark = "" if own.inside else "*"
            cells.append(
                f"{own.style:.4f}{mark} ({ratios[name][-1]:.2f}) "
                f"{own.coherence:.3f} {own.marginals:.3f}"
            )
        table.add_row(pair, f"{by[pair, entries[0]].content:.3f}", *cells)
    console.print(table)
    for name, found in ratios.items():
        console.print(
            f"{name}: {statistics.median(found):.2f} times the style loss of {entries[0]} "
            f"(median; {min(found):.2f} to {max(found):.2f})"
        )


@app.command("pictures")
def pictures_command(
    folder: Annotated[Path, typer.Argument(help="Where the pairs' files are.")],
    teacher: Annotated[Path, typer.Argument(help="VGG-16's convolutions, the judge.")],
    entries: Annotated[
        list[str], typer.Argument(help="NAME=FILE or NAME=FILE,{field: value}; the first leads.")
    ],
    pairs: Annotated[str, typer.Option(help="content/a.jpg:style/b.jpg,... in the folder.")],
    output: Annotated[Path, typer.Option(help="The grid to write; a .json lies beside it.")],
    kept: Annotated[Path, typer.Option(help="Folder of finished pictures, to go on from.")],
    size: Annotated[int, typer.Option(help="Longer side in pixels.")] = 192,
    recipe: Annotated[str, typer.Option(help="Changes to all recipes, as YAML.")] = "{}",
    ladder: Annotated[str, typer.Option(help="Multiples of the style weight.")] = "0.25,1,4",
) -> None:
    """Paint pairs with each entry along the ladder; print the verdicts, draw a grid."""
    shared = RecipeChanges.model_validate(yaml.safe_load(recipe))
    contenders = [load_entry(text, shared, size) for text in entries]
    trunk, targets = load_teacher(teacher), TargetCache()
    steps = [float(share) for share in ladder.split(",")]
    kept.mkdir(parents=True, exist_ok=True)
    scores: list[Score] = []
    rows = []
    for name in pairs.split(","):
        pair = load_pair(folder, name, size)
        ladders = {e.name: climb(e, pair, steps, trunk, kept, targets) for e in contenders}
        own = ladders[contenders[0].name][steps.index(1.0)]
        cells = []
        for entry in contenders:
            found, near = score(pair, entry, ladders[entry.name], own.content)
            scores.append(found)
            cells.append((f"{entry.name} {near.style:.3f} {near.content:.2f}", near.picture))
        rows.append((pair, cells))
        grid(rows).save(output, quality=88)
        facts = {
            "size": size,
            "ladder": steps,
            "recipes": {e.name: e.recipe.model_dump(mode="json") for e in contenders},
            "scores": [asdict(s) for s in scores],
        }
        output.with_suffix(".json").write_text(json.dumps(facts, indent=1))
    show(scores, [e.name for e in contenders])


def evaluation(path: Path, content: Tensor, dtype: torch.dtype) -> Callable[[], None]:
    """Return one loss and gradient at `content`, with a network up to relu5_1."""
    trunk = prepare(load_trunk(path, "relu5_1"), torch.device("cpu"), dtype)
    styles = {f"relu{b}_1": 1.0 for b in range(1, 6)}
    features = extract(trunk, content, {"relu4_2", *styles})
    grams = {layer: style_statistic(features[layer]) for layer in styles}
    model = build_model(
        trunk, {"relu4_2": features["relu4_2"]}, grams, {"relu4_2": 1.0}, styles, True
    )

    def once() -> None:
        pixels = content.clone().requires_grad_()
        losses = model(pixels.contiguous(memory_format=torch.channels_last))
        torch.autograd.grad(torch.stack(losses).sum(), pixels)

    return once


def seconds(work: Callable[[], None]) -> float:
    """Return the seconds that a call takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


@app.command("speed")
def speed_command(
    teacher: Annotated[Path, typer.Argument(help="The file of the network to compare with.")],
    weights: Annotated[Path, typer.Argument(help="The compact network's file.")],
    size: Annotated[int, typer.Option(help="Longer side; the picture is 4 : 3.")] = 512,
    rounds: int = 9,
) -> None:
    """Time a loss and gradient against another network's, alternating; print the ratios."""
    content = torch.rand(1, 3, size * 3 // 4, size, generator=torch.Generator().manual_seed(0))
    for dtype in (torch.bfloat16, torch.float32):
        theirs, ours = (evaluation(path, content, dtype) for path in (teacher, weights))
        for work in (theirs, ours):
            work()
        pairs = [(seconds(theirs), seconds(ours)) for _ in range(rounds)]
        ratios = [a / b for a, b in pairs]
        a, b = (statistics.median(column) for column in zip(*pairs, strict=True))
        console.print(
            f"{str(dtype).removeprefix('torch.')}: {teacher.stem} {a:.3f} s, "
            f"{weights.stem} {b:.3f} s, {statistics.median(ratios):.2f} times faster "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    app()
