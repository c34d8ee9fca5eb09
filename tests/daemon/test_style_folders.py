"""The daemon with folders of styles, and with styles for the inbox's folders."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from support import Watch, configure, draw, make_home, manifests, outputs, painted, wait_until


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a home with two pictures, and a folder of one style."""
    home = make_home(tmp_path / "home")
    (home / "paintings").mkdir()
    draw(home / "paintings/a.png", 10)
    draw(home / "inbox/p.png", 1)
    settings(home)
    return home


def settings(home: Path, styles: Any = "paintings/", **changes: Any) -> None:
    configure(home, styles=styles, **changes)


def test_a_new_image_is_a_style_without_a_restart(home: Path) -> None:
    settings(home, watch={"settle_seconds": 0.7})  # more than the daemon rests between two looks
    with Watch(home) as watch:
        watch.until_outputs("p-a.png")
        watch.until_idle()
        draw(home / "paintings/b.png", 11)
        watch.until_outputs("p-a.png", "p-b.png")
        watch.until_idle()
        draw(home / "new.png", 12)
        (home / "new.png").rename(home / "paintings/c.png")
        watch.until_outputs("p-a.png", "p-b.png", "p-c.png")
        watch.until_idle()
        assert watch.status()["styles"] == 3
    assert painted(home) == 3 * ["p.png"]


def test_a_style_that_comes_while_another_is_painted_is_in_the_same_manifest(home: Path) -> None:
    (home / "orders/p.png").write_text("slow")
    with Watch(home) as watch:
        watch.until_painting()
        draw(home / "paintings/b.png", 11)
        arrived = (home / "paintings/b.png").stat().st_ctime
        wait_until(lambda: time.time() > arrived + 0.2)
        (home / "orders/p.png").unlink()
        watch.until_outputs("p-a.png", "p-b.png")
        watch.until_idle()
    (manifest,) = manifests(home)
    assert [job["style"]["name"] for job in manifest["jobs"]] == ["a", "b"]
    assert set(manifest["config"]["styles"]) == {"a", "b"}


def test_a_new_image_is_seen_by_looking_where_there_are_no_events(home: Path) -> None:
    settings(home, watch={"polling": "on", "poll_seconds": 0.2})
    with Watch(home) as watch:
        watch.until_outputs("p-a.png")
        draw(home / "paintings/b.png", 11)
        watch.until_outputs("p-a.png", "p-b.png")


def test_an_image_is_a_style_only_when_nobody_writes_to_it_any_more(home: Path) -> None:
    draw(home / "whole.png", 11)
    with Watch(home) as watch:
        watch.until_outputs("p-a.png")
        with (home / "paintings/b.png").open("wb", buffering=0) as file:
            file.write((home / "whole.png").read_bytes()[:900])
            wait_until(lambda: watch.status()["arriving"] == 1)
            draw(home / "inbox/q.png", 2)
            watch.until_outputs("p-a.png", "q-a.png")
            file.write((home / "whole.png").read_bytes()[900:])
        watch.until_outputs("p-a.png", "p-b.png", "q-a.png", "q-b.png")
    assert "b.png: " not in watch.log.read_text()


def test_a_source_is_not_moved_away_while_a_style_arrives(home: Path) -> None:
    settings(home, on_success="move")
    draw(home / "whole.png", 11)
    with (home / "paintings/b.png").open("wb", buffering=0) as file, Watch(home) as watch:
        file.write((home / "whole.png").read_bytes())
        watch.until_outputs("p-a.png")
        wait_until(lambda: watch.status()["queue"] == 0 and watch.status()["arriving"] == 1)
        assert (home / "inbox/p.png").exists()
        file.close()
        watch.until_outputs("p-a.png", "p-b.png")
        wait_until(lambda: (home / "processed/p.png").exists())


def test_an_image_that_is_none_stops_no_other_is_told_once_and_mended(home: Path) -> None:
    (home / "paintings/bad.png").write_text("hello")
    with Watch(home) as watch:
        watch.until_outputs("p-a.png")
        (note,) = watch.status()["left_out"]
        assert "paintings/bad.png: not an image in a known format" in note
        draw(home / "inbox/q.png", 2)
        watch.until_outputs("p-a.png", "q-a.png")
        draw(home / "paintings/bad.png", 11)
        watch.until_outputs("p-a.png", "p-bad.png", "q-a.png", "q-bad.png")
        watch.until_idle()
        assert watch.status()["left_out"] == []
    assert watch.log.read_text().count("bad.png: not an image") == 1


def test_a_removed_image_is_no_style_any_more_and_its_results_stay(home: Path) -> None:
    draw(home / "paintings/b.png", 11)
    with Watch(home) as watch:
        watch.until_outputs("p-a.png", "p-b.png")
        (home / "paintings/b.png").unlink()
        draw(home / "inbox/q.png", 2)
        watch.until_outputs("p-a.png", "p-b.png", "q-a.png")
        watch.until_idle()
        assert watch.status()["styles"] == 1


def test_an_empty_folder_and_one_that_is_taken_away_are_waited_for(home: Path) -> None:
    (home / "paintings/a.png").rename(home / "a.png")
    with Watch(home) as watch:
        watch.until_state("waiting")
        assert "paintings: no image there; put some in" in watch.status()["detail"]
        assert outputs(home) == [] and (home / "inbox/p.png").exists()
        settings(home, output={"name": "{style}-{content}"})
        watch.send(signal.SIGHUP)
        wait_until(lambda: "the settings were read again" in watch.log.read_text())
        (home / "a.png").rename(home / "paintings/a.png")
        watch.until_outputs("a-p.png")
        watch.until_idle()
        (home / "paintings").rename(home / "away")
        draw(home / "inbox/q.png", 2)
        wait_until(lambda: "waiting: for the styles' folder" in watch.log.read_text())
        (home / "away").rename(home / "paintings")
        watch.until_outputs("a-p.png", "a-q.png")
        assert watch.stop() == 0


def test_settings_that_are_read_again_may_name_another_folder(home: Path) -> None:
    (home / "other/deep").mkdir(parents=True)
    with Watch(home) as watch:
        watch.until_outputs("p-a.png")
        settings(home, {"more": {"folder": "other/*/*.png"}})
        watch.send(signal.SIGHUP)
        watch.until_outputs("p-a.png", "p-s.png")
        watch.until_idle()
        draw(home / "other/deep/c.png", 12)
        watch.until_outputs("p-a.png", "p-c.png", "p-s.png")


def test_a_folder_of_the_inbox_has_its_styles_and_recipe_also_after_a_change(home: Path) -> None:
    styles = {"more": {"folder": "paintings"}}
    settings(home, styles, folders={"x": {"styles": ["s"]}})
    (home / "inbox/x").mkdir()
    draw(home / "inbox/x/q.png", 2)
    with Watch(home) as watch:
        watch.until_outputs("p-a.png", "p-s.png", "x/q-s.png")
        settings(home, styles, folders={"x": {"styles": ["more"], "recipe": {"seed": 3}}})
        watch.send(signal.SIGHUP)
        watch.until_outputs("p-a.png", "p-s.png", "x/q-a.png", "x/q-s.png")
        (home / "inbox/urgent/x").mkdir(parents=True)
        draw(home / "inbox/urgent/x/r.png", 3)
        watch.until_outputs("p-a.png", "p-s.png", "urgent/x/r-a.png", "x/q-a.png", "x/q-s.png")
    told = json.dumps(manifests(home)[-1]["config"]["folders"]["x"])
    assert '"seed": 3' in told
