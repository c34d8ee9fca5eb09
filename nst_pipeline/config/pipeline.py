"""pipeline.yaml -> frozen settings; the only reader of YAML."""

import functools
import re
import shlex
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails

from nst_pipeline.config import documents
from nst_pipeline.config.memory import machine_bytes
from nst_pipeline.config.recipe import (
    Recipe,
    RecipeChanges,
    RecipeField,
    Settings,
    did_you_mean,
    make_recipe,
    missing_layers,
    model_in,
)
from nst_pipeline.config.settings import (
    FolderPath,
    InboxFolderSettings,
    OutputSettings,
    StyleSettings,
    absolute_path,
    as_inbox_folders,
    as_region,
    check_inbox_folder,
    split_pattern,
)
from nst_pipeline.config.weights import CHOICES, Weights
from nst_pipeline.errors import ConfigError
from nst_pipeline.files import shown

KIND = re.compile(r"\[(key|folder)\]|(constrained-int|(literal|tuple)\[.*\])")
"""Parts of pydantic's locations that stand for the kind of a value, and are no keys."""
ONLY_FOLDER = "[folder]"
"""What a folder of styles is called that stands in place of the styles' names."""
MOST_PROBLEMS, MOST_MISTAKES, LONGEST = 50, 500, 2000
"""Of a file that is nothing but mistakes: how many are told and looked at, and how long one is."""


def check_style_name(name: str) -> str:
    """Return the name of a style as it is.

    Raises:
        ValueError: no style can have it.
    """
    if not name or name.startswith(".") or set("/\\{}") & set(name) or shown(name) != name:
        raise ValueError(f"{name!r} cannot be a style's name: it becomes part of file names")
    return name


def _as_styles(value: Any) -> Any:
    """Return styles that are given as one folder or pattern as a mapping like any other.

    Raises:
        ValueError: they are a list, which has no names.
    """
    if isinstance(value, list):
        raise ValueError("is a list; give each a name, as NAME: PATH or NAME: {folder: PATH}")
    if isinstance(value, str | Path):
        value = {"folder": value}
    if isinstance(value, dict) and isinstance(value.get("folder"), str | Path):
        return {ONLY_FOLDER: value} if value.keys() <= {"folder", "recipe"} else value
    return value


def _note_names(styles: dict[str, StyleSettings], info: ValidationInfo) -> dict[str, StyleSettings]:
    """Let those that name styles know which there are; of a folder's, only a plan knows."""
    if info.context is not None and not any(style.folder for style in styles.values()):
        info.context["styles"] = list(styles)
    return styles


def check_device(name: str) -> str:
    """Return the name of a device as it is.

    Raises:
        ValueError: no device can have it.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", name):
        raise ValueError(f"{name!r} is no device; give auto, cpu, cuda or cuda:N")
    return name


def _resolve_weights(choice: str, info: ValidationInfo) -> str:
    if choice in CHOICES:
        return choice
    return str(absolute_path(Path(choice), info))


def _as_switch(value: Any) -> Any:
    """Take true and false too."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


Switch = Annotated[Literal["auto", "on", "off"], BeforeValidator(_as_switch)]


class Limits(Settings):
    """Bounds on what is accepted and kept."""

    max_pixels: int = Field(100_000_000, ge=1, description="Largest input, in pixels.")
    max_bytes: int = Field(256 * 2**20, ge=1, description="Largest input file, in bytes.")
    max_memory_bytes: Annotated[int, Field(ge=2**26)] | Literal["auto"] = Field(
        "auto",
        description="The most memory that a picture, its masks and a style may take to be decoded; "
        "auto: half of the machine's.",
    )
    cache_bytes: int = Field(
        512 * 2**20, ge=0, description="Style targets kept in the device's memory, in bytes."
    )
    min_free_bytes: int = Field(
        128 * 2**20, ge=0, description="Nothing is begun while the outbox has less room."
    )
    batch: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] = Field(
        "auto", description="Styles of one content painted together; auto: 1 on CPU, 8 on CUDA."
    )

    @property
    def memory_bytes(self) -> int:
        """The value of `max_memory_bytes`, with what ``auto`` stands for."""
        given = self.max_memory_bytes
        return machine_bytes() // 2 if given == "auto" else given


class KeepSettings(Settings):
    """How much is kept of what piles up; the oldest is deleted first, after each run."""

    targets_bytes: int = Field(
        2**30, ge=0, description="Style targets kept on disk, in bytes; others are computed anew."
    )
    checkpoint_days: float = Field(
        7.0, ge=0, le=36_500,
        description="How long work in the middle is kept whose job does not wait to go on, such "
        "as one that was cancelled.",
    )  # fmt: skip
    manifests: int = Field(
        1000, ge=1,
        description="Manifests kept in the outbox, of all pipelines that share it; a daemon makes "
        "one a burst of work.",
    )  # fmt: skip


class WatchSettings(Settings):
    """How `watch` sees that a picture is complete, and how long things may take."""

    settle_seconds: float = Field(
        2.0, ge=0, le=3600, description="A file is ready once it did not change for so long."
    )
    grace_seconds: float = Field(
        60.0, ge=0, le=86400,
        description="How long what is empty, cut short or no image may still become one.",
    )  # fmt: skip
    rescan_seconds: float = Field(
        60.0, gt=0, le=86400, description="The inbox is read anew at least this often."
    )
    polling: Switch = Field(
        "auto",
        description="Whether to do without the file system's events; auto: where it sends none.",
    )
    poll_seconds: float = Field(
        5.0, gt=0, le=86400, description="How often the inbox is read without events."
    )
    urgent: str = Field(
        "urgent", description="Subfolder whose pictures come first; empty text: none."
    )
    stop_seconds: float = Field(
        60.0, ge=0, le=86400, description="How long a job may go on when told to stop."
    )
    max_attempts: int = Field(3, ge=1, le=1_000_000, description="Attempts at a job.")
    retry_seconds: float = Field(
        30.0, ge=0, le=86400, description="Before the second attempt; doubled for each further."
    )


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _check_address(address: str | None) -> str | None:
    if address is not None:
        host, _, port = address.rpartition(":")
        if not port.isdecimal() or int(port) > 65535:
            raise ValueError(f"{address!r} is no address; give a port or HOST:PORT")
        return f"{host or '127.0.0.1'}:{port}"
    return None


class MetricsSettings(Settings):
    """Where `watch` leaves its figures for Prometheus."""

    textfile: Annotated[Path, AfterValidator(absolute_path)] | None = Field(
        None,
        description="File for the node exporter's textfile collector.",
        examples=["/var/lib/node_exporter/textfile/nst_pipeline.prom"],
    )
    http: Annotated[str | None, BeforeValidator(_as_text), AfterValidator(_check_address)] = Field(
        None, description="PORT (on this machine alone) or HOST:PORT to serve them at."
    )


class Config(Settings):
    """The whole of pipeline.yaml."""

    inbox: FolderPath = Field(Path("inbox"), description="Folder of pictures to paint.")
    outbox: FolderPath = Field(Path("outbox"), description="Folder of results and manifests.")
    state: FolderPath = Field(Path("state"), description="Folder of the ledger and the caches.")
    processed: FolderPath = Field(
        Path("processed"), description="Folder of painted pictures, with on_success: move."
    )
    failed: FolderPath = Field(
        Path("failed"), description="Folder of pictures that `watch` had to give up."
    )
    on_success: Literal["keep", "move", "delete"] = Field(
        "keep", description="What becomes of a picture of the inbox when it is painted."
    )
    on_failure: Literal["move", "keep"] = Field(
        "move", description="What `watch` does with a picture that it gives up."
    )
    on_conflict: Literal["auto", "replace", "suffix", "fail"] = Field(
        "auto",
        description="When a result's name is taken; auto: replace if on_success is keep, "
        "else suffix.",
    )
    ignore: tuple[str, ...] = Field(
        (
            "*.part", "*.partial", "*.filepart", "*.crdownload", "*.download", "*.opdownload",
            "*.tmp", "*.temp", "*.swp", "*~", "~$*", "Thumbs.db", "desktop.ini",
        ),
        description="Files and folders in folders to pass over, as shell patterns in any case; "
        "hidden ones always are, and what is by its suffix a video, text or the like.",
    )  # fmt: skip
    also_ignore: tuple[str, ...] = Field(
        (), description="More of them, besides those of `ignore`.", examples=[["*-draft.*"]]
    )
    styles: Annotated[
        dict[
            Annotated[str, AfterValidator(check_style_name)],
            Annotated[StyleSettings, BeforeValidator(as_region)],
        ],
        Field(min_length=1),
        BeforeValidator(_as_styles),
        AfterValidator(_note_names),
    ] = Field(
        description="The styles, each a name and an image, or several; or a folder of them.",
        examples=[{"mosaic": "styles/mosaic.jpg"}, "styles", "styles/*.jpg"],
    )
    folders: Annotated[
        dict[Annotated[str, AfterValidator(check_inbox_folder)], InboxFolderSettings],
        BeforeValidator(as_inbox_folders),
    ] = Field(
        {},
        description="Subfolders of the inbox with styles or a recipe of their own; the deepest "
        "that a picture lies in counts.",
        examples=[{"portraits": {"styles": ["mosaic"], "recipe": "painterly"}}],
    )
    recipe: RecipeField = Field(
        default_factory=RecipeChanges, description="A recipe's name, or its name and changes to it."
    )
    device: Annotated[str, AfterValidator(check_device)] = Field(
        "auto", description="auto (CUDA when there is one), cpu, cuda or cuda:N."
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Of the network; auto: bf16 where the device is fast at it."
    )
    tile: Switch = Field(
        "auto", description="Paint in tiles, which takes less memory; auto: where it is needed."
    )
    checkpoint_seconds: float = Field(
        60.0, ge=0, allow_inf_nan=False,
        description="Work that takes longer is saved so often, and goes on from there after a "
        "stop or a kill; 0: never.",
    )  # fmt: skip
    weights: Annotated[str, AfterValidator(_resolve_weights)] = Field(
        "auto", description=f"{', '.join(CHOICES)}, or a .pth or .safetensors file."
    )
    output: OutputSettings = Field(default_factory=OutputSettings)
    limits: Limits = Field(default_factory=Limits)
    keep: KeepSettings = Field(default_factory=KeepSettings)
    watch: WatchSettings = Field(default_factory=WatchSettings)
    metrics: MetricsSettings = Field(default_factory=MetricsSettings)

    @property
    def conflict_policy(self) -> Literal["replace", "suffix", "fail"]:
        """The value of `on_conflict`, with what ``auto`` stands for."""
        if self.on_conflict != "auto":
            return self.on_conflict
        return "replace" if self.on_success == "keep" else "suffix"

    @property
    def ignored(self) -> tuple[str, ...]:
        """All patterns of names to pass over."""
        return (*self.ignore, *self.also_ignore)

    @property
    def excluded(self) -> tuple[Path, ...]:
        """Folders that hold no pictures to paint, even if they lie in the inbox."""
        return (self.outbox, self.state, self.processed, self.failed)

    @property
    def roots(self) -> tuple[Path, ...]:
        """Folders that others may write to; only their own paths are trusted."""
        return (self.inbox, self.outbox, self.processed, self.failed)

    @model_validator(mode="after")
    def _check_folders(self) -> Self:
        for name in ("processed", "failed"):
            if self.inbox.is_relative_to(getattr(self, name)):
                raise ValueError(f"the inbox {shown(self.inbox)} lies in {name}; put it elsewhere")
        for name in ("outbox", "state"):
            folder: Path = getattr(self, name)
            if folder.is_relative_to(self.inbox):
                raise ValueError(
                    f"the {name} {shown(folder)} lies in the inbox {shown(self.inbox)}, so results "
                    "would be painted again; put it elsewhere"
                )
        return self

    @model_validator(mode="after")
    def _check_style_folders(self) -> Self:
        for name, style in self.styles.items():
            if style.folder is None:
                continue
            folder, patterns = split_pattern(style.folder)
            if folder == self.outbox or (folder == self.inbox and not patterns):
                role = "outbox" if folder == self.outbox else "inbox"
                raise ValueError(
                    f"{style_key(name)}: {shown(folder)} is the {role}, whose pictures are no "
                    "styles; put the styles into a folder of their own"
                )
        return self

    @model_validator(mode="after")
    def _check_output_name(self) -> Self:
        has_many = len(self.styles) > 1 or any(style.folder for style in self.styles.values())
        if has_many and "{style}" not in self.output.name:
            raise ValueError(
                f"output.name: {self.output.name!r} gives every style of a content the same name; "
                "put {style} into it"
            )
        return self

    def style_recipe(self, style: str) -> Recipe:
        """Return the recipe of a style."""
        return make_recipe(self.recipe, self.styles[style].recipe)

    def recipes(self, folder: str | None = None) -> dict[str, Recipe]:
        """Return the recipe of each style, by its name.

        Args:
            folder: of `folders`: its styles, in its recipe; None: all of the inbox at large.
        """
        there = self.folders[folder] if folder else InboxFolderSettings()
        made: dict[int, Recipe] = {}  # the styles of one folder share their changes
        found = {}
        for name in self.styles if there.styles is None else there.styles:
            own = self.styles[name].recipe
            if id(own) not in made:
                made[id(own)] = make_recipe(self.recipe, own, there.recipe)
            found[name] = made[id(own)]
        return found

    def folder_of(self, place: PurePath) -> str | None:
        """Return the entry of `folders` that a folder of the inbox belongs to, the deepest.

        What is urgent belongs where it would without: `watch.urgent` says when, not how; unless
        an entry names the folder of urgent pictures itself.

        Args:
            place: the folder, relative to the inbox.
        """
        places = [place]
        if self.watch.urgent and place.parts[:1] == (self.watch.urgent,):
            places.append(PurePath(*place.parts[1:]))
        above = (str(one) for start in places for one in (start, *start.parents))
        return next((one for one in above if one in self.folders), None)

    def layer_problems(self, weights: Weights) -> list[str]:
        """Return what is wrong with recipes that name layers which the network lacks."""
        problems: dict[str, None] = {}
        for name, style in self.styles.items():
            missing = missing_layers(self.style_recipe(name), weights)
            for field, text in missing.items():
                is_own = style.recipe.model_fields_set & {field, "name"}
                key = f"{style_key(name)}.recipe.{field}" if is_own else f"recipe.{field}"
                problems[f"{key}: {text}"] = None
        for name, folder in self.folders.items():
            missing = missing_layers(make_recipe(self.recipe, folder.recipe), weights)
            for field, text in missing.items():
                if folder.recipe.model_fields_set & {field, "name"}:
                    problems[f"folders.{shown(name)}.recipe.{field}: {text}"] = None
        return list(problems)


def style_key(name: str) -> str:
    """Return where the settings of a style, or of a folder of styles, stand in pipeline.yaml."""
    return "styles" if name == ONLY_FOLDER else f"styles.{shown(name)}"


def load(path: Path) -> Config:
    """Read a pipeline.yaml; relative paths in it are relative to its folder.

    Raises:
        ConfigError: every problem found, each with its line and key.
    """
    command = _init(path)
    try:
        node, data = documents.parse(documents.read_text(path))
    except OSError as error:
        raise ConfigError(
            [f"{shown(path)}: {error.strerror}; `{command}` writes a pipeline.yaml"]
        ) from error
    except documents.DocumentError as error:
        raise ConfigError([f"{shown(path)}:{error.line}: not YAML: {_cut(str(error))}"]) from error
    if not isinstance(data, dict):
        raise ConfigError(
            [f"{shown(path)}:1: holds no settings; delete it, then `{command}` writes one"]
        )
    problems = [(line, _cut(f"{key}: stands twice")) for line, key in _repeated_keys(node)]
    try:
        config = parse(data, path.parent)
    except ValidationError as error:
        problems += [(_line(node, loc), text) for loc, text in _mistakes(error)]
    if problems:
        told = [f"{shown(path)}:{line}: {text}" for line, text in sorted(problems)[:MOST_PROBLEMS]]
        raise ConfigError(told)
    return config


def _init(path: Path) -> str:
    """Return the command that writes settings beside where some should be."""
    return f"nst-pipeline init {shlex.quote(shown(path.parent))}"


def parse(data: dict[str, Any], base: Path) -> Config:
    """Validate settings given as plain data; relative paths are relative to ``base``.

    Raises:
        pydantic.ValidationError: anything is wrong.
    """
    return Config.model_validate(data, context={"base": base.absolute()})


def explain(error: ValidationError) -> list[str]:
    """Return every mistake as *key: what is wrong; what to do*."""
    return [text for _, text in _mistakes(error)]


def _mistakes(error: ValidationError) -> list[tuple[list[str], str]]:
    """Return the location of each mistake, and its message.

    Pydantic refuses a value of several kinds once for each kind: those are one mistake.
    """
    groups: dict[tuple[str, ...], list[ErrorDetails]] = {}
    for details in error.errors(include_url=False)[:MOST_MISTAKES]:
        loc = tuple(str(part) for part in details["loc"] if not KIND.fullmatch(str(part)))
        groups.setdefault(loc, []).append(details)
    return [
        (list(loc), _explain(list(loc), group))
        for loc, group in groups.items()
        if not any(other[: len(loc)] == loc != other for other in groups)
    ]


def _explain(loc: list[str], group: list[ErrorDetails]) -> str:
    return _cut(_explanation(loc, group))


def _cut(text: str) -> str:
    """Return a text for people, without the middle of one that nobody would read."""
    text = shown(text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


def _explanation(loc: list[str], group: list[ErrorDetails]) -> str:
    where = shown(".".join(loc)) + ": " if loc else ""
    kind, given = group[0]["type"], group[0].get("input")
    if kind == "extra_forbidden":
        return f"{where}unknown key{did_you_mean(loc[-1], _known_keys(loc[:-1]))}"
    if kind == "missing":
        return f"{where}missing"
    if kind == "value_error":
        return where + group[0]["msg"].removeprefix("Value error, ")
    return f"{where}is {given!r}; {', or '.join(dict.fromkeys(map(_expected, group)))}"


def _expected(error: ErrorDetails) -> str:
    if error["type"] == "literal_error":
        return f"should be {error.get('ctx', {})['expected']}"
    message = error["msg"]
    return message[:1].lower() + message[1:]


def _line(node: yaml.Node | None, loc: list[str]) -> int:
    """Return the line (from 1) of the deepest part of ``loc`` that the file holds."""
    line = node.start_mark.line + 1 if node else 1
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in reversed(node.value) if k.value == part), None)
        elif isinstance(node, yaml.SequenceNode):
            found = next(((n, n) for i, n in enumerate(node.value) if str(i) == part), None)
        else:
            found = None
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line


def _repeated_keys(node: yaml.Node | None, prefix: str = "") -> list[tuple[int, str]]:
    if not isinstance(node, yaml.MappingNode):
        return []
    problems, seen = [], set()
    for key, value in node.value:
        if key.value in seen:
            problems.append((key.start_mark.line + 1, prefix + key.value))
        seen.add(key.value)
        problems += _repeated_keys(value, f"{prefix}{key.value}.")
    return problems


def _known_keys(loc: list[str]) -> list[str]:
    """Return the keys that the settings at ``loc`` take."""
    model: type[BaseModel] = Config
    return list(functools.reduce(_child, loc, model).model_fields)


def _child(model: type[BaseModel], key: str) -> type[BaseModel]:
    if key not in model.model_fields:
        return model  # a name inside a mapping of styles
    return model_in(model.model_fields[key].annotation) or model
