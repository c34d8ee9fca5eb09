"""Contact sheets: pictures in labelled grids, first laid out and then drawn."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from PIL import Image, ImageDraw, ImageOps, PngImagePlugin

from nst_pipeline.preview.typesetting import line_height, lines, width, write

BACKGROUND, BORDER = "#fbfaf7", "#dcd9d2"
TEXT, MUTED = "#23211e", "#76716a"
ERROR, ERROR_BACKGROUND = "#8c2f22", "#f7e9e5"
MIN_COLUMN_WIDTH = 96
SINGLE_ROW, MAX_COLUMNS = 4, 8


@dataclass(frozen=True, eq=False)
class Cell:
    """A place of a grid.

    Attributes:
        picture: mode RGB or RGBA; None: ``reason`` says why there is none.
        reason: shown in the picture's place.
        caption: below it.
        note: below the caption, smaller.
        swatch: a small picture beside the caption.
    """

    picture: Image.Image | None
    reason: str = ""
    caption: str = ""
    note: str = ""
    swatch: Image.Image | None = None


@dataclass(frozen=True)
class Axis:
    """What changes along a side of a grid, and its value in each column or row."""

    title: str
    labels: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Grid:
    """Rows of cells below a heading, each part of which may be missing."""

    cells: tuple[tuple[Cell, ...], ...]
    title: str = ""
    note: str = ""
    swatches: tuple[Image.Image, ...] = ()
    columns: Axis | None = None
    rows: Axis | None = None


@dataclass(frozen=True)
class Box:
    """A rectangle, in pixels."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class TextLine:
    """A line of text in its place; ``box`` is the room that it takes."""

    box: Box
    text: str
    size: int
    colour: str


@dataclass(frozen=True, eq=False)
class Panel:
    """A picture in its place, scaled to ``box``; without one, the ground of the reason."""

    box: Box
    picture: Image.Image | None


Item = TextLine | Panel


@dataclass(frozen=True, eq=False)
class Sheet:
    """A sheet that is laid out: its size in pixels, and all that stands on it."""

    width: int
    height: int
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Scale:
    """Gives all sizes in pixels, which grow with the longer side of the cells."""

    side: int
    base: ClassVar[int] = 256

    def __call__(self, pixels: int) -> int:
        """Return a size that is ``pixels`` on a sheet with cells of 256."""
        return round(pixels * max(1.0, self.side / self.base))


def arrange(title: str, note: str, grids: list[Grid], footer: str, side: int) -> Sheet:
    """Lay out a sheet: a heading, grids one below the other with equal columns, and a footer.

    Args:
        title: the heading.
        note: below it.
        grids: at least one.
        footer: at the end.
        side: longer side of a cell's picture, in pixels.
    """
    scale = Scale(side)
    column = max(MIN_COLUMN_WIDTH, *(_fitted(p, side)[0] for p in _pictures(grids)), 0)
    across = max(_grid_width(grid, column, scale) for grid in grids)
    inner, margin = max(across, scale(320)), scale(32)
    items: list[Item] = []
    y = _paragraph(items, title, Box(margin, margin, inner, 0), scale(24), TEXT, 2)
    y = _paragraph(items, note, Box(margin, y + scale(2), inner, 0), scale(15), MUTED, 3)
    for grid in grids:
        y = _grid(items, grid, Box(margin, y + scale(24), inner, 0), column, scale)
    y = _paragraph(items, footer, Box(margin, y + scale(24), inner, 0), scale(13), MUTED, 4)
    return Sheet(inner + 2 * margin, y + margin, tuple(items))


def columns_for(count: int, blocks: int) -> int:
    """Return how many columns show ``count`` captioned cells best.

    A few cells stand in one row, and so do those of several blocks, such as one for each
    content, if they can; more cells fill rows that are not many.
    """
    if blocks > 1 or count <= SINGLE_ROW:
        rows = -(-count // MAX_COLUMNS)
        return -(-count // rows)

    def oddness(columns: int) -> float:
        rows = -(-count // columns)
        ratio = columns / rows / 1.5
        return max(ratio, 1 / ratio) + 3 * (rows * columns - count) / count

    return min(range(SINGLE_ROW, MAX_COLUMNS + 1), key=oddness)


def _pictures(grids: list[Grid]) -> list[Image.Image]:
    cells = (cell for grid in grids for row in grid.cells for cell in row)
    return [cell.picture for cell in cells if cell.picture]


def _fitted(picture: Image.Image, side: int) -> tuple[int, int]:
    """Return (width, height) of a picture whose longer side is made ``side``."""
    scale = side / max(picture.size)
    return max(1, round(picture.width * scale)), max(1, round(picture.height * scale))


def _labels_width(grid: Grid, scale: Scale) -> int:
    if grid.rows is None:
        return 0
    widest = max(width(t, scale(15)) for t in (grid.rows.title, *grid.rows.labels))
    return min(widest, scale(180)) + scale(14)


def _grid_width(grid: Grid, column: int, scale: Scale) -> int:
    count = max(len(row) for row in grid.cells)
    return _labels_width(grid, scale) + count * column + (count - 1) * scale(18)


def _grid(items: list[Item], grid: Grid, room: Box, column: int, scale: Scale) -> int:
    y = _heading(items, grid, room, scale)
    left = room.left + _labels_width(grid, scale)
    step = column + scale(18)
    y = _axes(items, grid, room.left, left, y, column, scale)
    pictures = _pictures([grid])
    height = max((_fitted(p, scale.side)[1] for p in pictures), default=scale.side * 3 // 4)
    for number, row in enumerate(grid.cells):
        if number:
            y += scale(18)
        if grid.rows:
            _row_label(
                items, grid.rows.labels[number], Box(room.left, y, left - scale(14), height), scale
            )
        below = y + height
        for place, cell in enumerate(row):
            box = Box(left + place * step, y, column, height)
            below = max(below, _cell(items, cell, box, scale))
        y = below
    return y


def _heading(items: list[Item], grid: Grid, room: Box, scale: Scale) -> int:
    if not grid.title:
        return room.top
    x, tall = room.left, scale(52)
    for swatch in grid.swatches:
        wide = max(1, round(swatch.width * tall / swatch.height))
        items.append(Panel(Box(x, room.top, wide, tall), swatch))
        x += wide + scale(10)
    text = Box(x, room.top, max(scale(120), room.left + room.width - x), 0)
    y = _paragraph(items, grid.title, text, scale(18), TEXT, 2)
    y = _paragraph(items, grid.note, Box(x, y + scale(2), text.width, 0), scale(13), MUTED, 2)
    return max(y, room.top + tall if grid.swatches else 0) + scale(14)


def _axes(
    items: list[Item],
    grid: Grid,
    start: int,
    left: int,
    y: int,
    column: int,
    scale: Scale,
) -> int:
    """Write the columns' title and values, and the rows' title at the height of the values."""
    size = scale(15)
    if grid.columns:
        y = _paragraph(items, grid.columns.title, Box(left, y, scale(2000), 0), scale(13), MUTED, 1)
        y += scale(2)
    below = y
    if grid.rows:
        room = Box(start, y, left - start - scale(14), 0)
        below = _paragraph(items, grid.rows.title, room, scale(13), MUTED, 2, right=True)
    if grid.columns:
        for number, label in enumerate(grid.columns.labels):
            room = Box(left + number * (column + scale(18)), y, column, 0)
            below = max(below, _paragraph(items, label, room, size, TEXT, 2))
    return below + scale(6) if below > y else y


def _row_label(items: list[Item], text: str, room: Box, scale: Scale) -> None:
    size, wide = scale(15), room.width - room.left
    max_lines = max(1, room.height // line_height(size))
    count = len(lines(text, wide, size, max_lines))
    top = room.top + (room.height - count * line_height(size)) // 2
    _paragraph(items, text, Box(room.left, top, wide, 0), size, TEXT, max_lines, right=True)


def _without_folder(reason: str) -> str:
    """Return a reason without the folder of the file that it begins with: there is little room."""
    path, colon, rest = reason.partition(": ")
    return f"{path.rpartition('/')[2]}{colon}{rest}" if path.startswith("/") else reason


def _cell(items: list[Item], cell: Cell, room: Box, scale: Scale) -> int:
    """Place a cell's picture and what stands below it; return where that ends."""
    if cell.picture:
        wide, high = _fitted(cell.picture, scale.side)
        items.append(Panel(Box(room.left, room.top + room.height - high, wide, high), cell.picture))
    else:
        items.append(Panel(room, None))
        pad, size = scale(12), scale(13)
        max_lines = max(1, (room.height - 2 * pad) // line_height(size))
        inside = Box(room.left + pad, room.top + pad, room.width - 2 * pad, 0)
        _paragraph(items, _without_folder(cell.reason), inside, size, ERROR, max_lines)
    y = room.top + room.height
    if not cell.caption:
        return y
    y, x, mark = y + scale(8), room.left, scale(36)
    if cell.swatch:
        items.append(Panel(Box(x, y, mark, mark), _square(cell.swatch)))
        x += mark + scale(9)
    wide = room.left + room.width - x
    max_lines = 1 if cell.note else 2
    high = line_height(scale(15)) * len(lines(cell.caption, wide, scale(15), max_lines))
    high += line_height(scale(12)) * len(lines(cell.note, wide, scale(12), 2))
    top = y + max(0, (mark - high) // 2) if cell.swatch else y
    below = _paragraph(items, cell.caption, Box(x, top, wide, 0), scale(15), TEXT, max_lines)
    below = _paragraph(items, cell.note, Box(x, below, wide, 0), scale(12), MUTED, 2)
    return max(below, y + mark if cell.swatch else 0)


def _square(picture: Image.Image) -> Image.Image:
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))


def _paragraph(
    items: list[Item],
    text: str,
    room: Box,
    size: int,
    colour: str,
    max_lines: int,
    right: bool = False,
) -> int:
    """Write lines from the top of ``room`` downwards; return where they end."""
    y = room.top
    for line in lines(text, room.width, size, max_lines):
        wide = min(width(line, size), room.width)
        x = room.left + (room.width - wide if right else 0)
        items.append(TextLine(Box(x, y, wide, line_height(size)), line, size, colour))
        y += line_height(size)
    return y


def draw(sheet: Sheet) -> Image.Image:
    """Return the sheet as an RGB image."""
    image = Image.new("RGB", (sheet.width, sheet.height), BACKGROUND)
    pen = ImageDraw.Draw(image)
    for item in sheet.items:
        if isinstance(item, TextLine):
            write(pen, item.box.left, item.box.top, item.text, item.colour, item.size)
        else:
            _draw_panel(image, pen, item)
    return image


def _draw_panel(image: Image.Image, pen: ImageDraw.ImageDraw, item: Panel) -> None:
    box = item.box
    right, bottom = box.left + box.width, box.top + box.height
    frame = (box.left - 1, box.top - 1, right, bottom)
    if item.picture is None:
        pen.rectangle(frame, ERROR_BACKGROUND, BORDER)
        return
    picture = item.picture
    if picture.size != (box.width, box.height):
        picture = picture.resize((box.width, box.height), Image.Resampling.LANCZOS)
    pen.rectangle(frame, "white", BORDER)
    _paste(image, picture, box.left, box.top)


def _paste(image: Image.Image, picture: Image.Image, left: int, top: int) -> None:
    image.paste(picture, (left, top), picture if picture.mode == "RGBA" else None)


def mosaic(rows: Sequence[Sequence[tuple[Image.Image, float]]], side: int) -> Image.Image:
    """Return a square of ``side`` pixels that shows something of every picture.

    Args:
        rows: equally high; in each, pictures and how much of its width they get, 1 in all.
        side: in pixels.
    """
    image = Image.new("RGB", (side, side), BACKGROUND)
    for number, row in enumerate(rows):
        top, bottom = (side * n // len(rows) for n in (number, number + 1))
        begin = 0.0
        for picture, share in row:
            left, right = round(side * begin), round(side * (begin + share))
            size = max(1, right - left), max(1, bottom - top)
            _paste(image, ImageOps.fit(picture, size, Image.Resampling.LANCZOS), left, top)
            begin += share
    return image


def to_png(image: Image.Image, texts: Iterable[tuple[str, str]]) -> bytes:
    """Return ``image`` as a PNG file that holds ``texts``, each a keyword and what it says."""
    info = PngImagePlugin.PngInfo()
    for key, text in texts:
        info.add_itxt(key, text)
    buffer = io.BytesIO()
    image.save(buffer, "png", pnginfo=info, optimize=True)
    return buffer.getvalue()
