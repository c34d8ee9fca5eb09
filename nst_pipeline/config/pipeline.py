"""pipeline.yaml -> frozen settings; the only reader of YAML."""

import functools
import os
import re
import shlex
from collections.abc import Container, Mapping
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails

from nst_pipeline import CONFIG_NAME
from nst_pipeline.config import documents
from nst_pipeline.config.hooks import Event, HookField, HookSettings
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
from nst_pipeline.config.sections import (
    ClusterSettings,
    HttpField,
    KeepSettings,
    Limits,
    MetricsSettings,
    Switch,
    WatchSettings,
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
    name_schema,
    split_pattern,
)
from nst_pipeline.config.weights import CHOICES, Weights
from nst_pipeline.errors import ConfigError
from nst_pipeline.files import shown

DEVICES = "auto, cpu, cuda, cuda:N, xpu, xpu:N or mps"
DEVICE = r"auto|cpu|mps|(cuda|xpu)(:\d{1,3})?"
KIND = re.compile(r"\[(key|side|bounds|folder)\]|(constrained-int|(literal|tuple)\[.*\])")
"""Parts of pydantic's locations that stand for the kind of a value, and are no keys."""
ONLY_FOLDER = "[folder]"
"""What a folder of styles is called that stands in place of the styles' names."""
MOVED: dict[tuple[str, ...], str] = {
    ("metrics", "http"): "is a key of its own now: write `http: {}` at the left margin, which "
    "serves /metrics beside the live page (pip install 'nst-pipeline[web]')"
}
"""Keys of earlier versions, and what is to be written in their place."""
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
    if not re.fullmatch(DEVICE, name):
        raise ValueError(f"{name!r} is no device; give {DEVICES}")
    return name


def _resolve_weights(choice: str, info: ValidationInfo) -> str:
    if choice in CHOICES:
        return choice
    return str(absolute_path(Path(choice), info))


STYLE_FIELD = r"\{style\}"
StyleName = Annotated[
    str,
    AfterValidator(check_style_name),
    Field(json_schema_extra=name_schema(r"^\.")),
]
NamedStyles = dict[
    StyleName,
    Annotated[
        StyleSettings, BeforeValidator(as_region, json_schema_input_type=Path | StyleSettings)
    ],
]
NO_ONLY_FOLDER: dict[str, Any] = {
    "not": {
        "required": ["folder"],
        "properties": {"folder": {"type": "string"}},
        "propertyNames": {"enum": ["folder", "recipe"]},
    }
}
"""JSON schema of a mapping that is no `OnlyFolder`."""


class OnlyFolder(Settings):
    """A folder of styles in place of the styles' names, for the JSON schema."""

    folder: Path
    recipe: RecipeField | None = None


Device = Annotated[
    str, AfterValidator(check_device), Field(json_schema_extra={"pattern": f"^({DEVICE})$"})
]


class Config(Settings):
    """The whole of pipeline.yaml."""

    model_config = ConfigDict(
        json_schema_extra={
            "patternProperties": {"^x-": {"description": "What others refer to by an alias."}},
            "if": {"properties": {"styles": {"type": "object", "minProperties": 2}}},
            "then": {"properties": {"output": {"properties": {"name": {"pattern": STYLE_FIELD}}}}},
        }
    )

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
        NamedStyles,
        Field(min_length=1),
        BeforeValidator(
            _as_styles,
            json_schema_input_type=Path
            | OnlyFolder
            | Annotated[NamedStyles, Field(min_length=1, json_schema_extra=NO_ONLY_FOLDER)],
        ),
        AfterValidator(_note_names),
    ] = Field(
        description="The styles, each a name and an image, or several; or a folder of them.",
        examples=[{"mosaic": "styles/mosaic.jpg"}, "styles", "styles/*.jpg"],
    )
    folders: Annotated[
        dict[Annotated[str, AfterValidator(check_inbox_folder)], InboxFolderSettings],
        BeforeValidator(
            as_inbox_folders, json_schema_input_type=dict[str, InboxFolderSettings | None]
        ),
    ] = Field(
        {},
        description="Subfolders of the inbox with styles or a recipe of their own; the deepest "
        "that a picture lies in counts.",
        examples=[{"portraits": {"styles": ["mosaic"], "recipe": "painterly"}}],
    )
    recipe: RecipeField = Field(
        default_factory=RecipeChanges, description="A recipe's name, or its name and changes to it."
    )
    device: Device = Field(
        "auto",
        description="auto (the first GPU that there is, else cpu), cpu, cuda (AMD's, too), cuda:N, "
        "xpu (Intel's), xpu:N or mps (Apple's).",
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
    http: HttpField | None = Field(
        None,
        description="Where `watch` serves its live page, the gallery and /metrics: PORT (on this "
        "machine alone) or HOST:PORT.",
        examples=["127.0.0.1:8080"],
    )
    metrics: MetricsSettings = Field(default_factory=MetricsSettings)
    cluster: ClusterSettings = Field(default_factory=ClusterSettings)
    on_done: HookField | None = Field(None, description="What is told of each job that is done.")
    on_failed: HookField | None = Field(
        None, description="What is told of each job that has failed."
    )
    _file: Path | None = PrivateAttr(None)

    def model_post_init(self, context: Any, /) -> None:
        """Note the file that the settings stand in, if the context of the validation has it."""
        self._file = (context or {}).get("file")

    def command(self, *words: object, is_for_anywhere: bool = False) -> str:
        """Return a command of ours for these settings, as people type it here, or anywhere."""
        is_usual = self._file in (None, Path(CONFIG_NAME))
        given: list[object] = [] if is_usual else ["-c", self._file]
        if self._file and is_for_anywhere:
            given = ["-c", self._file.absolute()]
        return shlex.join(["nst-pipeline", *(shown(word) for word in (*words, *given))])

    @property
    def has_file(self) -> bool:
        """Whether the settings stand in a file, where commands but `run` find them, too."""
        return self._file is not None

    @property
    def hooks(self) -> dict[Event, HookSettings]:
        """What is told of jobs, by what came of them."""
        both: dict[Event, HookSettings | None] = {"done": self.on_done, "failed": self.on_failed}
        return {event: hook for event, hook in both.items() if hook}

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
        return (self.outbox, self.gallery, self.state, self.processed, self.failed)

    @property
    def gallery(self) -> Path:
        """The folder of the gallery."""
        return self.outbox / "gallery"

    @property
    def roots(self) -> tuple[Path, ...]:
        """Folders that others may write to; only their own paths are trusted."""
        return (self.inbox, self.outbox, self.processed, self.failed)

    def root_of(self, path: Path) -> Path | None:
        """Return which of `roots` a file lies below, where no link may lead away; None: none."""
        return next((root for root in self.roots if path.is_relative_to(root)), None)

    @model_validator(mode="before")
    @classmethod
    def _pass_over_own_keys(cls, values: Any) -> Any:
        """Leave out keys that begin with ``x-``, which only hold what others refer to."""
        if not isinstance(values, dict):
            return values
        return {k: v for k, v in values.items() if not str(k).startswith("x-")}

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
    def _check_cluster_device(self) -> Self:
        if problem := self.cluster_problem():
            raise ValueError(problem)
        return self

    def cluster_problem(self) -> str | None:
        """Return why no cluster can paint with these settings; None: one can, or there is none."""
        if self.cluster.address is None or ":" not in self.device:
            return None
        kind = self.device.partition(":")[0]
        return (
            f"device: {self.device!r} is one of many, and a cluster has each of its workers paint "
            f"on another; give {kind}, with CUDA_VISIBLE_DEVICES where its nodes are begun to say "
            "which, and cluster.workers to say how many"
        )

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
        return deepest(place, self.folders, self.watch.urgent)

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


def deepest(place: PurePath, folders: Container[str], urgent: str) -> str | None:
    """Return which of the inbox's folders a place there belongs to; see `Config.folder_of`."""
    places = [place]
    if urgent and place.parts[:1] == (urgent,):
        places.append(PurePath(*place.parts[1:]))
    above = (str(one) for start in places for one in (start, *start.parents))
    return next((one for one in above if one in folders), None)


def style_key(name: str) -> str:
    """Return where the settings of a style, or of a folder of styles, stand in pipeline.yaml."""
    return "styles" if name == ONLY_FOLDER else f"styles.{shown(name)}"


def load(path: Path, with_images: bool = True) -> Config:
    """Read a pipeline.yaml; relative paths in it are relative to its folder.

    Args:
        path: the file.
        with_images: whether the styles' images must be there, as whoever paints needs them.

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
    problems = [(line, _cut(f"{key}: stands twice")) for line, key in documents.repeated_keys(node)]
    try:
        context = {
            "base": path.parent.absolute(),
            "variables": os.environ,
            "file": path,
            "with_images": with_images,
        }
        config = Config.model_validate(data, context=context)
    except ValidationError as error:
        problems += [(documents.line_of(node, loc), text) for loc, text in _mistakes(error)]
    if problems:
        told = [f"{shown(path)}:{line}: {text}" for line, text in sorted(problems)[:MOST_PROBLEMS]]
        raise ConfigError(told)
    return config


def _init(path: Path) -> str:
    """Return the command that writes settings beside where some should be."""
    return f"nst-pipeline init {shlex.quote(shown(path.parent))}"


def parse(data: dict[str, Any], base: Path, variables: Mapping[str, str] | None = None) -> Config:
    """Validate settings given as plain data.

    Args:
        data: the settings.
        base: what relative paths are relative to.
        variables: what ``$NAME`` and ``${NAME}`` in paths stand for; None: a dollar is a dollar.

    Raises:
        pydantic.ValidationError: anything is wrong.
    """
    context = {"base": base.absolute(), "variables": variables}
    return Config.model_validate(data, context=context)


def explain(error: ValidationError) -> list[str]:
    """Return every mistake as *key: what is wrong; what to do*."""
    return [text for _, text in _mistakes(error)]


def _mistakes(error: ValidationError) -> list[tuple[list[str], str]]:
    """Return the location of each mistake, and its message.

    Pydantic refuses a value of several kinds once for each kind: those are one mistake. A key
    and its value are two.
    """
    groups: dict[tuple[bool, tuple[str, ...]], list[ErrorDetails]] = {}
    for details in error.errors(include_url=False)[:MOST_MISTAKES]:
        loc = tuple(str(part) for part in details["loc"] if not KIND.fullmatch(str(part)))
        groups.setdefault(("[key]" in details["loc"], loc), []).append(details)
    return [
        (list(loc), _explain(list(loc), group))
        for (_, loc), group in groups.items()
        if not any(other[: len(loc)] == loc != other for _, other in groups)
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
    if kind == "extra_forbidden" and (moved := MOVED.get(tuple(loc))):
        return where + moved.format(given)
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


def _known_keys(loc: list[str]) -> list[str]:
    """Return the keys that the settings at ``loc`` take."""
    model: type[BaseModel] = Config
    return list(functools.reduce(_child, loc, model).model_fields)


def _child(model: type[BaseModel], key: str) -> type[BaseModel]:
    if key not in model.model_fields:
        return model  # a name inside a mapping of styles
    return model_in(model.model_fields[key].annotation) or model
