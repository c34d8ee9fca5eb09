"""Pages: bounded, their data no markup, and hostile names linked right."""

import json
import os
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from exhibition import HOSTILE_STYLE, contents, make_exhibition, pieces, refresh

from nst_pipeline.gallery.pages import PAGE_PIECES, by_content, data_of, paged, script
from nst_pipeline.gallery.pieces import Piece

POLICY = (
    "default-src 'none'; img-src 'self'; script-src 'self'; style-src 'self'; base-uri 'none'; "
    "form-action 'none'"
)


def make_pieces(content: str, count: int) -> list[Piece]:
    return [
        Piece(f"{content}{n}", content.encode(), f"s{n}", "", "", "done", b"/o", "", "", 1.0)
        for n in range(count)
    ]


@pytest.mark.parametrize("count", [1, 3, 7, 499, 500, 501])
def test_a_page_has_no_more_pieces_than_can_be_shown(count: int) -> None:
    pieces = [piece for n in range(300) for piece in make_pieces(f"c{n}-", count)]
    pages = paged(by_content(pieces))
    sizes = [sum(len(one.pieces) for one in page) for page in pages]
    assert sum(sizes) == 300 * count
    if count <= PAGE_PIECES:
        assert max(sizes) <= PAGE_PIECES
        assert all(size > PAGE_PIECES - count for size in sizes[:-1])
    else:
        assert len(pages) == 300  # whatever a content has stays together


def test_more_pieces_change_the_last_page_alone() -> None:
    pieces = [piece for n in range(400) for piece in make_pieces(f"c{n}-", 3)]
    before, after = (paged(by_content(some)) for some in (pieces[:-3], pieces))
    assert len(before) == len(after) == 3
    assert before[:-1] == after[:-1] and before[-1] != after[-1]


def test_data_are_no_markup_wherever_they_stand() -> None:
    hostile = "</script><!--<script>&quot;\u2028\u2029]]>\udcff"
    text = script("page", {"name": hostile})
    assert not set(b"<>&\x7f\xe2") & set(text)
    assert data_of(text) == {"name": hostile}
    with pytest.raises(ValueError, match="not found"):
        data_of(b"nothing")


def test_hostile_names_are_linked_right_and_are_no_markup(tmp_path: Path) -> None:
    home = make_exhibition(tmp_path / "home")
    refresh(home)
    gallery = os.fsencode(home / "outbox/gallery")
    linked = set()
    for piece in pieces(home).values():
        if url := piece.get("url"):
            assert re.fullmatch(r"[\w.~/%-]+", url), url
            linked.add(os.path.normpath(os.path.join(gallery, unquote_to_bytes(url))))  # noqa: PTH118
    there = {os.fsencode(path) for path in (home / "outbox").rglob("*.png")}
    assert len(linked) == len(there) == 3 * 9
    assert linked == there
    for path in (home / "outbox/gallery").rglob("*"):
        assert re.fullmatch(r"[\w.-]+", path.name), path
    page = (home / "outbox/gallery/index.html").read_text()
    assert HOSTILE_STYLE not in page and page.count("<script") == 1 and "<img" not in page
    assert f'content="{POLICY}"' in page
    site = json.loads(
        page.split('data-site="')[1].split('"')[0].replace("&#34;", '"').replace("&#39;", "'")
        .replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    )  # fmt: skip
    assert [style["name"] for style in site["styles"]] == ["ink", "oil", HOSTILE_STYLE]


def test_what_failed_is_there_with_its_reason_and_no_path_of_it_moves_the_cursor(
    tmp_path: Path,
) -> None:
    home = make_exhibition(tmp_path / "home")
    refresh(home)
    found = pieces(home)
    bad, broken = found["bad.png", "ink"], found["broken <b>.png", ""]
    assert bad["status"] == broken["status"] == "failed"
    assert "<script>" in bad["reason"] and "not an image" in broken["reason"]
    assert broken["retry"].startswith("nst-pipeline retry 'broken <b>.png' -c ")
    assert r"line\nend\r\t#1 50% %2e%2e?x=1&y=2;.png" in contents(home)
    assert r" \u202egnp.\u2603.png".replace(r"\u2603", "\N{SNOWMAN}") in contents(home)
