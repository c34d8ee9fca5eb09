"""Values as YAML on one line (its flow style), as the command line takes and shows them."""

from typing import Any

import yaml

from nst_pipeline.config import documents


def parse_list(text: str) -> list[tuple[str, Any]]:
    """Return the values of a list without its brackets, each as it was typed and as it is read.

    Args:
        text: such as ``1e2, [a, b], {c: 1}``.

    Raises:
        ValueError: it is no such list; says what it is, as in *is not YAML*.
    """
    source = f"[{text}]"
    try:
        node, values = documents.parse(source)
    except documents.DocumentError as error:
        raise ValueError("is not YAML") from error
    if not isinstance(node, yaml.SequenceNode) or node.end_mark.index < len(source):
        raise ValueError("is no list of values")
    texts = (source[n.start_mark.index : n.end_mark.index].strip() for n in node.value)
    return list(zip(texts, values, strict=True))


def dump(value: Any) -> str:
    """Return a value on one line; a whole number has no fraction."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
    return text.removesuffix("...\n").strip()
