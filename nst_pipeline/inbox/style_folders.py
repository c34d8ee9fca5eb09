"""Folders of styles: which images are there now, each of them a style named by its stem."""

import fnmatch
import glob
import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from nst_pipeline.config.pipeline import ONLY_FOLDER, Config, check_style_name
from nst_pipeline.config.recipe import did_you_mean
from nst_pipeline.config.settings import InboxFolderSettings, StyleSettings, split_pattern
from nst_pipeline.errors import UnreadableError
from nst_pipeline.files import identity, shown, signature
from nst_pipeline.images.decoding import IMAGE_SUFFIXES
from nst_pipeline.inbox.mounts import is_network
from nst_pipeline.inbox.patience import Patience

LONGEST_HINT = 500
"""Of very many styles, not all are named as what somebody may have meant."""


class StyleFile(NamedTuple):
    """An image of a folder of styles.

    Attributes:
        path: the file.
        entry: the name that its folder has among the styles of the settings.
        seen: its signature when it was listed; None: it had none, as a link to nowhere.
        identity: what `files.identity` gave then.
        arrived_ns: when it got its name or its bytes, in ns since the epoch.
    """

    path: Path
    entry: str
    seen: str | None
    identity: str | None
    arrived_ns: int


@dataclass(frozen=True)
class FoundStyles:
    """What a look at the folders of styles found.

    Attributes:
        config: the settings, with the images in place of their folders.
        files: the images, by the name of the style.
        arriving: images that changed too recently.
        notes: of what is passed over and people may wonder about, a line each.
        wait_seconds: when the next of ``arriving`` may be stable; None: there is none.
    """

    config: Config
    files: dict[str, StyleFile] = field(default_factory=dict)
    arriving: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    wait_seconds: float | None = None


class StyleFolders:
    """Looks at folders of styles again and again; remembers since when each file is the same.

    Attributes:
        patience: notes which image is looked at; None: nobody does.
    """

    def __init__(
        self,
        config: Config,
        settle_seconds: float | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Look at nothing yet.

        Args:
            config: the settings.
            settle_seconds: how long a file must stay the same; by default as the settings say.
            patience: the attribute.
        """
        self._config, self.patience = config, patience
        settings = config.watch.settle_seconds
        self._settle_seconds = settings if settle_seconds is None else settle_seconds
        self._since: dict[Path, tuple[str | None, float]] = {}
        # Where others write, their clock is not ours, and only watching tells a file's age.
        self._trusts_clock = not any(map(is_network, searched_folders(config)))

    def find(self) -> FoundStyles:
        """Look at all folders: one stat a file, no reading.

        Raises:
            UnreadableError: a folder is not there, or cannot be read.
        """
        config = self._config
        folders = {name: s.folder for name, s in config.styles.items() if s.folder}
        if not folders:
            return FoundStyles(config)
        notes: list[str] = []
        listed: dict[str, list[StyleFile]] = {}
        for entry, folder in folders.items():
            files = list(_files(folder, entry))
            if not files:
                notes.append(
                    f"{shown(folder)}: no image there; put some in, or name another folder"
                )
            for file in files:
                listed.setdefault(file.path.stem, []).append(file)
        files_of = _one_each(config, listed, notes)
        ages = self._ages(list(files_of.values()))
        young = [name for name, age in ages.items() if age < self._settle_seconds]
        waits = [self._settle_seconds - ages[name] for name in young]
        arriving = [files_of.pop(name).path for name in young]
        return FoundStyles(
            _with_images(config, files_of, set(listed), notes),
            files_of,
            arriving,
            notes,
            min(waits) if waits else None,
        )

    def _ages(self, files: list[StyleFile]) -> dict[str, float]:
        """Return for how many seconds each file has been the same, by its style's name."""
        now, clock = time.monotonic(), time.time_ns()
        seen, ages = {}, {}
        for file in files:
            before, since = self._since.get(file.path, (None, now))
            seen[file.path] = file.seen, since if before == file.seen else now
            by_clock = (clock - file.arrived_ns) / 1e9 if self._trusts_clock else 0.0
            ages[file.path.stem] = max(now - seen[file.path][1], by_clock)
        self._since = seen
        return ages


def style_paths(config: Config) -> tuple[Path, ...]:
    """Return the folders of styles, or patterns, as the settings have them."""
    return tuple(style.folder for style in config.styles.values() if style.folder)


def searched_folders(config: Config) -> dict[Path, bool]:
    """Return the folders that styles are looked for in; true: in their subfolders, too."""
    found: dict[Path, bool] = {}
    for folder, patterns in map(split_pattern, style_paths(config)):
        found[folder] = found.get(folder, False) or len(patterns) > 1
    return found


def images_in(folder: Path) -> list[Path]:
    """Return the images of a folder, or those that a pattern matches, by name; no hidden ones.

    Raises:
        OSError: the folder, or that which the pattern begins with, cannot be read.
    """
    base, patterns = split_pattern(folder)
    with os.scandir(base) as entries:  # glob would not say that it cannot be read
        names = [entry.name for entry in entries]
    if len(patterns) > 1:
        names = glob.glob(os.path.join(*patterns), root_dir=base)  # noqa: PTH118, PTH207
    elif patterns:
        pattern = re.compile(fnmatch.translate(patterns[0]))
        names = [name for name in names if pattern.match(name)]
    paths = [base / name for name in names if is_style_image(os.path.basename(name))]  # noqa: PTH119
    return sorted(paths, key=lambda path: (path.name, path))


def is_style_image(name: str) -> bool:
    """Tell whether a file of a folder of styles is one, by its name."""
    return not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES


def _files(folder: Path, entry: str) -> Iterator[StyleFile]:
    """List the images of a folder of styles; folders that are named like images are none.

    Raises:
        UnreadableError: it cannot be read.
    """
    try:
        paths = images_in(folder)
    except OSError as error:
        raise UnreadableError(
            f"{shown(folder)}: {error.strerror}; mount or make the folder of styles"
        ) from error
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            yield StyleFile(path, entry, None, None, 0)  # its look says why
            continue
        if not stat.S_ISDIR(status.st_mode):
            yield StyleFile(path, entry, signature(status), identity(status), status.st_ctime_ns)


def _one_each(
    config: Config, listed: dict[str, list[StyleFile]], notes: list[str]
) -> dict[str, StyleFile]:
    """Return the files that are styles, by name, and note why others are not."""
    named = {name: style for name, style in config.styles.items() if not style.folder}
    found = {}
    for name, files in sorted(listed.items()):
        first = files[0]
        try:
            check_style_name(name)
        except ValueError as error:
            notes.append(f"{shown(first.path)}: {error}; rename the file")
            continue
        if name in named:
            if os.path.realpath(first.path) not in map(os.path.realpath, named[name].paths()):
                notes.append(
                    f"{shown(first.path)}: the settings have another style of the name {name}; "
                    "rename the file"
                )
        elif len(different := _different(files)) > 1:
            paths = " and ".join(shown(file.path) for file in different)
            notes.append(
                f"{paths}: two styles of one name, {name}, of which none is painted; rename one"
            )
        else:
            found[name] = first
    return found


def _different(files: list[StyleFile]) -> list[StyleFile]:
    """Return each file once: two patterns may match the same one, and links lead to it."""
    if len(files) == 1:
        return files
    return list({os.path.realpath(file.path): file for file in reversed(files)}.values())[::-1]


def _with_images(
    config: Config, files: dict[str, StyleFile], listed: set[str], notes: list[str]
) -> Config:
    """Return the settings with images in place of their folders, also in the inbox's folders."""
    members: dict[str, list[str]] = {n: [] for n, style in config.styles.items() if style.folder}
    for name, file in files.items():
        members[file.entry].append(name)
    styles: dict[str, StyleSettings] = {}
    for entry, style in config.styles.items():
        if style.folder is None:
            styles[entry] = style
        for name in members.get(entry, ()):
            # Of thousands, each would be checked anew, and has only just been seen.
            update = {"image": files[name].path, "folder": None}
            styles[name] = style.model_copy(update=update)
    folders: dict[str, InboxFolderSettings] = {}
    for place, folder in config.folders.items():
        if folder.styles is None:
            folders[place] = folder
            continue
        names = [n for one in folder.styles for n in (members.get(one, [one]))]
        for name in names:
            if name not in styles and name not in listed:
                known = [one for one in (*styles, *members) if one != ONLY_FOLDER]
                hint = did_you_mean(name, known) if known else ""
                hint = hint if len(hint) <= LONGEST_HINT else "; `nst-pipeline check` names them"
                notes.append(f"folders.{shown(place)}.styles: no style {name!r} is there{hint}")
        there = tuple(dict.fromkeys(name for name in names if name in styles))
        if not there:
            notes.append(
                f"folders.{shown(place)}: none of its styles is there, so its pictures wait"
            )
        folders[place] = folder.model_copy(update={"styles": there})
    return config.model_copy(update={"styles": styles, "folders": folders})


def matching(paths: Sequence[Path], place: str) -> re.Pattern[str] | None:
    """Return what the names of the styles in a folder match, if folders of styles reach there.

    Args:
        paths: folders of styles, or patterns.
        place: the folder's real path.
    """
    expressions = []
    for base, patterns in map(split_pattern, paths):
        *above, last = patterns or ("*",)
        real = os.path.realpath(base)
        below = Path(place).parts[len(Path(real).parts) :]
        is_below = Path(place).is_relative_to(real) and len(below) == len(above)
        if is_below and all(
            re.match(fnmatch.translate(pattern), name)
            for pattern, name in zip(above, below, strict=True)
        ):
            expressions.append(fnmatch.translate(last))
    return re.compile("|".join(expressions)) if expressions else None
