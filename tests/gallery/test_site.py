"""Updates of the gallery: what changed is made anew, and nothing that was known is lost."""

import errno
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from crashing import crashing
from exhibition import change, contents, make_exhibition, pieces, refresh, settings
from fuzzing import originals
from PIL import Image
from support import FakeExecutor, configure, draw, program, run_once

from nst_pipeline.errors import CannotCreateError, DiskFullError
from nst_pipeline.files import TEMPORARY_PREFIX
from nst_pipeline.folders import Folders
from nst_pipeline.gallery import site
from nst_pipeline.gallery.site import update
from nst_pipeline.inbox import reading
from nst_pipeline.jobs.ledger import Ledger, ledger_path
from nst_pipeline.jobs.outcome import Failure

FAILED = Failure("not today", kind="job")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a place where two pictures were painted in two styles."""
    return make_exhibition(tmp_path / "home", is_hostile=False)


def times(home: Path) -> dict[str, int]:
    gallery = home / "outbox/gallery"
    found = (path for path in gallery.rglob("*") if path.is_file() and path.name[0] != ".")
    return {str(path.relative_to(gallery)): path.stat().st_mtime_ns for path in found}


def forget_records(home: Path) -> None:
    """Make the ledger's records those of runs long ago: forgotten."""
    database = sqlite3.connect(ledger_path(home / "state"))
    with database:
        database.execute("DELETE FROM records")
        database.execute("DELETE FROM runs")
        database.execute("UPDATE jobs SET finished = finished - 1000")
    database.close()


def figures(piece: dict[str, Any]) -> tuple[object, ...]:
    made = piece["made"]
    return made["iterations"], made["seconds"], made["losses"]["end"]["total"], made["device"]


def test_an_update_that_finds_nothing_new_writes_nothing(home: Path) -> None:
    first = refresh(home)
    assert (first.pieces, first.pictures) == (4, 8)  # two photographs and two paintings among them
    before = times(home)
    again = refresh(home)
    assert (again.pieces, again.pictures, again.files) == (4, 0, 0)
    assert times(home) == before


def test_one_more_content_changes_the_last_page_and_its_own_file_alone(home: Path) -> None:
    refresh(home)
    before = times(home)
    draw(home / "inbox/new.png", 50)
    run_once(settings(home))
    done = refresh(home)
    assert (done.pieces, done.pictures, done.files) == (6, 3, 3)
    after = times(home)
    rewritten = {name for name in before if after[name] != before[name]}
    assert rewritten == {"index.html", "data/page-0001.js"}


def test_pictures_that_were_only_skipped_have_the_figures_of_their_own_run(home: Path) -> None:
    draw(home / "inbox/new.png", 50)
    run_once(settings(home))
    refresh(home)
    found = pieces(home)
    assert len(found) == 6
    assert {figures(piece) for piece in found.values()} == {(1, 0.5, 3.0, "fake")}
    assert len({piece["run"] for piece in found.values()}) == 2
    assert all(piece["made"]["curve"][0]["steps"] == [1, 1] for piece in found.values())
    assert all(piece["recipe"] for piece in found.values())


def test_a_copy_has_the_figures_of_what_it_is_a_copy_of(home: Path) -> None:
    shutil.copy(home / "inbox/boat.png", home / "inbox/same.png")
    run_once(settings(home))
    refresh(home)
    copy = pieces(home)["same.png", "ink"]
    assert figures(copy) == figures(pieces(home)["boat.png", "ink"])
    assert copy["made"]["duplicate_of"].endswith("outbox/boat-ink.png")


def test_what_the_ledger_has_forgotten_is_joined_from_the_manifests(home: Path) -> None:
    forget_records(home)
    refresh(home)
    assert figures(pieces(home)["hill.png", "oil"]) == (1, 0.5, 3.0, "fake")


def test_a_record_that_comes_after_its_job_is_not_missed(home: Path) -> None:
    database = sqlite3.connect(ledger_path(home / "state"))
    with database:
        database.execute("CREATE TABLE later AS SELECT * FROM records")
        database.execute("DELETE FROM records")
        database.execute("UPDATE runs SET open = 1")
    refresh(home)
    assert pieces(home)["boat.png", "ink"]["made"] == {}
    with database:
        database.execute("INSERT INTO records SELECT * FROM later")
        database.execute("UPDATE runs SET open = 0")
    database.close()
    refresh(home)
    assert figures(pieces(home)["boat.png", "ink"]) == (1, 0.5, 3.0, "fake")


def test_a_gallery_outlives_the_ledger_by_the_manifests(home: Path) -> None:
    draw(home / "inbox/new.png", 50)
    run_once(settings(home))
    (home / "outbox/new-oil.png").unlink()
    refresh(home)
    before = pieces(home)
    shutil.rmtree(home / "state")
    refresh(home)
    after = pieces(home)
    assert after.keys() == before.keys()
    for name, piece in after.items():
        old = before[name]
        same = ("id", "status", "picture", "recipe", "made", "path", "key", "content_sha256")
        assert [piece.get(key) for key in same] == [old.get(key) for key in same]


def test_figures_outlive_the_records_of_their_run(home: Path) -> None:
    refresh(home)
    before = pieces(home)["boat.png", "ink"]
    forget_records(home)
    shutil.rmtree(home / "outbox/manifests")
    (home / "outbox/boat-ink.png").unlink()
    refresh(home)
    after = pieces(home)["boat.png", "ink"]
    assert after["made"] == before["made"] and after["recipe"] == before["recipe"]


def test_an_output_that_was_taken_away_is_marked_and_not_linked(home: Path) -> None:
    refresh(home)
    output = home / "outbox/boat-ink.png"
    before = pieces(home)["boat.png", "ink"]
    assert (before["status"], before["url"]) == ("done", "../boat-ink.png")
    output.rename(home / "elsewhere.png")
    refresh(home)
    gone = pieces(home)["boat.png", "ink"]
    assert gone["status"] == "gone" and "url" not in gone
    assert gone["picture"] == before["picture"]
    (home / "elsewhere.png").rename(output)
    refresh(home)
    assert pieces(home)["boat.png", "ink"] == before


def test_the_pictures_of_a_result_that_was_replaced_are_deleted(home: Path) -> None:
    refresh(home)
    before = times(home)
    draw(home / "inbox/boat.png", 60)
    run_once(settings(home))
    refresh(home)
    after = times(home)
    assert len(before.keys() - after.keys()) == len(after.keys() - before.keys()) == 3
    assert pieces(home)["boat.png", "ink"]["status"] == "done"


def test_thumbnails_are_webp_in_two_sizes_and_srgb(tmp_path: Path) -> None:
    home = make_exhibition(tmp_path / "home", is_hostile=False)
    image = Image.new("CMYK", (3000, 2000), (0, 255, 255, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(home / "inbox/wide.jpg", exif=exif)
    run_once(settings(home))
    refresh(home)
    content = contents(home)["wide.jpg"]
    assert content["size"] == [3000, 2000, True]
    picture = content["photograph"]
    for side, size in ((480, (320, 480)), (1600, (1067, 1600))):
        path = home / f"outbox/gallery/pictures/{picture[:2]}/{picture}-{side}.webp"
        with Image.open(path) as thumbnail:
            assert (thumbnail.format, thumbnail.mode, thumbnail.size) == ("WEBP", "RGB", size)
            red, green, blue = thumbnail.getpixel((9, 9))
            assert red > 150 > 100 > max(green, blue)
    small = contents(home)["boat.png"]
    assert small["size"] == [48, 64, False]


@pytest.mark.parametrize("on_success", ["move", "delete"])
def test_the_photograph_is_kept_of_a_source_that_went(tmp_path: Path, on_success: str) -> None:
    home = make_exhibition(
        tmp_path / "home", is_hostile=False, on_success=on_success, output={"gallery": True}
    )
    assert not (home / "inbox/boat.png").exists()
    refresh(home)
    assert contents(home)["boat.png"]["photograph"]
    assert contents(home)["boat.png"]["size"] == [48, 64, False]
    again = pieces(home)["boat.png", "ink"]["again"]
    moved = home / "processed/boat.png"
    assert again == (f"nst-pipeline run --force --style ink {moved} -c {home}/pipeline.yaml"
                     if on_success == "move" else "")  # fmt: skip


def test_no_gallery_is_made_among_results_of_a_folder_of_its_name(home: Path) -> None:
    (home / "inbox/gallery").mkdir()
    draw(home / "inbox/gallery/x.png", 78)
    run_once(settings(home))
    done = program(home, "gallery")
    assert done.returncode == 78
    assert f"there are results in it, such as {home}/outbox/gallery/x-ink.png" in done.stderr
    assert not (home / "outbox/gallery/index.html").exists()


def test_commands_of_a_gallery_hold_wherever_they_are_typed(home: Path) -> None:
    assert program(home, "gallery").returncode == 0
    assert pieces(home)["boat.png", "ink"]["again"].endswith(f" -c {home}/pipeline.yaml")


def test_a_command_makes_a_picture_again_or_tries_it_again(home: Path, tmp_path: Path) -> None:
    (home / "inbox/sub").mkdir()
    draw(home / "inbox/sub/bad.png", 77)
    (home / "orders/bad.png").write_text("fail")
    run_once(settings(home))
    refresh(home)
    found, file = pieces(home), f"-c {home}/pipeline.yaml"
    boat, hill = found["boat.png", "ink"], found["hill.png", "ink"]
    assert boat["again"] == f"nst-pipeline run --force --style ink {home}/inbox/boat.png {file}"
    assert hill["again"].splitlines() == [
        f"nst-pipeline retry --force trip/hill.png {file}", f"nst-pipeline run {file}",
    ]  # fmt: skip
    bad = found["bad.png", "oil"]
    assert (bad["status"], bad["retry"]) == ("failed", f"nst-pipeline retry sub/bad.png {file}")
    assert bad["reason"].endswith("told to fail")
    for command in (boat["again"], *hill["again"].splitlines(), bad["retry"]):
        done = program(home, *command.replace(str(home), ".").split()[1:])
        assert done.returncode in (0, 1), done.stderr
    lines = (home / "painted.log").read_text().splitlines()
    assert sum(line.endswith("boat.png ink") for line in lines) == 2
    assert sum(line.endswith("hill.png ink") for line in lines) == 2


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"pieces": 1}', '{"sizes": {"a": [1]}}'])
def test_a_gallery_whose_memory_is_damaged_is_made_anew(home: Path, damage: str) -> None:
    refresh(home)
    before = pieces(home)
    (home / "outbox/gallery/.known.json").write_text(damage)
    assert refresh(home).pictures == 0
    assert pieces(home) == before


def test_an_update_that_was_ended_goes_on_and_leaves_nothing_half_done(home: Path) -> None:
    calls = iter(range(4))

    class EndedError(Exception):
        pass

    def check() -> None:
        if next(calls, None) is None:
            raise EndedError

    with pytest.raises(EndedError):
        update(settings(home), check)
    gallery = home / "outbox/gallery"
    made = {path: path.stat().st_mtime_ns for path in gallery.rglob("*.webp")}
    assert made and not (gallery / "index.html").exists()
    refresh(home)
    assert (gallery / "index.html").exists()
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert not [path for path in gallery.rglob("*") if path.name.startswith(TEMPORARY_PREFIX)]
    assert len(pieces(home)) == 4


def test_a_place_where_nothing_was_painted_has_an_empty_gallery(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "inbox").mkdir(parents=True)
    draw(home / "style.png")
    configure(home)
    assert refresh(home).pieces == 0
    assert "0 pastiches" in (home / "outbox/gallery/index.html").read_text()
    assert not (home / "state").exists()


def test_the_room_that_jobs_need_is_left_alone(home: Path) -> None:
    change(home, limits={"min_free_bytes": 10**18})
    with pytest.raises(DiskFullError, match=r"min_free_bytes \(1,000,000,000,000,000,000\)"):
        refresh(home)


def test_the_gallery_is_neither_painted_nor_an_outbox_of_its_own(tmp_path: Path) -> None:
    home = make_exhibition(tmp_path / "home", is_hostile=False)
    refresh(home)
    outbox = home / "outbox"
    draw(outbox / "new.png", 9)
    done = program(outbox, "run", ".", "-s", f"{home}/style.png", "--outbox", ".")
    assert done.returncode == 0, done.stderr
    ledger = Ledger.to_read(ledger_path(outbox / ".nst-pipeline"))
    assert ledger
    with ledger:
        sources = {one.source for one in ledger.jobs.all()}
    assert outbox / "new.png" in sources
    assert not [path for path in sources if "gallery" in path.parts]


def test_no_link_leads_an_update_out_of_the_outbox(home: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (home / "outbox/gallery").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CannotCreateError, match="link"):
        refresh(home)
    assert not list((tmp_path / "elsewhere").iterdir())


IMPORTED = """
import sys
from nst_pipeline.cli import app
sys.argv = ["nst-pipeline", *sys.argv[1:]]
try:
    app.main()
except SystemExit as end:
    assert not end.code, end
print([name for name in ("torch", "jinja2", "nst_pipeline.gallery") if name in sys.modules])
"""


@pytest.mark.parametrize(
    ("words", "found"), [("run", "[]"), ("gallery", "['jinja2', 'nst_pipeline.gallery']")]
)
def test_the_gallery_needs_no_torch_and_is_not_imported_unasked(
    home: Path, words: str, found: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, words], cwd=home, capture_output=True, text=True,
        check=False, env={**os.environ},
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == found, done.stderr


def test_the_command_tells_where_it_is_and_opens_it(home: Path) -> None:
    opened = home / "opened"
    browser = home / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {opened}.part && mv {opened}.part {opened}\n')
    browser.chmod(0o755)
    path = home / "other.yaml"
    (home / "pipeline.yaml").rename(path)
    done = subprocess.run(
        [sys.executable, "-m", "nst_pipeline", "gallery", "-c", path, "--open"], cwd=home.parent,
        capture_output=True, text=True, check=False, env={**os.environ, "BROWSER": str(browser)},
    )  # fmt: skip
    page = home / "outbox/gallery/index.html"
    assert done.stdout.startswith(f"gallery  {page}: 4 jobs, 8 new thumbnails, in "), done.stderr
    assert opened.read_text() == page.as_uri()


def test_a_result_is_finished_work_with_and_without_a_gallery(home: Path) -> None:
    change(home, output={"gallery": True})
    executor = FakeExecutor()
    run_once(settings(home), executor)
    assert executor.painted == []
    assert (home / "outbox/gallery/index.html").exists()


def test_a_picture_that_crashes_a_decoder_ends_no_update(tmp_path: Path) -> None:
    home = make_exhibition(tmp_path / "home", is_hostile=False)
    (home / "inbox/killer.bmp").write_bytes(originals()["bmp"])
    draw(home / "inbox/sound.png", 50)
    run_once(settings(home), FakeExecutor(dict.fromkeys(["killer", "sound"], FAILED)))
    (home / "style.png").write_bytes(originals()["bmp"] + b"another")
    env = os.environ | crashing(tmp_path / "crashing", "pixels", signal.SIGABRT)
    done = subprocess.run(
        [sys.executable, "-m", "nst_pipeline", "gallery"], cwd=home, env=env, check=False
    )
    assert done.returncode == 0
    found = contents(home)
    assert not found["killer.bmp"]["photograph"]
    assert found["sound.png"]["photograph"] and found["boat.png"]["photograph"]


def seen(home: Path) -> set[str]:
    gallery = home / "outbox/gallery"
    return {str(path.relative_to(gallery)) for path in gallery.rglob("*") if path.is_file()}


@pytest.mark.parametrize("hidden", [True, False])
def test_a_gallery_that_was_deleted_is_made_anew(home: Path, hidden: bool) -> None:
    refresh(home)
    before, found = seen(home), pieces(home)
    for path in (home / "outbox/gallery").iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif hidden or path.name[0] != ".":
            path.unlink()
    assert refresh(home).pictures == 8
    assert (seen(home), pieces(home)) == (before, found)


@pytest.mark.parametrize("folder", ["", "data", "pictures"])
def test_what_is_deleted_beside_an_update_comes_with_the_next(
    home: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refresh(home)
    before = seen(home)
    draw(home / "inbox/new.png", 50)
    run_once(settings(home))
    write = site._Update._write_pages

    def deleted(*arguments: Any) -> None:
        shutil.rmtree(home / "outbox/gallery" / folder)
        write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(site._Update, "_write_pages", deleted)
        refresh(home)
    refresh(home)
    assert seen(home) > before
    assert all(piece["picture"] and piece["made"] for piece in pieces(home).values())


def test_what_is_known_is_kept_after_the_files_and_only_if_it_is_new(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery, synced = home / "outbox/gallery", []
    sync_all = Folders.sync_all

    def noted(folders: Folders, folder: Path) -> None:
        synced.append((folder, (folder / "index.html").exists(), (folder / ".known.json").exists()))
        sync_all(folders, folder)

    monkeypatch.setattr(Folders, "sync_all", noted)
    refresh(home)
    assert synced == [(gallery, True, False)]
    before = (gallery / ".known.json").stat()
    refresh(home)
    assert len(synced) == 1
    assert (gallery / ".known.json").stat() == before


def test_each_part_of_an_update_can_be_ended(home: Path) -> None:
    askers = set()
    update(settings(home), lambda: askers.add(sys._getframe(1).f_code.co_name))
    shutil.rmtree(home / "state")
    update(settings(home), lambda: askers.add(sys._getframe(1).f_code.co_name))
    assert askers == {"carry_out", "read_manifests", "do", "_write_contents"}


def test_a_manifest_has_no_file_shown_that_is_not_the_outboxs(home: Path, tmp_path: Path) -> None:
    refresh(home)
    secret = tmp_path / "secret.png"
    draw(secret, 90)
    manifest = next((home / "outbox/manifests").glob("*.json"))
    plain = json.loads(manifest.read_text())
    first, second, third, *_ = plain["jobs"]
    first["output"] |= {"path": str(secret), "sha256": sha256(secret.read_bytes()).hexdigest()}
    up = f"{home}/outbox/../../secret.png"
    second["output"] |= {"path": up, "sha256": first["output"]["sha256"]}
    third["style"] |= {"name": "other", "path": str(secret)}
    manifest.write_text(json.dumps(plain))
    shutil.rmtree(home / "state")
    refresh(home)
    name = first["output"]["sha256"][:16]
    assert not list((home / "outbox/gallery/pictures").rglob(f"{name}*"))
    statuses = [piece["status"] for piece in pieces(home).values()]
    assert sorted(statuses) == ["done", "done", "gone", "gone"]


def test_what_could_not_be_read_for_a_moment_is_shown_by_the_next_update(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "SETTLED_SECONDS", 0)
    open_file = reading._open

    def refuse(path: Path, root: Path | None) -> int:
        if path.suffix == ".png":
            raise OSError(errno.EMFILE, "Too many open files")
        return open_file(path, root)

    with monkeypatch.context() as patch:
        patch.setattr(reading, "_open", refuse)
        assert refresh(home).pictures == 0
    (home / "inbox/trip/hill.png").rename(home / "elsewhere.png")
    assert refresh(home).pictures == 7
    assert all(piece["picture"] for piece in pieces(home).values())
    assert contents(home)["boat.png"]["photograph"]
    assert not contents(home)["hill.png"]["photograph"]
    before = times(home)
    refresh(home)  # what is gone is not waited for
    assert times(home) == before


def test_a_pipeline_leaves_the_gallery_of_another_alone(home: Path, tmp_path: Path) -> None:
    refresh(home)
    before, found = times(home), pieces(home)
    outbox = str(home / "outbox")
    other = make_exhibition(tmp_path / "other", is_hostile=False, outbox=outbox)
    done = program(other, "gallery")
    assert done.returncode == 78
    assert f"the pipeline painted whose state is in {home}/state; give this" in done.stderr
    change(other, output={"gallery": True})
    draw(other / "inbox/new.png", 50)
    assert program(other, "run").returncode == 0
    assert times(home) == before
    refresh(home)
    assert pieces(home) == found
    (home / "state").rename(home / "archive")  # it is no more
    refresh(other)
    assert "new.png" in contents(home)


def test_a_run_leaves_what_an_update_beside_it_has_not_finished_and_the_next_update_does_not(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create, found = Folders.create, []

    def noted(folders: Folders, path: Path, mode: int = 0o666) -> Any:
        file = create(folders, path, mode)
        if path.parent == home / "outbox/gallery/assets" and not found:
            found.append(path)
            with monkeypatch.context() as patch:
                patch.setattr(Folders, "create", create)
                with Ledger(ledger_path(home / "state")) as ledger:
                    ledger.set_fact("clean", "no")  # as after a kill
                run_once(settings(home))
            assert path.exists()
        return file

    with monkeypatch.context() as patch:
        patch.setattr(Folders, "create", noted)
        refresh(home)
    assert found
    found[0].write_text("left by a kill")
    refresh(home)
    assert not found[0].exists()
