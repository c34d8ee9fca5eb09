"""The command line's contact sheets."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nst_pipeline.cli.daemon import ConfigOption
from nst_pipeline.files import shown

if TYPE_CHECKING:
    from nst_pipeline.cli.display import Bars
    from nst_pipeline.config.weights import Weights
    from nst_pipeline.inbox.scanner import SourceFile
    from nst_pipeline.preview.contact import Order
    from nst_pipeline.preview.renderer import PreviewJob, Rendered, Source

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
    from nst_pipeline.cli.overrides import configure, fetch_if_missing
    from nst_pipeline.config.weights import resolve
    from nst_pipeline.errors import UsageError
    from nst_pipeline.files import ensure_folder
    from nst_pipeline.inbox import scanner
    from nst_pipeline.preview.contact import Order
    from nst_pipeline.preview.renderer import check_target
    from nst_pipeline.preview.sweeps import parse_sweeps

    sweeps = parse_sweeps(sweep or [])
    settings = {"device": device, "weights": weights}
    config = configure(config_path, style or [], settings, {}, paths)
    images = [path for chosen in config.styles.values() for path in chosen.paths()]
    found = scanner.find(paths, config.ignore, (*config.excluded, *images))
    if not found:
        raise UsageError(f"{', '.join(map(shown, paths))}: no pictures")
    target = output or Path(_default_name(found, [s.field for s in sweeps]))
    sources = [path for one in found for path in (one.path, *(c.path for c in one.companions))]
    check_target(target, config, [*sources, *images], force)
    fetch_if_missing(config.weights)
    network = resolve(config.weights)
    order = Order(config, network.id, size, iterations, sweeps)
    order.jobs(1)  # every recipe is made once, so that a wrong one is told before the work
    ensure_folder(target.parent)
    _make(order, network, found, lambda: check_target(target, config, [], force), target)


def _default_name(found: "list[SourceFile]", swept: list[str]) -> str:
    """Return the name of the sheet: of its one picture, and of what is compared."""
    names = [found[0].path.stem] if len(found) == 1 else []
    return "-".join(["preview", *names, *swept]) + ".png"


def _make(
    order: "Order",
    network: "Weights",
    found: "list[SourceFile]",
    check_again: Callable[[], None],
    target: Path,
) -> None:
    """Paint, publish the sheet, and tell of it; exit with 1 if anything failed."""
    from rich.console import Console

    from nst_pipeline.cli.display import Bars
    from nst_pipeline.daemon.signals import end_on_signals
    from nst_pipeline.files import publish
    from nst_pipeline.preview.contact import draw_sheet, problems
    from nst_pipeline.preview.renderer import Renderer

    begun = time.monotonic()
    jobs = order.jobs(len(found))
    contents: list[Source] = []
    painted: dict[str, Rendered] = {}
    with Bars(Console()) as bars:
        bars.line(f"weights  {network.id}: {network.note}")
        bars.begin(sum(job.recipe.steps for job in jobs), f"{len(jobs)} pictures")
        check = end_on_signals()
        renderer = Renderer(order.config, network, order.size, _stepper(bars), check)
        for number, one in enumerate(found):
            source, done = renderer.paint(one, [s for s in jobs if s.content == number])
            contents.append(source)
            painted |= done
        wrong = problems(jobs, contents, renderer.styles, painted)
        for reason in wrong:
            bars.line(f"failed   {reason}", "red")
        count = sum(done.picture is not None for done in painted.values())
        if count:
            check_again()
            publish(target, draw_sheet(order, contents, renderer.styles, painted))
            seconds = time.monotonic() - begun
            bars.line(f"sheet    {shown(target)}: {count} painted in {seconds:.1f} s")
            if order.sweeps:
                bars.line(f"recipe   {order.hint()}")
    if wrong:
        raise typer.Exit(1)


def _stepper(bars: "Bars") -> "Callable[[PreviewJob, int, float], None]":
    """Return what moves the bars when a picture is ``done`` steps old."""
    steps: dict[str, int] = {}

    def stepped(job: "PreviewJob", done: int, loss: float) -> None:
        bars.advance(done - steps.get(job.key, 0))
        steps[job.key] = done

    return stepped
