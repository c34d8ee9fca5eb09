"""Compare networks for style transfer: pictures at equal content similarity, and speed.

Every network paints the same pairs coarse to fine by the same recipe; the weight of the style is
searched for each until the pastiche keeps as much of the content as the first network's does at
the recipe's own weight. Then the measures of `compact_measures` are compared. Random weights of the
same width and a random VGG-19 are made on the fly.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from compact_contest import Contest, Pair, Score, console, load_pairs
from compact_measures import fit
from PIL import Image, ImageDraw
from rich.table import Table
from safetensors.torch import load_file, save_file
from torch import Tensor

from nst_pipeline.config.recipe import RecipeChanges
from nst_pipeline.engine import images, make_recipe
from nst_pipeline.engine.losses import build_model, extract, style_statistic
from nst_pipeline.engine.vgg import load_trunk

VGG19_WIDTHS = (64, 64, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512, 512)
CONVOLUTIONS = tuple(
    f"conv{b}_{i}" for b, n in enumerate((2, 2, 4, 4, 1), 1) for i in range(1, n + 1)
)
CELL = (224, 168)

app = typer.Typer(add_completion=False, help=__doc__)


@torch.no_grad()
def random_weights(widths: Iterable[int], picture: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """Return random weights, every channel with mean 0 and deviation 1 before its ReLU.

    Args:
        widths: channels of conv1_1 .. conv5_1.
        picture: an image (1, 3, H, W) in [0, 1] to measure the deviations on.
        seed: of the weights.
    """
    generator = torch.Generator().manual_seed(seed)
    x, weights = (picture - 0.45) / 0.225, {}
    for name, width in zip(CONVOLUTIONS, widths, strict=True):
        if name.endswith("_1") and name != "conv1_1":
            x = F.avg_pool2d(x, 2)
        kernel = torch.randn(width, x.shape[1], 3, 3, generator=generator)
        y = F.conv2d(x, kernel, padding=1)
        var, mean = torch.var_mean(y, (0, 2, 3))
        gain = var.clamp(min=1e-12).rsqrt()
        weights[f"{name}.weight"] = kernel * gain[:, None, None, None]
        weights[f"{name}.bias"] = -mean * gain
        x = F.relu((y - mean[:, None, None]) * gain[:, None, None])
    return weights


def grid(
    columns: list[str], pairs: list[Pair], pictures: dict[tuple[str, str], Image.Image]
) -> Image.Image:
    """Draw one row a pair: content, style, and what each network made of them."""
    width, height = CELL
    sheet = Image.new("RGB", (width * (len(columns) + 2), (height + 14) * len(pairs)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, pair in enumerate(pairs):
        cells = [("content", pair.content), ("style", pair.style)]
        cells += [
            (name, pictures[pair.name, name]) for name in columns if (pair.name, name) in pictures
        ]
        for column, (title, picture) in enumerate(cells):
            shown = picture.copy()
            shown.thumbnail(CELL, Image.Resampling.LANCZOS)
            at = (column * width, row * (height + 14))
            sheet.paste(shown, (at[0], at[1] + 14))
            draw.text((at[0] + 3, at[1] + 1), title, fill="black")
    return sheet


def show(scores: list[Score], networks: list[str]) -> None:
    """Print the table of the measures, and on how many pairs each network is beaten by the last."""
    table = Table("pair", *(f"{name}\ncoh. marg. cont." for name in networks))
    by = {(s.pair, s.network): s for s in scores}
    pairs = list(dict.fromkeys(s.pair for s in scores))
    for pair in pairs:
        row = [by[pair, name] for name in networks]
        table.add_row(pair, *(f"{s.coherence:.3f} {s.marginals:.3f} {s.content:.3f}" for s in row))
    console.print(table)
    last = networks[-1]
    for name in networks[:-1]:
        wins = sum(by[p, last].coherence > by[p, name].coherence for p in pairs)
        closer = sum(by[p, last].marginals <= by[p, name].marginals for p in pairs)
        console.print(
            f"{last} against {name}: coherence better on {wins}, "
            f"marginals no worse on {closer} of {len(pairs)}"
        )


def make_random(folder: Path, widths: Iterable[int], picture: Image.Image) -> Path:
    """Write random weights of these widths into a folder."""
    path = folder / f"random-{'-'.join(map(str, widths))}.safetensors"
    save_file(random_weights(widths, images.to_tensor(picture)), path)
    return path


def widths_of(path: Path) -> tuple[int, ...]:
    """Return the channels of conv1_1 .. conv5_1 in a weights file."""
    weights = load_file(path)
    return tuple(len(weights[f"{name}.bias"]) for name in CONVOLUTIONS)


@app.command("pictures")
def pictures_command(
    folder: Annotated[Path, typer.Argument(help="Folder with content/ and style/ pictures.")],
    weights: Annotated[list[str], typer.Argument(help="NAME=FILE; the one to judge last.")],
    pairs: Annotated[str, typer.Option(help="content:style,... by file stem.")],
    output: Annotated[Path, typer.Option(help="The grid to write; a .json lies beside it.")],
    sizes: Annotated[str, typer.Option(help="Longer sides, coarse to fine.")] = "128,256",
    recipe: Annotated[str, typer.Option(help="Changes to the recipe, as JSON.")] = "{}",
    baselines: Annotated[
        str, typer.Option(help="Random networks: of the same width, of VGG-19's, or none.")
    ] = "same,vgg19",
    kept: Annotated[
        Path | None, typer.Option(help="Folder of finished pictures, to go on from.")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="Folder of content_style.jpg pictures to show beside.")
    ] = None,
) -> None:
    """Paint pairs with each network at equal content similarity; print measures, draw a grid."""
    steps = [int(size) for size in sizes.split(",")]
    loaded = load_pairs(folder, pairs.split(","), steps[-1])
    changes = RecipeChanges.model_validate({"iterations": 120, **json.loads(recipe)})
    given = {name: Path(path) for name, path in (w.split("=", 1) for w in weights)}
    with tempfile.TemporaryDirectory() as scratch:
        picture, (*earlier, last) = loaded[0].content, given.items()
        random = {}
        if "same" in baselines:
            random["random"] = make_random(Path(scratch), widths_of(last[1]), picture)
        if "vgg19" in baselines:
            random["random VGG-19"] = make_random(Path(scratch), VGG19_WIDTHS, picture)
        networks = dict([*earlier, *random.items(), last])
        contest = Contest(networks, make_recipe("compact", changes), steps, kept)
        for pair in loaded:
            contest.run(pair)
    show(contest.scores, list(networks))
    for pair in loaded if reference else ():
        path = reference / f"{pair.name.replace(' x ', '_')}.jpg"
        if path.exists():
            contest.add(pair, "reference", 0, fit(Image.open(path), steps[-1]))
    columns = [*networks, "reference"] if reference else list(networks)
    grid(columns, loaded, contest.pictures).save(output, quality=85)
    facts = {"recipe": changes.model_dump(exclude_unset=True, exclude_none=True), "sizes": steps}
    scores = [asdict(score) for score in contest.scores]
    output.with_suffix(".json").write_text(json.dumps({**facts, "scores": scores}, indent=1))


def evaluation_seconds(
    path: Path, content: Tensor, dtype: torch.dtype, trunks: dict[Path, Callable[[], None]]
) -> float:
    """Return the seconds of one loss and gradient at `content`, with a network up to relu5_1."""
    if path not in trunks:
        trunk = (
            load_trunk(path, "relu5_1", "average").to(dtype).to(memory_format=torch.channels_last)
        )
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

        trunks[path] = once
        once()
    begun = time.perf_counter()
    trunks[path]()
    return time.perf_counter() - begun


@app.command("speed")
def speed_command(
    weights: Annotated[Path, typer.Argument(help="The compact network's file.")],
    size: Annotated[int, typer.Option(help="Longer side; the picture is 4 : 3.")] = 512,
    rounds: int = 9,
) -> None:
    """Time a loss and gradient against VGG-19's, alternating; print the median of the ratios."""
    content = torch.rand(1, 3, size * 3 // 4, size, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as scratch:
        vgg19 = make_random(Path(scratch), VGG19_WIDTHS, images.to_image(content).resize(CELL))
        for dtype in (torch.bfloat16, torch.float32):
            trunks: dict[Path, Callable[[], None]] = {}
            pairs = [
                [evaluation_seconds(path, content, dtype, trunks) for path in (vgg19, weights)]
                for _ in range(rounds)
            ]
            ratios = [a / b for a, b in pairs]
            a, b = (statistics.median(column) for column in zip(*pairs, strict=True))
            console.print(
                f"{str(dtype).removeprefix('torch.')}: VGG-19 {a:.3f} s, compact {b:.3f} s, "
                f"{statistics.median(ratios):.2f} times faster "
                f"({min(ratios):.2f} to {max(ratios):.2f})"
            )


if __name__ == "__main__":
    app()
