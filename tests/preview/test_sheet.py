"""Contact sheets: where everything stands, and that text fits its place."""

import io
from itertools import combinations

import pytest
from conftest import picture
from PIL import Image

from nst_pipeline.preview import typesetting
from nst_pipeline.preview.sheet import (
    BACKGROUND,
    ERROR_BACKGROUND,
    Axis,
    Box,
    Cell,
    Grid,
    Panel,
    Sheet,
    TextLine,
    arrange,
    columns_for,
    draw,
    to_png,
)

LONG = "a-very-long-name_of_a_style/without-any-space-in-it" * 4


def overlap(a: Box, b: Box) -> bool:
    return (
        a.left < b.left + b.width
        and b.left < a.left + a.width
        and a.top < b.top + b.height
        and b.top < a.top + a.height
    )


def assert_tidy(sheet: Sheet) -> None:
    for item in sheet.items:
        box = item.box
        assert box.left >= 0 and box.left + box.width <= sheet.width
        assert box.top >= 0 and box.top + box.height <= sheet.height
    panels = [item.box for item in sheet.items if isinstance(item, Panel) and not item.picture]
    for one, other in combinations(sheet.items, 2):
        if one.box not in panels and other.box not in panels:
            assert not overlap(one.box, other.box), (one, other)


def puts(sheet: Sheet) -> list[Panel]:
    return [item for item in sheet.items if isinstance(item, Panel)]


def texts(sheet: Sheet) -> list[str]:
    return [item.text for item in sheet.items if isinstance(item, TextLine)]


def sweep_grid() -> Grid:
    cells = tuple(tuple(Cell(picture(size, size * 3 // 4)) for size in (32, 64, 128)) for _ in "ab")
    columns, rows = Axis("size", ("32", "64", "128")), Axis("tv_weight", ("0", LONG))
    return Grid(cells, LONG, LONG, (picture(), picture(30, 60)), columns, rows)


@pytest.mark.parametrize("side", [32, 256, 600])
def test_nothing_overlaps_or_leaves_the_sheet(side: int) -> None:
    captioned = Grid(
        (
            (Cell(picture(), caption="boat.jpg", note="content"), Cell(None, LONG, LONG)),
            (Cell(picture(30, 90), "", LONG, LONG, picture()), Cell(picture(), caption="ink")),
        )
    )
    assert_tidy(arrange(LONG, LONG, [captioned, sweep_grid(), captioned], LONG, side))


def test_cells_of_a_sweep_are_equally_large_whatever_was_painted() -> None:
    sheet = arrange("title", "", [sweep_grid()], "", 128)
    cells = puts(sheet)[2:]
    assert {(put.box.width, put.box.height) for put in cells} == {(128, 96)}
    lefts, tops = {put.box.left for put in cells}, {put.box.top for put in cells}
    assert (len(lefts), len(tops)) == (3, 2)


def test_labels_stand_at_their_columns_and_rows() -> None:
    grid = sweep_grid()
    assert grid.columns and grid.rows
    plain_rows = Axis("tv_weight", ("0", "15"))
    sheet = arrange("title", "", [Grid(grid.cells, columns=grid.columns, rows=plain_rows)], "", 128)
    place = {item.text: item.box for item in sheet.items if isinstance(item, TextLine)}
    cells = puts(sheet)
    for label, put in zip(grid.columns.labels, cells[:3], strict=True):
        assert place[label].left == put.box.left
        assert place[label].top + place[label].height <= put.box.top
    for label, put in zip(plain_rows.labels, cells[::3], strict=True):
        middle = place[label].top + place[label].height // 2
        assert abs(middle - put.box.top - put.box.height // 2) <= 1
        assert place[label].left + place[label].width < put.box.left
    assert place["size"].top < place["tv_weight"].top < cells[0].box.top


def test_a_caption_stands_below_its_picture() -> None:
    sheet = arrange("t", "", [Grid(((Cell(picture(), caption="ink"),) * 2,))], "", 256)
    captions = [item.box for item in sheet.items if isinstance(item, TextLine)][1:]
    for put, caption in zip(puts(sheet), captions, strict=True):
        assert caption.left == put.box.left
        assert 0 < caption.top - put.box.top - put.box.height < 20


def test_a_cell_without_a_picture_shows_why() -> None:
    reason = "/home/me/studio/inbox/cut.jpg: damaged or cut short: a/b"
    grid = Grid(((Cell(picture()), Cell(None, reason)),))
    sheet = arrange("t", "", [grid], "", 256)
    good, bad = puts(sheet)
    assert bad.picture is None and (bad.box.width, bad.box.height) == (256, good.box.height)
    inside = [i for i in sheet.items if isinstance(i, TextLine) and overlap(i.box, bad.box)]
    told = " ".join(item.text for item in inside)
    assert told == "cut.jpg: damaged or cut short: a/b"  # there is no room for its folder
    corner = bad.box.left + 3, bad.box.top + 3
    assert "#{:02x}{:02x}{:02x}".format(*draw(sheet).getpixel(corner)) == ERROR_BACKGROUND


@pytest.mark.parametrize(
    ("count", "blocks", "columns"),
    [(1, 1, 1), (2, 1, 2), (3, 1, 3), (4, 1, 4), (7, 1, 4), (10, 1, 5), (12, 1, 4),
     (60, 1, 8), (7, 3, 7), (8, 2, 8), (9, 2, 5)],
)  # fmt: skip
def test_cells_flow_into_a_sheet_of_pleasant_shape(count: int, blocks: int, columns: int) -> None:
    assert columns_for(count, blocks) == columns


@pytest.mark.parametrize("text", ["short", LONG, "two words and a few more of them", "x" * 300])
@pytest.mark.parametrize("most", [1, 3])
def test_lines_fit_their_room_and_end_with_an_ellipsis_if_text_is_left(
    text: str, most: int
) -> None:
    lines = typesetting.lines(text, 120, 15, most)
    assert len(lines) <= most
    assert all(typesetting.width(line, 15) <= 120 for line in lines)
    joined = "".join(lines).replace(" ", "")
    if joined != text.replace(" ", ""):
        assert len(lines) == most and joined.endswith("…")
        assert text.replace(" ", "").startswith(joined[:-1])


def test_lines_break_after_words_and_hyphens() -> None:
    assert typesetting.lines("woman-with-hat", 100, 15, 3) == ("woman-with-", "hat")
    lines = typesetting.lines("woman-with-hat matisse", 125, 15, 3)
    assert lines == ("woman-with-hat", "matisse")


def test_no_text_takes_no_line() -> None:
    assert typesetting.lines("", 100, 15, 2) == ()


def test_a_transparent_picture_shows_white() -> None:
    clear = picture(64, 64)
    clear.putalpha(0)
    sheet = arrange("t", "", [Grid(((Cell(clear),),))], "", 64)
    (put,) = puts(sheet)
    image = draw(sheet)
    assert image.getpixel((put.box.left + 5, put.box.top + 5)) == (255, 255, 255)
    assert "#{:02x}{:02x}{:02x}".format(*image.getpixel((1, 1))) == BACKGROUND


def test_a_sheet_is_a_png_that_names_its_maker() -> None:
    data = to_png(picture(), [("Software", "nst-pipeline preview 1"), ("Title", "Tübingen")])
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        assert image.info["Software"] == "nst-pipeline preview 1"
        assert image.info["Title"] == "Tübingen"
    assert texts(arrange("a", "b", [Grid(((Cell(picture()),),))], "c", 64)) == ["a", "b", "c"]


def test_a_file_name_breaks_at_its_dots_and_a_number_does_not() -> None:
    room = typesetting.width("put city.mask.s", 13)
    assert typesetting.lines("put city.mask.sky.png", room, 13, 2) == ("put city.mask.", "sky.png")
    room = typesetting.width("by 10.2", 13)
    assert typesetting.lines("by 10.25", room, 13, 2) == ("by", "10.25")
