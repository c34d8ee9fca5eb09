"""The JSON schema accepts and refuses what the program does."""

import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from config.test_hostile_settings import invented, ways
from conftest import picture

from nst_pipeline.config import documents
from nst_pipeline.config.json_schema import SCHEMA_PATH
from nst_pipeline.config.pipeline import load
from nst_pipeline.errors import ConfigError

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads(SCHEMA_PATH.read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
STYLES = "styles: {ink: ink.png}\n"
BEYOND = re.compile(
    r"no such (file|folder)|no style|leaves the inbox|the inbox itself|the same folder"
    r"|a folder, no image|a file, no folder|whose pictures are no|nobody's home|lies in|too long"
    r"|sizes that grow|stands twice|is not set|not YAML|is not a template|holds no settings"
    r"|is no address|a name or a password|\.None: is None"
)
"""What the program alone refuses: what needs the disk, how values lie to each other, null keys."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("ink.png", "oil.png"):
        picture().save(tmp_path / name)
    return tmp_path


def program_says(folder: Path, text: str) -> list[str]:
    """Return what the program finds wrong."""
    path = folder / "pipeline.yaml"
    path.write_text(text)
    try:
        load(path)
    except ConfigError as error:
        return error.problems
    return []


def as_read(folder: Path) -> Any:
    """Return the settings that were read last, as plain data."""
    return load(folder / "pipeline.yaml").model_dump(mode="json", exclude_unset=True)


def schema_says(data: Any) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(data)]


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", ["pipeline.yaml", "nst_pipeline/config/pipeline.yaml"])
def test_the_template_and_the_sample_name_the_schema_and_keep_to_it(path: str) -> None:
    text = (ROOT / path).read_text()
    match = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
    assert match and (ROOT / path).parent.joinpath(match[1]).resolve() == SCHEMA_PATH
    assert schema_says(documents.parse(text)[1]) == []


GOOD = (
    STYLES,
    "styles: {ink: {image: ink.png}, oil: {images: [ink.png, oil.png]}}",
    "styles: {ink: {images: {ink.png: 3, oil.png: 0.5}, recipe: gatys}}",
    "styles: {ink: {image: null, images: [ink.png]}}",
    "styles: {ink: {regions: {Sky: ink.png, ground: {images: [ink.png]}}, recipe: {size: 64}}}",
    "styles: {'a b': ink.png, 日本: ink.png, a.b: ink.png}",
    STYLES + "recipe: tutorial",
    STYLES + "recipe: {name: painterly, size: original, scales: [64, 128], iterations: [3, 4]}",
    STYLES + "recipe: {scales: 1, iterations: 5, tolerance: 0.5, seed: 3, balanced: false}",
    STYLES + "recipe: {content_layers: [relu4_2], style_layers: {pixels: 0, relu1_1: 2}}",
    STYLES + "recipe: {size: null, seed: null}",
    "styles: .",
    "styles: '*.png'",
    "styles: {folder: ., recipe: gatys}",
    "styles: {ink: ink.png, more: {folder: '*.png', recipe: {size: 64}}}",
    "styles: {folder: {image: ink.png}}",
    STYLES + "folders: {a/b: {styles: ink, recipe: gatys}, c: null}",
    STYLES + "recipe: {size: {width: 3000, height: 2000, fit: contain}}",
    STYLES + "recipe: {size: {height: 20, width: 100}}",
    STYLES + "on_done: [notify, 3]\non_failed: null",
    STYLES + "on_done: {url: 'https://a.org/b?c=d', secret_env: MINE, command: [say]}",
    STYLES + "recipe:\noutput:\nlimits:\nkeep:\nwatch:\nmetrics:\n",
    STYLES + "device: cuda:3\ntile: on\nprecision: bf16\ncheckpoint_seconds: 0\n",
    STYLES + "tile: true\nwatch: {polling: off, urgent: '', settle_seconds: 0}",
    STYLES + "output: {format: tiff, bit_depth: 16, dpi: 300, keep_exif: credits}",
    STYLES + "output: {keep_exif: true, name: 'a/{content}-{size}-{{}}', quality: 1}",
    STYLES + "output: {keep_exif: yes, subsampling: 4:2:0, snapshots: 5, making: gif}",
    STYLES + "metrics: {textfile: null}",
    STYLES + "http: 8080",
    STYLES + "metrics: {textfile: a.prom}",
    STYLES + "http: {address: '0.0.0.0:9464', names: [studio.lan]}",
    STYLES + "limits: {batch: 64, max_memory_bytes: 67108864, max_pixels: 1}",
    STYLES + "on_success: move\nignore: []\nalso_ignore: [a]\non_conflict: fail",
    "x-a: &a {tv_weight: 1}\nx-b: [1]\n" + STYLES + "recipe: *a\n",
    STYLES + "weights: a/b.pth\nprocessed: done\nfailed: ~/bad",
)
BAD = (
    "inbox: in",
    "styles: {}",
    "styles:",
    "styles: [ink.png]",
    "styles: {ink: 3}",
    "styles: {ink: {}}",
    "styles: {ink: {recipe: gatys}}",
    "styles: {ink: {image: ink.png, images: [ink.png]}}",
    "styles: {ink: {images: []}}",
    "styles: {ink: {images: {}}}",
    "styles: {ink: {images: {ink.png: 0}}}",
    "styles: {ink: {images: ink.png}}",
    "styles: {ink: {regions: {}}}",
    "styles: {ink: {regions: {a.b: ink.png}}}",
    "styles: {ink: {regions: {sky: {image: ink.png, recipe: gatys}}}}",
    "styles: {ink: {image: ink.png, size: 4}}",
    "styles: {a/b: ink.png}",
    "styles: {.a: ink.png}",
    "styles: {'': ink.png}",
    "styles: {'a{b': ink.png}",
    'styles: {"a\\u202eb": ink.png}',
    STYLES + "inbx: a",
    STYLES + "inbox: 3",
    STYLES + "inbox:",
    STYLES + "recipe: monet",
    STYLES + "recipe: [gatys]",
    STYLES + "recipe: {sise: 64}",
    "styles: {more: {folder: ., image: ink.png}}",
    "styles: {folder: ., size: 64}",
    STYLES + "folders: {a: {style: ink}}",
    STYLES + "folders: {a: {styles: []}}",
    STYLES + "folders: [a]",
    STYLES + "recipe: {size: 31}",
    STYLES + "recipe: {size: {}}",
    STYLES + "recipe: {size: {width: 20, height: 20}}",
    STYLES + "recipe: {size: {width: 200, fit: stretch}}",
    STYLES + "on_done: notify",
    STYLES + "on_done: []",
    STYLES + "on_done: ['', a]",
    STYLES + "on_done: {timeout_seconds: 3}",
    STYLES + "on_failed: {url: 'ftp://a.org'}",
    STYLES + "on_failed: {command: [say], secret_file: mine}",
    STYLES + "on_failed: {url: 'http://a.org', secret_file: mine, secret_env: MINE}",
    STYLES + "recipe: {size: 16385}",
    STYLES + "recipe: {size: large}",
    STYLES + "recipe: {scales: []}",
    STYLES + "recipe: {scales: [128, 128]}",
    STYLES + "recipe: {scales: 2}",
    STYLES + "recipe: {iterations: []}",
    STYLES + "recipe: {iterations: 0}",
    STYLES + "recipe: {iterations: 1.5}",
    STYLES + "recipe: {content_layers: []}",
    STYLES + "recipe: {content_layers: [pixels]}",
    STYLES + "recipe: {style_layers: {relu1_1: 0, pixels: 0}}",
    STYLES + "recipe: {style_layers: {relu1_9: 1}}",
    STYLES + "recipe: {style_layers: relu1_1}",
    STYLES + "recipe: {style_weight: -1}",
    STYLES + "recipe: {tolerance: 1}",
    STYLES + "recipe: {style_scale: 9}",
    STYLES + "device: gpu",
    STYLES + "tile: maybe",
    STYLES + "ignore: '*.tmp'",
    STYLES + "on_success: burn",
    STYLES + "output: {format: pnh}",
    STYLES + "output: {bit_depth: 12}",
    STYLES + "output: {bit_depth: 16, format: jpeg}",
    STYLES + "output: {name: x}",
    STYLES + "output: {name: '{contents}'}",
    STYLES + "output: {name: '../{content}'}",
    STYLES + "output: {name: '/{content}'}",
    STYLES + "output: {name: 'a/.{content}'}",
    STYLES + "output: {name: '{content}{'}",
    STYLES + "output: {name: '{{content}}'}",
    "styles: {a: ink.png, b: ink.png}\noutput: {name: '{content}'}",
    STYLES + "output: {quality: 101}",
    STYLES + "output: {dpi: 0}",
    STYLES + "output: []",
    STYLES + "limits: {batch: 65}",
    STYLES + "limits: {max_bytes: many}",
    STYLES + "watch: {poll_seconds: 0}",
    STYLES + "http: 70000",
    STYLES + "http: localhost",
    STYLES + "http: {address: 1, names: [a b]}",
    STYLES + "metrics: {http: 9464}",
    STYLES + "keep: {manifests: 0}",
    "[]",
)


@pytest.mark.parametrize("text", GOOD)
def test_what_the_program_reads_the_schema_accepts(text: str, folder: Path) -> None:
    assert program_says(folder, text) == []
    assert schema_says(documents.parse(text)[1]) == []


@pytest.mark.parametrize("text", BAD)
def test_what_the_program_refuses_the_schema_does_too(text: str, folder: Path) -> None:
    assert program_says(folder, text)
    assert schema_says(documents.parse(text)[1])


def test_of_invented_settings_both_say_the_same(folder: Path) -> None:
    source, all_ways, outcomes = random.Random(3), ways(), Counter[str]()
    for _ in range(2_500):
        text = invented(source, all_ways)
        try:
            data = documents.parse(text)[1]
            json.dumps(data, allow_nan=False)
        except (documents.DocumentError, TypeError, ValueError):
            continue  # no YAML, or nothing that JSON can hold
        if re.search(r"\bnull: ", text):
            continue  # as a key, JSON has it as text
        told, refused = program_says(folder, text), schema_says(data)
        if told and all(BEYOND.search(one) for one in told):
            outcomes["beyond"] += 1
            continue
        outcomes["refused" if told else "read"] += 1
        if refused and not told:  # it takes true for 1 and '7' for 7; the schema has it written so
            assert re.search(r"\btrue\b|'|\"", text)
            refused = schema_says(as_read(folder))
        assert bool(told) == bool(refused), (text, told, refused)
    assert outcomes["refused"] > 500 and outcomes["read"] > 20
