"""The daemon as a real process with real files; only the painting is left out."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import (
    LONG,
    UNPRIVILEGED,
    Watch,
    attempts,
    command,
    configure,
    draw,
    make_due,
    make_home,
    manifests,
    nest,
    outputs,
    painted,
    program,
    states,
    wait_until,
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_home(tmp_path / "home")


# Seeing files


def test_what_is_there_at_the_start_and_what_arrives_later_is_painted(home: Path) -> None:
    draw(home / "inbox/early.png", 1)
    with Watch(home) as watch:
        watch.until_outputs("early-s.png")
        draw(home / "inbox/late.png", 2)
        watch.until_outputs("early-s.png", "late-s.png")
        assert watch.stop() == 0
    assert states(home) == {"early.png": "done", "late.png": "done"}


def test_folders_that_are_made_or_moved_in_are_searched_and_kept_in_the_outbox(home: Path) -> None:
    (home / "elsewhere/deep").mkdir(parents=True)
    draw(home / "elsewhere/deep/a.png", 1)
    with Watch(home) as watch:
        watch.until_idle()
        (home / "inbox/made").mkdir()
        draw(home / "inbox/made/b.png", 2)
        (home / "elsewhere").rename(home / "inbox/moved")
        watch.until_outputs("made/b-s.png", "moved/deep/a-s.png")


def test_files_renamed_in_and_linked_in_are_seen(home: Path) -> None:
    draw(home / "one.png", 1)
    draw(home / "two.png", 2)
    draw(home / "inbox/three.part", 3)
    with Watch(home) as watch:
        watch.until_idle()
        (home / "one.png").rename(home / "inbox/one.png")
        (home / "inbox/two.png").hardlink_to(home / "two.png")
        (home / "inbox/three.part").rename(home / "inbox/three.png")
        watch.until_outputs("one-s.png", "three-s.png", "two-s.png")


def test_a_file_that_is_written_in_pieces_is_painted_once_and_whole(home: Path) -> None:
    draw(home / "whole.png", 1)
    configure(home, watch={"grace_seconds": LONG})
    data = (home / "whole.png").read_bytes()
    third = len(data) // 3
    with Watch(home) as watch:
        watch.until_idle()
        # Reopened for each piece, and left alone for several settle times between them.
        for end in (third, 2 * third, len(data)):
            with (home / "inbox/slow.png").open("ab") as file:
                file.write(data[end - third if end < len(data) else 2 * third : end])
            begun = time.monotonic()
            wait_until(lambda begun=begun: time.monotonic() - begun > 0.25)  # type: ignore[misc]
        watch.until_outputs("slow-s.png")
        watch.until_idle()
    assert painted(home) == ["slow.png"]
    assert not (home / "failed").exists()


def test_what_is_empty_or_zeros_at_first_may_become_a_picture(home: Path) -> None:
    configure(home, watch={"grace_seconds": LONG})
    (home / "inbox/empty.png").touch()
    (home / "inbox/zeros.png").write_bytes(bytes(5000))
    with Watch(home) as watch:
        watch.until_idle()  # long after they were settled
        draw(home / "inbox/good.png", 1)
        watch.until_outputs("good-s.png")
        draw(home / "inbox/empty.png", 2)
        draw(home / "inbox/zeros.png", 3)
        watch.until_outputs("empty-s.png", "good-s.png", "zeros-s.png")
    assert not (home / "failed").exists()


def test_a_file_that_a_writer_holds_open_is_left_alone(home: Path) -> None:
    draw(home / "whole.png", 1)
    with Watch(home) as watch, (home / "inbox/open.png").open("wb", buffering=0) as file:
        file.write((home / "whole.png").read_bytes())
        wait_until(lambda: watch.status()["arriving"] == 1)
        draw(home / "inbox/other.png", 2)
        watch.until_outputs("other-s.png")
        assert painted(home) == ["other.png"]
        file.close()
        watch.until_outputs("open-s.png", "other-s.png")


def test_names_that_are_no_text_are_painted_and_disposed_of(home: Path) -> None:
    configure(home, on_success="move")
    name = b"caf\xe9.png"
    draw(os.fsencode(home / "inbox") + b"/" + name, 1)
    with Watch(home) as watch:
        wait_until(lambda: (home / "processed").is_dir() and any((home / "processed").iterdir()))
        watch.until_idle()
    assert [os.fsencode(path.name) for path in (home / "processed").iterdir()] == [name]
    assert (home / "outbox" / os.fsdecode(b"caf\xe9-s.png")).is_file()


def test_no_file_is_missed_that_comes_while_all_are_being_looked_at(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", watch={"settle_seconds": 3600})
    with Watch(home) as watch:
        watch.until_idle()
        # Several looks long: more events than a queue holds, and files behind the look at work.
        for number in range(20_000):
            (home / f"inbox/{number}.png").touch()
        wait_until(lambda: watch.status()["arriving"] == 20_000)


def test_a_subfolder_that_is_removed_meanwhile_with_a_picture_and_its_mask_harms_nobody(
    home: Path,
) -> None:
    configure(home, on_success="move")
    (home / "inbox/sub").mkdir()
    draw(home / "inbox/sub/a.png", 1)
    draw(home / "inbox/sub/a.mask.png", 2)
    draw(home / "inbox/z.png", 3)
    (home / "orders/a.png").write_text("slow")
    with Watch(home) as watch:
        watch.until_painting()
        shutil.rmtree(home / "inbox/sub")
        (home / "orders/a.png").unlink()
        watch.until_outputs("sub/a-s.png", "z-s.png")
        watch.until_idle()
        draw(home / "inbox/later.png", 4)
        watch.until_outputs("later-s.png", "sub/a-s.png", "z-s.png")
        assert watch.stop() == 0


def test_an_inbox_that_goes_away_is_waited_for_and_watched_again(home: Path) -> None:
    with Watch(home) as watch:
        watch.until_idle()
        (home / "inbox").rename(home / "away")
        watch.send(signal.SIGUSR1)
        watch.until_state("waiting")
        draw(home / "away/a.png", 1)
        (home / "away").rename(home / "inbox")
        watch.until_outputs("a-s.png")
        draw(home / "inbox/b.png", 2)  # seen by an event: a rescan is minutes away
        watch.until_outputs("a-s.png", "b-s.png")


def test_an_inbox_that_is_unmounted_is_not_taken_for_an_empty_one(home: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "tmpfs", home / "inbox"]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs: {done.stderr.strip()}")
    with Watch(home) as watch:
        watch.until_idle()
        subprocess.run(["umount", home / "inbox"], check=True)
        watch.send(signal.SIGUSR1)
        watch.until_state("waiting")  # though an empty folder shows through
        assert (home / "inbox").is_dir()
        subprocess.run(mount, check=True)
        try:
            draw(home / "inbox/a.png", 1)
            watch.send(signal.SIGUSR1)
            watch.until_outputs("a-s.png")
            assert watch.stop() == 0
        finally:
            subprocess.run(["umount", "--lazy", home / "inbox"], check=True)


def test_without_events_the_inbox_is_read_again_and_again(home: Path) -> None:
    configure(home, watch={"polling": "on", "poll_seconds": 0.2})
    with Watch(home) as watch:
        watch.until_idle()
        draw(home / "inbox/a.png", 1)
        watch.until_outputs("a-s.png")


# What becomes of sources and names


@pytest.mark.parametrize(
    ("policy", "inbox", "processed"), [("keep", 1, 0), ("move", 0, 1), ("delete", 0, 0)]
)
def test_a_painted_source_is_kept_moved_or_deleted(
    home: Path, policy: str, inbox: int, processed: int
) -> None:
    configure(home, on_success=policy)
    (home / "inbox/sub").mkdir()
    draw(home / "inbox/sub/a.png", 1)
    with Watch(home) as watch:
        watch.until_outputs("sub/a-s.png")
        watch.until_idle()
    assert len(list((home / "inbox/sub").iterdir())) == inbox
    assert (home / "processed/sub/a.png").exists() == bool(processed)
    assert states(home) == {"a.png": "done" if policy == "keep" else "disposed"}


def test_the_same_bytes_under_another_name_are_painted_once(home: Path) -> None:
    draw(home / "inbox/a.png", 1)
    with Watch(home) as watch:
        watch.until_outputs("a-s.png")
        shutil.copy(home / "inbox/a.png", home / "inbox/b.png")
        watch.until_outputs("a-s.png", "b-s.png")
        watch.until_idle()
        assert watch.stop() == 0
    assert painted(home) == ["a.png"]
    assert manifests(home)[-1]["totals"]["duplicates"] == 1


@pytest.mark.parametrize(
    ("policy", "on_success", "expected", "failed"),
    [
        ("auto", "keep", ["a-s.png"], 0),
        ("auto", "move", ["a-s-2.png", "a-s.png"], 0),
        ("replace", "move", ["a-s.png"], 0),
        ("fail", "move", ["a-s.png"], 1),
    ],
)
def test_new_bytes_under_an_old_name_are_new_work(
    home: Path, policy: str, on_success: str, expected: list[str], failed: int
) -> None:
    configure(home, on_conflict=policy, on_success=on_success)
    draw(home / "inbox/a.png", 1)
    with Watch(home) as watch:
        watch.until_outputs("a-s.png")
        watch.until_idle()
        first = (home / "outbox/a-s.png").read_bytes()
        draw(home / "inbox/a.png", 2)
        wait_until(lambda: len(painted(home)) == 2)
        wait_until(lambda: "running" not in states(home).values())
        watch.until_idle()
    assert outputs(home) == expected
    assert ((home / "outbox/a-s.png").read_bytes() == first) == (policy != "replace" and
                                                                on_success == "move")  # fmt: skip
    assert (home / "failed/a.png").exists() == bool(failed)


# Failures


def test_what_is_no_picture_goes_to_failed_with_its_reason(home: Path) -> None:
    (home / "inbox/sub").mkdir()
    (home / "inbox/sub/bad.jpg").write_text("hello")
    draw(home / "inbox/good.png", 1)
    with Watch(home) as watch:
        wait_until((home / "failed/sub/bad.jpg").exists)
        watch.until_outputs("good-s.png")
        watch.until_idle()
        wait_until(lambda: watch.status()["failed"] == 1)
    report = json.loads((home / "failed/sub/bad.jpg.error.json").read_text())
    assert "known format" in report["reason"]
    assert report["retry"] == f"nst-pipeline retry sub/bad.jpg -c {home}/pipeline.yaml"
    assert not (home / "inbox/sub/bad.jpg").exists()
    # One line says what is wrong, in each style alike, and one where the file is.
    bad = [line for line in watch.log.read_text().splitlines() if "bad.jpg" in line]
    wrong, place = bad
    assert " ERROR " in wrong and wrong.count("bad.jpg") == 1 and "known format" in wrong
    assert f"INFO    bad.jpg is at {home}/failed/sub/bad.jpg now (see bad.jpg.error.json)" in place


def test_pictures_in_folders_nested_deeper_than_calls_are_painted_and_moved(
    deep_tmp_path: Path,
) -> None:
    home = make_home(deep_tmp_path / "home", on_success="move")
    folder = nest(home / "inbox").relative_to(home / "inbox")
    draw(home / "inbox" / folder / "deepest.png", 1)
    draw(home / "inbox/a.png", 2)
    for _ in range(2):  # also where there are results and folders already
        with Watch(home) as watch:
            wait_until(lambda: set(states(home).values()) == {"disposed"})
            watch.until_idle()
            assert watch.stop() == 0
        assert (home / "processed" / folder / "deepest.png").exists()
        assert (home / "outbox" / folder / "deepest-s.png").exists()


def test_what_may_pass_is_tried_again_and_given_up_after_max_attempts(home: Path) -> None:
    draw(home / "inbox/soon.png", 1)
    draw(home / "inbox/never.png", 2)
    (home / "orders/soon.png").write_text("pass once")
    (home / "orders/never.png").write_text("pass")
    with Watch(home) as watch:
        watch.until_outputs("soon-s.png")
        wait_until((home / "failed/never.png").exists)
        watch.until_idle()
    assert attempts(home)["soon.png"] == 2
    report = json.loads((home / "failed/never.png.error.json").read_text())
    assert report["attempts"] == 3 and report["reason"] == "never.png: told to pass"


def test_an_input_that_kills_the_process_is_quarantined_and_the_others_come_first(
    home: Path,
) -> None:
    draw(home / "inbox/poison.png", 1)
    (home / "orders/poison.png").write_text("die")
    for _ in range(3):
        with Watch(home) as watch:
            assert watch.process.wait(60) == -signal.SIGKILL
        if not outputs(home):
            draw(home / "inbox/good.png", 2)
    assert outputs(home) == ["good-s.png"]
    with Watch(home) as watch:
        wait_until((home / "failed/poison.png").exists)
        watch.until_idle()
        assert watch.stop() == 0
    report = json.loads((home / "failed/poison.png.error.json").read_text())
    assert "3 times" in report["reason"] and report["attempts"] == 3


def test_a_lost_device_ends_the_daemon_for_its_supervisor_to_restart(home: Path) -> None:
    draw(home / "inbox/a.png", 1)
    (home / "orders/a.png").write_text("lost")
    with Watch(home) as watch:
        assert watch.process.wait(60) == 71
    assert states(home) == {"a.png": "queued"}
    (home / "orders/a.png").unlink()
    with Watch(home) as watch:
        watch.until_outputs("a-s.png")


@pytest.fixture
def small_disk(home: Path) -> Iterator[Path]:
    """The outbox on a file system of 1 MiB."""
    (home / "outbox").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", home / "outbox"]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs: {done.stderr.strip()}")
    yield home / "outbox"
    subprocess.run(["umount", "--lazy", home / "outbox"], check=True)


@pytest.mark.parametrize("min_free_bytes", [0, 100_000])
def test_a_full_disk_is_waited_for(home: Path, small_disk: Path, min_free_bytes: int) -> None:
    configure(home, limits={"min_free_bytes": min_free_bytes})
    (small_disk / "ballast").write_bytes(bytes(1024**2 - 4_096))
    draw(home / "inbox/a.png", 1)
    with Watch(home) as watch:
        watch.until_state("waiting")
        assert not (small_disk / "a-s.png").exists()
        (small_disk / "ballast").unlink()
        watch.send(signal.SIGUSR1)
        watch.until_outputs("a-s.png")
    assert not (home / "failed").exists()


# What is nobody's fault

EAGER = {"settle_seconds": 0, "grace_seconds": 0, "retry_seconds": 0.2, "max_attempts": 1}
"""No attempt is to be lost, and no time."""


@pytest.mark.parametrize("what", ["a.png", "a.mask.png"])
def test_a_file_that_may_not_be_read_is_waited_for_and_not_given_up(home: Path, what: str) -> None:
    configure(home, watch=EAGER)
    for number, name in enumerate(("a.png", "a.mask.png", "b.png")):
        draw(home / "inbox" / name, number)
    (home / "inbox" / what).chmod(0)
    with Watch(home, before=UNPRIVILEGED) as watch:
        watch.until_outputs("b-s.png")
        watch.until_idle()
        wait_until(lambda: watch.status()["waiting"])
        (waiting,) = watch.status()["waiting"]
        assert waiting["path"].endswith("inbox/a.png")
        assert waiting["reason"].endswith(f"{what}: Permission denied")
        assert "Permission denied; tried again in" in program(home, "status").stdout
        (home / "inbox" / what).chmod(0o644)
        watch.until_outputs("a-s.png", "b-s.png")
        wait_until(lambda: not watch.status()["waiting"])
    assert not (home / "failed").exists() and attempts(home)["a.png"] == 1


def test_a_style_that_cannot_be_read_is_waited_for_also_at_the_start(home: Path) -> None:
    draw(home / "inbox/a.png", 1)
    (home / "style.png").chmod(0)
    with Watch(home, before=UNPRIVILEGED) as watch:
        watch.until_state("waiting")
        assert "styles.s: " in watch.status()["detail"]
        (home / "style.png").chmod(0o644)
        watch.until_outputs("a-s.png")
        (home / "style.png").rename(home / "away.png")
        draw(home / "inbox/b.png", 2)
        wait_until(lambda: "style.png: No such file" in watch.log.read_text())
        (home / "away.png").rename(home / "style.png")
        watch.until_outputs("a-s.png", "b-s.png")
    assert not (home / "failed").exists()


def test_an_outbox_in_a_folder_that_may_not_be_searched_any_more_is_waited_for(home: Path) -> None:
    configure(home, outbox="place/outbox", watch=EAGER)
    with Watch(home, before=UNPRIVILEGED) as watch:
        watch.until_idle()
        (home / "place/outbox").mkdir(parents=True, exist_ok=True)
        (home / "place").chmod(0o600)
        draw(home / "inbox/a.png", 1)
        watch.until_state("waiting")
        assert "Permission denied" in watch.status()["detail"]
        shown = subprocess.run([*UNPRIVILEGED, *command("status")], cwd=home, capture_output=True)
        assert shown.returncode == 0, shown.stderr
        (home / "place").chmod(0o700)
        watch.send(signal.SIGUSR1)
        wait_until((home / "place/outbox/a-s.png").exists)
        assert watch.stop() == 0
    assert not (home / "failed").exists() and "Traceback" not in watch.log.read_text()


@pytest.mark.parametrize("folder", ["processed", "failed"])
def test_a_source_that_finds_no_room_where_it_goes_goes_there_later(
    home: Path, folder: str
) -> None:
    (home / folder).mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", home / folder]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs: {done.stderr.strip()}")
    configure(home, on_success="move")
    (home / folder / "ballast").write_bytes(bytes(64 * 1024))
    draw(home / "inbox/a.png", 1)
    if folder == "failed":
        (home / "orders/a.png").write_text("fail")
    try:
        with Watch(home) as watch:
            wait_until(lambda: watch.status()["waiting"])
            assert "No space left on device" in watch.status()["waiting"][0]["reason"]
            draw(home / "inbox/b.png", 2)
            wait_until((home / "outbox/b-s.png").exists)
            assert (home / "inbox/a.png").exists()
            (home / folder / "ballast").unlink()
            wait_until((home / folder / "a.png").exists)
            wait_until(lambda: not list((home / "inbox").iterdir()))
            watch.until_idle()
            assert watch.stop() == 0
    finally:
        subprocess.run(["umount", "--lazy", home / folder], check=True)
    assert painted(home).count("a.png") <= 1


def test_a_refusal_that_is_not_repeated_was_none(home: Path) -> None:
    configure(home, watch={"settle_seconds": 0, "grace_seconds": 0, "retry_seconds": LONG})
    draw(home / "inbox/a.png", 1)
    (home / "orders/a.png").write_text("input")
    with Watch(home) as watch:
        wait_until(lambda: states(home) == {"a.png": "queued"} and attempts(home)["a.png"] == 1)
        wait_until(lambda: watch.status()["waiting"])
        (home / "orders/a.png").unlink()
        make_due(home)
        watch.send(signal.SIGHUP)
        watch.until_outputs("a-s.png")
    assert not (home / "failed").exists()


def test_a_picture_that_ends_the_process_when_it_is_looked_at_is_given_up(
    home: Path,
) -> None:
    patient = {"settle_seconds": 0, "retry_seconds": LONG}
    configure(home, on_failure="keep", watch=patient)
    for number in range(3):
        draw(home / f"inbox/{number}.png", number)
    (home / "orders/1.png").write_text("crash")
    with Watch(home) as watch:
        assert watch.process.wait(60) == -signal.SIGKILL
    with Watch(home) as watch:
        watch.until_outputs("0-s.png", "2-s.png")  # it waits, and the others come first
        assert watch.stop() == 0
    configure(home, on_failure="keep", watch=patient | {"retry_seconds": 0.1})
    for _ in range(2):
        with Watch(home) as watch:
            assert watch.process.wait(60) == -signal.SIGKILL
    with Watch(home) as watch:
        wait_until(lambda: watch.status()["failed"] == 1)
        watch.until_idle()
        assert "looked at, 3 times" in watch.status()["failures"][0]["reason"]
        (home / "orders/1.png").unlink()
        assert program(home, "retry", "1.png").returncode == 0
        watch.until_outputs("0-s.png", "1-s.png", "2-s.png")


def test_whatever_a_picture_does_to_the_program_the_others_are_painted(home: Path) -> None:
    for number in range(4):
        draw(home / f"inbox/{number}.png", number)
    (home / "orders/0.png").write_text("raise")
    with Watch(home) as watch:
        watch.until_outputs("1-s.png", "2-s.png", "3-s.png")
        wait_until((home / "failed/0.png").exists)
        watch.until_idle()
        assert watch.stop() == 0
    report = json.loads((home / "failed/0.png.error.json").read_text())
    assert report["attempts"] == 3 and "MemoryError" in report["reason"]


# Control


def test_all_that_is_in_the_inbox_appears_in_a_new_outbox(home: Path) -> None:
    names = [f"{number}.png" for number in range(4)]
    for number, name in enumerate(names):
        draw(home / "inbox" / name, number)
    (home / "orders/1.png").write_text("slow")
    with Watch(home) as watch:
        wait_until(lambda: "1.png" in str(watch.status()["current"]))  # one is done, two wait
        configure(home, outbox="other")
        watch.send(signal.SIGHUP)
        (home / "orders/1.png").unlink()
        wait_until(lambda: len(list((home / "other").glob("*.png"))) == 4)
        watch.until_idle()
    assert sorted(painted(home)) == names  # what was painted before is copied


def test_a_stop_lets_the_job_at_work_finish(home: Path) -> None:
    draw(home / "inbox/a.png", 1)
    draw(home / "inbox/b.png", 2)
    for name in ("a.png", "b.png"):
        (home / "orders" / name).write_text("slow")
    with Watch(home) as watch:
        watch.until_painting()
        watch.send(signal.SIGTERM)
        (home / "orders/a.png").unlink()
        assert watch.process.wait(60) == 0
    assert outputs(home) == ["a-s.png"]
    assert "running" not in states(home).values()


@pytest.mark.parametrize("signals", [1, 2])
def test_a_job_that_takes_too_long_goes_back_to_the_queue(home: Path, signals: int) -> None:
    configure(home, watch={"stop_seconds": 0.2 if signals == 1 else 300})
    draw(home / "inbox/a.png", 1)
    (home / "orders/a.png").write_text("slow")
    with Watch(home) as watch:
        watch.until_painting()
        watch.send(signal.SIGTERM)
        if signals == 2:
            watch.until_state("stopping")
            watch.send(signal.SIGTERM)
        assert watch.process.wait(60) == 0
    assert states(home) == {"a.png": "queued"} and not outputs(home)
    run = manifests(home)[-1]
    assert run["run"]["ended"] and not run["jobs"]  # closed, and nothing said of what goes on
    (home / "orders/a.png").unlink()
    with Watch(home) as watch:
        watch.until_outputs("a-s.png")


def test_new_settings_are_taken_up_and_wrong_ones_are_not(home: Path) -> None:
    draw(home / "inbox/a.png", 1)
    with Watch(home) as watch:
        watch.until_outputs("a-s.png")
        watch.until_idle()
        good = (home / "pipeline.yaml").read_text()
        (home / "pipeline.yaml").write_text("styles: {}\nno_such_key: 1\n")
        watch.send(signal.SIGHUP)
        wait_until(lambda: "no_such_key" in watch.log.read_text())
        (home / "pipeline.yaml").write_text(good)
        draw(home / "inbox/b.png", 2)
        watch.until_outputs("a-s.png", "b-s.png")
        configure(home, styles={"s": "style.png", "t": "style2.png"})
        watch.send(signal.SIGHUP)
        watch.until_outputs("a-s.png", "a-t.png", "b-s.png", "b-t.png")


def test_whatever_stands_where_settings_should_the_old_ones_stay_and_one_message_says_why(
    home: Path,
) -> None:
    path, good = home / "pipeline.yaml", (home / "pipeline.yaml").read_text()
    (home / "junk.png").write_bytes(b"junk")
    style = "styles: {s: style.png}\n"
    aliases = "".join(f"- &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))
    files = {
        "": "pipeline.yaml:1: holds no settings",
        "[" * 5000: "pipeline.yaml:1: not YAML: nested deeper",
        f"- &a0 x\n{aliases}": "pipeline.yaml:6: not YAML: more than",
        f"{style}outbox: &a {{b: *a}}": "pipeline.yaml:2: not YAML: an alias within",
        f"{style}inbox: 2024-01-01": "pipeline.yaml:2: inbox: is datetime.date",
        f"{style}outbox: {'x' * 300}": "pipeline.yaml:2: outbox: ",
        f"{style}outbox: ~nosuch": "pipeline.yaml:2: outbox: ~nosuch",
        f"{style}output: {{name: '{{content:>9999999999}}'}}": "pipeline.yaml:2: output.name: ",
        "styles: {s: junk.png}": "styles.s: ",
        f"{style}weights: gone.pth": "weights: ",
    }
    with Watch(home) as watch:
        watch.until_idle()
        for text, message in files.items():
            before = len(watch.log.read_text().splitlines())
            path.write_text(text)
            watch.send(signal.SIGHUP)
            wait_until(lambda n=before: len(watch.log.read_text().splitlines()) > n)  # type: ignore[misc]
            (line,) = watch.log.read_text().splitlines()[before:]
            assert "the settings stay as they were: " in line and message in line
        path.unlink()
        os.mkfifo(path)
        watch.send(signal.SIGHUP)
        wait_until(lambda: "not a regular file" in watch.log.read_text())
        path.unlink()
        path.write_text(good)
        draw(home / "inbox/a.png", 1)
        watch.until_outputs("a-s.png")
        assert "Traceback" not in watch.log.read_text()


def test_urgent_comes_first_then_the_oldest(home: Path) -> None:
    draw(home / "inbox/first.png", 1)
    (home / "orders/first.png").write_text("slow")
    with Watch(home) as watch:
        watch.until_painting()
        for number, name in enumerate(("z.png", "y.png", "urgent/x.png")):
            (home / "inbox" / name).parent.mkdir(exist_ok=True)
            draw(home / "inbox" / name, 10 + number)
        wait_until(lambda: time.time() - (home / "inbox/urgent/x.png").stat().st_ctime > 0.3)
        (home / "orders/first.png").unlink()
        watch.until_outputs("first-s.png", "urgent/x-s.png", "y-s.png", "z-s.png")
    assert painted(home) == ["first.png", "x.png", "z.png", "y.png"]


def test_a_second_instance_says_who_holds_the_folder_and_exits_75_or_waits(home: Path) -> None:
    with Watch(home) as watch:
        watch.until_idle()
        for arguments in (["watch"], ["run"]):
            done = program(home, *arguments)
            assert done.returncode == 75
            assert f"process {watch.process.pid}" in done.stderr
        draw(home / "inbox/a.png", 1)
        watch.until_outputs("a-s.png")
        with Watch(home, "--wait") as second:
            assert watch.stop() == 0
            draw(home / "inbox/b.png", 2)
            second.until_outputs("a-s.png", "b-s.png")


@pytest.mark.parametrize("what", ["idle", "painting", "paused"])
def test_a_daemon_whose_state_folder_is_deleted_stops_and_says_why(home: Path, what: str) -> None:
    draw(home / "inbox/a.png", 1)
    (home / "orders/a.png").write_text("slow" if what == "painting" else "")
    with Watch(home) as watch:
        if what == "painting":
            watch.until_painting()
        else:
            watch.until_outputs("a-s.png")
        if what == "paused":
            assert program(home, "pause").returncode == 0
        watch.until_state(what)
        shutil.rmtree(home / "state")
        assert watch.process.wait(60) == 74
        assert "state/lock: was deleted or renamed" in watch.log.read_text()
    assert (home / "inbox/a.png").exists() and not (home / "state/status.json").exists()


def test_who_starts_in_a_state_folder_made_anew_is_soon_alone(home: Path) -> None:
    with Watch(home) as first:
        first.until_idle()
        shutil.rmtree(home / "state")
        with Watch(home) as second:
            assert first.process.wait(60) == 74
            second.until_idle()
            assert second.status()["pid"] == second.process.pid
            draw(home / "inbox/a.png", 1)
            second.until_outputs("a-s.png")
            assert program(home, "pause").returncode == 0
            second.until_state("paused")  # it listens still
            assert second.stop() == 0


def test_a_run_whose_state_folder_is_deleted_stops_too(home: Path) -> None:
    draw(home / "inbox/a.png", 1)
    (home / "orders/a.png").write_text("slow")
    run = subprocess.Popen(command("run"), cwd=home, stderr=subprocess.PIPE, text=True)
    with run:
        wait_until(lambda: states(home).get("a.png") == "running")
        shutil.rmtree(home / "state")
        _, said = run.communicate(timeout=60)
    assert run.returncode == 74 and "state/lock: was deleted or renamed" in said
    assert (home / "inbox/a.png").exists() and not outputs(home)


# Kills


def test_random_kills_lose_nothing_and_paint_nothing_twice(home: Path) -> None:
    configure(home, on_success="move", watch={"max_attempts": 1000, "settle_seconds": 0})
    names = [f"{number:02d}.png" for number in range(30)]
    for number, name in enumerate(names):
        draw(home / "inbox" / name, number)
    source = random.Random(1)
    for _ in range(8):
        with Watch(home) as watch:
            target = len(painted(home)) + source.randrange(1, 4)
            wait_until(lambda target=target: len(painted(home)) >= min(target, 30))  # type: ignore[misc]
            watch.process.kill()
        done = {name for name, state in states(home).items() if state in ("done", "disposed")}
        missing = {name for name in names if not (home / "inbox" / name).exists()}
        assert missing <= done
    with Watch(home) as watch:
        wait_until(lambda: list(states(home).values()) == ["disposed"] * 30)
        watch.until_idle()
        assert watch.stop() == 0
    assert outputs(home) == sorted(f"{name[:2]}-s.png" for name in names)
    assert set(states(home).values()) == {"disposed"}
    assert len(list((home / "processed").iterdir())) == 30
    # At most the one job that was at work at each kill was begun again.
    assert len(painted(home)) <= 30 + 8
