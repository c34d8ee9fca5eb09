"""Recipes: everything that decides the pixels besides the two images and the weights."""

import difflib
import functools
import math
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    Tag,
    create_model,
    model_serializer,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from nst_pipeline.config.networks import LAYER_NAMES
from nst_pipeline.config.weights import Weights
from nst_pipeline.digests import digest
from nst_pipeline.errors import ConfigError
from nst_pipeline.files import shown

STYLE_LAYER_NAMES = ("pixels", *LAYER_NAMES)
"""What a style can be compared at: the layers, and the normalised picture itself."""

RecipeName = Literal["default", "gatys", "painterly", "sketch", "photo-colors", "tutorial"]
Statistic = Literal["gram", "gram+mean", "covariance"]
Pooling = Literal["max", "average", "rescaled-average"]
Padding = Literal["zeros", "replicate", "reflect"]


def did_you_mean(word: str, known: list[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest of ``known``, or the whole list."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"


def model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the settings that a field takes, if it takes some."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    arguments = get_args(annotation) if get_origin(annotation) else ()
    return next((model for model in map(model_in, arguments) if model), None)


class Settings(BaseModel):
    """Base of all settings: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _take_empty_sections(cls, values: Any) -> Any:
        """Leave out a section whose keys are all commented out."""
        if not isinstance(values, dict):
            return values
        return {k: v for k, v in values.items() if v is not None or k not in cls.sections()}

    @classmethod
    def sections(cls) -> set[str]:
        """Return the keys that hold settings."""
        return {name for name, field in cls.model_fields.items() if model_in(field.annotation)}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Let a section that may be left out be empty, too."""
        schema = handler(core_schema)
        inner = handler.resolve_ref_schema(schema)
        for name in cls.sections() - set(inner.get("required", ())):
            whole = inner["properties"][name]
            if {"type": "null"} in whole.get("anyOf", ()):
                continue
            told = {key: whole.pop(key) for key in ("default", "description") if key in whole}
            inner["properties"][name] = {"anyOf": [whole, {"type": "null"}], **told}
        return schema

    def pixels(self) -> dict[str, Any]:
        """Return the fields that can change an output file, ready for JSON.

        A field is left out only when it is declared with ``NOT_PIXELS``, or with ``ADDED`` and
        has its default, so that a new field counts unless somebody decides otherwise.
        """
        ignored = {
            name
            for name, field in type(self).model_fields.items()
            if (mark := _mark(field)) == NOT_PIXELS["pixels"]
            or (mark == ADDED["pixels"] and getattr(self, name) == field.default)
        }
        return self.model_dump(mode="json", exclude=ignored)


def _mark(field: FieldInfo) -> Any:
    extra = field.json_schema_extra
    return extra.get("pixels") if isinstance(extra, dict) else None


NOT_PIXELS: dict[str, Any] = {"pixels": False}
"""``json_schema_extra`` of a field that cannot change a pixel."""
ADDED: dict[str, Any] = {"pixels": "unless default"}
"""``json_schema_extra`` of a newer field: by its default all is painted as before there was one."""


def weigh_equally(value: Any) -> Any:
    """Return a list of names as a mapping of each to 1; anything else as it is."""
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        return dict.fromkeys(value, 1.0)
    return value


def _check_layers(value: dict[str, float], known: tuple[str, ...]) -> dict[str, float]:
    for name in value:
        if name not in known:
            raise ValueError(f"unknown layer {name!r}{did_you_mean(name, list(known))}")
    if not any(value.values()):
        raise ValueError("needs at least one layer with a weight above 0")
    return value


Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _take_layers(known: tuple[str, ...]) -> BeforeValidator:
    """Return what takes a list of layers, too; the JSON schema has the names ``known``."""
    name = Annotated[str, Field(json_schema_extra={"enum": list(known)})]
    weights = Annotated[
        dict[name, Weight],
        Field(json_schema_extra={"not": {"additionalProperties": {"const": 0}}}),
    ]
    names = Annotated[list[name], Field(min_length=1)]
    return BeforeValidator(weigh_equally, json_schema_input_type=weights | names)


def _check_scales(value: Any) -> Any:
    if isinstance(value, tuple) and (not value or sorted(set(value)) != list(value)):
        raise ValueError("should be sizes that grow, such as [128, 256]")
    return value


ContentLayers = Annotated[
    dict[str, Weight],
    _take_layers(LAYER_NAMES),
    AfterValidator(functools.partial(_check_layers, known=LAYER_NAMES)),
]
StyleLayers = Annotated[
    dict[str, Weight],
    _take_layers(STYLE_LAYER_NAMES),
    AfterValidator(functools.partial(_check_layers, known=STYLE_LAYER_NAMES)),
]
SHORTEST_SIDE = 32
"""What the network's five poolings need, in pixels."""
COARSEST_SIDE = 128
"""Longer side, in pixels, that ``scales: auto`` begins with."""
LARGEST_SIDE = 16384
"""The most that a size can be set to, in pixels."""
USUAL_SIDE = 2048
"""Longer side, in pixels, that `step_costs` takes a content for whose size it is not told."""
STEP_PIXELS = 96**2
"""What a step costs besides its pixels: so many more. (Measured at 256 and 512 px on two cores.)"""

Side = Annotated[int, Field(ge=SHORTEST_SIDE, le=LARGEST_SIDE)]
Sides = Annotated[tuple[Side, ...], Field(json_schema_extra={"minItems": 1, "uniqueItems": True})]
Steps = Annotated[int, Field(ge=1, le=100_000)]


class Bounds(Settings):
    """A width and a height that a result fills or fits in; of one alone, the other follows."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": [side], "properties": {side: {"type": "integer", "minimum": 32}}}
                for side in ("width", "height")
            ]
        }
    )

    width: Annotated[int, Field(ge=1, le=LARGEST_SIDE)] | None = Field(
        None, description="Of the result, in pixels."
    )
    height: Annotated[int, Field(ge=1, le=LARGEST_SIDE)] | None = Field(
        None, description="Of the result, in pixels."
    )
    fit: Literal["cover", "contain"] = Field(
        "cover",
        description="cover: exactly as large, and what is too much of the content is cut off at "
        "both ends; contain: all of it, and no larger.",
    )

    @model_validator(mode="after")
    def _check_sides(self) -> Self:
        if not (longer := max(self.width or 0, self.height or 0)):
            raise ValueError("needs a width, a height or both")
        if longer < SHORTEST_SIDE:
            raise ValueError(f"is {self}; one side should be {SHORTEST_SIDE} or more")
        return self

    @model_serializer(mode="wrap")
    def _given(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in plain(self).items() if value is not None}

    def __str__(self) -> str:
        """Return it as people write it: ``3000x2000``, or of one side ``3000x`` or ``x2000``."""
        return f"{self.width or ''}x{self.height or ''}"

    @property
    def exact(self) -> tuple[int, int] | None:
        """The (height, width) that every result has; None: that depends on the content."""
        if self.fit == "contain" or self.height is None or self.width is None:
            return None
        return self.height, self.width

    @property
    def longest(self) -> int:
        """The longer side that no result exceeds, in pixels."""
        return max(self.width or LARGEST_SIDE, self.height or LARGEST_SIDE)

    def within(self, longest: int) -> "int | Bounds":
        """Return it in proportion, with ``longest`` pixels as the longer side of a result."""
        if self.exact is None:
            return longest
        height, width = (max(1, round(s * longest / self.longest)) for s in self.exact)
        return Bounds(width=width, height=height)


def _kind_of_size(value: Any) -> str:
    return "[bounds]" if isinstance(value, dict | Bounds) else "[side]"


Size = Annotated[
    Annotated[Side | Literal["original"], Tag("[side]")] | Annotated[Bounds, Tag("[bounds]")],
    Discriminator(_kind_of_size),
]
"""What a recipe may say of a result's size; a number is its longer side."""


class Recipe(Settings):
    """How a pastiche is made (Gatys, Ecker and Bethge 2016).

    The defaults are those of the recipe ``default``.
    """

    name: RecipeName = Field(
        "default",
        description="The named recipe this one starts from.",
        json_schema_extra=NOT_PIXELS,
    )
    size: Size = Field(
        512,
        description="Longer side of the output, in pixels; original: that of the content; or "
        "width, height, and fit: cover or contain.",
    )
    scales: Annotated[Literal["auto", 1] | Sides, AfterValidator(_check_scales)] = Field(
        "auto",
        description="Coarse to fine: auto (128 pixels, then about doubling), the smaller sizes to "
        "begin with, or 1 (the size alone).",
    )
    iterations: Steps | Annotated[tuple[Steps, ...], Field(min_length=1)] = Field(
        150,
        description="Steps, over all scales; or a list: of each scale, coarse to fine.",
    )
    content_layers: ContentLayers = Field(
        {"relu3_3": 0.4, "relu4_1": 0.3, "relu4_2": 0.3},
        description="Layers compared with the content; a list or layer: weight.",
    )
    style_layers: StyleLayers = Field(
        {"relu1_1": 16.0, "relu2_1": 8.0, "relu3_1": 4.0, "relu4_1": 2.0, "relu5_1": 1.0},
        description="Layers whose statistics are compared with the style's; pixels: the picture.",
    )
    content_weight: Weight = Field(1.0, description="Weight of the content loss.")
    style_weight: Weight = Field(
        20.0, description="Weight of the style loss; larger follows the style more closely."
    )
    tv_weight: Weight = Field(
        2.0, description="Weight of the total variation (mean square of neighbour differences)."
    )
    balanced: bool = Field(
        True,
        description="Divide the loss of each layer by the energy of its target, and average over "
        "layers, so that the weights mean the same for every network, layer set and size.",
    )
    statistic: Statistic = Field(
        "covariance", description="What of a layer is compared; covariance: covariance and mean."
    )
    style_scale: float = Field(
        1.0, ge=0.1, le=8, description="Size of the style's picture; larger gives larger strokes."
    )
    colors: Literal["style", "content", "matched"] = Field(
        "style",
        description="content: the style's strokes in the content's colours (luminance alone is "
        "painted); matched: the style's picture is first given the content's colours.",
    )
    pooling: Pooling = Field(
        "max", description="Pooling of the network; rescaled-average is twice the average."
    )
    padding: Padding = Field(
        "replicate", description="What the network sees beyond the picture's border."
    )
    init: Literal["content", "noise", "style-colors", "image"] = Field(
        "style-colors",
        description="What the pastiche starts as: the content, seeded noise, the content in the "
        "style's colours, or the picture NAME.init.png beside the content, which is used wherever "
        "there is one; image demands it.",
    )
    optimizer: Literal["lbfgs", "adam"] = Field(
        "lbfgs", json_schema_extra=ADDED,
        description="lbfgs: a lower loss in few steps; adam: less memory, as low a loss in many.",
    )  # fmt: skip
    learning_rate: float = Field(
        0.05, gt=0, le=1, json_schema_extra=ADDED,
        description="About how far a step of Adam moves a pixel, whose values are 0 to 1.",
    )  # fmt: skip
    history_size: int = Field(10, ge=1, le=200, description="Steps that L-BFGS remembers.")
    tolerance: float = Field(
        0.0, ge=0, lt=1,
        description="End a scale once 20 steps lower the loss by less than this part; 0: never.",
    )  # fmt: skip
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of whatever is random.")

    @property
    def remembered_steps(self) -> int:
        """Steps that the optimiser remembers: Adam none, besides its two moments."""
        return self.history_size if self.optimizer == "lbfgs" else 0

    @property
    def steps(self) -> int:
        """Steps of the optimiser over all scales, if none ends early.

        Where the content decides how large its pastiche is, listed scales depend on it: then
        those of the largest content, which are the most.
        """
        longest = self.size.longest if isinstance(self.size, Bounds) else LARGEST_SIDE + 1
        return sum(steps for _, steps in plan_sides(self, longest))


def plan_sides(recipe: Recipe, longer_side: int) -> list[tuple[int, int]]:
    """Return the sizes that a pastiche grows through, coarse to fine, and the steps at each.

    ``scales: auto`` begins with `COARSEST_SIDE` and about doubles from scale to scale.
    ``iterations`` as one number is the sum, shared out in inverse proportion to the roots of the
    sides: where a step is cheap it changes much. As a list it says how many scales ``auto``
    makes; what is to end at `COARSEST_SIDE` or below then begins smaller, and doubles.

    Args:
        recipe: gives ``size``, ``scales`` and ``iterations``.
        longer_side: of the pastiche, in pixels, where the recipe's size is no number.

    Returns:
        The longer side in pixels, which never shrinks, and the steps of the optimiser, at least 1.
    """
    final = recipe.size if isinstance(recipe.size, int) else longer_side
    iterations = recipe.iterations
    if recipe.scales == "auto":
        sides = _grow(final, None if isinstance(iterations, int) else len(iterations))
    else:
        listed = () if recipe.scales == 1 else recipe.scales
        sides = [*(side for side in listed if side < final), final]
    if isinstance(iterations, int):
        sides = sides[-iterations:]
        return list(zip(sides, _share_out(iterations, sides), strict=True))
    return [(side, iterations[min(k, len(iterations) - 1)]) for k, side in enumerate(sides)]


def step_costs(recipe: Recipe) -> list[int]:
    """Return what each step costs, in pixels of a square picture, from the first to the last.

    They say what part of a job's time is over, and how long one takes against another.
    """
    size = recipe.size
    longer = max(size.width or 0, size.height or 0) if isinstance(size, Bounds) else USUAL_SIDE
    return [
        side * side + STEP_PIXELS
        for side, steps in plan_sides(recipe, longer)
        for _ in range(steps)
    ]


def _grow(final: int, count: int | None) -> list[int]:
    """Return ``count`` sides that grow geometrically to ``final``; None: about doubling."""
    first: float = COARSEST_SIDE
    if count is None:
        count = 1 + max(0, round(math.log2(final / first)))
    elif final <= first:
        first = min(final, max(SHORTEST_SIDE, final / 2 ** (count - 1)))
    sides = [round(first * (final / first) ** (k / (count - 1))) for k in range(count - 1)]
    return [*sides, final]


def _share_out(total: int, sides: list[int]) -> list[int]:
    """Return numbers from 1 up of the sum ``total``, in inverse proportion to the sides' roots."""
    weights = [side**-0.5 for side in sides]
    left, shares, numbers = total - len(sides), sum(weights), []
    for weight in weights:
        numbers.append(1 + round(left * weight / shares))
        left, shares = left + 1 - numbers[-1], shares - weight
    return numbers


def recipe_digest(recipe: Recipe) -> str:
    """Return the digest of what in a recipe can change a pixel."""
    return digest(recipe.pixels())


PLAIN: dict[str, Any] = {
    "content_layers": ["relu4_2"],
    "style_layers": ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"],
    "statistic": "gram",
    "tv_weight": 0.0,
    "init": "content",
}

RECIPES: dict[RecipeName, dict[str, Any]] = {
    "default": {},
    # Gatys, Ecker and Bethge's layers and Gram matrices, and nothing else.
    "gatys": PLAIN | {"style_weight": 8.0},
    # Large strokes that follow the content loosely.
    "painterly": {
        "style_layers": PLAIN["style_layers"],
        "style_weight": 16.0,
        "style_scale": 1.5,
    },
    # The content's drawing in fine strokes of the style.
    "sketch": {
        "scales": 1,
        "content_layers": ["relu2_2"],
        "style_layers": ["relu1_1", "relu2_1", "relu3_1"],
        "style_scale": 0.6,
    },
    # The style's strokes in the content's own colours.
    "photo-colors": {"colors": "content", "init": "content"},
    # The PyTorch tutorial "Neural Transfer Using PyTorch": its conv_4 and conv_1 ... conv_5.
    "tutorial": PLAIN
    | {
        "size": 256,
        "scales": 1,
        "iterations": 300,
        "padding": "zeros",
        "content_layers": ["conv2_2"],
        "style_layers": ["conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1"],
        "style_weight": 1e6,
        "balanced": False,
        "history_size": 100,
    },
}
"""The named recipes, as changes to the defaults of `Recipe`."""


def _optional(field: FieldInfo) -> tuple[Any, Any]:
    annotation = (
        Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    )
    return (
        annotation | None,  # type: ignore[operator]
        Field(None, description=field.description, json_schema_extra=field.json_schema_extra),
    )


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


RecipeChanges = create_model(  # type: ignore[call-overload]
    "RecipeChanges",
    __base__=Settings,
    __doc__="Changes to a recipe: any of its fields, all optional.",
    **{name: _optional(field) for name, field in Recipe.model_fields.items()},
)

RecipeField = Annotated[
    RecipeChanges, BeforeValidator(_named, json_schema_input_type=RecipeName | RecipeChanges)
]
"""What pipeline.yaml holds under ``recipe``: a name, or a mapping of some of the fields."""


def make_recipe(*changes: Settings, **last: Any) -> Recipe:
    """Return the recipe that ``changes`` (general first, then particular) ask for.

    Args:
        changes: instances of `RecipeChanges`. One that names a recipe starts afresh from it;
            the changes before it are then left behind.
        last: fields of one change more.
    """
    fields: dict[str, Any] = {"name": "default"}
    for change in (*changes, RecipeChanges(**last)):
        given = change.model_dump(exclude_unset=True, exclude_none=True)
        fields = given if "name" in given else fields | given
    return Recipe.model_validate(RECIPES[fields["name"]] | fields)


def missing_layers(recipe: Recipe, weights: Weights) -> dict[str, str]:
    """Return what is wrong, by the recipe's field, if it names layers that the network lacks."""
    problems: dict[str, str] = {}
    for field in ("content_layers", "style_layers"):
        names = [n for n in getattr(recipe, field) if n not in ("pixels", *weights.layers)]
        if names:
            problems[field] = (
                f"the weights {shown(weights.id)} have no {', '.join(names)}; "
                f"their layers are {', '.join(weights.layers)}"
            )
    return problems


def check_layers(recipe: Recipe, weights: Weights) -> None:
    """See that a network has every layer that a recipe names.

    Raises:
        ConfigError: it lacks some; the error says which layers there are.
    """
    if problems := missing_layers(recipe, weights):
        raise ConfigError([f"recipe.{field}: {text}" for field, text in problems.items()])
