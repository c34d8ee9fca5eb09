"""The daemon's part of the command line."""

import contextlib
import json
import logging
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nst_pipeline import CONFIG_NAME
from nst_pipeline.cli.completion import one_of
from nst_pipeline.cli.echo import say
from nst_pipeline.files import shown

if TYPE_CHECKING:
    from nst_pipeline.config.pipeline import Config

# Imports of more than a few milliseconds stand inside the commands, so that --help is instant.

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "-c",
        "--config",
        envvar="NST_PIPELINE_CONFIG",
        help="The settings (default: ./pipeline.yaml).",
    ),
]
Names = Annotated[
    list[str] | None, typer.Argument(help="Files: paths, relative to the inbox, or names alone.")
]
LOG_FORMATS = ("auto", "human", "json", "journald")
LOG_LEVELS = ("debug", "info", "warning", "error")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (watch, status, retry, cancel, pause, resume, stop, install_service):
        app.command()(command)


def watch(
    config_path: ConfigOption = None,
    http: Annotated[
        str | None,
        typer.Option(
            "--http",
            metavar="ADDRESS",
            help="Serve a live page, the gallery and /metrics: PORT (here alone) or HOST:PORT.",
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster",
            metavar="ADDRESS",
            autocompletion=one_of("local", "auto"),
            help="Paint by a cluster of Ray: local, auto, HOST:PORT or ray://HOST:PORT.",
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait while another run or watch uses the state folder.")
    ] = False,
    log_format: Annotated[
        str,
        typer.Option(
            envvar="NST_PIPELINE_LOG_FORMAT",
            autocompletion=one_of(*LOG_FORMATS),
            help="auto, human, json or journald (lines with priorities).",
        ),
    ] = "auto",
    log_level: Annotated[
        str,
        typer.Option(
            envvar="NST_PIPELINE_LOG_LEVEL",
            autocompletion=one_of(*LOG_LEVELS),
            help="debug, info, warning or error.",
        ),
    ] = "info",
) -> None:
    """Paint whatever arrives in the inbox, until told to stop (SIGTERM, Ctrl-C)."""
    from nst_pipeline.daemon.signals import hold_notes

    hold_notes()  # before all that takes time
    from nst_pipeline.cli.overrides import with_cluster, with_http
    from nst_pipeline.config.pipeline import load
    from nst_pipeline.daemon import logs, loop
    from nst_pipeline.errors import UsageError
    from nst_pipeline.workers.executors import make_executor

    if log_format not in LOG_FORMATS:
        raise UsageError(f"--log-format {log_format}: give auto, human, json or journald")
    if log_level not in LOG_LEVELS:
        raise UsageError(f"--log-level {log_level}: give debug, info, warning or error")
    logs.set_up(log_format, log_level)  # type: ignore[arg-type]
    path = (config_path or Path(CONFIG_NAME)).absolute()
    loop.watch(lambda: with_cluster(with_http(load(path), http), cluster), make_executor, wait)


def status(
    config_path: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, on one line.")] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on, once a second, until Ctrl-C.")
    ] = False,
) -> None:
    """Tell what the daemon does, and what waits, is done, or has failed."""
    from nst_pipeline.daemon.status import lines, read_status

    logging.getLogger("nst_pipeline").addHandler(logging.NullHandler())  # who looks does not warn
    config = _load(config_path)

    def text() -> str:
        found = read_status(config)
        return json.dumps(found.to_plain()) if as_json else "\n".join(lines(found))

    if follow and sys.stdout.isatty() and not as_json:
        _follow(text)
        return
    tell = typer.echo if as_json else say
    tell(text())
    with contextlib.suppress(KeyboardInterrupt):
        while follow:
            time.sleep(1)
            tell(text())


def _follow(text: Callable[[], str]) -> None:
    """Show a text in one place of the terminal, anew each second, until Ctrl-C."""
    from rich.live import Live
    from rich.text import Text

    def shown_text() -> Text:
        return Text("\n".join(map(shown, text().split("\n"))))

    with contextlib.suppress(KeyboardInterrupt), Live(shown_text(), auto_refresh=False) as live:
        while True:
            time.sleep(1)
            live.update(shown_text(), refresh=True)


def _load(path: Path | None) -> "Config":
    """Read the settings for a command that paints nothing: it can do without the styles."""
    from nst_pipeline.config.pipeline import load

    return load(path or Path(CONFIG_NAME), with_images=False)


def retry(
    names: Names = None,
    all_failed: Annotated[
        bool, typer.Option("--all-failed", help="Everything that has failed.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Have NAMES that are done painted again, too.")
    ] = False,
    config_path: ConfigOption = None,
) -> None:
    """Put failed or cancelled files back into the inbox and the queue."""
    from nst_pipeline.daemon import control
    from nst_pipeline.errors import UsageError

    if bool(names) == all_failed:
        raise UsageError("retry: name files, or give --all-failed")
    if force and not names:
        raise UsageError("retry --force: name the files that are to be painted again")
    done, problems = control.retry(_load(config_path), names or [], force)
    for path in done:
        say(f"queued again  {shown(path)}")
    if problems:
        raise type(problems[0])("\n".join(map(str, problems)))
    if not done:
        say("nothing has failed")


def cancel(
    names: Annotated[list[str], typer.Argument(help="Files: paths, or names alone.")],
    config_path: ConfigOption = None,
) -> None:
    """Take a file's jobs out of the queue, also those at work; the file stays in the inbox."""
    from nst_pipeline.daemon import control
    from nst_pipeline.errors import UsageError

    config = _load(config_path)
    decided = control.cancel(config, names)
    for one in decided:
        name = shown(one.source)
        if one.cancelled:
            some = f" in {', '.join(one.cancelled)}" if one.late else ""
            retry = config.command("retry", one.source)
            say(f"cancelled  {name}{some}; `{retry}` puts it back")
        if one.late:
            say(f"too late   {name} in {', '.join(one.late)}: done, or just being published")
        elif not one.cancelled:
            say(f"too late   {name}: none of its jobs is in the queue any more")
    if not all(one.cancelled for one in decided):
        raise typer.Exit(UsageError.exit_code)


def pause(config_path: ConfigOption = None) -> None:
    """Have the daemon begin no further job, also after a restart; the current one ends."""
    from nst_pipeline.daemon import control

    config = _load(config_path)
    control.pause(config)
    say(f"paused; `{config.command('resume')}` goes on")


def resume(config_path: ConfigOption = None) -> None:
    """End a pause."""
    from nst_pipeline.daemon import control

    control.resume(_load(config_path))
    say("goes on")


def stop(config_path: ConfigOption = None) -> None:
    """Stop the daemon in good order, and wait until it has; what it has not done stays queued."""
    from nst_pipeline.daemon import control
    from nst_pipeline.daemon.ending import times_of
    from nst_pipeline.errors import LockedError
    from nst_pipeline.jobs.lock import holder

    config = _load(config_path)
    who = control.stop(config)
    if who is None:
        say("no daemon works with these settings")
        return
    job_seconds, all_seconds = times_of(who, config)
    say(f"process {who.pid} stops; the job at work may go on for {job_seconds:.0f} s")
    deadline = time.monotonic() + all_seconds
    while holder(config.state) == who:
        if time.monotonic() > deadline:
            raise LockedError(f"process {who.pid}: still works; SIGKILL ends it, and loses nothing")
        time.sleep(0.1)
    say("stopped")


def install_service(
    config_path: ConfigOption = None,
    user: Annotated[bool, typer.Option("--user", help="For your own service manager.")] = False,
    print_only: Annotated[
        bool, typer.Option("--print", help="Print the unit, and install nothing.")
    ] = False,
) -> None:
    """Install a systemd unit that watches with these settings."""
    from nst_pipeline.config.pipeline import load
    from nst_pipeline.daemon import service

    path = (config_path or Path(CONFIG_NAME)).absolute()
    config = load(path)
    if print_only:
        typer.echo(service.render(config, path, user), nl=False)
        for problem in [] if user else service.barriers(config, path):
            say(problem, err=True)
        return
    flag = "--user " if user else ""
    say(f"wrote {shown(service.install(config, path, user))}; next:")
    if not user:
        folders = shlex.join(map(shown, service.folders(config)))
        say(f"  useradd --system --home-dir /var/lib/{service.USER} {service.USER}")
        say(f"  chown -R {service.USER}: {folders}")
    say(f"  systemctl {flag}daemon-reload")
    say(f"  systemctl {flag}enable --now nst-pipeline")
    if user:
        say("  loginctl enable-linger    # else it runs only while you are logged in")
