"""Sweeps: values of a recipe's fields, to be compared side by side."""

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from nst_pipeline.config import flow
from nst_pipeline.config.pipeline import Config, explain
from nst_pipeline.config.recipe import Bounds, Recipe, RecipeChanges, did_you_mean, make_recipe
from nst_pipeline.errors import UsageError

MAX_SWEEPS = 2
"""One goes across the sheet, one down."""

SHORT_STEPS = 60
"""Steps after which a small picture looks much as it does in the end."""


@dataclass(frozen=True)
class Value:
    """One value of a field.

    Attributes:
        text: as it was typed, which is what pipeline.yaml takes.
        parsed: what YAML makes of it.
    """

    text: str
    parsed: Any


@dataclass(frozen=True)
class Sweep:
    """A field of the recipe and the values that it shall have."""

    field: str
    values: tuple[Value, ...]


Point = dict[str, Any]
"""What a sweep gives the recipe's fields in one cell; empty without a sweep."""


def parse_sweeps(texts: list[str]) -> tuple[Sweep, ...]:
    """Read ``field=value,value,...``, the values as YAML.

    Args:
        texts: such as ``style_weight=1e2,1e3`` or ``content_layers=[relu4_2],{relu3_1: 1}``.

    Raises:
        UsageError: too many of them, an unknown field, or a value that the field cannot have.
    """
    if len(texts) > MAX_SWEEPS:
        raise UsageError(f"--sweep: given {len(texts)} times; a sheet shows {MAX_SWEEPS} at most")
    sweeps = tuple(_parse(text) for text in texts)
    if len({sweep.field for sweep in sweeps}) < len(sweeps):
        raise UsageError(f"--sweep {sweeps[0].field}: given twice; put all values into one")
    return sweeps


def _parse(text: str) -> Sweep:
    field, equals, values = text.partition("=")
    field = field.strip()
    known = list(RecipeChanges.model_fields)
    if field not in known:
        raise UsageError(f"--sweep {field}: unknown field{did_you_mean(field, known)}")
    if not (equals and values.strip()):
        raise UsageError(f"--sweep {field}: no values; write {field}=VALUE,VALUE")
    sweep = Sweep(field, _values(field, values))
    for value in sweep.values:
        _check(field, value)
    return sweep


def _values(field: str, text: str) -> tuple[Value, ...]:
    try:
        return tuple(Value(*pair) for pair in flow.parse_list(text))
    except ValueError as error:
        raise UsageError(f"--sweep {field}: {text!r} {error}; write VALUE,VALUE") from error


def _check(field: str, value: Value) -> None:
    if value.parsed is None:
        raise UsageError(f"--sweep {field}: {value.text!r} is no value")
    try:
        RecipeChanges.model_validate({field: value.parsed})
    except ValidationError as error:
        raise UsageError(_sweep_problem(error)) from error


def _sweep_problem(error: ValidationError) -> str:
    return f"--sweep {explain(error)[0]}"


def points(sweeps: tuple[Sweep, ...]) -> list[list[Point]]:
    """Return the cells of a grid in rows: the first sweep goes across, the second down."""
    none: list[Point] = [{}]
    across, down = [*map(_points_of, sweeps), none, none][:2]
    return [[column | row for column in across] for row in down]


def _points_of(sweep: Sweep) -> list[Point]:
    return [{sweep.field: value.parsed} for value in sweep.values]


def cell_recipe(
    config: Config,
    style: str | None,
    size: int,
    iterations: int | None,
    point: Point,
) -> Recipe:
    """Return the recipe that a cell is painted by.

    Args:
        config: the settings.
        style: the name of a style; None: the recipe that the styles change.
        size: longer side of the cell, in pixels; a width and a height are made smaller together.
        iterations: steps; None: as the settings say, and `SHORT_STEPS` at most.
        point: fields that the sweep sets, above all others.

    Raises:
        UsageError: the fields do not go together.
    """
    last: Point = {} if iterations is None else {"iterations": iterations}
    changes = [config.recipe] if style is None else [config.recipe, config.styles[style].recipe]
    try:
        wanted = make_recipe(*changes).size
        last["size"] = wanted.within(size) if isinstance(wanted, Bounds) else size
        last |= point
        recipe = make_recipe(*changes, **last)
    except ValidationError as error:
        raise UsageError(_sweep_problem(error)) from error
    if "iterations" not in last and recipe.steps > SHORT_STEPS:
        recipe = recipe.model_copy(update={"iterations": SHORT_STEPS})
    return recipe


def describe(recipe: Recipe, without: tuple[str, ...] = ()) -> str:
    """Return a recipe in few words: its name, size and steps, and what else is changed.

    Args:
        recipe: the recipe.
        without: fields to leave out, such as those of a sweep.
    """
    fields = recipe.model_dump(mode="json", include={"size", "iterations"} - set(without))
    kept = [f"{field}: {flow.dump(value)}" for field, value in fields.items()]
    left_out = ("name", "size", "iterations", *without)
    changed = differences(recipe, make_recipe(name=recipe.name), left_out)
    name = [] if "name" in without else [recipe.name]
    return " · ".join([*name, *kept, *changed])


def differences(recipe: Recipe, other: Recipe, without: tuple[str, ...] = ()) -> list[str]:
    """Return what a recipe has that another has not, as lines of pipeline.yaml."""
    mine, others = recipe.model_dump(mode="json"), other.model_dump(mode="json")
    return [
        f"{field}: {flow.dump(value)}"
        for field, value in mine.items()
        if value != others[field] and field not in without
    ]
