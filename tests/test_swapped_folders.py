"""Somebody who may write to a shared folder puts links to other folders in the program's way."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import Watch, configure, draw, make_home, outputs, painted, program, wait_until

ROUNDS = 15
SWAP = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
neighbour, folder, link = map(os.fsencode, sys.argv[1:4])

def exchange():
    if libc.renameat2(-100, folder, -100, link, 2):  # RENAME_EXCHANGE
        sys.exit(os.strerror(ctypes.get_errno()))

for _ in range(int(sys.argv[4])):
    events = libc.inotify_init1(0)
    libc.inotify_add_watch(events, neighbour, 0x20)  # IN_OPEN: the folders beside it are listed
    os.read(events, 4096)
    exchange()
    time.sleep(0.2)  # for what is seen behind the link to be read and taken
    exchange()
    os.close(events)
"""
"""Exchanges a folder with a link each time that its neighbour is opened."""


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """Return a folder that the program has no business with, full of pictures."""
    folder = tmp_path / "victim"
    folder.mkdir()
    for number in range(5):
        draw(folder / f"secret{number}.png", 100 + number)
    draw(folder / "secret0.mask.png", 200)
    draw(folder / "alone.mask.png", 201)
    (folder / "secret.txt").write_text("secret")
    (folder / "secretive").write_text("no picture, and not by its name")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("on_success", ["delete", "move"])
def test_a_folder_of_the_inbox_exchanged_with_a_link_again_and_again_leads_nowhere(
    tmp_path: Path, victim: Path, on_success: str
) -> None:
    watch = {"polling": "on", "poll_seconds": 0.02, "settle_seconds": 0, "grace_seconds": 0}
    home = make_home(tmp_path / "home", on_success=on_success, watch=watch)
    before, inbox = contents(victim), home / "inbox"
    for name in ("a", "b"):
        (inbox / name).mkdir()
    (inbox / ".link").symlink_to(victim)
    places = [inbox / "a", inbox / "b", inbox / ".link"]
    with Watch(home) as watching:
        subprocess.run([sys.executable, "-c", SWAP, *places, str(ROUNDS)], check=True, timeout=120)
        draw(inbox / "last.png", 1)
        wait_until(lambda: outputs(home) == ["last-s.png"])
        watching.until_idle()
    assert contents(victim) == before and painted(home) == ["last.png"]
    taken = [path for where in ("processed", "failed") for path in contents(home / where)]
    assert taken == (["last.png"] if on_success == "move" else [])


@pytest.mark.parametrize("where", ["outbox", "processed", "failed"])
def test_a_linked_subfolder_that_something_would_be_put_into_is_refused(
    tmp_path: Path, victim: Path, where: str
) -> None:
    home = make_home(tmp_path / "home", on_success="move", watch={"max_attempts": 1})
    before = contents(victim)
    (home / where).mkdir()
    (home / where / "b").symlink_to(victim)
    (home / "inbox/b").mkdir()
    draw(home / "inbox/b/own.png", 1)
    draw(home / "inbox/a.png", 2)
    if where == "failed":
        (home / "orders/own.png").write_text("fail")
    with Watch(home) as watch:
        wait_until((home / "processed/a.png").exists)
        wait_until(lambda: "a link where none is followed" in watch.log.read_text())
        watch.until_idle()
    assert contents(victim) == before
    if where != "outbox":
        assert (home / "inbox/b/own.png").is_file()  # not lost


def test_a_folder_of_manifests_that_is_a_link_ends_a_run_before_any_work(
    tmp_path: Path, victim: Path
) -> None:
    home = make_home(tmp_path / "home")
    before = contents(victim)
    draw(home / "inbox/a.png", 1)
    (home / "outbox").mkdir()
    (home / "outbox/manifests").symlink_to(victim)
    done = program(home, "run")
    assert done.returncode == 73 and "a link where none is followed" in done.stderr
    assert contents(victim) == before and not painted(home)


def test_the_folders_that_are_named_themselves_may_be_links(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", on_success="move")
    for name in ("inbox", "outbox", "processed"):
        (tmp_path / f"real-{name}").mkdir()
        shutil.rmtree(home / name, ignore_errors=True)
        (home / name).symlink_to(tmp_path / f"real-{name}")
    (home / "inbox/b").mkdir()
    draw(home / "inbox/b/a.png", 1)
    draw(home / "inbox/b/a.mask.png", 2)
    assert program(home, "run").returncode == 0
    assert (tmp_path / "real-outbox/b/a-s.png").is_file()
    assert sorted(contents(tmp_path / "real-processed")) == ["b/a.mask.png", "b/a.png"]


def test_a_link_is_followed_to_what_a_person_named_and_not_to_what_lies_beside_it(
    tmp_path: Path, victim: Path
) -> None:
    home = make_home(tmp_path / "home")
    draw(tmp_path / "elsewhere.png", 1)
    (home / "a.png").symlink_to(tmp_path / "elsewhere.png")
    (home / "a.mask.png").symlink_to(victim / "secret1.png")
    (home / "folder").symlink_to(home / "inbox")
    draw(home / "inbox/b.png", 2)
    done = program(home, "run", "a.png", "folder")
    assert done.returncode == 0, done.stdout
    assert outputs(home) == ["a-s.png", "b-s.png"]
    assert "a.mask.png: a link to a folder or out of" in done.stderr + done.stdout


@pytest.mark.parametrize("which", ["place", "source"])
def test_retry_follows_no_link_from_the_failed_folder_or_back_into_the_inbox(
    tmp_path: Path, victim: Path, which: str
) -> None:
    home = make_home(tmp_path / "home")
    before = contents(victim)
    (home / "inbox/b").mkdir()
    draw(home / "inbox/b/secret1.png", 1)
    (home / "orders/secret1.png").write_text("fail")
    with Watch(home) as watch:
        wait_until((home / "failed/b/secret1.png").exists)
        watch.stop()
    folder = home / ("failed/b" if which == "place" else "inbox/b")
    shutil.rmtree(folder)
    folder.symlink_to(victim)
    done = program(home, "retry", "secret1.png")
    assert done.returncode == 73 and "a link where none is followed" in done.stderr
    assert contents(victim) == before


def test_a_run_without_settings_paints_what_is_named_through_links(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    draw(tmp_path / "real/a.png", 1)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    draw(tmp_path / "style.png", 3)
    done = program(
        tmp_path, "run", "link/a.png", "-s", "style.png", "--weights", "compact", "--size", "32"
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_extras_are_not_copied_from_a_linked_folder(tmp_path: Path, victim: Path) -> None:
    output = {"snapshots": 1}
    home = make_home(tmp_path / "home", output=output)
    draw(home / "inbox/a.png", 1)
    assert program(home, "run").returncode == 0
    shutil.rmtree(home / "outbox/a-s.steps")
    (home / "outbox/a-s.steps").symlink_to(victim)
    configure(home, output=output, outbox="other")
    assert program(home, "run").returncode == 0
    assert (home / "other/a-s.png").is_file() and not (home / "other/a-s.steps").exists()


@pytest.mark.parametrize("name", ["...png", "..png"])
def test_a_picture_called_like_the_folder_above_is_painted_into_the_outbox(
    tmp_path: Path, name: str
) -> None:
    home = make_home(tmp_path / "home", output={"name": "{content}/{style}"})
    draw(home / name, 1)
    draw(home / "inbox" / name, 2)
    before = set(home.iterdir())
    for named in ([name], [f"inbox/{name}"]):
        done = program(home, "run", *named)
        assert done.returncode == 0, done.stdout
    stem = name.removesuffix(".png")
    assert outputs(home) == [f"_{stem}/s.png"]
    new = {path.name for path in set(home.iterdir()) - before}
    assert new == {
        "outbox",
        "state",
        "painted.log",
    }
