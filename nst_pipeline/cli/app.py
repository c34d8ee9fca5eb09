"""The command line: parses, calls, prints, and sets the exit code."""

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nst_pipeline import CONFIG_NAME, __version__
from nst_pipeline.cli import daemon, preview
from nst_pipeline.cli.daemon import ConfigOption
from nst_pipeline.cli.echo import say
from nst_pipeline.errors import CannotCreateError, PipelineError, UsageError
from nst_pipeline.files import as_text, shown

if TYPE_CHECKING:
    from rich.console import Console

    from nst_pipeline.config.pipeline import Config
    from nst_pipeline.jobs.palette import Palette
    from nst_pipeline.jobs.planning import Plan

# Imports of more than a few milliseconds stand inside the commands, so that --help is instant.

PACKAGE = Path(__file__).parents[1]
MOST_NAMES = 50
"""Of very many styles, how many `check` names."""

app = typer.Typer(
    name="nst-pipeline",
    help="Paint every picture of a folder in every style of pipeline.yaml.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
weights_app = typer.Typer(help="Show or download the network's weights.")
app.add_typer(weights_app, name="weights")


def main() -> None:
    """Run the command line; exit codes are those of `errors`, and 64 for wrong usage."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        app()
    except PipelineError as error:
        say(str(error), err=True)
        sys.exit(error.exit_code)
    except SystemExit as stop:
        sys.exit(64 if stop.code == 2 else stop.code)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"nst-pipeline {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Paint every picture of a folder in every style of pipeline.yaml."""


@app.command()
def run(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Files and folders to paint, not the inbox.")
    ] = None,
    config_path: ConfigOption = None,
    style: Annotated[
        list[str] | None,
        typer.Option(
            "-s",
            "--style",
            help="A style of the settings, an image, a folder or a quoted pattern; repeatable.",
        ),
    ] = None,
    inbox: Annotated[Path | None, typer.Option(help="Folder of pictures to paint.")] = None,
    outbox: Annotated[Path | None, typer.Option(help="Folder of results.")] = None,
    size: Annotated[
        int | None, typer.Option(min=32, max=16384, help="Longer side, in pixels.")
    ] = None,
    iterations: Annotated[int | None, typer.Option(min=1, max=100_000, help="Steps.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="auto, imagenet, vgg16, compact, or a file.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the jobs and what would happen to each.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Paint also what is done.")] = False,
    snapshots: Annotated[
        int | None, typer.Option(min=0, help="Keep the unfinished picture every so many steps.")
    ] = None,
    making: Annotated[
        str | None, typer.Option(help="gif or webp: animate the making, beside the result.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the run's manifest, and nothing else.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait while another run or watch uses the state folder.")
    ] = False,
) -> None:
    """Paint the inbox (or PATHS) in every style, unless it is done already."""
    from rich.console import Console

    from nst_pipeline.cli.overrides import configure, fetch_if_missing

    changes = {"size": size, "iterations": iterations}
    settings = {"inbox": inbox, "outbox": outbox, "device": device, "weights": weights}
    output = {"snapshots": snapshots, "making": making}
    config = configure(config_path, style or [], settings, changes, paths or [], output)
    console = Console(stderr=as_json)
    if dry_run:
        _show_plan(config, paths, force, as_json)
        return
    fetch_if_missing(config.weights)
    _run(config, paths, force, as_json, console, wait)


def _run(
    config: "Config",
    paths: list[Path] | None,
    force: bool,
    as_json: bool,
    console: "Console",
    wait: bool,
) -> None:
    from nst_pipeline.cli.display import Display
    from nst_pipeline.daemon.signals import end_on_signals
    from nst_pipeline.jobs.lock import Lock
    from nst_pipeline.manifest.model import to_json
    from nst_pipeline.runner.runner import Runner
    from nst_pipeline.workers.local import LocalExecutor

    end = end_on_signals()

    def check() -> None:
        end()
        lock.check()

    with (
        Lock(config.state, "run", wait) as lock,
        Display(console, check) as display,
        Runner(config, LocalExecutor, display) as runner,
    ):
        recorder = runner.run(paths, force)
    manifest = recorder.manifest()
    totals = manifest.totals
    if as_json:
        typer.echo(to_json(manifest))
    elif totals.done or totals.failed:
        display.line(
            f"{totals.done} done, {totals.failed} failed, {totals.skipped} skipped in "
            f"{totals.seconds:.0f} s; manifest: {shown(recorder.path)}"
        )
    elif totals.skipped or display.cancelled:
        parts = [f"{totals.skipped} jobs are done; --force paints them again"]
        parts += [f"{display.cancelled} are cancelled; `nst-pipeline retry` puts them back"]
        counts = (totals.skipped, display.cancelled)
        said = [part for part, count in zip(parts, counts, strict=True) if count]
        display.line(f"nothing to do: {'; '.join(said)}")
    else:
        where = ", ".join(map(shown, paths or [config.inbox]))
        display.line(f"nothing to do: no pictures in {where}")
    if totals.failed:
        raise typer.Exit(1)


def _show_plan(config: "Config", paths: list[Path] | None, force: bool, as_json: bool) -> None:
    import json

    plan, copied = _plan(config, paths, force)
    rows: list[tuple[str, Path, str, str]] = []
    for job in plan.todo:
        action = "copy" if job.output in copied else "paint"
        rows.append((action, job.content.path, job.style.name, as_text(job.output)))
    rows += [("skip", j.content.path, j.style.name, "done already") for j in plan.done]
    rows += [("hold", h.job.content.path, h.job.style.name, h.reason) for h in plan.held]
    if as_json:
        for b in plan.broken:
            rows += [("fail", b.found.path, s.name, b.reason) for s in plan.palette.of(b.found)]
        keys = ("action", "content", "style", "outcome")
        typer.echo(
            json.dumps([dict(zip(keys, map(as_text, r), strict=True)) for r in rows], indent=2)
        )
        return
    for action, content, style, outcome in rows:
        say(f"{action:6} {shown(content)} in {style}: {shown(outcome)}")
    for note in plan.palette.notes:
        say(f"style  {shown(note)}")
    for broken in plan.broken:  # in all styles alike
        say(f"fail   {shown(broken.reason)}")
    if passed_over := str(plan.passed_over):
        say(f"passed {passed_over}")
    copy = f"copy {len(copied)}, " if copied else ""
    held = f"hold {len(plan.held)}, " if plan.held else ""
    say(
        f"would paint {len(plan.todo) - len(copied)}, {copy}skip {len(plan.done)}, "
        f"{held}fail {_broken_jobs(plan)}; weights {shown(plan.weights.id)}: "
        f"{plan.weights.note}"
    )


def _broken_jobs(plan: "Plan") -> int:
    return sum(len(plan.palette.of(broken.found)) for broken in plan.broken)


def _plan(
    config: "Config", paths: list[Path] | None = None, force: bool = False
) -> tuple["Plan", set[Path]]:
    """Plan without leaving a trace; return the plan, and the outputs that need no painting."""
    from nst_pipeline.jobs.ledger import Ledger, ledger_path
    from nst_pipeline.jobs.planning import copies, make_plan, make_scanner

    path = ledger_path(config.state)
    with Ledger(path if path.is_file() else None) as ledger:
        plan = make_plan(config, ledger, make_scanner(config, paths, 0), force=force)
        return plan, set() if force else copies(plan.todo, ledger)


@app.command()
def check(config_path: ConfigOption = None) -> None:
    """Report every problem of the settings, and what a run would use and do."""
    from nst_pipeline.config.pipeline import load
    from nst_pipeline.engine.devices import (
        describe_device,
        describe_precision,
        resolve_device,
        resolve_precision,
    )

    path = config_path or Path(CONFIG_NAME)
    config = load(path)
    say(f"settings   {shown(path)}: fine")
    exit_code = 0
    try:
        device = resolve_device(config.device)
        dtype = resolve_precision(config.precision, device)
        say(f"device     {describe_device(device)}")
        say(f"precision  {describe_precision(dtype)} ({config.precision})")
    except PipelineError as error:
        say(f"device     {error}")
        exit_code = error.exit_code
    for name, wanted in (("inbox", os.R_OK | os.X_OK), ("outbox", os.W_OK), ("state", os.W_OK)):
        state, fine = _folder_state(getattr(config, name), wanted, must_exist=name == "inbox")
        say(f"{name:10} {shown(getattr(config, name))}: {state}")
        exit_code = exit_code or (0 if fine else CannotCreateError.exit_code)
    try:
        plan, copied = _plan(config)
        say(f"weights    {shown(plan.weights.id)}: {plan.weights.note}")
        say(f"           SHA-256 {plan.weights.sha256}")
        _show_palette(plan.palette)
        copy = f"{len(copied)} to copy, " if copied else ""
        say(
            f"jobs       {len(plan.todo) - len(copied)} to paint, {copy}"
            f"{len(plan.done)} done already, "
            f"{_broken_jobs(plan)} cannot be painted"
        )
        for broken in plan.broken:
            say(f"           {shown(broken.reason)}")
        if passed_over := str(plan.passed_over):
            say(f"passed     {passed_over}")
    except PipelineError as error:
        say(f"problem    {_aligned(error)}")
        exit_code = exit_code or error.exit_code
    if exit_code:
        raise typer.Exit(exit_code)


def _show_palette(palette: "Palette") -> None:
    """Say which styles there are, in the inbox and its folders, and why others are not."""
    say(f"styles     {_some([style.name for style in palette.styles])}")
    for note in palette.notes:
        say(f"           {shown(note)}")
    for folder, styles in palette.by_folder.items():
        place = palette.config.inbox / folder
        missing = "" if place.is_dir() else " (no such folder yet)"
        say(f"in folder  {shown(folder)}{missing}: {_some([style.name for style in styles])}")


def _some(names: list[str]) -> str:
    more = len(names) - MOST_NAMES
    return f"{', '.join(names[:MOST_NAMES])} and {more} more" if more > 0 else ", ".join(names)


def _aligned(error: PipelineError) -> str:
    """Return an error's lines, the second and those after it below the first."""
    return str(error).replace("\n", "\n           ")


def _folder_state(folder: Path, wanted: int, must_exist: bool) -> tuple[str, bool]:
    """Return what to say of a folder's permissions, and whether a run can use it."""
    if folder.is_dir():
        fine = os.access(folder, wanted)
        kind = "writable" if wanted & os.W_OK else "readable"
        return (kind if fine else f"not {kind}; mend its permissions"), fine
    if must_exist or folder.exists():
        return "no such folder; create it", False
    parent = next(p for p in folder.parents if p.exists())
    fine = parent.is_dir() and os.access(parent, os.W_OK)
    return ("will be made" if fine else f"cannot be made in {shown(parent)}"), fine


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Where; made when missing.")],
) -> None:
    """Write a commented pipeline.yaml, its folders, and three styles to start with."""
    path = folder / CONFIG_NAME
    try:
        for name in ("inbox", "outbox", "state", "styles"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write((PACKAGE / "config" / CONFIG_NAME).read_text(encoding="utf-8"))
        for image in sorted((PACKAGE / "samples" / "styles").iterdir()):
            if not (folder / "styles" / image.name).exists():
                shutil.copyfile(image, folder / "styles" / image.name)
    except FileExistsError as error:
        raise CannotCreateError(
            f"{shown(error.filename)}: exists already and is left as it is; choose another folder"
        ) from error
    except OSError as error:
        raise CannotCreateError(f"{shown(error.filename)}: {error.strerror}") from error
    say(f"wrote {shown(path)} and its folders; next:")
    say(f"  put pictures into {shown(folder / 'inbox')}")
    say(f"  nst-pipeline run -c {shlex.quote(shown(path))}")


preview.register(app)
daemon.register(app)


@weights_app.callback(invoke_without_command=True)
def show_weights(context: typer.Context) -> None:
    """Show which weights are on disk."""
    from nst_pipeline.config.weights import COMPACT_PATH, PUBLISHED, resolve

    if context.invoked_subcommand:
        return
    for published in PUBLISHED.values():
        for path in published.paths():
            part = "" if path == published.path else ", the convolutions alone"
            line = _with_size(published.id, path) + part
            say(line)
        if not published.paths():
            say(f"{published.id:9} {shown(published.path)}: not there; {published.hint}")
    line = _with_size("compact", COMPACT_PATH)
    say(line)
    used = resolve("auto")
    say(f"auto      means {shown(used.id)}, {shown(used.path)}")


def _with_size(network: str, path: Path) -> str:
    megabytes = path.stat().st_size / 1e6
    return f"{network:9} {shown(path)}: {megabytes:.1f} MB"


@weights_app.command("fetch")
def fetch_weights(
    network: Annotated[str, typer.Argument(help="imagenet (VGG-19) or vgg16.")] = "imagenet",
    url: Annotated[str | None, typer.Option(help="A mirror of the file.")] = None,
    convolutions_only: Annotated[
        bool,
        typer.Option(
            "--convolutions-only",
            help="Keep only what is used: 80 MB of VGG-19's 575, 59 of VGG-16's 553.",
        ),
    ] = False,
) -> None:
    """Download weights trained on ImageNet, checking their digest."""
    from nst_pipeline.cli.overrides import fetch
    from nst_pipeline.config.weights import PUBLISHED

    if network not in PUBLISHED:
        raise UsageError(f"weights fetch {shown(network)}: give {' or '.join(PUBLISHED)}")
    published = PUBLISHED[network]
    path = fetch(published, url, convolutions_only)
    line = _with_size(network, path)
    say(line)
    if convolutions_only and published.path.is_file():
        say(f"          {shown(published.path)} is not needed for them any more")
    elif path == published.path:
        say(
            f"          of which {published.megabytes[1]} MB are used; "
            f"`{published.command} --convolutions-only` keeps these in a file of their own"
        )
