"""YAML documents: what they hold, and that no text takes long to be refused."""

import os
from pathlib import Path

import pytest

from nst_pipeline.config import documents
from nst_pipeline.config.documents import DEEPEST, DocumentError, parse, read_text


def refusal(text: str) -> str:
    with pytest.raises(DocumentError) as caught:
        parse(text)
    return f"{caught.value.line}: {caught.value}"


def bomb(levels: int) -> str:
    """Return a list of nine of nine of nine and so on, by aliases."""
    lines = [f"- &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, levels)]
    return "".join(["- &a0 x\n", *lines])


def test_a_document_gives_its_values_and_where_they_stand() -> None:
    node, values = parse("a: &x [1, two]\nb: *x\nc: {<<: {d: 2024-01-01}}\n")
    assert str(values) == (
        "{'a': [1, 'two'], 'b': [1, 'two'], 'c': {'d': datetime.date(2024, 1, 1)}}"
    )
    assert node and node.value[1][0].start_mark.line == 1
    assert parse("# nothing\n") == (None, None)


def test_a_document_of_many_values_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse(bomb(4))[1][-1][0][0] == ["x"] * 9
    monkeypatch.setattr(documents, "MOST_VALUES", 4)
    assert parse("[1, 2, 3]")[1] == [1, 2, 3]
    assert refusal("[1, 2, 3, 4]") == "1: more than 4 values, aliases counted"


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? ", "[{a: "])
def test_a_document_nested_too_deep_is_refused(opening: str) -> None:
    assert refusal("\n" + opening * 50_000) == f"2: nested deeper than {DEEPEST} levels"


def test_aliases_count_as_all_that_they_stand_for() -> None:
    assert refusal(bomb(9)) == "6: more than 50,000 values, aliases counted"
    assert refusal("k: &a {x: 1}\nb: &b {y: *a, z: *b}") == (
        "2: an alias within what it stands for"
    )
    assert refusal("a: 1\n<<: &m {<<: *m}") == "2: an alias within what it stands for"


@pytest.mark.parametrize(
    "value",
    ["2024-13-45", "!!int x", "!!float x", "!!bool x", "!!timestamp x", "!!binary AAAA",
     "9" * 5000, "<<", "*nowhere", "{[a]: b}", "!mine x", "!!python/object:os.system x", '"\\0"',
     '"\\ud800"', "'", "{", "@"],
)  # fmt: skip
def test_what_only_looks_like_a_value_is_refused_with_its_line(value: str) -> None:
    assert refusal(f"# settings\na: {value}\n")[:2] in ("2:", "3:")


def test_what_people_mean_by_a_word_or_a_number_is_what_it_is() -> None:
    assert parse("{yes: no, on: off, a: 0512, b: 4:2:0, c: 12, d: true, e: -3, f: 0}")[1] == {
        "yes": "no", "on": "off", "a": "0512", "b": "4:2:0", "c": 12, "d": True, "e": -3, "f": 0
    }  # fmt: skip


@pytest.mark.parametrize("text", ["a: 1\nb: \x1b[2J\n", "a: 1\n\0"])
def test_what_no_text_holds_is_refused_with_its_line(text: str) -> None:
    assert refusal(text).startswith("2: holds the character 0x")


def test_a_path_that_is_no_text_may_be_written_by_its_bytes() -> None:
    assert os.fsencode(parse(r'"a\udcff"')[1]) == b"a\xff"


def test_a_file_is_read_whole_if_it_is_text_and_not_too_large(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes("# é\n".encode())
    assert read_text(path) == "# é\n"
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(DocumentError, match="not UTF-8") as caught:
        read_text(path)
    assert caught.value.line == 2
    path.write_bytes(b"# x\n" * 100_000)
    with pytest.raises(DocumentError, match="larger than 262,144 bytes"):
        read_text(path)


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "link", "nothing"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.yaml"
    if kind == "folder":
        path.mkdir()
    if kind == "pipe":
        os.mkfifo(path)
    if kind in ("device", "link"):
        path.symlink_to("/dev/zero" if kind == "device" else path)
    with pytest.raises(OSError):
        read_text(path)
