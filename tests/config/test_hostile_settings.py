"""Settings made to break us: each is refused with its line, or can be used."""

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import picture
from pydantic import BaseModel

from nst_pipeline.config.pipeline import Config, load
from nst_pipeline.config.recipe import RecipeChanges, model_in
from nst_pipeline.config.settings import RegionSettings
from nst_pipeline.errors import ConfigError
from nst_pipeline.files import shown
from nst_pipeline.inbox.scanner import find
from nst_pipeline.inbox.style_folders import StyleFolders
from nst_pipeline.jobs.planning import make_scanner
from nst_pipeline.manifest import records

ROOT = Path(__file__).parents[2]
SEED, FILES, LONGEST_MESSAGE = 1, 1_200, 200_000

VALUES = (
    "2024-01-01", "2024-13-45", "12:30:45", "!!set {a}", "!!omap [a: 1]", "!!binary AAAA",
    "!!bool x", "!!python/object:os.system x", ".inf", "-.inf", ".nan", "-1", "0", "1", "1e308",
    "1e999", "5e-324", "9" * 30, "9" * 5000, "true", "off", "null", "''", "[]", "{}", "[[a]]",
    "[{}]", "['7']", "[1, a, null]", "{7: 1}", "{null: null}", "{[a]: b}", "{a: {b: {c: d}}}",
    "&x [*x]", "*nowhere", "<<", "=", "~nosuch", "~nosuch/x", "x" * 300, "x/" * 2500, "..", "../..",
    "/", "/dev/null", "/dev/zero", "ink.png", "ink.png/x", '"\\0"', '"\\ud800"', '"\\udcff"',
    '"\\e[2J\\n"', "'{content:>9999999999}'", "'{content!r}'", "'{content:{style}}'", "'{}'",
    "'{content.x}'", "'{content[0]}'", "'{content}/../x'", "'{content'", "cuda:999999999999",
    "4:2:0", "[" * 100, "- - -", "'", "'*a*a*a*a*a*a*b'", "'[z-a]'", "{ink.png: 1e308, a: 1e308}",
    "[32, 16]", "[16384, 32]", "gatys", "auto",
)  # fmt: skip


def keys(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    """Give the way to each key of some settings."""
    for name, field in model.model_fields.items():
        yield (name,)
        inner = model_in(field.annotation)
        for rest in keys(inner) if inner else ():
            yield name, *rest


def ways() -> list[tuple[str, ...]]:
    """Return the way to each key there is."""
    found = list(keys(Config)) + [("recipe", name) for name in RecipeChanges.model_fields]
    found += [("styles", "a", "regions", "sky", name) for name in RegionSettings.model_fields]
    return found + [("styles", "a", *way[1:]) for way in found if way[0] == "styles"]


def text_of(settings: dict[str, Any]) -> str:
    """Return nested settings, the values as they are, as YAML."""
    items = (
        f"{json.dumps(key)}: {text_of(value) if isinstance(value, dict) else value}"
        for key, value in settings.items()
    )
    return "{" + ", ".join(items) + "}"


def invented(source: random.Random, all_ways: list[tuple[str, ...]]) -> str:
    """Return good settings but for the values of some keys, or a key that is none."""
    settings: dict[str, Any] = {"inbox": "in", "styles": {"a": {"image": "ink.png"}}}
    for _ in range(source.randint(1, 3)):
        *parents, last = source.choice(all_ways)
        place = settings
        for key in parents:
            inner = place.get(key)
            place[key] = inner = inner if isinstance(inner, dict) else {}
            place = inner
        if source.random() < 0.1:
            last = source.choice(VALUES)[:400]
        place[last] = source.choice(VALUES)
    lines = (f"{json.dumps(k)}: {text_of(v) if isinstance(v, dict) else v}\n"
             for k, v in settings.items())  # fmt: skip
    return "".join(lines)


def damaged(source: random.Random, text: str) -> bytes:
    """Return a text with some of it cut out, doubled, moved or overwritten."""
    data = bytearray(text, "utf-8")
    for _ in range(source.randint(1, 6)):
        start = source.randrange(len(data))
        end = min(len(data), start + source.choice((1, 1, 4, 40)))
        piece = bytes(data[start:end])
        choices = (
            b"",
            piece * 3,
            source.randbytes(len(piece)),
            source.choice(VALUES).encode(),
            source.choice((b"&a ", b"*a", b"[", b"{", b"- ", b"\t", b"\n", b": ", b"!!")),
        )
        data[start:end] = source.choice(choices)  # fmt: skip
    return bytes(data)


def outcome(path: Path) -> str:
    """Load a file; return what became of that."""
    try:
        config = load(path)
    except ConfigError as error:
        assert len(str(error)) < LONGEST_MESSAGE
        for problem in error.problems:
            assert re.match(rf"{re.escape(str(path))}:\d+: .", problem), problem
            assert shown(problem) == problem
        return "refused"
    config = StyleFolders(config, 0).find().config
    json.dumps(records.resolved(config), allow_nan=False)
    for style in config.styles.values():
        assert sum(share for _, share in next(iter(style.sources().values()))) > 0
    make_scanner(config)
    find([path.parent], config.ignored)
    for folder in config.excluded:
        folder.exists()
    return "read"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("ink.png", "brushwork.jpg", "mosaic.jpg", "woodcut.jpg"):
        picture().save(tmp_path / name)
    (tmp_path / "in").mkdir()
    return tmp_path


def test_any_values_of_any_keys_are_refused_with_their_line_or_can_be_used(folder: Path) -> None:
    source, all_ways, path = random.Random(SEED), ways(), folder / "pipeline.yaml"
    assert len(all_ways) > 100
    outcomes = []
    for _ in range(FILES):
        text = invented(source, all_ways)
        path.write_text(text)
        try:
            outcomes.append(outcome(path))
        except Exception as error:
            raise AssertionError(text[:2000]) from error
    assert {"read", "refused"} == set(outcomes)


def test_damaged_settings_are_refused_with_their_line_or_can_be_used(folder: Path) -> None:
    source, path = random.Random(SEED), folder / "pipeline.yaml"
    text = (ROOT / "pipeline.yaml").read_text().replace("nst_pipeline/samples/styles/", "")
    outcomes = []
    for _ in range(100):
        data = damaged(source, text)
        path.write_bytes(data)
        try:
            outcomes.append(outcome(path))
        except Exception as error:
            raise AssertionError(data.decode("utf-8", "backslashreplace")) from error
    assert {"read", "refused"} == set(outcomes)
