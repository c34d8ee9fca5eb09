"""The command line's settings on top of the file's."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import ValidationError

from nst_pipeline import CONFIG_NAME
from nst_pipeline.cli.echo import say
from nst_pipeline.config.pipeline import ONLY_FOLDER, Config, explain, load, parse
from nst_pipeline.config.recipe import Bounds, did_you_mean, make_recipe
from nst_pipeline.config.sections import ClusterSettings, HttpSettings
from nst_pipeline.config.settings import InboxFolderSettings, OutputSettings, StyleSettings
from nst_pipeline.config.weights import PUBLISHED, Published, is_downloadable
from nst_pipeline.errors import UnavailableError, UsageError
from nst_pipeline.files import shown
from nst_pipeline.inbox.kinds import STATE_NAME
from nst_pipeline.inbox.style_folders import StyleFolders, images_in

T = TypeVar("T", StyleSettings, InboxFolderSettings)


def configure(
    path: Path | None,
    styles: list[str],
    settings: dict[str, Any],
    changes: dict[str, Any],
    paths: list[Path],
    output: Mapping[str, Any] = MappingProxyType({}),
) -> Config:
    """Return the settings of a file, if there is one, with the command line's on top.

    Says on stderr if a pattern of styles seems to have become contents.

    Args:
        path: the file; None: pipeline.yaml of the working folder, if it is there.
        styles: names of the file's styles, paths of images or of folders of them, or patterns of
            such paths; empty: all of the file's. If some are given, every picture is painted in
            them, whatever the file has for the inbox's folders.
        settings: keys of `Config`; None means not given.
        changes: fields of the recipe for every style; None means not given.
        paths: what the command line names to be painted; empty: the inbox.
        output: keys of its ``output``; None means not given.

    Raises:
        ConfigError: the file is wrong.
        UsageError: the command line is wrong, or says too little to do without a file.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    given |= {key: value.absolute() for key, value in given.items() if isinstance(value, Path)}
    if path is None and Path(CONFIG_NAME).exists():
        path = Path(CONFIG_NAME)
    if path is None and not (styles and (paths or "inbox" in given)):
        raise UsageError(
            f"there is no {CONFIG_NAME} here: name pictures and a style, as in "
            "`nst-pipeline run photo.jpg -s style.jpg --outbox out`, give -c FILE, or "
            "write one with `nst-pipeline init .`"
        )
    try:
        if path is None:
            outbox = given.get("outbox", Path("outbox").absolute())
            given |= {"styles": _choose(styles, {}), "state": outbox / STATE_NAME}
            config = parse(given, Path.cwd())
        else:
            config = load(path)
            given |= {"styles": _choose(styles, _known(styles, config))}
            if styles:
                given |= {"folders": _without_styles(config)}
            config = Config.model_validate(dict(config) | given, context={"file": path})
        if chosen := {key: value for key, value in output.items() if value is not None}:
            encoding = OutputSettings.model_validate(dict(config.output) | chosen)
            config = config.model_copy(update={"output": encoding})
    except ValidationError as error:
        raise UsageError("\n".join(explain(error))) from error
    if note := expansion_note(styles, paths):
        say(note, err=True)
    return _change_recipes(config, {k: v for k, v in changes.items() if v is not None})


def _known(names: list[str], config: Config) -> dict[str, StyleSettings]:
    """Return the file's styles; if other names are asked for, with those of its folders."""
    if all(name in config.styles for name in names):
        return config.styles
    return config.styles | StyleFolders(config, 0).find().config.styles


def _without_styles(config: Config) -> dict[str, InboxFolderSettings]:
    """Return the settings of the inbox's folders, with all styles for each."""
    return {
        place: folder.model_copy(update={"styles": None})
        for place, folder in config.folders.items()
    }


def _choose(names: list[str], known: dict[str, StyleSettings]) -> dict[str, Any]:
    """Return the chosen styles by name: settings of known ones, and images of their own.

    Args:
        names: of known styles, paths of images or of folders of them, or patterns of such paths;
            empty: all known.
        known: the file's styles.

    Raises:
        UsageError: a name is none of these, or two different styles have one name.
    """
    chosen: dict[str, Any] = {}
    for number, name in enumerate(names):
        is_known = name in known
        style, settings = (name, known[name]) if is_known else _from_path(name, known, number)
        other = chosen.setdefault(style, settings)
        if _source(style, other) != _source(style, settings):
            raise UsageError(
                f"--style: {_source(style, other)} and {_source(style, settings)} are two "
                f"styles of one name, {style}; give them names under `styles:` in "
                f"{CONFIG_NAME}, or rename one"
            )
    return chosen or known


def _source(name: str, settings: Any) -> str:
    """Return where a chosen style comes from, for people; the same for the same file."""
    if isinstance(settings, StyleSettings):
        return f"the settings' style {name}"
    return shown(os.path.realpath(settings.get("image") or settings["folder"]))


def _from_path(name: str, known: dict[str, StyleSettings], number: int) -> tuple[str, Any]:
    """Return the image at a path as a style; or a folder, or what a pattern matches, as styles.

    Args:
        name: the path, or pattern.
        known: what it could be meant to be.
        number: of this folder, by which it is known.

    Raises:
        UsageError: there is none.
    """
    path = Path(name)
    if _is_file(name):
        return shown(path.stem), {"image": path.absolute()}
    is_folder = os.path.isdir(name)  # noqa: PTH112 - Path.is_dir may raise
    if not is_folder and not any(sign in name for sign in "*?["):
        names = [one for one in known if one != ONLY_FOLDER]
        hint = did_you_mean(shown(name), names) if names else ""
        raise UsageError(
            f"--style {shown(name)}: neither a style nor an image file or folder{hint}"
        )
    try:
        images = images_in(path.absolute())
    except OSError:
        images = []
    if not images:
        pattern = "no image has such a name; check the pattern"
        problem = "no image there; put some in" if is_folder else pattern
        raise UsageError(f"--style {shown(name)}: {problem}")
    return f"{ONLY_FOLDER} {number}", {"folder": path.absolute()}


def expansion_note(styles: list[str], paths: list[Path]) -> str:
    """Say that the shell seems to have made contents of a pattern of styles; empty: it has not.

    It makes ``-s styles/a.jpg styles/b.jpg`` of ``-s styles/*.jpg``: b.jpg then is a content, as
    is every other file of that folder, and all come after a.jpg in order.
    """
    images = [Path(name).absolute() for name in styles if _is_file(name)]
    folders = {image.parent for image in images}
    files = [path for path in paths if _is_file(path) and path.absolute() not in images]
    contents = [path for path in files if path.parent.absolute() in folders]
    if not contents or not all(any(_comes_after(c, i) for i in images) for c in contents):
        return ""
    first, more = contents[0], len(contents) - 1
    painted = f"and {more} more are painted as contents" if more else "is painted as a content"
    pattern = first.parent / f"*{first.suffix}"
    return (
        f"note: {shown(first)} {painted}; give each style its own -s, "
        f"or quote the pattern: -s '{shown(pattern)}'"
    )


def _comes_after(path: Path, image: Path) -> bool:
    """Tell whether a file lies in an image's folder and after it, with regard to case or not."""
    names = path.name, image.name
    is_after = names[0] > names[1] or names[0].casefold() > names[1].casefold()
    return is_after and path.parent.absolute() == image.parent


def _is_file(path: str | Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises for a name that is too long


def _change_recipes(config: Config, changes: dict[str, Any]) -> Config:
    if not changes:
        return config

    def changed(settings: dict[str, T]) -> dict[str, T]:
        return {
            name: one.model_copy(update={"recipe": one.recipe.model_copy(update=changes)})
            for name, one in settings.items()
        }

    update = {"styles": changed(config.styles), "folders": changed(config.folders)}
    return config.model_copy(update=update)


def with_http(config: Config, address: str | None) -> Config:
    """Return settings with another address of the live page; None: with their own.

    Raises:
        UsageError: it is no address.
    """
    if address is None:
        return config
    names = config.http.names if config.http else ()
    try:
        http = HttpSettings(address=address, names=names)
    except ValidationError as error:
        raise UsageError(f"--http: {explain(error)[0].removeprefix('address: ')}") from error
    return config.model_copy(update={"http": http})


def with_cluster(config: Config, address: str | None) -> Config:
    """Return settings with another cluster; None: with their own.

    Raises:
        UsageError: it is no address of one, or the device is not for one.
    """
    if address is None:
        return config
    try:
        settings = dict(config.cluster) | {"address": address}
        cluster = ClusterSettings.model_validate(settings)
    except ValidationError as error:
        raise UsageError(f"--cluster: {explain(error)[0].removeprefix('address: ')}") from error
    changed = config.model_copy(update={"cluster": cluster})
    if problem := changed.cluster_problem():
        raise UsageError(f"--cluster: {problem}")
    return changed


def parse_size(text: str | None) -> int | str | Bounds | None:
    """Return what a recipe takes as a size: of ``3000x2000``, ``3000x`` or ``x2000`` the bounds.

    Raises:
        UsageError: it is no size.
    """
    if text is None:
        return None
    sides = re.fullmatch(r"(\d*)x(\d*)", text)
    size = {"width": sides[1] or None, "height": sides[2] or None} if sides else text
    try:
        return make_recipe(size=size).size
    except ValidationError as error:
        hint = "" if sides else ", or WIDTHxHEIGHT"
        raise UsageError(f"--{explain(error)[0]}{hint}") from error


def fetch_if_missing(weights: str) -> None:
    """Download the weights that the settings name, if that is what it takes."""
    if is_downloadable(weights):
        fetch(PUBLISHED[weights])


def fetch(published: Published, url: str | None = None, convolutions_only: bool = False) -> Path:
    """Download weights, with a bar on a terminal; return the file.

    Args:
        published: which.
        url: of a mirror; None: where torchvision has them from.
        convolutions_only: keep nothing else of the file.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    from nst_pipeline.engine import download

    columns = BarColumn(), DownloadColumn(), TransferSpeedColumn()
    console = Console(stderr=True)
    try:
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            task = progress.add_task("", total=None)

            def show(done: int, total: int | None) -> None:
                progress.update(task, completed=done, total=total)

            return download.fetch(published, url, show, convolutions_only)
    except UnavailableError as error:
        raise UnavailableError(
            f"{error}; `{published.command} --url URL` loads it from a mirror"
        ) from error
