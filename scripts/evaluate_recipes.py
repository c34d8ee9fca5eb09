#!/usr/bin/env python
"""Compare recipes: pictures at equal content similarity, with model-free measures.

Every recipe paints the same pairs with the compact network. The first one's pictures set the
content similarity; for the others the weight of the style is searched until theirs is the same.
Then the patches' sliced Wasserstein distance to the style (`marginals`, as a share of the content's
own) and the `coherence` of strokes are compared; see `compact_measures`.
"""

from __future__ import annotations

import functools
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
import yaml
from compact_contest import Pair, Score, console, load_pairs, match, measure
from compact_measures import content_similarity
from evaluate_compact import grid
from PIL import Image
from rich.table import Table

from nst_pipeline.engine import Recipe, StyleTransfer, TargetCache, make_recipe


def paint(recipe: Recipe, pair: Pair, targets: TargetCache, weight: float) -> Image.Image:
    """Paint a pair; the total variation's weight goes with the style's."""
    tv_weight = recipe.tv_weight * weight / recipe.style_weight
    changed = recipe.model_copy(update={"style_weight": weight, "tv_weight": tv_weight})
    transfer = StyleTransfer(changed, weights="compact", targets=targets)
    return transfer.run(pair.content, [pair.style])[0].pastiche


def contest(
    recipes: dict[str, Recipe], pairs: list[Pair]
) -> tuple[list[Score], dict[tuple[str, str], Image.Image]]:
    """Paint and measure every pair by every recipe, at the first one's content similarity."""
    scores: list[Score] = []
    pictures: dict[tuple[str, str], Image.Image] = {}
    targets = TargetCache()
    weights = {name: recipe.style_weight for name, recipe in recipes.items()}
    for pair in pairs:
        wanted = None
        for name, recipe in recipes.items():
            attempt = functools.partial(paint, recipe, pair, targets)
            if wanted is None:
                picture = attempt(weights[name])
            else:
                similarity = functools.partial(content_similarity, pair.content)
                weights[name], picture = match(attempt, similarity, wanted, weights[name])
            score = measure(pair, name, weights[name], picture)
            wanted = score.content if wanted is None else wanted
            scores.append(score)
            pictures[pair.name, name] = picture
            console.print(
                f"{pair.name}, {name}: style weight {weights[name]:.3g}, coherence "
                f"{score.coherence:.3f}, marginals {score.marginals:.3f}, "
                f"content {score.content:.3f}"
            )
    return scores, pictures


def main(
    folder: Annotated[Path, typer.Argument(help="Holds content/ and style/ pictures.")],
    pairs: Annotated[str, typer.Option(help="content:style,... by file stem.")],
    output: Annotated[Path, typer.Option(help="The grid to write; a .json lies beside it.")],
    recipe: Annotated[
        list[str], typer.Option(help="NAME={field: value, ...} as YAML; the first sets the pace.")
    ],
    size: Annotated[int, typer.Option(help="Longer side, in pixels.")] = 256,
) -> None:
    """Paint, print the measures, and draw a grid."""
    changes = {name: yaml.safe_load(text) or {} for name, text in (r.split("=", 1) for r in recipe)}
    recipes = {name: make_recipe("compact", size=size, **given) for name, given in changes.items()}
    loaded = load_pairs(folder, pairs.split(","), size)
    scores, pictures = contest(recipes, loaded)
    table = Table("pair", *[f"{name}: {kind}" for name in recipes for kind in ("coh.", "SWD")])
    for pair in loaded:
        own = [score for score in scores if score.pair == pair.name]
        table.add_row(pair.name, *[f"{v:.3f}" for s in own for v in (s.coherence, s.marginals)])
    console.print(table)
    grid(list(recipes), loaded, pictures).save(output, quality=85)
    facts = {"size": size, "recipes": changes, "scores": [asdict(score) for score in scores]}
    output.with_suffix(".json").write_text(json.dumps(facts, indent=1))


if __name__ == "__main__":
    typer.run(main)
