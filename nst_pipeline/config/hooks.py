"""The settings of hooks: what is started, or called, when a job is done or has failed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_serializer,
    model_validator,
)

from nst_pipeline.config.recipe import Settings
from nst_pipeline.config.settings import absolute_path
from nst_pipeline.files import counted, shown

Event = Literal["done", "failed"]
"""What came of a job."""
Kind = Literal["command", "url"]
"""How somebody is told of it."""
NOT_EMPTY = {"type": ["string", "integer"], "minLength": 1}
"""JSON schema of a command's first word."""


def _as_words(value: Any) -> Any:
    """Take whole numbers as arguments too; a text is no list of them."""
    if isinstance(value, str):
        raise ValueError(
            f"{value!r} is one text, and no shell takes it apart; give a list, as in "
            "[notify, --fast]"
        )
    if not isinstance(value, list | tuple):
        return value
    return [str(one) if type(one) is int else one for one in value]


def _check_command(command: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    if not command[0]:
        raise ValueError(f"{command[0]!r} cannot be started; name a program first")
    if "/" in command[0]:  # other names are looked for in PATH
        return str(absolute_path(Path(command[0]), info)), *command[1:]
    return command


def _check_url(url: str) -> str:
    """Return an address as it is; no message repeats it, for it may hold a secret."""
    try:
        parts = urlsplit(url)
        is_fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_fine = False
    if not is_fine or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("is no address; give one as https://HOST/PATH, without spaces")
    if parts.username is not None:
        raise ValueError(
            "holds a name or a password, which others would read in manifests; sign what is sent "
            "(secret_file) instead"
        )
    return url


Command = Annotated[
    tuple[str, ...],
    BeforeValidator(
        _as_words,
        json_schema_input_type=Annotated[
            list[str | int], Field(min_length=1, json_schema_extra={"prefixItems": [NOT_EMPTY]})
        ],
    ),
    Field(min_length=1),
    AfterValidator(_check_command),
]


def _has(key: str, kind: str = "string") -> dict[str, Any]:
    """Return the JSON schema of what has a key that is not null."""
    return {"required": [key], "properties": {key: {"type": kind}}}


class HookSettings(Settings):
    """What is told of a job: a command, an address, or both, each for itself."""

    model_config = ConfigDict(
        json_schema_extra={
            "allOf": [
                {"anyOf": [_has("command", "array"), _has("url")]},
                {"not": {"allOf": [_has("secret_file"), _has("secret_env")]}},
                {
                    "if": {"anyOf": [_has("secret_file"), _has("secret_env")]},
                    "then": _has("url"),
                },
            ]
        }
    )

    command: Command | None = Field(
        None,
        description="A program and its arguments, started without a shell; the job's record is on "
        "its standard input.",
        examples=[["notify", "--fast"]],
    )
    url: (
        Annotated[
            str,
            AfterValidator(_check_url),
            Field(json_schema_extra={"pattern": "^https?://[!-~]+$"}),
        ]
        | None
    ) = Field(
        None, description="Where the record is sent to (POST); manifests name its host alone."
    )
    secret_file: Annotated[Path, AfterValidator(absolute_path)] | None = Field(
        None, description="File with the secret that what is sent to `url` is signed with."
    )
    secret_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = Field(
        None, description="Environment variable with that secret, in place of a file."
    )
    timeout_seconds: float = Field(
        60.0, gt=0, le=86400, description="How long one attempt may take."
    )
    max_attempts: int = Field(10, ge=1, le=1000, description="Attempts at each delivery.")
    retry_seconds: float = Field(
        30.0, ge=0, le=86400,
        description="Before the second attempt; doubled for each further, up to an hour.",
    )  # fmt: skip

    @model_validator(mode="after")
    def _has_a_target(self) -> Self:
        if self.command is None and self.url is None:
            raise ValueError("needs a command, a url, or both")
        if self.secret_file and self.secret_env:
            raise ValueError("secret_file and secret_env: give one of them")
        if self.url is None and (self.secret_file or self.secret_env):
            raise ValueError("has a secret, and no url to sign anything for")
        return self

    @field_serializer("url")
    def _without_path(self, url: str | None) -> str | None:
        return None if url is None else origin(url)

    @field_serializer("command")
    def _without_arguments(self, command: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """Leave out what may be secret: manifests are for everybody."""
        if command is None or len(command) == 1:
            return command
        return command[0], f"({counted(len(command) - 1, 'argument')})"

    def kinds(self) -> Iterator[Kind]:
        """Give what there is to tell."""
        if self.command is not None:
            yield "command"
        if self.url is not None:
            yield "url"

    def target(self, kind: Kind) -> str:
        """Return who is told, for people: nothing that may be secret."""
        if kind == "command":
            assert self.command
            return shown(self.command[0])
        assert self.url
        return origin(self.url)


def origin(url: str) -> str:
    """Return an address without all that may be secret in it: its scheme, host and port."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def as_hook(value: Any) -> Any:
    """Return a hook that is given as its command alone as its settings."""
    return {"command": value} if isinstance(value, str | list | tuple) else value


HookField = Annotated[
    HookSettings, BeforeValidator(as_hook, json_schema_input_type=Command | HookSettings)
]
"""What pipeline.yaml holds as a hook: its settings, or a command alone."""
