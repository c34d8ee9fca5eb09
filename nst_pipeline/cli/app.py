"""The command line: parses, calls, prints, and sets the exit code."""

import os
import shlex
import shutil
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nst_pipeline import CONFIG_NAME, __version__
from nst_pipeline.cli import completion, daemon, preview
from nst_pipeline.cli.daemon import ConfigOption
from nst_pipeline.cli.echo import duration, say
from nst_pipeline.errors import CannotCreateError, PipelineError, UnavailableError, UsageError
from nst_pipeline.files import counted, shown

if TYPE_CHECKING:
    from rich.console import Console

    from nst_pipeline.config.pipeline import Config
    from nst_pipeline.manifest.model import TotalsRecord

# Imports of more than a few milliseconds stand inside the commands, so that --help is instant.

PACKAGE = Path(__file__).parents[1]
SCHEMA_NAME = "pipeline.schema.json"

app = typer.Typer(
    name="nst-pipeline",
    help="Paint every picture of a folder in every style of pipeline.yaml.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
weights_app = typer.Typer(help="Show or download the network's weights.")
app.add_typer(weights_app, name="weights")


def main() -> None:
    """Run the command line; exit codes are those of `errors`, and 64 for wrong usage."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    code: int | str | None = 0
    try:
        app()
    except PipelineError as error:
        say(str(error), err=True)
        code = error.exit_code
    except SystemExit as stop:
        code = 64 if stop.code == 2 else stop.code
    if any(thread.name == "engine" for thread in threading.enumerate()):
        # Told twice to end: what still computes would end the interpreter with an abort.
        sys.stdout.flush()
        os._exit(int(code or 0))
    sys.exit(code)


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
            autocompletion=completion.style_names,
            help="A style of the settings, an image, a folder or a quoted pattern; repeatable.",
        ),
    ] = None,
    inbox: Annotated[Path | None, typer.Option(help="Folder of pictures to paint.")] = None,
    outbox: Annotated[Path | None, typer.Option(help="Folder of results.")] = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="N|WxH|original", help="Longer side, or width and height, in pixels."),
    ] = None,
    iterations: Annotated[int | None, typer.Option(min=1, max=100_000, help="Steps.")] = None,
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
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster",
            metavar="ADDRESS",
            autocompletion=completion.one_of("local", "auto"),
            help="Paint by a cluster of Ray: local, auto, HOST:PORT or ray://HOST:PORT.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the jobs and what would happen to each.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Paint also what is done.")] = False,
    snapshots: Annotated[
        int | None, typer.Option(min=0, help="Keep the unfinished picture every so many steps.")
    ] = None,
    making: Annotated[
        str | None,
        typer.Option(
            autocompletion=completion.one_of("gif", "webp"),
            help="gif or webp: animate the making, beside the result.",
        ),
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

    from nst_pipeline.cli.overrides import configure, fetch_if_missing, parse_size, with_cluster

    changes = {"size": parse_size(size), "iterations": iterations}
    settings = {"inbox": inbox, "outbox": outbox, "device": device, "weights": weights}
    output = {"snapshots": snapshots, "making": making}
    config = configure(config_path, style or [], settings, changes, paths or [], output)
    config = with_cluster(config, cluster)
    console = Console(stderr=as_json)
    if dry_run:
        from nst_pipeline.cli.forecast import show_forecast

        show_forecast(config, paths, force, as_json)
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
    from nst_pipeline.workers.executors import make_executor

    end = end_on_signals()

    def check() -> None:
        end()
        lock.check()

    with Lock(config.state, "run", wait) as lock:
        display = Display(console, config, check)
        try:
            with display, Runner(config, make_executor, display) as runner:
                recorder = runner.run(paths, force)
        except SystemExit:
            display.line(
                f"stopped  {counted(display.done, 'job')} done, {display.failed} failed, "
                f"{display.jobs - display.ended} left; nothing that is done is lost, and the same "
                "command goes on"
            )
            raise
    manifest = recorder.manifest()
    if as_json:
        typer.echo(to_json(manifest))
    else:
        searched = paths or [config.inbox]
        display.line(_outcome(manifest.totals, recorder.path, display.cancelled, searched))
    if manifest.totals.failed:
        raise typer.Exit(1)


def _outcome(totals: "TotalsRecord", manifest: Path, held: int, searched: list[Path]) -> str:
    """Return what came of a run, for people, ``held`` jobs of which are cancelled."""
    cancelled = [f"{held} cancelled"] if held else []
    if totals.done or totals.failed:
        counts = [f"{counted(totals.done, 'job')} done", f"{totals.failed} failed"]
        counts += [f"{totals.skipped} skipped", *cancelled]
        seconds = duration(totals.seconds)
        return f"{', '.join(counts)} in {seconds}; manifest: {shown(manifest)}"
    if totals.skipped or cancelled:
        counts = [f"{counted(totals.skipped, 'job')} done before", *cancelled]
        return f"nothing to do: {', '.join(counts)}; --force paints what is done again"
    return f"nothing to do: no pictures in {', '.join(map(shown, searched))}"


@app.command()
def gallery(
    config_path: ConfigOption = None,
    open_page: Annotated[bool, typer.Option("--open", help="Show it in the browser, too.")] = False,
) -> None:
    """Bring outbox/gallery up to date: a site, for any browser, of what was painted and how."""
    import time

    from nst_pipeline.config.pipeline import load
    from nst_pipeline.daemon.signals import end_on_signals
    from nst_pipeline.gallery.site import update

    begun, config = time.monotonic(), load(config_path or Path(CONFIG_NAME), with_images=False)
    done = update(config, end_on_signals())
    counts = f"{counted(done.pieces, 'job')}, {counted(done.pictures, 'new thumbnail')}"
    say(f"gallery  {shown(done.page)}: {counts}, in {time.monotonic() - begun:.1f} s")
    if open_page:
        import webbrowser

        if not webbrowser.open(done.page.as_uri()):
            say(f"no browser was found; open {shown(done.page)} in one", err=True)


@app.command()
def check(config_path: ConfigOption = None) -> None:
    """Report every problem of the settings, and what a run would use and do."""
    from nst_pipeline.cli.forecast import show_jobs
    from nst_pipeline.config.pipeline import load
    from nst_pipeline.runner import hooks

    path = config_path or Path(CONFIG_NAME)
    config = load(path)
    say(f"settings   {shown(path)}: fine")
    show_device = _show_workers if config.cluster.address else _show_device
    workers, exit_code = show_device(config)
    for name, wanted in (("inbox", os.R_OK | os.X_OK), ("outbox", os.W_OK), ("state", os.W_OK)):
        state, fine = _folder_state(getattr(config, name), wanted, must_exist=name == "inbox")
        say(f"{name:10} {shown(getattr(config, name))}: {state}")
        exit_code = exit_code or (0 if fine else CannotCreateError.exit_code)
    for event, text, fine in hooks.describe(config):
        say(f"on_{event:7} {text}")
        exit_code = exit_code or (0 if fine else UnavailableError.exit_code)
    try:
        show_jobs(config, workers)
    except PipelineError as error:
        say(f"problem    {_aligned(error)}")
        exit_code = exit_code or error.exit_code
    if exit_code:
        raise typer.Exit(exit_code)


def _show_device(config: "Config") -> tuple[int, int]:
    """Say what this process would paint on; return how many workers that is, and the exit code."""
    try:
        device, precision = _device(config)
    except PipelineError as error:
        say(f"device     {error}")
        return 0, error.exit_code
    say(f"device     {device}")
    say(f"precision  {precision} ({config.precision})")
    return 1, 0


def _device(config: "Config") -> tuple[str, str]:
    """Return what this process would paint on, and in which precision, for people.

    Raises:
        PipelineError: there is no such device.
    """
    from nst_pipeline.config import machine

    memo = machine.Memo("device", config.device, config.precision)
    if (known := memo.recall()) and len(known) == 2:
        return known[0], known[1]
    from nst_pipeline.engine.devices import (
        describe_device,
        describe_precision,
        resolve_device,
        resolve_precision,
    )

    device = resolve_device(config.device)
    precision = describe_precision(resolve_precision(config.precision, device))
    if device.type == "cpu":  # another device may be lost, or found, at any time
        memo.remember(describe_device(device), precision)
    return describe_device(device), precision


def _show_workers(config: "Config") -> tuple[int, int]:
    """Say which workers a cluster would have; return how many, and the exit code."""
    from collections import Counter

    from nst_pipeline.workers.cluster import places

    try:
        found = Counter(places(config))
    except PipelineError as error:
        say(f"workers    {_aligned(error)}")
        return 0, error.exit_code
    address, total = config.cluster.address, sum(found.values())
    problem = "" if total else "; no node has room for one"
    say(f"workers    {total}, by the cluster {address}{problem}")
    for place, count in found.items():
        say(f"           {count} on {place.node}: {place.device}")
    return total, 0 if total else UnavailableError.exit_code


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
        if not (folder / SCHEMA_NAME).exists():
            shutil.copyfile(PACKAGE / "config" / SCHEMA_NAME, folder / SCHEMA_NAME)
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


@app.command()
def schema() -> None:
    """Print the JSON schema of pipeline.yaml, by which editors complete and check it."""
    say((PACKAGE / "config" / SCHEMA_NAME).read_text(encoding="utf-8").rstrip())


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
    network: Annotated[
        str,
        typer.Argument(
            autocompletion=completion.one_of("imagenet", "vgg16"),
            help="imagenet (VGG-19) or vgg16.",
        ),
    ] = "imagenet",
    url: Annotated[str | None, typer.Option(help="A mirror of the file, or a file.")] = None,
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
