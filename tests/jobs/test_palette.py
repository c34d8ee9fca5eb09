"""Which styles are there, and which of them a picture is painted in."""

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from support import (
    configure,
    draw,
    home_of,
    observed_run,
    outputs,
    painted,
    plan_of,
    run_once,
    settings_text,
    wait_until,
)

from nst_pipeline.config.pipeline import Config, load
from nst_pipeline.errors import ConfigError, NoStylesError
from nst_pipeline.inbox.patience import Patience
from nst_pipeline.inbox.style_folders import StyleFolders
from nst_pipeline.jobs import file_table, looking
from nst_pipeline.jobs.ledger import Ledger
from nst_pipeline.jobs.planning import RUN, WATCH, Plan, Policy, make_plan, make_scanner

MORE = {"styles": {"more": {"folder": "paintings"}}}


def settings(config: Config, **changes: Any) -> Config:
    """Return settings with a folder of styles, which holds a and b unless it is there already."""
    home = home_of(config)
    if not (home / "paintings").exists():
        (home / "paintings").mkdir()
        draw(home / "paintings/a.png", 10)
        draw(home / "paintings/b.png", 11)
    changes = MORE | changes
    return configure(home, watch={"settle_seconds": 0}, **changes)


def todo(plan: Plan) -> list[str]:
    return [f"{job.content.path.name} in {job.style.name}" for job in plan.todo]


# Folders of styles


def test_each_image_of_the_folder_is_painted_and_new_ones_at_the_next_run(config: Config) -> None:
    config = settings(config)
    home = home_of(config)
    run_once(config)
    assert outputs(home) == ["a-a.png", "a-b.png", "a-s.png"]
    draw(home / "paintings/c.png", 12)
    (home / "paintings/a.png").unlink()
    run_once(config)
    assert outputs(home) == ["a-a.png", "a-b.png", "a-c.png", "a-s.png"]
    assert painted(home) == 4 * ["a.png"]


def test_a_run_waits_for_an_image_that_has_only_just_come(config: Config) -> None:
    settings(config)
    home = home_of(config)
    waiting = configure(home, **MORE, watch={"settle_seconds": 1.0})
    last = max(path.stat().st_ctime for path in (home / "paintings/b.png", config.inbox / "a.png"))
    wait_until(lambda: time.time() > last + 1.0)
    draw(home / "paintings/c.png", 12)
    run_once(waiting)
    assert outputs(home) == ["a-a.png", "a-b.png", "a-c.png", "a-s.png"]


def test_an_image_that_cannot_be_decoded_stops_no_other_and_is_told(
    config: Config, ledger: Ledger
) -> None:
    config = settings(config)
    folder = home_of(config) / "paintings"
    (folder / "bad.png").write_text("hello")
    (folder / "empty.png").touch()
    (folder / "lost.png").symlink_to("nowhere")
    plan = plan_of(config, ledger)
    assert todo(plan) == ["a.png in s", "a.png in a", "a.png in b"]
    told = [note.removeprefix(f"{folder}/").split(":")[0] for note in plan.palette.notes]
    assert told == ["bad.png", "empty.png", "lost.png"]
    assert all(note.endswith("; mend or remove the file") for note in plan.palette.notes)


def test_a_named_style_that_is_no_image_still_stops_the_run(config: Config, ledger: Ledger) -> None:
    config = settings(config)
    (home_of(config) / "style.png").write_text("hello")
    with pytest.raises(ConfigError, match=r"styles\.s: .*not an image"):
        plan_of(config, ledger)


def test_without_any_style_nothing_is_planned_but_told(config: Config, ledger: Ledger) -> None:
    config = settings(config, styles="paintings")
    for image in (home_of(config) / "paintings").iterdir():
        image.unlink()
    with pytest.raises(NoStylesError, match="paintings: no image there; put some in"):
        plan_of(config, ledger)
    assert NoStylesError.exit_code == 78


def test_known_images_of_a_folder_are_not_read_again(
    config: Config, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_table, "RACY_NS", 0)
    config = settings(config)
    folder = home_of(config) / "paintings"
    for number in range(300):
        shutil.copyfile(folder / "a.png", folder / f"{number}.png")
    (folder / "bad.png").write_text("hello")
    looks: list[str] = []
    folders = StyleFolders(config, 0, Patience(0, on_look=lambda: looks.append("new")))
    before = make_plan(config, ledger, make_scanner(config, None, 0), style_folders=folders)
    assert len(looks) == 304
    reads: list[str] = []
    read = looking.read
    monkeypatch.setattr(
        looking, "read", lambda path, *rest: reads.append(path.name) or read(path, *rest)
    )
    plan = plan_of(config, ledger)
    assert reads == [] and len(plan.styles) == 303
    assert plan.palette.notes == before.palette.notes != []
    draw(folder / "7.png", 12)
    assert len(plan_of(config, ledger).styles) == 303 and reads == ["7.png"]


def test_a_layer_that_the_network_lacks_is_told_where_it_stands(
    config: Config, ledger: Ledger
) -> None:
    recipe = {"content_layers": ["conv5_4"]}
    for changes, key in (
        ({"styles": {"more": {"folder": "paintings", "recipe": recipe}}}, "styles.more.recipe"),
        ({"folders": {"x": {"recipe": recipe}}}, "folders.x.recipe"),
    ):
        with pytest.raises(ConfigError, match=rf"^{key}\.content_layers: the weights") as caught:
            plan_of(settings(config, **changes), ledger)
        assert len(caught.value.problems) == 1


def test_a_manifest_holds_the_styles_and_their_recipes(config: Config) -> None:
    more = {"folder": "paintings", "recipe": {"style_weight": 7}}
    folders = {"x": {"styles": ["a"], "recipe": {"tv_weight": 3}}}
    config = settings(config, styles={"more": more}, folders=folders)
    (home_of(config) / "paintings/bad.png").write_text("hello")
    told = run_once(config).manifest().config
    assert list(told["styles"]) == ["s", "a", "b"]
    assert told["styles"]["a"]["image"].endswith("paintings/a.png")
    assert told["styles"]["a"]["recipe"]["style_weight"] == 7
    (recipe,) = (style["recipe"] for style in told["folders"]["x"]["styles"].values())
    assert (recipe["style_weight"], recipe["tv_weight"]) == (7, 3)


# Folders of the inbox

FOLDERS = {
    "portraits": {"styles": ["s"], "recipe": {"iterations": 3}},
    "portraits/children": {"styles": ["a", "b"]},
}


def with_pictures(config: Config, *names: str, **changes: Any) -> Config:
    config = settings(config, **({"folders": FOLDERS} | changes))
    for number, name in enumerate(names):
        (config.inbox / name).parent.mkdir(parents=True, exist_ok=True)
        draw(config.inbox / name, 20 + number)
    return config


def test_pictures_in_a_folder_are_painted_in_its_styles_with_its_recipe(
    config: Config, ledger: Ledger
) -> None:
    names = ("portraits/p.png", "portraits/old/q.png", "portraits/children/r.png", "x/y.png")
    plan = plan_of(with_pictures(config, *names), ledger)
    found: dict[str, list[str]] = {}
    for job in plan.todo:
        found.setdefault(job.content.path.name, []).append(job.style.name)
    whole = ["s", "a", "b"]
    assert found == {
        "a.png": whole, "p.png": ["s"], "q.png": ["s"], "r.png": ["a", "b"], "y.png": whole,
    }  # fmt: skip
    steps = {job.content.path.name: job.style.recipe.iterations for job in plan.todo}
    assert steps == {"a.png": 2, "p.png": 3, "q.png": 3, "r.png": 2, "y.png": 2}


def test_urgent_pictures_belong_to_the_folder_that_they_are_in(
    config: Config, ledger: Ledger
) -> None:
    config = with_pictures(config, "portraits/p.png", "urgent/portraits/u.png", "urgent/v.png")
    assert todo(plan_of(config, ledger))[:4] == [
        "u.png in s", "v.png in s", "v.png in a", "v.png in b",
    ]  # fmt: skip


def test_named_files_belong_to_the_folder_of_the_inbox_that_they_lie_in(
    config: Config, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_pictures(config, "portraits/p.png")
    elsewhere = home_of(config) / "portraits"
    elsewhere.mkdir()
    draw(elsewhere / "e.png", 40)
    (home_of(config) / "link").symlink_to("inbox")
    monkeypatch.chdir(home_of(config))
    paths = [Path("link/portraits/p.png"), Path("portraits/e.png"), Path("inbox/x/../a.png")]
    (config.inbox / "x").mkdir()
    plan = make_plan(config, ledger, make_scanner(config, paths, 0))
    assert sorted(todo(plan)) == [
        "a.png in a", "a.png in b", "a.png in s", "e.png in a", "e.png in b", "e.png in s",
        "p.png in s",
    ]  # fmt: skip


def test_another_recipe_of_a_folder_is_another_key_and_paints_just_its_pictures(
    config: Config,
) -> None:
    config = with_pictures(config, "portraits/p.png")
    home = home_of(config)
    run_once(config)
    assert sorted(painted(home)) == ["a.png", "a.png", "a.png", "p.png"]
    changed = {"portraits": FOLDERS["portraits"] | {"recipe": {"iterations": 5}}}
    observed = observed_run(with_pictures(config, folders=changed))
    (record,) = observed.records
    assert record.content.path.endswith("p.png") and record.status == "done"
    assert observed_run(with_pictures(config, folders=changed)).records == []


def test_a_change_of_the_folders_is_seen_by_who_remembers_what_is_finished(
    config: Config, ledger: Ledger
) -> None:
    config = with_pictures(config, "portraits/p.png", "urgent/portraits/u.png")
    changes: list[dict[str, Any]] = [
        {"folders": {}},
        {"folders": {"portraits": {"styles": ["s"]}}},
        {"folders": {"groups": {"styles": ["s"]}}},
        {"folders": {"portraits": {"styles": ["a"]}}},
        {"folders": {"portraits": {"styles": ["s"], "recipe": {"iterations": 3}}}},
        {"folders": {"portraits": {"styles": ["s"], "recipe": {"seed": 3}}}},
    ]
    digests = {plan_of(with_pictures(config, **change), ledger, WATCH).digest for change in changes}
    assert len(digests) == len(changes)
    urgent = changes[1] | {"watch": {"urgent": "soon", "settle_seconds": 0}}
    (home_of(config) / "pipeline.yaml").write_text(settings_text(**MORE, **urgent))
    digests.add(plan_of(load(home_of(config) / "pipeline.yaml"), ledger, WATCH).digest)
    assert len(digests) == len(changes) + 1


def test_a_broken_file_fails_in_the_styles_of_its_folder_alone(config: Config) -> None:
    config = with_pictures(config, "portraits/p.png")
    (config.inbox / "portraits/bad.png").write_text("hello")
    failed = [r.style.name for r in observed_run(config).records if r.status == "failed"]
    assert failed == ["s"]


def test_pictures_wait_while_none_of_their_folders_styles_is_there(
    config: Config, ledger: Ledger
) -> None:
    config = with_pictures(
        config, "portraits/p.png", on_success="move", folders={"portraits": {"styles": ["late"]}}
    )
    plan = plan_of(config, ledger)
    assert {job.content.path.name for job in plan.todo} == {"a.png"} and not plan.broken
    run_once(config)
    assert (config.inbox / "portraits/p.png").exists() and not (config.inbox / "a.png").exists()
    draw(home_of(config) / "paintings/late.png", 30)
    run_once(config)
    assert "portraits/p-late.png" in outputs(home_of(config))
    assert not (config.inbox / "portraits/p.png").exists()


@pytest.mark.parametrize("policy", [RUN, WATCH])
def test_what_is_queued_waits_as_well_while_its_style_is_not_there(
    config: Config, ledger: Ledger, policy: Policy
) -> None:
    config = with_pictures(config, "portraits/p.png", folders={"portraits": {"styles": ["b"]}})
    image = home_of(config) / "paintings/b.png"
    assert "p.png in b" in todo(plan_of(config, ledger, policy))
    image.rename(home_of(config) / "b.png")
    (config.inbox / "portraits/p.png").touch()
    assert todo(plan_of(config, ledger, policy)) == ["a.png in s", "a.png in a"]
    (home_of(config) / "b.png").rename(image)
    assert "p.png in b" in todo(plan_of(config, ledger, policy))


def test_outputs_are_named_by_the_recipe_of_the_folder(config: Config, ledger: Ledger) -> None:
    config = with_pictures(
        config, "portraits/p.png", output={"name": "{content}-{size}"},
        styles={}, folders={"portraits": {"recipe": {"size": 64}}},
    )  # fmt: skip
    names = [job.output.name for job in plan_of(config, ledger).todo]
    assert names == ["a-32.png", "p-64.png"]


def test_no_link_makes_a_style_of_what_lies_elsewhere(config: Config, ledger: Ledger) -> None:
    home = home_of(config)
    draw(config.inbox / "own.style.png", 12)
    (config.inbox / "led.style.png").symlink_to(home / "style2.png")
    # Whoever may write to the inbox may so name no file that we alone can read.
    found = configure(home, styles="inbox/*.style.png", watch={"settle_seconds": 0})
    plan = plan_of(found, ledger)
    assert todo(plan) == ["a.png in own.style"]
    assert any("led.style.png" in note for note in plan.palette.notes)
