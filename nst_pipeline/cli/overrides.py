"""The command line's settings on top of the file's."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from nst_pipeline import CONFIG_NAME
from nst_pipeline.config.pipeline import Config, explain, load, parse
from nst_pipeline.config.recipe import did_you_mean
from nst_pipeline.config.settings import OutputSettings, StyleSettings
from nst_pipeline.config.weights import is_downloadable
from nst_pipeline.errors import UnavailableError, UsageError


def configure(
    path: Path | None,
    styles: list[str],
    settings: dict[str, Any],
    changes: dict[str, Any],
    has_paths: bool,
    output: Mapping[str, Any] = MappingProxyType({}),
) -> Config:
    """Return the settings of a file, if there is one, with the command line's on top.

    Args:
        path: the file; None: pipeline.yaml of the working folder, if it is there.
        styles: names of the file's styles, or paths of images; empty: all of the file's.
        settings: keys of `Config`; None means not given.
        changes: fields of the recipe for every style; None means not given.
        has_paths: whether the command line names what to paint.
        output: keys of its ``output``; None means not given.

    Raises:
        ConfigError: the file is wrong.
        UsageError: the command line is wrong, or says too little to do without a file.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    given |= {key: value.absolute() for key, value in given.items() if isinstance(value, Path)}
    if path is None and Path(CONFIG_NAME).exists():
        path = Path(CONFIG_NAME)
    if path is None and not (styles and (has_paths or "inbox" in given)):
        raise UsageError(
            f"there is no {CONFIG_NAME} here: name pictures and a style, as in "
            "`nst-pipeline run photo.jpg -s style.jpg --outbox out`, give -c FILE, or "
            "write one with `nst-pipeline init .`"
        )
    try:
        if path is None:
            outbox = given.get("outbox", Path("outbox").absolute())
            given |= {"styles": _choose(styles, {}), "state": outbox / ".nst-pipeline"}
            config = parse(given, Path.cwd())
        else:
            config = load(path)
            given |= {"styles": _choose(styles, config.styles)}
            config = Config.model_validate(dict(config) | given)
        if chosen := {key: value for key, value in output.items() if value is not None}:
            encoding = OutputSettings.model_validate(dict(config.output) | chosen)
            config = config.model_copy(update={"output": encoding})
    except ValidationError as error:
        raise UsageError("\n".join(explain(error))) from error
    return _change_recipes(config, {k: v for k, v in changes.items() if v is not None})


def _choose(names: list[str], known: dict[str, StyleSettings]) -> dict[str, Any]:
    """Return the named styles; a name that is not known must be an image's path."""
    chosen: dict[str, Any] = {}
    for name in names:
        path = Path(name)
        if name in known:
            chosen[name] = known[name]
        elif path.is_file():
            chosen[path.stem] = {"image": path.absolute()}
        else:
            hint = did_you_mean(name, list(known)) if known else ""
            raise UsageError(f"--style {name}: neither a style nor an image file{hint}")
    return chosen or known


def _change_recipes(config: Config, changes: dict[str, Any]) -> Config:
    if not changes:
        return config
    styles = {
        name: style.model_copy(update={"recipe": style.recipe.model_copy(update=changes)})
        for name, style in config.styles.items()
    }
    return config.model_copy(update={"styles": styles})


def fetch_if_missing(weights: str) -> None:
    """Download the weights that the settings name, if that is what it takes."""
    if is_downloadable(weights):
        fetch_imagenet()


def fetch_imagenet(url: str | None = None) -> Path:
    """Download the ImageNet weights, with a bar on a terminal; return the file.

    Args:
        url: of a mirror; None: where torchvision has them from.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    from nst_pipeline.engine import vgg

    columns = BarColumn(), DownloadColumn(), TransferSpeedColumn()
    console = Console(stderr=True)
    try:
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            task = progress.add_task("", total=None)
            return vgg.fetch_imagenet(
                url, lambda done, total: progress.update(task, completed=done, total=total)
            )
    except UnavailableError as error:
        raise UnavailableError(
            f"{error}; `nst-pipeline weights fetch --url URL` loads it from a mirror"
        ) from error
