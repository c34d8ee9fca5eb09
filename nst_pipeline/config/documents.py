"""YAML documents, read within bounds: whatever a file holds, it is refused in good time."""

import errno
import os
import re
import stat
from pathlib import Path
from typing import Any

import yaml

LARGEST_BYTES = 2**18
DEEPEST = 32
MOST_VALUES = 50_000
"""Of a document, where an alias counts as all that it stands for."""


class DocumentError(ValueError):
    """A text that is no YAML document, or too large a one; ``line`` counts from 1."""

    def __init__(self, line: int, reason: str) -> None:
        """Take the line and what is wrong there."""
        super().__init__(reason)
        self.line = line


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        OSError: it cannot be read, or is a folder, a pipe or a device.
        DocumentError: it is not UTF-8, or larger than `LARGEST_BYTES`.
    """
    # O_NONBLOCK: a pipe without a writer must not hang the daemon.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(LARGEST_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(data) > LARGEST_BYTES:
        raise DocumentError(_line(data), f"larger than {LARGEST_BYTES:,} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise DocumentError(_line(data[: error.start]), f"not UTF-8: {error.reason}") from error


def parse(text: str) -> tuple[yaml.Node | None, Any]:
    """Return a document's root, None if there is none, and its values as plain data.

    Raises:
        DocumentError: it is no YAML, or of more than `DEEPEST` or `MOST_VALUES`.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return node, None if node is None else loader.construct(node)
    except yaml.reader.ReaderError as error:
        line = _line(text[: error.position].encode())
        raise DocumentError(line, f"holds the character {error.character:#x}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise DocumentError(mark.line + 1 if mark else 1, _reason(error)) from error


def _reason(error: yaml.MarkedYAMLError) -> str:
    return ": ".join(filter(None, (error.context, error.problem)))


def _line(before: bytes) -> int:
    return before.count(b"\n") + 1


def line_of(node: yaml.Node | None, loc: list[str]) -> int:
    """Return the line (from 1) of the deepest part of ``loc`` that the file holds."""
    line = node.start_mark.line + 1 if node else 1
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            found = _find(node, part)
        elif isinstance(node, yaml.SequenceNode):
            found = next(((n, n) for i, n in enumerate(node.value) if str(i) == part), None)
        else:
            found = None
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line


def _find(node: yaml.Node, key: str) -> tuple[yaml.Node, yaml.Node] | None:
    """Return a key of a mapping, also of one that is merged into it, and its value."""
    if not isinstance(node, yaml.MappingNode):
        return None
    own = next(((k, v) for k, v in reversed(node.value) if k.value == key), None)
    values = [v for k, v in node.value if k.tag == MERGE]
    merged = [m for v in values for m in (v.value if isinstance(v, yaml.SequenceNode) else [v])]
    return own or next(filter(None, (_find(one, key) for one in merged)), None)


def repeated_keys(node: yaml.Node | None, prefix: str = "") -> list[tuple[int, str]]:
    """Return the keys that stand twice in a mapping, each with its line and its full name."""
    if not isinstance(node, yaml.MappingNode):
        return []
    problems, seen = [], set()
    for key, value in node.value:
        if key.value in seen:
            problems.append((key.start_mark.line + 1, prefix + key.value))
        seen.add(key.value)
        problems += repeated_keys(value, f"{prefix}{key.value}.")
    return problems


class _Loader(yaml.SafeLoader):
    """Refuses what is too much while it reads it, and values that only look like their kind."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._count = 0
        self._counts: dict[yaml.Node, int] = {}
        self._written: dict[yaml.MappingNode, list[tuple[yaml.Node, yaml.Node]]] = {}

    def construct(self, node: yaml.Node) -> Any:
        """Return a root's values, and leave its nodes as they are written."""
        try:
            return self.construct_document(node)
        finally:
            for mapping, pairs in self._written.items():
                mapping.value = pairs

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        self._written.setdefault(node, list(node.value))
        super().flatten_mapping(node)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        mark, is_alias = event.start_mark, isinstance(event, yaml.AliasEvent)
        before = self._count
        self._depth += 1
        if self._depth > DEEPEST:
            raise DocumentError(mark.line + 1, f"nested deeper than {DEEPEST} levels")
        node = super().compose_node(parent, index)
        assert node
        if is_alias and node not in self._counts:
            raise DocumentError(mark.line + 1, "an alias within what it stands for")
        if isinstance(node, yaml.ScalarNode):
            _check_text(node)
        self._count += self._counts[node] if is_alias else 1
        self._counts.setdefault(node, self._count - before)
        if self._count > MOST_VALUES:
            raise DocumentError(mark.line + 1, f"more than {MOST_VALUES:,} values, aliases counted")
        self._depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            kind = node.tag.rpartition(":")[2]
            raise DocumentError(
                node.start_mark.line + 1, f"{str(node.value)[:40]!r} is no {kind}; put it in quotes"
            ) from error


def _check_text(node: yaml.ScalarNode) -> None:
    """See that a text could be that of a path.

    Raises:
        DocumentError: it could not.
    """
    try:
        is_fine = "\0" not in os.fsencode(node.value).decode("latin-1")
    except UnicodeEncodeError:
        is_fine = False
    if not is_fine:
        raise DocumentError(
            node.start_mark.line + 1, f"{node.value[:40]!r} holds what no text or path can hold"
        )


MERGE = "tag:yaml.org,2002:merge"
INTEGER, BOOLEAN = "tag:yaml.org,2002:int", "tag:yaml.org,2002:bool"

# Bytes could hold what a text may not.
_Loader.yaml_constructors = {
    tag: construct
    for tag, construct in yaml.SafeLoader.yaml_constructors.items()
    if tag != "tag:yaml.org,2002:binary"
} | {INTEGER: lambda _, node: int(node.value)}
# As in YAML 1.2, yes, off and 4:2:0 are texts; so is 0512, which may then be 512, but never octal.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (INTEGER, BOOLEAN)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(INTEGER, re.compile(r"[-+]?(0|[1-9][0-9]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    BOOLEAN, re.compile(r"(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
