"""What a run would do, without doing it: `run --dry-run`, and a part of `check`."""

import contextlib
import functools
import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import typer

from nst_pipeline.cli.echo import duration, say
from nst_pipeline.config import machine
from nst_pipeline.config.pipeline import Config
from nst_pipeline.config.weights import Weights
from nst_pipeline.files import as_text, counted, shown
from nst_pipeline.inbox.patience import LOOKS_NAME, STYLE_LOOKS_NAME, Patience
from nst_pipeline.inbox.style_folders import StyleFolders
from nst_pipeline.jobs.job import Job
from nst_pipeline.jobs.ledger import Ledger, ledger_path
from nst_pipeline.jobs.pace import longest_share, seconds_per_pixel
from nst_pipeline.jobs.palette import Palette
from nst_pipeline.jobs.planning import Plan, copies, make_plan, make_scanner

MOST_NAMES = 50
"""Of very many styles, how many `check` names."""


@dataclass(frozen=True)
class Forecast:
    """What a run would do.

    Attributes:
        plan: that it would follow.
        copied: the outputs that it would copy, for they were painted before.
        replaced: the outputs that it would write over files that are there.
        lacking: the jobs that would fail at once, each with the reason.
        seconds_per_pixel: what earlier jobs took; None: there were none.
    """

    plan: Plan
    copied: set[Path]
    replaced: set[Path]
    lacking: list[tuple[Job, str]]
    seconds_per_pixel: float | None

    @functools.cached_property
    def painted(self) -> list[Job]:
        """The jobs that would be painted."""
        others = self.copied.union(job.output for job, _ in self.lacking)
        return [job for job in self.plan.todo if job.output not in others]

    @property
    def failing(self) -> int:
        """How many jobs would fail."""
        broken = sum(len(self.plan.palette.of(one.found)) for one in self.plan.broken)
        return broken + len(self.lacking)

    def reasons(self) -> list[str]:
        """Return why jobs would fail, a line each."""
        return [broken.reason for broken in self.plan.broken] + [why for _, why in self.lacking]

    def in_place(self) -> str:
        """Say how many of those would take the place of what is there; empty: none."""
        over = sum(job.output in self.replaced for job in self.painted)
        return f" ({over} in the place of what is there)" if over else ""


def forecast(config: Config, paths: list[Path] | None = None, force: bool = False) -> Forecast:
    """Look at what a run would do, and leave no trace.

    Raises:
        PipelineError: as `make_plan`.
    """
    patience, of_styles = (
        Patience(
            0, config.state / f"forecast-{name}", also_known=(config.state / name,), is_shared=True
        )
        for name in (LOOKS_NAME, STYLE_LOOKS_NAME)
    )
    with Ledger.to_try(ledger_path(config.state)) as ledger:
        plan = make_plan(
            config, ledger, make_scanner(config, paths, 0), force=force, patience=patience,
            style_folders=StyleFolders(config, 0, of_styles),
        )  # fmt: skip
        if paths is None:  # all others were looked at, and are sound
            patience.forget_all_but({broken.found.path for broken in plan.broken})
            patience.end_look()
        copied = set() if force else copies(plan.todo, ledger)
        pace = seconds_per_pixel(ledger, config, plan.weights)
    is_replaced = config.conflict_policy == "replace"
    outputs = {job.output for job in plan.todo} - copied if is_replaced else set()
    replaced = {output for output in outputs if os.path.lexists(output)}
    lacking = [(job, why) for job in plan.todo if job.output not in copied and (why := job.lack())]
    return Forecast(plan, copied, replaced, lacking, pace)


def time_needed(config: Config, found: Forecast, workers: int | None = None) -> str:
    """Return how long painting would take, for people; empty: nothing to paint.

    Where nothing was painted before, it is measured, which takes a second, once a day; not
    for a cluster, whose machines are others.

    Args:
        config: the settings.
        found: what would be painted.
        workers: how many the cluster has; None: as many as the settings say, if they do.

    Raises:
        PipelineError: no such device or weights.
    """
    if not found.painted:
        return ""
    is_here = not config.cluster.address
    pace, basis = found.seconds_per_pixel, "as fast as the last ones" + (" here" if is_here else "")
    if pace is None:
        if not is_here:
            return "not known: this cluster has painted nothing yet with these settings"
        pace, basis = _try_out(config, found.plan.weights), "by a short trial"
    count = workers or (1 if is_here else _workers_asked_for(config))
    costs = Counter[Path]()
    for job in found.painted:  # all of a content are one worker's
        costs[job.content.path] += job.style.cost
    seconds = pace * longest_share(costs.values(), count or 1)
    who = "" if is_here else f" on {counted(count, 'worker')}" if count else " on one worker"
    more = "" if is_here or count else " (`check` asks the cluster how many it has)"
    return f"about {duration(seconds)}{who}, {basis}{more}"


def _workers_asked_for(config: Config) -> int | None:
    """Return how many workers a cluster is to have; None: as many as there is room for."""
    return None if config.cluster.workers == "auto" else config.cluster.workers


def _try_out(config: Config, weights: Weights) -> float:
    """Return the seconds that a pixel of a step takes, from a picture of noise."""
    memo = machine.Memo("pace", config.device, config.precision, weights.sha256)
    if known := memo.recall():
        with contextlib.suppress(ValueError):
            return float(known[0])
    from nst_pipeline.engine.trial import try_out

    pace, is_cpu = try_out(config.device, config.precision, weights)
    if is_cpu:
        memo.remember(str(pace))
    return pace


def show_forecast(config: Config, paths: list[Path] | None, force: bool, as_json: bool) -> None:
    """Print every job and what would happen to it.

    Raises:
        PipelineError: nothing could be painted, such as for want of the device.
    """
    found = forecast(config, paths, force)
    plan, unable = found.plan, {job.output: why for job, why in found.lacking}
    if found.painted and config.device not in ("auto", "cpu") and not config.cluster.address:
        from nst_pipeline.engine.devices import resolve_device

        resolve_device(config.device)
    rows: list[tuple[str, Path, str, str]] = []
    for job in plan.todo:
        action = "replace" if job.output in found.replaced else "paint"
        action = "copy" if job.output in found.copied else action
        outcome = as_text(job.output)
        if why := unable.get(job.output):
            action, outcome = "fail", why
        rows.append((action, job.content.path, job.style.name, outcome))
    rows += [("skip", j.content.path, j.style.name, "done already") for j in plan.done]
    rows += [("hold", h.job.content.path, h.job.style.name, h.reason) for h in plan.held]
    if as_json:
        for b in plan.broken:
            rows += [("fail", b.found.path, s.name, b.reason) for s in plan.palette.of(b.found)]
        keys = ("action", "content", "style", "outcome")
        plain = [dict(zip(keys, map(as_text, row), strict=True)) for row in rows]
        typer.echo(json.dumps(plain, indent=2))
        return
    for action, content, style, outcome in rows:
        text = outcome if action == "fail" else f"{shown(content)} in {style}: {outcome}"
        say(f"{action:7} {shown(text)}")
    for note in plan.palette.notes:
        say(f"style   {shown(note)}")
    for broken in plan.broken:  # in all styles alike
        say(f"fail    {shown(broken.reason)}")
    if passed_over := str(plan.passed_over):
        say(f"passed  {passed_over}")
    copy = f"copy {len(found.copied)}, " if found.copied else ""
    held = f"hold {len(plan.held)}, " if plan.held else ""
    say(
        f"would paint {len(found.painted)}{found.in_place()}, {copy}skip {len(plan.done)}, "
        f"{held}fail {found.failing}; weights {shown(plan.weights.id)}: {plan.weights.note}"
    )
    if needed := time_needed(config, found):
        say(f"time: {needed}")


def show_jobs(config: Config, workers: int) -> None:
    """Print, for `check`, how many jobs there are, and how long so many workers take; 0: none.

    Raises:
        PipelineError: there can be no plan, or no such device.
    """
    found = forecast(config)
    plan = found.plan
    say(f"weights    {shown(plan.weights.id)}: {plan.weights.note}")
    say(f"           SHA-256 {plan.weights.sha256}")
    _show_palette(plan.palette)
    copy = f"{len(found.copied)} to copy, " if found.copied else ""
    say(
        f"jobs       {len(found.painted)} to paint{found.in_place()}, {copy}"
        f"{len(plan.done)} done already, {found.failing} cannot be painted"
    )
    for reason in found.reasons():
        say(f"           {shown(reason)}")
    for held in plan.held:
        name = shown(held.job.content.path)
        retry = config.command("retry", held.job.content.path)
        how = f"; `{retry}` puts it back" if held.is_cancelled else ""
        say(f"held       {name} in {held.job.style.name}: {shown(held.reason)}{how}")
    if passed_over := str(plan.passed_over):
        say(f"passed     {passed_over}")
    if workers and (needed := time_needed(config, found, workers)):
        say(f"time       {needed}, for {counted(len(found.painted), 'picture')}")


def _show_palette(palette: Palette) -> None:
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
