"""The command line's contact sheets."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nst_pipeline.cli import completion
from nst_pipeline.cli.daemon import ConfigOption
from nst_pipeline.cli.echo import say
from nst_pipeline.files import counted, fitted_name, shown

if TYPE_CHECKING:
    from nst_pipeline.cli.display import Bars
    from nst_pipeline.config.weights import Weights
    from nst_pipeline.inbox.scanner import SourceFile
    from nst_pipeline.preview.contact import PreviewRequest
    from nst_pipeline.preview.renderer import PreviewJob, Rendered, Subject

# Imports of more than a few milliseconds stand inside the commands, so that --help is instant.


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(preview)


def preview(
    paths: Annotated[list[Path], typer.Argument(help="Pictures, and folders of them.")],
    config_path: ConfigOption = None,
    style: Annotated[
        list[str] | None,
        typer.Option(
            "-s",
            "--style",
            autocompletion=completion.style_names,
            help="A style of the settings, an image, a folder or a quoted pattern; repeatable.",
        ),
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
    device: Annotated[
        str | None,
        typer.Option(autocompletion=completion.devices, help="auto, cpu, cuda, xpu, mps, cuda:N."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            autocompletion=completion.weights, help="auto, imagenet, vgg16, compact, or a file."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file that is no preview.")
    ] = False,
) -> None:
    """Paint PATHS small in every style, side by side on one sheet; write nothing else."""
    from nst_pipeline.cli.overrides import configure, fetch_if_missing
    from nst_pipeline.config.recipe import check_layers
    from nst_pipeline.config.weights import resolve
    from nst_pipeline.errors import UsageError
    from nst_pipeline.files import ensure_folder
    from nst_pipeline.inbox import scanner
    from nst_pipeline.inbox.style_folders import StyleFolders, style_paths
    from nst_pipeline.jobs.planning import excluded
    from nst_pipeline.preview.contact import PreviewRequest
    from nst_pipeline.preview.renderer import check_target
    from nst_pipeline.preview.sweeps import parse_sweeps

    sweeps = parse_sweeps(sweep or [])
    settings = {"device": device, "weights": weights}
    config = configure(config_path, style or [], settings, {}, paths)
    found = scanner.find(
        paths, config.ignored, excluded(config, are_named=True), style_paths(config)
    )
    there = StyleFolders(config, 0).find()
    config, notes = there.config, there.notes
    for note in scanner.some_of(notes):
        say(f"style    {note}", err=True)
    if not config.styles:
        raise UsageError("no style is there to paint in; put an image into the folder of styles")
    images = [path for chosen in config.styles.values() for path in chosen.paths()]
    if not found:
        raise UsageError(f"{', '.join(map(shown, paths))}: no pictures")
    target = output or Path(_default_name(found, [s.field for s in sweeps]))
    sources = [path for one in found for path in (one.path, *(c.path for c in one.companions))]
    check_target(target, config, [*sources, *images], force)
    fetch_if_missing(config.weights)
    network = resolve(config.weights)
    request = PreviewRequest(config, network.id, size, iterations, sweeps)
    for job in request.jobs(1):  # so that a wrong recipe is told before the work
        check_layers(job.recipe, network)
    ensure_folder(target.parent)
    _make(request, network, found, lambda: check_target(target, config, [], force), target)


def _default_name(found: "list[SourceFile]", swept: list[str]) -> str:
    """Return the name of the sheet: of its one picture, and of what is compared."""
    names = [found[0].path.stem] if len(found) == 1 else []
    return fitted_name("-".join(["preview", *names, *swept]), ".png")


@contextlib.contextmanager
def _told(bars: "Bars", target: Path) -> Iterator[None]:
    """Tell, when a signal ends the work, what came of it."""
    try:
        yield
    except SystemExit:
        bars.line(f"stopped  {shown(target)}: not written; a preview begins anew")
        raise


def _make(
    request: "PreviewRequest",
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
    from nst_pipeline.jobs.pace import StepsDone
    from nst_pipeline.preview.contact import draw_sheet, problems
    from nst_pipeline.preview.renderer import Renderer

    begun, check = time.monotonic(), end_on_signals()
    jobs = request.jobs(len(found))
    contents: list[Subject] = []
    rendered: dict[str, Rendered] = {}
    with Bars(Console()) as bars, _told(bars, target):
        bars.line(f"weights  {shown(network.id)}: {network.note}")
        steps = StepsDone()
        recipes = {job.key: job.recipe for job in jobs}  # the same picture is painted once
        bars.begin(sum(map(steps.all, recipes.values())), counted(len(jobs), "picture"))

        def move(job: "PreviewJob", done: int, total: int) -> None:
            bars.advance(steps.move(job.key, job.recipe, done, total))

        renderer = Renderer(request.config, network, request.size, move, check)
        for number, one in enumerate(found):
            wanted = [job for job in jobs if job.content == number]
            subject, done = renderer.paint(one, wanted)
            for job in wanted:
                move(job, 1, 1)  # some failed, or ended early
            contents.append(subject)
            rendered |= done
        for note in renderer.notes:
            bars.line(f"note     {note}")
        wrong = problems(jobs, contents, renderer.styles, rendered)
        for reason in wrong:
            bars.line(f"failed   {reason}", "red")
        count = sum(done.picture is not None for done in rendered.values())
        if count:
            check_again()
            publish(target, draw_sheet(request, contents, renderer.styles, rendered))
            seconds = time.monotonic() - begun
            bars.line(f"sheet    {shown(target)}: {count} painted in {seconds:.1f} s")
            if request.sweeps:
                bars.line(f"recipe   {request.hint()}")
    if wrong:
        raise typer.Exit(1)
