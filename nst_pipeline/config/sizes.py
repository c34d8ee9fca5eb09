"""How large a pastiche becomes, and what of its content it shows. Pure.

Sizes of pictures are (height, width), in pixels.
"""

from nst_pipeline.config.recipe import Bounds, Size


def scale(size: Size, content: tuple[int, int]) -> float:
    """Return how much larger a content is painted than it is."""
    if isinstance(size, int):
        return size / max(content)
    if size == "original":
        return 1.0
    wanted = zip((size.height, size.width), content, strict=True)
    ratios = [bound / side for bound, side in wanted if bound is not None]
    return max(ratios) if size.fit == "cover" else min(ratios)


def painted_size(size: Size, content: tuple[int, int]) -> tuple[int, int]:
    """Return the size of a content's pastiche."""
    if isinstance(size, Bounds) and size.exact:
        return size.exact
    factor = scale(size, content)
    height, width = (max(1, round(side * factor)) for side in content)
    return height, width


def crop(
    size: Size, content: tuple[int, int], picture: tuple[int, int] | None = None
) -> tuple[slice, slice]:
    """Return the rows and columns of a picture that are painted: the middle, where it is cut.

    Args:
        size: as the recipe says it.
        content: size of the content.
        picture: size of what goes with it, such as a mask; None: the content itself.
    """
    picture = picture or content
    if not (isinstance(size, Bounds) and size.exact):
        return slice(0, picture[0]), slice(0, picture[1])
    factor = scale(size, content)
    (top, rows), (left, columns) = (
        _middle(length, wanted / (side * factor))
        for length, wanted, side in zip(picture, size.exact, content, strict=True)
    )
    return slice(top, top + rows), slice(left, left + columns)


def _middle(length: int, share: float) -> tuple[int, int]:
    """Return where the middle of a length begins, and how long it is."""
    part = min(length, max(1, round(length * share)))
    return (length - part) // 2, part
