"""The command line's contact sheets."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nst_pipeline.cli_watch import ConfigOption
from nst_pipeline.files import shown

if TYPE_CHECKING:
    from nst_pipeline.contact import Order
    from nst_pipeline.display import Bars
    from nst_pipeline.preview import Spot
    from nst_pipeline.weights import Weights

# Imports of more than a few milliseconds stand inside the commands, so that --help is instant.


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(preview)


def preview(
    paths: Annotated[list[Path], typer.Argument(help="Pictures, and folders of them.")],
    config_path: ConfigOption = None,
    style: Annotated[
        list[str] | None,
        typer.Option("-s", "--style", help="A style of the settings, or an image; repeatable."),
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD=VALUE,VALUE,...",
            help="Compare values of a field of the recipe, as in style_weight=1e2,1e3; "
            "a second one makes a grid.",
        ),
    ] = None,
    size: Annotated[
        int, typer.Option(min=32, max=4096, help="Longer side of each picture, in pixels.")
    ] = 256,
    iterations: Annotated[
        int | None,
        typer.Option(min=1, max=100_000, help="Steps (default: the recipe's, 60 at most)."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The sheet (default: ./preview-NAME.png)."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="auto, imagenet, compact, or a weights file.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file that is no preview.")
    ] = False,
) -> None:
    """Paint PATHS small in every style, side by side on one sheet; write nothing else."""
    from nst_pipeline import inbox
    from nst_pipeline.contact import Order
    from nst_pipeline.errors import UsageError
    from nst_pipeline.files import ensure_folder
    from nst_pipeline.overrides import configure, fetch_if_missing
    from nst_pipeline.preview import check_target
    from nst_pipeline.sweeps import parse_sweeps
    from nst_pipeline.weights import resolve

    sweeps = parse_sweeps(sweep or [])
    settings = {"device": device, "weights": weights}
    config = configure(config_path, style or [], settings, {}, has_paths=True)
    images = [chosen.image for chosen in config.styles.values()]
    found = [item.path for item in inbox.find(paths, config.ignore, (*config.apart, *images))]
    if not found:
        raise UsageError(f"{', '.join(map(shown, paths))}: no pictures")
    target = output or Path(_default_name(found, [s.field for s in sweeps]))
    check_target(target, config, [*found, *images], force)
    fetch_if_missing(config.weights)
    network = resolve(config.weights)
    order = Order(config, network.id, size, iterations, sweeps)
    order.spots(1)  # every recipe is made once, so that a wrong one is told before the work
    ensure_folder(target.parent)
    _make(order, network, found, lambda: check_target(target, config, [], force), target)


def _default_name(found: list[Path], swept: list[str]) -> str:
    """Return the name of the sheet: of its one picture, and of what is compared."""
    names = [found[0].stem] if len(found) == 1 else []
    return "-".join(["preview", *names, *swept]) + ".png"


def _make(
    order: "Order",
    network: "Weights",
    found: list[Path],
    check_again: Callable[[], None],
    target: Path,
) -> None:
    """Paint, publish the sheet, and tell of it; exit with 1 if anything failed."""
    from rich.console import Console

    from nst_pipeline.contact import draw_sheet, problems
    from nst_pipeline.display import Bars
    from nst_pipeline.files import publish
    from nst_pipeline.preview import paint, read_source
    from nst_pipeline.signals import end_on_signals

    begun = time.monotonic()
    config = order.config
    contents = [read_source(path, path.name, config) for path in found]
    styles = {n: read_source(s.image, n, config) for n, s in config.styles.items()}
    spots = order.spots(len(contents))
    with Bars(Console()) as bars:
        bars.line(f"weights  {network.id}: {network.note}")
        bars.begin(sum(spot.recipe.steps for spot in spots), f"{len(spots)} pictures")
        check = end_on_signals()
        painted = paint(spots, contents, styles, config, network, _stepper(bars), check)
        wrong = problems(spots, contents, styles, painted)
        for reason in wrong:
            bars.line(f"failed   {reason}", "red")
        count = sum(done.picture is not None for done in painted.values())
        if count:
            check_again()
            publish(target, draw_sheet(order, contents, styles, painted))
            seconds = time.monotonic() - begun
            bars.line(f"sheet    {shown(target)}: {count} painted in {seconds:.1f} s")
            if order.sweeps:
                bars.line(f"recipe   {order.hint()}")
    if wrong:
        raise typer.Exit(1)


def _stepper(bars: "Bars") -> "Callable[[Spot, int, float], None]":
    """Return what moves the bars when a picture is ``done`` steps old."""
    steps: dict[str, int] = {}

    def stepped(spot: "Spot", done: int, loss: float) -> None:
        bars.advance(done - steps.get(spot.key, 0))
        steps[spot.key] = done

    return stepped
