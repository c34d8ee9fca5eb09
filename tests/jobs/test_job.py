from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import pytest

from nst_pipeline.config.networks import LAYER_NAMES
from nst_pipeline.config.recipe import ADDED, Recipe
from nst_pipeline.config.settings import OutputSettings
from nst_pipeline.config.weights import Weights
from nst_pipeline.errors import ConfigError
from nst_pipeline.inbox.scanner import SourceFile
from nst_pipeline.jobs.job import Content, Job, PlannedStyle, pair

WEIGHTS = Weights("compact", Path("/w.safetensors"), "w", "", LAYER_NAMES)
IN, OUT = Path("/in"), Path("/out")


def content(name: str, sha256: str = "c", root: Path = IN) -> Content:
    path = root / name
    return Content(SourceFile(path, PurePath(name).parent, root), sha256)


def style(name: str, sha256: str = "s", **recipe: Any) -> PlannedStyle:
    return PlannedStyle(name, {"": ((Path(f"/styles/{name}.png"), sha256, 1.0),)}, Recipe(**recipe))


def outputs(contents: list[Content], styles: list[PlannedStyle], **output: Any) -> list[str]:
    planned = list(pair(contents, styles, OUT, OutputSettings(**output), WEIGHTS, "auto"))
    jobs = [item.job() for item in planned]
    assert [job.key for job in jobs] == [item.key for item in planned]
    return [str(job.output.relative_to(OUT)) for job in jobs]


JOB = Job(content("a.jpg"), style("ink"), WEIGHTS, "auto", OutputSettings(), OUT / "a-ink.png")


@pytest.mark.parametrize(
    "change",
    [
        {"content": content("a.jpg", "other")},
        {"style": style("ink", "other")},
        {"style": style("ink", size=64)},
        {"weights": replace(WEIGHTS, sha256="other")},
        {"precision": "fp32"},
        {"encoding": OutputSettings(format="webp")},
        {"encoding": OutputSettings(quality=9)},
        {"encoding": OutputSettings(mode="grey")},
        {"encoding": OutputSettings(keep_exif=True)},
    ],
)
def test_whatever_decides_the_output_changes_the_key(change: dict[str, Any]) -> None:
    assert replace(JOB, **change).key != JOB.key


@pytest.mark.parametrize(
    "change",
    [
        {"content": content("other.jpg")},
        {"style": replace(style("ink"), sources={"": ((Path("/moved.png"), "s", 1.0),)})},
        {"style": replace(style("ink"), name="pen")},
        {"encoding": OutputSettings(name="x{content}")},
        {"weights": replace(WEIGHTS, id="a copy", path=Path("/moved"))},
        {"output": OUT / "other.png"},
    ],
)
def test_names_and_places_do_not_change_the_key(change: dict[str, Any]) -> None:
    assert replace(JOB, **change).key == JOB.key


def test_every_output_setting_is_known_to_matter_or_not() -> None:
    beside = {"name", "snapshots", "making", "gallery"}
    assert set(OutputSettings(mode="grey").pixels()) == set(OutputSettings.model_fields) - beside


def test_all_styles_of_a_content_come_before_the_next_content() -> None:
    names = outputs([content("a.jpg"), content("b.jpg")], [style("ink"), style("oil")])
    assert names == ["a-ink.png", "a-oil.png", "b-ink.png", "b-oil.png"]


def test_the_relative_folder_is_kept() -> None:
    assert outputs([content("x.jpg"), content("sub/x.jpg")], [style("ink")]) == [
        "x-ink.png",
        "sub/x-ink.png",
    ]


def test_two_contents_of_one_stem_keep_their_suffix() -> None:
    assert outputs([content("x.jpg"), content("x.png"), content("y.png")], [style("ink")]) == [
        "x.jpg-ink.png",
        "x.png-ink.png",
        "y-ink.png",
    ]


def test_two_contents_of_one_name_from_different_places_keep_their_folders() -> None:
    contents = [content("x.jpg", root=Path("/a")), content("x.jpg", root=Path("/b"))]
    assert outputs(contents, [style("ink")]) == ["a/x-ink.png", "b/x-ink.png"]


@pytest.mark.parametrize(
    ("roots", "folders"),
    [
        (["/home/me/p1", "/home/me/p2"], ["p1", "p2"]),
        (["/home/me/2024/rome", "/home/me/2025/rome"], ["2024/rome", "2025/rome"]),
        (["/a", "/b/a", "/c"], ["a", "b/a", "c"]),
        (["/", "/a"], [".", "a"]),
        (["/me/x/../p1", "/me/p2"], ["p1", "p2"]),
        (["/me/a", "/me/b"], ["me/a", "me/b"]),  # where another has the place a
    ],
)
def test_of_those_folders_only_the_end_that_tells_them_apart(
    roots: list[str], folders: list[str]
) -> None:
    contents = [content("x.jpg", root=Path(root)) for root in roots]
    other = [content("a/x.jpg")] if folders[0] == "me/a" else []
    assert outputs([*contents, *other], [style("ink")])[: len(roots)] == [
        str(PurePath(folder, "x-ink.png")) for folder in folders
    ]


def test_a_template_that_makes_two_jobs_write_one_file_is_refused() -> None:
    with pytest.raises(ConfigError, match="both be written to /out/x.png"):
        outputs([content("x.jpg")], [style("ink"), style("oil")], name="{content}")


def test_an_output_that_would_overwrite_an_input_is_refused() -> None:
    with pytest.raises(ConfigError, match="would overwrite an input"):
        list(
            pair(
                [content("x.jpg"), content("x-ink.png")],
                [style("ink")],
                IN,
                OutputSettings(),
                WEIGHTS,
                "",
            )
        )


def test_metadata_name_style_recipe_and_weights_but_no_path() -> None:
    job = replace(JOB, weights=replace(WEIGHTS, id="/home/me/mine.pth"))
    made_by = job.made_by()
    assert made_by["style"] == "ink" and made_by["recipe"]["size"] == 512
    assert made_by["weights"] == "mine.pth" and made_by["weights_sha256"] == "w"
    assert "/" not in str(made_by)


def blend(*sources: tuple[str, float], region: str = "") -> PlannedStyle:
    images = tuple((Path(f"/styles/{sha256}.png"), sha256, share) for sha256, share in sources)
    return PlannedStyle("ink", {region: images}, Recipe())


def test_a_plain_style_has_its_images_digest_and_every_other_its_own() -> None:
    assert blend(("s", 1.0)).sha256 == "s"
    styles = [
        blend(("s", 1.0)),
        blend(("s", 1.0), region="sky"),
        blend(("s", 0.5), ("t", 0.5)),
        blend(("s", 0.4), ("t", 0.6)),
        blend(("s", 0.5), ("u", 0.5)),
        blend(("s", 0.5), ("t", 0.5), region="sky"),
    ]
    assert len({one.sha256 for one in styles}) == len(styles)
    assert blend(("t", 0.5), ("s", 0.5)).sha256 == blend(("s", 0.5), ("t", 0.5)).sha256


def test_an_output_never_takes_the_place_of_any_image_of_a_style() -> None:
    images = ((OUT / "b.png", "s", 0.5), (OUT / "a-ink.png", "t", 0.5))
    land = PlannedStyle("ink", {"sky": images}, Recipe())
    with pytest.raises(ConfigError, match="a-ink.png: would overwrite an input"):
        list(pair([content("a.jpg")], [land], OUT, OutputSettings(), WEIGHTS, "auto"))


def test_a_name_has_the_width_and_the_height_of_an_exact_size() -> None:
    exact = style("ink", size={"width": 300, "height": 200})
    assert outputs([content("x.jpg")], [exact], name="{content}-{size}") == ["x-300x200.png"]


def test_a_field_that_is_newer_than_finished_work_changes_the_key_only_with_its_value() -> None:
    for settings in (OutputSettings(), Recipe()):
        newer = {n for n, f in type(settings).model_fields.items() if f.json_schema_extra == ADDED}
        assert not newer & settings.pixels().keys()


def test_names_follow_the_template() -> None:
    made = outputs(
        [content("cat.png")], [style("ink", size=48)],
        name="{style}//{content}_{size}_{recipe}", format="jpeg",
    )  # fmt: skip
    assert made == ["ink/cat_48_default.jpg"]


def test_a_name_that_no_file_can_have_is_shortened_and_stays_apart() -> None:
    made = outputs([content(f"{'漫' * 83}{n}.png") for n in "12"], [style("ink")])
    assert len(set(made)) == 2
    assert all(len(name.encode()) <= 255 and name.endswith(".png") for name in made)
    deep = outputs([content(f"{'漫' * 83}.png")], [style("ink")], name="x-{content}/{style}")
    assert deep[0].endswith("/ink.png") and len(deep[0].split("/")[0].encode()) <= 255


def test_of_a_name_that_is_too_long_the_content_is_shortened_and_not_the_style() -> None:
    ink, oil = outputs([content(f"{'漫' * 83}.png")], [style("ink"), style("oil")])
    assert ink.startswith("漫漫") and ink.endswith("-ink.png") and oil.endswith("-oil.png")
    assert ink.removesuffix("-ink.png") == oil.removesuffix("-oil.png")
    (made,) = outputs([content("a.png")], [style("s" * 300)])
    assert made.startswith("a-sss") and len(made) == 255


def with_companions(name: str, **sha256s: str) -> Content:
    """Return a content with companions by their kinds, with ``_`` for the dot."""
    kinds = {kind.replace("_", "."): sha256 for kind, sha256 in sha256s.items()}
    path = IN / name
    files = {kind: (path.with_suffix(f".{kind}.png"), one) for kind, one in kinds.items()}
    return replace(content(name), companions=files)


def test_companions_decide_the_key_and_only_where_there_are_any() -> None:
    assert content("a.jpg").digest == "c" and "companions" not in JOB.made_by()
    given: list[dict[str, str]] = [
        {}, {"mask": "m"}, {"mask": "n"}, {"init": "m"}, {"mask_sky": "m"},
        {"mask": "m", "init": "n"}, {"mask": "n", "init": "m"},
    ]  # fmt: skip
    jobs = [replace(JOB, content=with_companions("a.jpg", **some)) for some in given]
    assert len({job.key for job in jobs}) == len(given) and jobs[0].key == JOB.key


def test_metadata_name_the_companions() -> None:
    job = replace(JOB, content=with_companions("a.jpg", mask_sky="m", init="n"))
    assert job.made_by()["companions"] == {"mask.sky": "m", "init": "n"}


def test_an_output_never_takes_the_place_of_a_companion() -> None:
    contents = [with_companions("a.png", mask="m")]
    settings = OutputSettings(name="{content}.mask")
    with pytest.raises(ConfigError, match=r"a\.mask\.png: would overwrite an input"):
        list(pair(contents, [style("ink")], IN, settings, WEIGHTS, "auto"))


@pytest.mark.parametrize("name", ["..jpg", "...jpg", "....jpg", " .jpg"])
def test_no_part_of_an_outputs_path_leads_to_another_folder(name: str) -> None:
    (made,) = outputs([content(name)], [style("ink")], name="{content}/{style}")
    folder, last = made.split("/")
    assert last == "ink.png" and folder not in ("", ".", "..")


def test_folders_that_keep_two_results_apart_stay_in_the_outbox_however_they_were_named() -> None:
    roots = (Path("/a/../../../in"), Path("/a/x/../../in2"))
    contents = [
        Content(SourceFile(root / "a.jpg", PurePath(), root), str(n))
        for n, root in enumerate(roots)
    ]
    assert outputs(contents, [style("ink")]) == ["in/a-ink.png", "in2/a-ink.png"]
