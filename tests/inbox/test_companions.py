"""Masks and starting pictures: whose they are, what they lack, and what the engine gets of them."""

import os
from pathlib import Path

import numpy as np
import pytest

from nst_pipeline.errors import ImageError
from nst_pipeline.images.decoding import Decoded
from nst_pipeline.inbox.companions import (
    Companion,
    by_kind,
    combined_signature,
    engine_arguments,
    missing_companion,
    named_with_companions,
    role,
    shares_companions,
)
from nst_pipeline.inbox.scanner import find

PHOTO = Path("in/photo.jpg")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def companions(**files: str) -> list[Companion]:
    """Return companions by their kinds, with ``_`` for the dot."""
    return [Companion(kind.replace("_", "."), Path("in", file)) for kind, file in files.items()]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("photo.mask.png", ("photo", "mask")),
        ("photo.MASK.Sky.JPG", ("photo", "mask.sky")),
        ("my.photo.init.tif", ("my.photo", "init")),
        ("photo.mask.txt", None),
        ("photo.png", None),
        ("mask.png", None),
        (".mask.png", None),
        ("photo-mask.png", None),
        ("photo.mask", None),
        ("photo.mask.a.b.png", None),
    ],
)
def test_a_name_says_whose_companion_a_file_is(name: str, expected: object) -> None:
    assert role(name) == expected


def test_companions_come_with_their_picture_and_are_none(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "a.mask.jpg", "a.Mask.Sky.png", "a.init.png", "b.png", "sub/a.png")
    found = {str(one.folder / one.path.name): one for one in find([tmp_path])}
    assert found.keys() == {"a.png", "b.png", "sub/a.png"}
    kinds = {one.kind: one.path.name for one in found["a.png"].companions}
    assert kinds == {"mask": "a.mask.jpg", "mask.sky": "a.Mask.Sky.png", "init": "a.init.png"}
    assert not found["b.png"].companions and not found["sub/a.png"].companions


def test_pictures_of_one_stem_share_their_companions(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "a.png", "a.mask.png")
    assert [len(one.companions) for one in find([tmp_path])] == [1, 1]
    assert shares_companions(tmp_path / "a.png") and shares_companions(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").unlink()
    assert not shares_companions(tmp_path / "a.png")


def test_a_companion_without_its_picture_comes_last_and_by_itself(tmp_path: Path) -> None:
    touch(tmp_path, "a.mask.png", "b.png", "c.png")
    found = find([tmp_path])
    assert [one.path.name for one in found] == ["b.png", "c.png", "a.mask.png"]
    assert not found[-1].companions


def test_a_named_picture_brings_its_companions_and_a_named_companion_nothing(
    tmp_path: Path,
) -> None:
    touch(tmp_path, "a.png", "a.mask.png", "a.init.tif", "ab.mask.png")
    named = named_with_companions(tmp_path / "a.png")
    assert [path.name for path in named] == ["a.png", "a.init.tif", "a.mask.png"]
    assert named_with_companions(tmp_path / "a.mask.png") == []
    assert named_with_companions(tmp_path / "ab.mask.png") == [tmp_path / "ab.mask.png"]


@pytest.mark.parametrize("kind", ["gone", "a file"])
def test_a_folder_that_is_gone_has_no_companions(tmp_path: Path, kind: str) -> None:
    if kind == "a file":
        (tmp_path / "sub").touch()
    for name in ("a.png", "a.mask.png"):
        assert named_with_companions(tmp_path / "sub" / name) == [tmp_path / "sub" / name]
        assert not shares_companions(tmp_path / "sub" / name)


def test_a_signature_is_that_of_the_picture_and_all_its_companions() -> None:
    mask, changed = Companion("mask", PHOTO, "1"), Companion("mask", PHOTO, "2")
    init = Companion("init", PHOTO, "1")
    given = [(), (mask,), (changed,), (init,), (mask, init)]
    assert len({combined_signature("own", some) for some in given}) == len(given)
    assert combined_signature("own", ()) == "own" and combined_signature(None, ()) == ""


def test_each_kind_of_companion_is_given_once() -> None:
    found = by_kind(PHOTO, companions(mask="photo.mask.png", mask_sky="photo.mask.sky.png"))
    assert {kind: one.path.name for kind, one in found.items()} == {
        "mask": "photo.mask.png",
        "mask.sky": "photo.mask.sky.png",
    }
    two = [*companions(mask="photo.mask.png"), *companions(mask="photo.mask.jpg")]
    with pytest.raises(ImageError, match=r"photo\.mask\.jpg: a second mask of photo\.jpg, beside"):
        by_kind(PHOTO, two)


def test_a_companion_alone_is_no_picture_to_paint() -> None:
    said = r"gone\.mask\.png: is the mask of a picture gone that is not there; put that beside it"
    with pytest.raises(ImageError, match=said):
        by_kind(Path("in/gone.mask.png"), ())


@pytest.mark.parametrize(
    ("regions", "needs_init", "kinds", "said"),
    [
        ([""], False, set(), ""),
        (["sky", "ground"], False, {"mask.sky", "mask.ground"}, ""),
        ([""], True, {"init"}, ""),
        (["sky"], False, {"mask"}, "no mask of the region sky; put photo.mask.sky.png beside it"),
        (
            ["sky", "ground"],
            True,
            {"mask.sky"},
            "no mask of the region ground; put photo.mask.ground.png beside it",
        ),
        (
            [""],
            True,
            {"mask"},
            "init: image needs a picture to start from; put photo.init.png beside it",
        ),
    ],
)
def test_what_a_style_needs_and_a_picture_lacks_is_said_with_its_name(
    regions: list[str], needs_init: bool, kinds: set[str], said: str
) -> None:
    reason = missing_companion(PHOTO, regions, needs_init, kinds)
    assert reason.endswith(said) and bool(reason) == bool(said)


def test_a_name_that_is_no_text_is_shown_in_what_is_missing() -> None:
    picture = Path(os.fsdecode(b"caf\xe9.jpg"))
    assert "caf\\xe9.mask.sky.png" in missing_companion(picture, ["sky"], False, ())
    assert "caf\\xe9.init.png" in missing_companion(picture, [""], True, ())


def coloured(height: int, width: int) -> np.ndarray:
    return np.tile(np.array([[[255, 0, 0]]], np.uint8), (height, width, 1))


def test_the_engine_gets_masks_as_grey_by_region_and_the_start_as_it_is() -> None:
    content = coloured(48, 64)
    start = Decoded(np.full((96, 128, 3), 40_000, np.uint16), None, b"")
    arguments = engine_arguments(
        PHOTO,
        content,
        [
            ("mask", Path("photo.mask.png"), Decoded(content, None, b"")),
            ("mask.sky", Path("photo.mask.sky.png"), Decoded(content // 255 * 100, None, b"")),
            ("init", Path("photo.init.png"), start),
        ],
    )
    assert arguments.keys() == {"masks", "init"} and arguments["init"] is start
    greys = {region: np.unique(mask).tolist() for region, mask in arguments["masks"].items()}
    assert greys == {"": [76], "sky": [30]}
    for mask in arguments["masks"].values():
        assert mask.shape == (48, 64) and mask.dtype == np.uint8
    assert engine_arguments(PHOTO, content, []) == {}


@pytest.mark.parametrize("kind", ["mask", "mask.sky", "init"])
def test_a_companion_of_another_shape_is_refused(kind: str) -> None:
    def arguments(height: int, width: int) -> object:
        files = [(kind, Path("in/photo.x.png"), Decoded(coloured(height, width), None, b""))]
        return engine_arguments(PHOTO, coloured(48, 64), files)

    said = r"photo\.x\.png: 48 x 64 pixels, not of the shape of photo\.jpg \(64 x 48\); make it"
    with pytest.raises(ImageError, match=said):
        arguments(64, 48)
    with pytest.raises(ImageError):
        arguments(48, 66)
    assert arguments(24, 32) and arguments(96, 128) and arguments(48, 65)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_mask_is_its_luminance_times_its_alpha(bits: int) -> None:
    top = 2**bits - 1
    kind = np.uint8 if bits == 8 else np.uint16
    grey = np.array([[top, top, top, 0, top // 2]], kind)
    alpha = np.array([[top, top // 2, 0, top, top // 2]], kind)
    mask = Decoded(np.stack([grey] * 3, 2), alpha, b"")
    files = [("mask", Path("photo.mask.png"), mask)]
    arguments = engine_arguments(PHOTO, coloured(1, 5), files)
    assert arguments["masks"][""].tolist() == [[255, 127, 0, 0, 63]]


@pytest.mark.parametrize("kind", ["mask", "mask.sky"])
@pytest.mark.parametrize(("grey", "alpha"), [(0, None), (0, 255), (255, 0)])
def test_a_mask_without_any_visible_pixel_is_refused(
    kind: str, grey: int, alpha: int | None
) -> None:
    opacity = None if alpha is None else np.full((48, 64), alpha, np.uint8)
    mask = Decoded(np.full((48, 64, 3), grey, np.uint8), opacity, b"")
    files = [(kind, Path("in/photo.mask.png"), mask)]
    with pytest.raises(ImageError, match=r"photo\.mask\.png: a mask without a visible pixel, all "):
        engine_arguments(PHOTO, coloured(48, 64), files)


def test_a_start_that_is_all_transparent_is_refused() -> None:
    start = Decoded(coloured(48, 64), np.zeros((48, 64), np.uint8), b"")
    with pytest.raises(ImageError, match=r"photo\.init\.png: nothing is visible, all pixels are"):
        engine_arguments(PHOTO, coloured(48, 64), [("init", Path("in/photo.init.png"), start)])
