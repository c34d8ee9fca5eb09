"""The settings of a style and of the outputs, each a section of pipeline.yaml."""

import os
import re
import string
from collections.abc import Mapping
from datetime import date
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)

from nst_pipeline.config.recipe import (
    ADDED,
    NOT_PIXELS,
    RecipeChanges,
    RecipeField,
    Settings,
    did_you_mean,
    weigh_equally,
)
from nst_pipeline.files import NAME_BYTES, UNSAFE, shown

NAME_FIELDS = ("content", "style", "recipe", "size")
"""What an output's name template may hold."""
VARIABLE = re.compile(r"\$(\$|(?P<name>[A-Za-z_][A-Za-z_0-9]*)|\{(?P<braced>[^{}]*)\})")
"""What stands for something else in a path: ``$NAME``, ``${NAME}`` and ``$$``."""
PATH_BYTES = 4095
"""The longest path that the kernel takes."""


def absolute_path(path: Path, info: ValidationInfo) -> Path:
    """Return an absolute path; a relative one is relative to the settings' file.

    Raises:
        ValueError: it begins with the home of a user that is not there, or holds a variable that
            is not set.
    """
    context = info.context or {}
    try:
        home = path.expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{shown(path)}: {shown(path.parts[0])} is nobody's home; write it in full"
        ) from error
    variables = context.get("variables")
    if variables is not None:
        home = Path(_substituted(str(home), variables))
    return Path(context.get("base", Path()), home).absolute()


def _substituted(text: str, variables: Mapping[str, str]) -> str:
    """Return a path with the values of the variables in it, and ``$`` for ``$$``."""

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        name = match["name"] or match["braced"]
        if not variables.get(name):
            raise ValueError(
                f"{shown(text)}: the variable {name!r} is not set; set it, or write $$ for a $"
            )
        return variables[name]

    return VARIABLE.sub(value, text)


def _check_folder(path: Path) -> Path:
    if len(os.fsencode(path)) > PATH_BYTES or any(
        len(os.fsencode(part)) > NAME_BYTES for part in path.parts
    ):
        raise ValueError(f"{shown(path)}: too long, no folder can have such a path")
    return path


def _check_file(path: Path, info: ValidationInfo) -> Path:
    if not (info.context or {}).get("with_images", True):
        return path
    if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises for a name that is too long
        if os.path.isdir(path):  # noqa: PTH112
            raise ValueError(
                f"{shown(path)}: a folder, no image; {{folder: PATH}} makes a style of each image "
                "in it"
            )
        raise ValueError(f"{shown(path)}: no such file")
    return path


def split_pattern(path: Path) -> tuple[Path, tuple[str, ...]]:
    """Return a folder, and the patterns of the names below it, of a folder's or pattern's path.

    A folder that is there is no pattern, whatever signs are in its name.
    """
    parts = path.parts
    for number, part in enumerate(parts):
        place = Path(*parts[: number + 1])
        if set("*?[") & set(part) and not os.path.isdir(place):  # noqa: PTH112 - is_dir may raise
            return place.parent, parts[number:]
    return path, ()


def _check_style_folder(path: Path, info: ValidationInfo) -> Path:
    if not (info.context or {}).get("with_images", True):
        return path
    folder, _ = split_pattern(path)
    if os.path.isfile(folder):  # noqa: PTH113 - Path.is_file may raise
        raise ValueError(
            f"{shown(folder)}: a file, no folder; a style of one image is written NAME: PATH, "
            "or {image: PATH}"
        )
    if not os.path.isdir(folder):  # noqa: PTH112
        raise ValueError(f"{shown(folder)}: no such folder; make it, or name another")
    return path


def _check_template(template: str) -> str:
    try:
        parsed = list(string.Formatter().parse(template))
        fields = [field for _, field, _, _ in parsed if field]
        if any(spec or conversion for _, _, spec, conversion in parsed):
            raise ValueError(f"{template!r}: write its fields as they are, such as {{content}}")
        for field in fields:
            if field not in NAME_FIELDS:
                raise ValueError(
                    f"unknown field {{{field}}}{did_you_mean(field, list(NAME_FIELDS))}"
                )
        template.format(**dict.fromkeys(NAME_FIELDS, "x"))
    except (KeyError, IndexError) as error:
        raise ValueError(f"{template!r} is not a template: write {{content}}-{{style}}") from error
    if "content" not in fields:
        raise ValueError(f"{template!r} gives every content the same name; put {{content}} into it")
    parts = Path(template).parts
    if shown(template) != template:
        raise ValueError(f"{template!r} cannot be a file's name")
    if Path(template).is_absolute() or ".." in parts or any(p.startswith(".") for p in parts):
        raise ValueError(f"{template!r} must stay in the outbox and not be hidden")
    return template


FolderPath = Annotated[Path, AfterValidator(absolute_path), AfterValidator(_check_folder)]
ImagePath = Annotated[Path, AfterValidator(absolute_path), AfterValidator(_check_file)]
StyleFolderPath = Annotated[
    Path, AfterValidator(absolute_path), AfterValidator(_check_style_folder)
]

Sources = Mapping[str, tuple[tuple[Path, float], ...]]
"""A style's images with their shares, which sum to 1, by region; without regions, by ``""``."""


def name_schema(also: str) -> dict[str, Any]:
    """Return the JSON schema of a style's or region's name, which has no sign of ``also``."""
    return {"minLength": 1, "not": {"pattern": rf"{UNSAFE.pattern}|[/\\{{}}]|{also}"}}


def _check_region(name: str) -> str:
    if not re.fullmatch(r"[^./\\{}]+", name) or shown(name) != name:
        raise ValueError(f"{name!r} cannot be a region's name: it is part of photo.mask.NAME.png")
    return name.lower()


def _check_exactly_one(settings: BaseModel, names: tuple[str, ...]) -> None:
    given = [name for name in names if getattr(settings, name) is not None]
    if len(given) != 1:
        raise ValueError(
            f"needs exactly one of {', '.join(names)}; has {' and '.join(given) or 'none'}"
        )


def _exactly_one(*names: str) -> dict[str, Any]:
    """Return the JSON schema of what `_check_exactly_one` accepts."""
    given = {"not": {"type": "null"}}
    return {"oneOf": [{"required": [name], "properties": {name: given}} for name in names]}


Share = Annotated[float, Field(gt=0, le=1e9)]
Images = Annotated[
    dict[ImagePath, Share],
    BeforeValidator(
        weigh_equally,
        json_schema_input_type=Annotated[dict[Path, Share], Field(min_length=1)]
        | Annotated[list[Path], Field(min_length=1)],
    ),
    Field(min_length=1),
]


class RegionSettings(Settings):
    """The style of one region: an image, or several that are blended."""

    model_config = ConfigDict(json_schema_extra=_exactly_one("image", "images"))

    image: ImagePath | None = Field(
        None, description="The style's picture.", examples=["styles/mosaic.jpg"]
    )
    images: Images | None = Field(
        None,
        description="Several pictures that are blended, with weights or as a list.",
        examples=[{"styles/mosaic.jpg": 0.7, "styles/woodcut.jpg": 0.3}],
    )

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        _check_exactly_one(self, ("image", "images"))
        return self

    def shares(self) -> tuple[tuple[Path, float], ...]:
        """Return the images with their shares, which sum to 1."""
        images = self.images or ({self.image: 1.0} if self.image else {})
        total = sum(images.values())
        return tuple((path, weight / total) for path, weight in images.items())


def as_region(value: Any) -> Any:
    """Return a style or region that is given as an image's path alone as its settings."""
    return {"image": value} if isinstance(value, str | Path) else value


class StyleSettings(RegionSettings):
    """One style: its image or images, and what its recipe changes; or a folder of styles.

    What the images of a folder are is looked for when a plan is made (`inbox.style_folders`).
    """

    model_config = ConfigDict(
        json_schema_extra=_exactly_one("image", "images", "regions", "folder")
    )

    regions: (
        Annotated[
            dict[
                Annotated[
                    str,
                    AfterValidator(_check_region),
                    Field(json_schema_extra=name_schema(r"\.")),
                ],
                Annotated[
                    RegionSettings,
                    BeforeValidator(as_region, json_schema_input_type=Path | RegionSettings),
                ],
            ],
            Field(min_length=1),
        ]
        | None
    ) = Field(
        None,
        description="A style a region; photo.mask.NAME.png beside photo.jpg says where NAME is.",
        examples=[{"sky": "styles/mosaic.jpg", "ground": "styles/woodcut.jpg"}],
    )
    folder: StyleFolderPath | None = Field(
        None,
        description="A folder, or a pattern of paths: each image is a style, named by its stem.",
        examples=["styles", "styles/*.jpg"],
    )
    recipe: RecipeField = Field(
        default_factory=RecipeChanges, description="Changes to the recipe for this style alone."
    )

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        _check_exactly_one(self, ("image", "images", "regions", "folder"))
        return self

    def sources(self) -> Sources:
        """Return the style's images with their shares, by region."""
        if self.regions is None:
            return {"": self.shares()}
        return {name: region.shares() for name, region in self.regions.items()}

    def paths(self) -> tuple[Path, ...]:
        """Return the files of the style's images, each once."""
        shares = self.sources().values()
        return tuple(dict.fromkeys(path for images in shares for path, _ in images))


def check_inbox_folder(name: str) -> str:
    """Return a subfolder of the inbox as it is compared: relative, without a / at its end.

    Raises:
        ValueError: it leaves the inbox, or is the inbox itself.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(
            f"{name!r} leaves the inbox; write the path of one of its subfolders, relative to it"
        )
    if not path.parts:
        raise ValueError(
            f"{name!r} is the inbox itself; write what is for all of it under styles and recipe"
        )
    return str(path)


def _check_known_style(name: str, info: ValidationInfo) -> str:
    known = (info.context or {}).get("styles")
    if known is not None and name not in known:
        raise ValueError(f"no style {name!r}{did_you_mean(name, known)}")
    return name


def _check_some(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise ValueError(
            "names no style, so nothing would be painted there; name some, leave it out for all "
            "styles, or put the folder into also_ignore"
        )
    return tuple(dict.fromkeys(names))


class InboxFolderSettings(Settings):
    """How the pictures of one subfolder of the inbox are painted."""

    styles: (
        Annotated[
            tuple[Annotated[str, AfterValidator(_check_known_style)], ...],
            BeforeValidator(
                lambda value: (value,) if isinstance(value, str) else value,
                json_schema_input_type=str | Annotated[list[str], Field(min_length=1)],
            ),
            AfterValidator(_check_some),
        ]
        | None
    ) = Field(
        None,
        description="The names of its styles, of a folder of styles all; by default every style.",
        examples=[["mosaic", "woodcut"]],
    )
    recipe: RecipeField = Field(
        default_factory=RecipeChanges,
        description="Changes to the recipe for these pictures, above those of the styles.",
    )


def as_inbox_folders(value: Any) -> Any:
    """Return the subfolders with text for keys that YAML takes for numbers or dates.

    Raises:
        ValueError: two are the same folder.
    """
    if not isinstance(value, dict):
        return value
    plain = {
        str(key) if isinstance(key, int | date) else key: {} if one is None else one
        for key, one in value.items()
    }
    seen: dict[str, Any] = {}
    for key in plain:
        if isinstance(key, str) and (other := seen.setdefault(str(PurePosixPath(key)), key)) != key:
            raise ValueError(f"{other!r} and {key!r} are the same folder; make one of them")
    return plain


def _check_depth(bits: int, info: ValidationInfo) -> int:
    if bits == 16 and info.data.get("format", "png") not in ("png", "tiff"):
        raise ValueError(
            f"16 bits do not fit into {info.data['format']}; set format to png or tiff, "
            "or bit_depth to 8"
        )
    return bits


Keeping = Literal["none", "date", "credits", "all-but-place", "all"]
"""What of a content's metadata its result keeps."""


def _as_keeping(value: Any) -> Any:
    """Take yes and no too, which were all that could be said once."""
    return {"True": "all", "yes": "all", "False": "none", "no": "none"}.get(str(value), value)


FIELD = r"([^{{}}]|\{{\{{|\}}\}}|\{{({})\}})*"
TEMPLATE = (
    r"^(?![/.])(?!.*/\.)"
    f"(?={FIELD.format('style|recipe|size')}"
    r"\{content\})"
    f"{FIELD.format('content|style|recipe|size')}$"
)
"""A pattern of the templates that `_check_template` accepts."""


class OutputSettings(Settings):
    """How results are named and encoded."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"required": ["bit_depth"], "properties": {"bit_depth": {"const": 16}}},
            "then": {"properties": {"format": {"enum": ["png", "tiff"]}}},
        }
    )

    format: Literal["png", "jpeg", "webp", "tiff", "avif"] = Field(
        "png", description="File format of the results."
    )
    bit_depth: Annotated[Literal[8, 16], AfterValidator(_check_depth)] = Field(
        8, description="Bits a channel; 16 with png and tiff."
    )
    mode: Literal["color", "grey"] = Field(
        "color", json_schema_extra=ADDED,
        description="grey: the luminance alone, in one channel where the format has such pictures.",
    )  # fmt: skip
    name: Annotated[
        str, AfterValidator(_check_template), Field(json_schema_extra={"pattern": TEMPLATE})
    ] = Field(
        "{content}-{style}",
        description="File name without suffix, of {content}, {style}, {recipe} and {size}; "
        "a / makes folders.",
        json_schema_extra=NOT_PIXELS,
    )
    quality: int = Field(
        95, ge=1, le=100, description="Quality of JPEG, AVIF and WebP (its 100: lossless)."
    )
    subsampling: Literal["4:4:4", "4:2:2", "4:2:0"] = Field(
        "4:4:4", description="Resolution of the colours of JPEG and AVIF; 4:4:4: full."
    )
    keep_exif: Annotated[
        Keeping,
        BeforeValidator(_as_keeping, json_schema_input_type=Keeping | bool | Literal["yes", "no"]),
    ] = Field(
        "none",
        description="What of the content's EXIF and XMP travels along: none; date; credits: date, "
        "title, description, author and copyright; all-but-place: the camera's data, too; all: "
        "its position (GPS) included, as with true.",
    )
    dpi: Literal["keep"] | Annotated[float, Field(ge=1, le=65535, allow_inf_nan=False)] = Field(
        "keep", description="Pixels an inch that the result names; keep: the content's, if any."
    )
    snapshots: int = Field(
        0, ge=0, json_schema_extra=NOT_PIXELS,
        description="Every so many steps the unfinished picture is kept beside the result, in "
        "NAME.steps; 0: never.",
    )  # fmt: skip
    making: Literal["none", "gif", "webp"] = Field(
        "none", json_schema_extra=NOT_PIXELS,
        description="An animation of the making beside the result, of the snapshots.",
    )  # fmt: skip
    gallery: bool = Field(
        False, json_schema_extra=NOT_PIXELS,
        description="Keep outbox/gallery up to date, a site to look at the results.",
    )  # fmt: skip
