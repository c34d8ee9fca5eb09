"""Imports point one way, and each library stays in its room."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "nst_pipeline"

# From the ground up: a module may import only from floors below its own.
FLOORS: list[set[str]] = [
    {"nst_pipeline"},
    {"entries", "errors", "live", "notify", "schema", "typesetting"},
    {"decoding", "files", "recipe", "sheet", "signals"},
    {"checkpoints", "companions", "settings", "weights"},
    {"making"},
    {
        "engine.images",
        "engine.checkpoint",
        "engine.colour",
        "engine.devices",
        "engine.graphs",
        "engine.vgg",
        "engine.losses",
        "engine.memory",
        "engine.targets",
    },
    {"engine.lbfgs"},
    {"engine.scales", "engine.tiles"},
    {"engine.scene"},
    {"engine.styles"},
    {"engine.batch"},
    {"engine.transfer"},
    {"engine"},
    {"config", "inbox", "lock"},
    {"outbox", "overrides", "scanner", "service", "sweeps"},
    {"jobs", "manifest", "watcher"},
    {"ledger", "logs", "tasks"},
    {"engine_watcher"},
    {"engine_thread"},
    {"executor"},
    {"commit", "disposal", "metrics", "planning", "preview", "runs"},
    {"contact", "control", "hooks", "records", "recovery", "settling", "status"},
    {"journal"},
    {"painting"},
    {"runner"},
    {"display", "reporter"},
    {"daemon"},
    {"cli_watch"},
    {"cli_preview"},
    {"cli"},
    {"__main__"},
]

ROOMS = {
    "typer": {"cli", "cli_preview", "cli_watch"},
    "rich": {"cli", "cli_preview", "display"},
    "yaml": {"config", "sweeps"},
    "torch": {"engine"},
    "torchvision": {"engine"},
    "safetensors": {"engine"},
    "PIL": {
        "decoding",
        "outbox",
        "engine",
        "engine_watcher",
        "making",
        "contact",
        "preview",
        "sheet",
        "typesetting",
    },  # fmt: skip
    "imagecodecs": {"decoding", "outbox"},
    "pillow_heif": {"decoding"},
    "sqlite3": {"ledger", "schema"},
    "watchdog": {"watcher"},
    "prometheus_client": {"metrics"},
}


def modules() -> dict[str, ast.Module]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "nst_pipeline"
        found[name] = ast.parse(path.read_text())
    return found


MODULES = modules()


def imports(tree: ast.Module) -> set[str]:
    """Return the names of all modules imported anywhere in ``tree``."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            ours = {name for name in names if name.removeprefix("nst_pipeline.") in MODULES}
            found |= ours or {node.module}
    return found


def floor(name: str) -> int:
    return next(level for level, names in enumerate(FLOORS) if name in names)


def test_every_module_has_its_floor() -> None:
    assert set(MODULES) == set().union(*FLOORS)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_the_floors_below(name: str) -> None:
    for imported in imports(MODULES[name]):
        if imported.split(".")[0] == "nst_pipeline":
            other = imported.removeprefix("nst_pipeline.")
            assert floor(other) < floor(name), f"{name} imports {other}"


@pytest.mark.parametrize("library", ROOMS)
def test_a_library_stays_in_its_rooms(library: str) -> None:
    users = {
        name
        for name, tree in MODULES.items()
        if any(imported.split(".")[0] == library for imported in imports(tree))
    }
    assert users, f"{library} is not used any more"
    assert {name.split(".")[0] for name in users} <= ROOMS[library]


def test_no_module_is_longer_than_a_reader_can_hold() -> None:
    long = {
        str(path.relative_to(PACKAGE)): lines
        for path in PACKAGE.rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 400
    }
    assert not long
