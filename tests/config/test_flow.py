"""Values as YAML on one line."""

from typing import Any

import pytest

from nst_pipeline.config.flow import dump, parse_list


def test_a_list_gives_each_value_as_it_was_typed_and_as_it_is_read() -> None:
    assert parse_list("1e2, 1000,2.5, [a, b],{c: 1, d: x}, 'a, b'") == [
        ("1e2", "1e2"), ("1000", 1000), ("2.5", 2.5), ("[a, b]", ["a", "b"]),
        ("{c: 1, d: x}", {"c": 1, "d": "x"}), ("'a, b'", "a, b"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [("1,,2", "is not YAML"), ("1]", "is not YAML"), ("{a: 1", "is not YAML"),
     ("1] # 2", "is no list of values")],
)  # fmt: skip
def test_what_is_no_list_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_list(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [(60, "60"), (600.0, "600"), (0.5, "0.5"), ("auto", "auto"), ([64, 128], "[64, 128]"),
     ({"relu4_2": 1.0}, "{relu4_2: 1.0}"), (True, "true"), (None, "null")],
)  # fmt: skip
def test_a_value_is_written_on_one_line(value: Any, text: str) -> None:
    assert dump(value) == text
