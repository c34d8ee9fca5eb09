"""Imports point one way, each library stays in its room, and no path is printed as it is."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "nst_pipeline"

# From the ground up: a room may import only from the floors below its own.
FLOORS: list[set[str]] = [
    {""},
    {"errors"},
    {"folders"},
    {"digests", "files"},
    {"config"},
    {"engine"},
    {"images"},
    {"inbox"},
    {"jobs"},
    {"manifest"},
    {"workers", "gallery", "preview"},
    {"runner"},
    {"daemon"},
    {"cli"},
    {"__main__"},
]

LIBRARIES = {
    "typer": {"cli"},
    "rich": {"cli"},
    "yaml": {"config"},
    "torch": {"engine"},
    "torchvision": {"engine"},
    "safetensors": {"config", "engine"},
    "PIL": {"engine", "gallery", "images", "preview", "workers"},
    "fontTools": {"preview"},
    "imagecodecs": {"images"},
    "pillow_heif": {"images"},
    "rawpy": {"images"},
    "jinja2": {"gallery"},
    "sqlite3": {"jobs"},
    "watchdog": {"inbox"},
    "prometheus_client": {"daemon"},
    "starlette": {"daemon"},
    "ray": {"workers"},
    "uvicorn": {"daemon"},
}
"""Libraries that only some rooms may import."""


def modules() -> dict[str, ast.Module]:
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = ast.parse(path.read_text())
    return found


MODULES = modules()


def room(name: str) -> str:
    return name.split(".")[0]


def imports(tree: ast.Module) -> set[str]:
    """Return the full names of all modules imported anywhere in ``tree``."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            ours = {name for name in names if name.removeprefix("nst_pipeline.") in MODULES}
            found |= ours or {node.module}
    return found


def own_imports(name: str) -> set[str]:
    """Return the modules of this package that a module imports, without the package's name."""
    found = imports(MODULES[name])
    return {i.removeprefix("nst_pipeline").lstrip(".") for i in found if room(i) == "nst_pipeline"}


def floor(name: str) -> int:
    return next(level for level, rooms in enumerate(FLOORS) if room(name) in rooms)


def test_every_room_has_its_floor() -> None:
    assert {room(name) for name in MODULES} == set().union(*FLOORS)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_its_own_room_and_the_floors_below(name: str) -> None:
    for other in own_imports(name):
        assert room(other) == room(name) or floor(other) < floor(name), f"{name} imports {other}"


def test_no_two_modules_import_each_other() -> None:
    known = {name: own_imports(name) & set(MODULES) - {name} for name in MODULES}

    def reached(name: str, seen: set[str]) -> set[str]:
        for other in known[name] - seen:
            seen.add(other)
            reached(other, seen)
        return seen

    rings = [name for name in known if name in reached(name, set())]
    assert not rings


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_stays_in_its_rooms(library: str) -> None:
    users = {
        room(name)
        for name, tree in MODULES.items()
        if any(room(imported) == library for imported in imports(tree))
    }
    assert users, f"{library} is not used any more"
    assert users <= LIBRARIES[library]


@pytest.mark.parametrize("name", sorted({room(name) for name in MODULES if "." in name}))
def test_a_room_says_what_it_is_for_and_what_it_must_not_know(name: str) -> None:
    words = (ast.get_docstring(MODULES[name]) or "").split()
    assert len(words) > 20 and "must not" in " ".join(words)


BY_KIND = {"cuda": {"engine.devices", "engine.graphs"}} | dict.fromkeys(
    ("xpu", "mps", "accelerator"), {"engine.devices"}
)
"""Where torch's modules for a kind of device may be called."""


def torch_modules(tree: ast.Module) -> set[str]:
    """Return the names of torch's own that a module uses, such as ``cuda`` of ``torch.cuda``."""
    names = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    found = {name.split(".")[1] for name in names if name.startswith("torch.")}
    return found | {name.split(".")[1] for name in imports(tree) if name.startswith("torch.")}


@pytest.mark.parametrize("kind", BY_KIND)
def test_one_module_asks_a_kind_of_device_by_functions_of_its_own(kind: str) -> None:
    users = {name for name, tree in MODULES.items() if kind in torch_modules(tree)}
    assert users <= BY_KIND[kind]


def test_what_a_tensor_does_is_decided_by_the_cpu_and_no_maker() -> None:
    for name, tree in MODULES.items():
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not names & {"is_cuda", "is_xpu", "is_mps"}, name


PATHS = re.compile(
    r"(.*_)?(path|folder|file|filename|source|target|place|root|final|temporary|inbox|outbox"
    r"|image|output|stem)"
)
"""What a path is called."""


def unshown(value: ast.AST) -> Iterator[str]:
    """Give the paths in an expression that `shown` was not asked to show."""
    if isinstance(value, ast.Call):
        if ast.unparse(value.func) in ("shown", "cause", "owner", "_short", "len"):
            return
        for argument in value.args:
            yield from unshown(argument)
    elif isinstance(value, ast.Attribute | ast.Name):
        name = value.attr if isinstance(value, ast.Attribute) else value.id
        parent = value.value if isinstance(value, ast.Attribute) else None
        if name in ("name", "stem", "parent") and parent is not None:
            yield from unshown(parent)
        elif PATHS.fullmatch(name):
            yield ast.unparse(value)
    elif not isinstance(value, ast.Constant):
        for child in ast.iter_child_nodes(value):
            yield from unshown(child)


def messages(tree: ast.Module) -> Iterator[ast.AST]:
    """Give what is put into texts for people: those that hold a space, and what is logged."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            texts = [str(one.value) for one in node.values if isinstance(one, ast.Constant)]
            if any(" " in text for text in texts):
                for one in node.values:
                    if isinstance(one, ast.FormattedValue) and one.conversion != ord("r"):
                        yield one.value
        elif isinstance(node, ast.Call) and re.match(r"log\.|say$", ast.unparse(node.func)):
            yield from node.args


def printed(tree: ast.Module) -> Iterator[ast.AST]:
    """Give what is printed as it is: all but constants, and JSON, which is ASCII."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and re.fullmatch(
            r"print|(typer|click)\.(secho|echo)|sys\.std\w+\.write", ast.unparse(node.func)
        ):
            for value in node.args:
                if not (isinstance(value, ast.Constant) or is_json(value)):
                    yield value


def is_json(value: ast.AST) -> bool:
    names = ("json.dumps", "to_json")
    return isinstance(value, ast.Call) and ast.unparse(value.func) in names


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"cli.echo"}))
def test_text_for_people_is_printed_by_one_function(name: str) -> None:
    # A unit file is for systemd, and holds no name that `shown` would change.
    texts = map(ast.unparse, printed(MODULES[name]))
    assert [text for text in texts if not text.startswith("service.render(")] == []


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_path_is_put_into_a_text_for_people_only_as_shown(name: str) -> None:
    assert [found for value in messages(MODULES[name]) for found in unshown(value)] == []
