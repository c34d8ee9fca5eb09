"""Which pictures a contact sheet shows, and where: contents x styles, or a sweep for each pair."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

from PIL import Image

from nst_pipeline.config import flow
from nst_pipeline.config.pipeline import Config
from nst_pipeline.config.recipe import Recipe, make_recipe
from nst_pipeline.files import shown
from nst_pipeline.preview.renderer import (
    SWATCH_SIDE,
    PreviewJob,
    Rendered,
    Subject,
    software_name,
    thumbnail,
)
from nst_pipeline.preview.sheet import Axis, Cell, Grid, arrange, columns_for, draw, to_png
from nst_pipeline.preview.sweeps import Sweep, cell_recipe, describe, differences, points


@dataclass(frozen=True)
class PreviewRequest:
    """What a sheet is to show.

    Attributes:
        config: the settings, with the chosen styles.
        network: id of the weights, for the heading.
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
            [cell_recipe(self.config, style, self.size, self.iterations, point) for point in row]
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
        fields = ", ".join(f"{s.field}: {s.values[-1].text}" for s in self.sweeps)
        return f"put what you like best into pipeline.yaml, such as `recipe: {{{fields}}}`"


def grids(
    request: PreviewRequest,
    contents: list[Subject],
    styles: dict[str, Subject],
    rendered: dict[str, Rendered],
) -> list[Grid]:
    """Return the sheet's grids: one a content, or with a sweep one a content and style."""
    if not request.sweeps:
        return [_styles_of(request, n, contents, styles, rendered) for n in range(len(contents))]
    found: list[Grid] = []
    for number, content in enumerate(contents):
        if content.picture is None:
            found.append(Grid(((Cell(None, content.reason),),), content.name))
            continue
        found += [_sweep_of(request, number, content, styles[s], rendered) for s in styles]
    return found


def _styles_of(
    request: PreviewRequest,
    number: int,
    contents: list[Subject],
    styles: dict[str, Subject],
    rendered: dict[str, Rendered],
) -> Grid:
    content = contents[number]
    note = " + ".join(["content", *content.companions])
    cells = [Cell(content.picture, content.reason, content.name, note)]
    ((base,),) = request.recipes(None)
    for name in styles if content.picture else ():
        ((recipe,),) = request.recipes(name)
        done = rendered[PreviewJob(number, name, recipe).key]
        note = ", ".join(differences(recipe, base))
        cells.append(Cell(done.picture, done.reason, name, note, styles[name].picture))
    columns = columns_for(1 + len(styles), len(contents))
    return Grid(
        tuple(tuple(cells[n : n + columns]) for n in range(0, len(cells), columns)),
    )


def _sweep_of(
    request: PreviewRequest,
    number: int,
    content: Subject,
    style: Subject,
    rendered: dict[str, Rendered],
) -> Grid:
    title = f"{content.name} in {style.name}"
    if style.picture is None:
        return Grid(((Cell(None, style.reason),),), title)
    rows = request.recipes(style.name)
    cells = [
        [rendered[PreviewJob(number, style.name, recipe).key] for recipe in row] for row in rows
    ]
    axes = [Axis(s.field, tuple(value.text for value in s.values)) for s in request.sweeps]
    swept = tuple(sweep.field for sweep in request.sweeps)
    return Grid(
        tuple(tuple(Cell(done.picture, done.reason) for done in row) for row in cells),
        title,
        describe(rows[0][0], swept),
        _swatches(content, style),
        axes[0],
        axes[1] if len(axes) > 1 else None,
    )


def _swatches(*subjects: Subject) -> tuple[Image.Image, ...]:
    return tuple(thumbnail(subject.picture, SWATCH_SIDE) for subject in subjects if subject.picture)


def heading(request: PreviewRequest, contents: list[Subject]) -> tuple[str, str]:
    """Return a sheet's title, and what stands below it."""
    names = list(request.config.styles)
    one = contents[0].name if len(contents) == 1 else f"{len(contents)} pictures"
    title = f"{one} in {names[0] if len(names) == 1 else f'{len(names)} styles'}"
    network = f"{shown(PurePath(request.network).name)} network"
    if request.sweeps:
        return f"By {' and '.join(s.field for s in request.sweeps)}", network
    ((base,),) = request.recipes(None)
    return title, f"{network} · {describe(base)}"


def footer(request: PreviewRequest) -> str:
    """Return what the sheet says at its end: how it differs from what `run` paints."""
    wanted = make_recipe(request.config.recipe)
    size = wanted.model_dump(mode="json")["size"]
    text = f"A preview; nst-pipeline run paints with size: {flow.dump(size)}, iterations: "
    text += f"{wanted.iterations}."
    if request.sweeps:
        text += " Put the values of the picture that you like under recipe: in pipeline.yaml."
    return text


def draw_sheet(
    request: PreviewRequest,
    contents: list[Subject],
    styles: dict[str, Subject],
    rendered: dict[str, Rendered],
) -> bytes:
    """Return the sheet as a PNG file."""
    title, note = heading(request, contents)
    rows = grids(request, contents, styles, rendered)
    sheet = arrange(title, note, rows, footer(request), request.size)
    return to_png(
        draw(sheet), [("Software", software_name()), ("Title", title), ("Description", note)]
    )


def problems(
    jobs: list[PreviewJob],
    contents: list[Subject],
    styles: dict[str, Subject],
    rendered: dict[str, Rendered],
) -> list[str]:
    """Return what went wrong, each mistake once."""
    reasons = [subject.reason for subject in (*contents, *styles.values())]
    reported = set(reasons)
    for job in jobs:
        if (reason := rendered[job.key].reason) and reason not in reported:
            reasons.append(f"{contents[job.content].name} in {job.style}: {reason}")
    return list(dict.fromkeys(filter(None, reasons)))
