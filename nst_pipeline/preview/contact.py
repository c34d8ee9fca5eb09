"""Which pictures a contact sheet shows, and where: contents x styles, or a sweep for each pair."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

from PIL import Image

from nst_pipeline.config.pipeline import Config
from nst_pipeline.config.recipe import Recipe, make_recipe
from nst_pipeline.preview.renderer import SWATCH, PreviewJob, Rendered, Source, small, software
from nst_pipeline.preview.sheet import Axis, Cell, Grid, arrange, columns_for, draw, to_png
from nst_pipeline.preview.sweeps import Sweep, cell_recipe, describe, differences, points


@dataclass(frozen=True)
class Order:
    """What is asked for.

    Attributes:
        config: the settings, with the chosen styles.
        network: id of the weights.
        size: longer side of the pictures.
        iterations: steps; None: see `cell_recipe`.
        sweeps: two at most.
    """

    config: Config
    network: str
    size: int
    iterations: int | None
    sweeps: tuple[Sweep, ...]

    def recipes(self, style: str | None) -> list[list[Recipe]]:
        """Return a style's recipes in rows; one without a sweep.

        Raises:
            UsageError: values that do not go together.
        """
        return [
            [
                cell_recipe(self.config, style, self.network, self.size, self.iterations, point)
                for point in row
            ]
            for row in points(self.sweeps)
        ]

    def jobs(self, contents: int) -> list[PreviewJob]:
        """Return everything to paint."""
        recipes = {
            style: [r for row in self.recipes(style) for r in row] for style in self.config.styles
        }
        return [
            PreviewJob(content, style, recipe)
            for content in range(contents)
            for style in self.config.styles
            for recipe in recipes[style]
        ]

    def hint(self) -> str:
        """Return how a swept value gets into the settings."""
        lines = ", ".join(f"{s.field}: {s.values[-1].text}" for s in self.sweeps)
        return f"put what you like best under `recipe:` in pipeline.yaml, such as `{lines}`"


def grids(
    order: Order, contents: list[Source], styles: dict[str, Source], painted: dict[str, Rendered]
) -> list[Grid]:
    """Return the sheet's grids: one a content, or with a sweep one a content and style."""
    if not order.sweeps:
        return [_styles_of(order, n, contents, styles, painted) for n in range(len(contents))]
    found: list[Grid] = []
    for number, content in enumerate(contents):
        if content.picture is None:
            found.append(Grid(((Cell(None, content.reason),),), content.name))
            continue
        found += [_sweep_of(order, number, content, styles[s], painted) for s in styles]
    return found


def _styles_of(
    order: Order,
    number: int,
    contents: list[Source],
    styles: dict[str, Source],
    painted: dict[str, Rendered],
) -> Grid:
    content = contents[number]
    note = " + ".join(["content", *content.companions])
    cells = [Cell(content.picture, content.reason, content.name, note)]
    ((base,),) = order.recipes(None)
    for name in styles if content.picture else ():
        ((recipe,),) = order.recipes(name)
        done = painted[PreviewJob(number, name, recipe).key]
        note = ", ".join(differences(recipe, base))
        cells.append(Cell(done.picture, done.reason, name, note, styles[name].picture))
    columns = columns_for(1 + len(styles), len(contents))
    return Grid(
        tuple(tuple(cells[n : n + columns]) for n in range(0, len(cells), columns)),
    )


def _sweep_of(
    order: Order, number: int, content: Source, style: Source, painted: dict[str, Rendered]
) -> Grid:
    title = f"{content.name} in {style.name}"
    if style.picture is None:
        return Grid(((Cell(None, style.reason),),), title)
    rows = order.recipes(style.name)
    cells = [
        [painted[PreviewJob(number, style.name, recipe).key] for recipe in row] for row in rows
    ]
    axes = [Axis(s.field, tuple(value.text for value in s.values)) for s in order.sweeps]
    swept = tuple(sweep.field for sweep in order.sweeps)
    return Grid(
        tuple(tuple(Cell(done.picture, done.reason) for done in row) for row in cells),
        title,
        describe(rows[0][0], order.network, swept),
        _swatches(content, style),
        axes[0],
        axes[1] if len(axes) > 1 else None,
    )


def _swatches(*sources: Source) -> tuple[Image.Image, ...]:
    return tuple(small(source.picture, SWATCH) for source in sources if source.picture)


def heading(order: Order, contents: list[Source]) -> tuple[str, str]:
    """Return a sheet's title, and what stands below it."""
    names = list(order.config.styles)
    one = contents[0].name if len(contents) == 1 else f"{len(contents)} pictures"
    title = f"{one} in {names[0] if len(names) == 1 else f'{len(names)} styles'}"
    network = f"{PurePath(order.network).name} network"
    if order.sweeps:
        return f"By {' and '.join(s.field for s in order.sweeps)}", network
    ((base,),) = order.recipes(None)
    return title, f"{network} · {describe(base, order.network)}"


def footer(order: Order) -> str:
    """Return what the sheet says at its end: how it differs from what `run` paints."""
    wanted = make_recipe(order.network, order.config.recipe)
    text = f"A preview; nst-pipeline run paints with size: {wanted.size}, iterations: "
    text += f"{wanted.iterations}."
    if order.sweeps:
        text += " Put the values of the picture that you like under recipe: in pipeline.yaml."
    return text


def draw_sheet(
    order: Order, contents: list[Source], styles: dict[str, Source], painted: dict[str, Rendered]
) -> bytes:
    """Return the sheet as a PNG file."""
    title, note = heading(order, contents)
    rows = grids(order, contents, styles, painted)
    sheet = arrange(title, note, rows, footer(order), order.size)
    return to_png(draw(sheet), [("Software", software()), ("Title", title), ("Description", note)])


def problems(
    jobs: list[PreviewJob],
    contents: list[Source],
    styles: dict[str, Source],
    painted: dict[str, Rendered],
) -> list[str]:
    """Return what went wrong, each mistake once."""
    reasons = [source.reason for source in (*contents, *styles.values())]
    told = set(reasons)
    for job in jobs:
        if (reason := painted[job.key].reason) and reason not in told:
            reasons.append(f"{contents[job.content].name} in {job.style}: {reason}")
    return list(dict.fromkeys(filter(None, reasons)))
