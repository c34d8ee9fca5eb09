"""A decoder that crashes ends the process once for each file: then the file is refused."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from crashing import crashing
from fuzzing import originals
from support import Watch, command, configure, draw, make_home, manifests, outputs, wait_until

TOLD = "ended the process that decoded it (SIGABRT, a fault of the decoder)"
STYLES = {"more": {"folder": "styles"}}


def make_killers(home: Path) -> Path:
    """Make a home with what crashes decoders as a content, a mask and a style, among others."""
    (home / "styles").mkdir(parents=True)
    make_home(home, styles=STYLES, recipe={"size": 32, "iterations": 1}, on_failure="move")
    draw(home / "styles/s.png", 1000)
    for name in ("a", "c", "z"):
        draw(home / f"inbox/{name}.png", ord(name))
    for name in ("styles/killer.bmp", "inbox/killer.bmp", "inbox/c.mask.bmp"):
        (home / name).write_bytes(originals()["bmp"] + name.encode())
    return home


@pytest.mark.parametrize("stage", ["header", "pixels"])
def test_run_meets_each_file_that_crashes_a_decoder_once(tmp_path: Path, stage: str) -> None:
    home = make_killers(tmp_path / "home")
    is_fake = stage == "header"  # the real one decodes the pixels
    start = command("run") if is_fake else [sys.executable, "-m", "nst_pipeline", "run"]
    environment = os.environ | crashing(tmp_path / "site", stage, signal.SIGABRT)
    codes: list[int] = []
    while not codes or (codes[-1] < 0 and len(codes) < 5):
        done = subprocess.run(start, cwd=home, env=environment, capture_output=True, text=True)
        codes.append(done.returncode)
    assert codes in ([-signal.SIGABRT] * 3 + [1], [-signal.SIGABRT] * 2 + [1]), done.stderr
    assert outputs(home) == ["a-s.png", "z-s.png"]
    jobs = {Path(job["content"]["path"]).name: job for job in manifests(home)[-1]["jobs"]}
    assert {name: job["status"] for name, job in jobs.items() if job["status"] == "failed"} == {
        "c.png": "failed",
        "killer.bmp": "failed",
    }
    assert "c.mask.bmp: " + TOLD in jobs["c.png"]["error"]["reason"]
    assert TOLD in jobs["killer.bmp"]["error"]["reason"]
    # Neither a look at what would be done nor the next run ends by it.
    for options in (["--dry-run"], []):
        done = subprocess.run(
            [*start, *options], cwd=home, env=environment, capture_output=True, text=True
        )
        assert done.returncode in (0, 1) and TOLD in done.stdout + done.stderr
    if not is_fake:  # what was refused at its header is looked at again by other decoders alone
        done = subprocess.run(start, cwd=home, capture_output=True, text=True)
        assert done.returncode == 0 and len(outputs(home)) == 4, done.stderr


def test_run_tells_a_style_of_the_settings_that_crashes_a_decoder(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    (home / "killer.bmp").write_bytes(originals()["bmp"])
    configure(home, styles={"s": "style.png", "t": "killer.bmp"})
    environment = os.environ | crashing(tmp_path / "site", "pixels", signal.SIGSEGV)
    first, second = (
        subprocess.run(command("run"), cwd=home, env=environment, capture_output=True, text=True)
        for _ in range(2)
    )
    assert first.returncode == -signal.SIGSEGV and second.returncode == 78
    assert "styles.t: " in second.stderr and "killer.bmp: ended the process" in second.stderr
    assert "SIGSEGV" in second.stderr


def test_watch_gives_up_what_crashes_a_decoder_and_paints_the_others(tmp_path: Path) -> None:
    home = make_killers(tmp_path / "home")
    environment = crashing(tmp_path / "site", "header", signal.SIGABRT)
    for _ in range(3):  # the style, the picture and the mask
        with Watch(home, **environment) as watch:
            assert watch.process.wait(60) == -signal.SIGABRT
    with Watch(home, **environment) as watch:
        watch.until_outputs("a-s.png", "z-s.png")
        wait_until((home / "failed/killer.bmp").exists)
        wait_until((home / "failed/c.png").exists)
        watch.until_idle()
        assert watch.stop() == 0
    assert (home / "failed/c.mask.bmp").exists()
    for name, culprit in (("killer.bmp", "killer.bmp"), ("c.png", "c.mask.bmp")):
        report = json.loads((home / f"failed/{name}.error.json").read_text())
        assert f"{culprit}: {TOLD}" in report["reason"]


def test_a_style_that_new_settings_name_ends_the_daemon_once(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    (home / "killer.bmp").write_bytes(originals()["bmp"])
    environment = crashing(tmp_path / "site", "header", signal.SIGABRT)
    with Watch(home, **environment) as watch:
        watch.until_idle()
        configure(home, styles={"s": "style.png", "t": "killer.bmp"})
        watch.send(signal.SIGHUP)
        assert watch.process.wait(60) == -signal.SIGABRT
    with Watch(home, **environment) as watch:
        assert watch.process.wait(60) == 78
    assert "killer.bmp: " + TOLD in watch.log.read_text()


def test_what_ends_the_process_from_outside_is_tried_max_attempts_times(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    draw(home / "inbox/a.png", 1)
    (home / "inbox/killer.bmp").write_bytes(originals()["bmp"])
    # As for want of memory: in another process, that decides nothing.
    environment = os.environ | crashing(tmp_path / "site", "header", signal.SIGKILL)
    for _ in range(3):
        done = subprocess.run(command("run"), cwd=home, env=environment, capture_output=True)
        assert done.returncode == -signal.SIGKILL
    last = subprocess.run(command("run"), cwd=home, env=environment, capture_output=True, text=True)
    assert last.returncode == 1 and outputs(home) == ["a-s.png"]
    assert "killer.bmp: the process ended while it was looked at, 3 times" in last.stdout
    forced = subprocess.run(command("run", "--force"), cwd=home, capture_output=True, text=True)
    assert forced.returncode == 0 and outputs(home) == ["a-s.png", "killer-s.png"]


def test_what_is_only_tried_or_previewed_ends_once_and_leaves_nothing_else(tmp_path: Path) -> None:
    home = make_killers(tmp_path / "home")
    (home / "state").mkdir()
    before = sorted(home.rglob("*"))
    environment = os.environ | crashing(tmp_path / "site", "header", signal.SIGABRT)

    def until_the_end(*arguments: str) -> subprocess.CompletedProcess[str]:
        for _ in range(4):
            done = subprocess.run(
                [sys.executable, "-m", "nst_pipeline", *arguments],
                cwd=home, env=environment, capture_output=True, text=True,
            )  # fmt: skip
            if done.returncode >= 0:
                break
        return done

    done = until_the_end("run", "--dry-run")
    assert done.returncode >= 0 and (done.stdout + done.stderr).count(TOLD) == 3
    options = ("--size", "32", "--iterations", "1", "-o", "sheet.png")
    done = until_the_end("preview", "inbox/a.png", "inbox/killer.bmp", *options)
    assert done.returncode == 1 and f"killer.bmp: {TOLD}" in done.stdout
    (home / "sheet.png").unlink()
    for name in ("inbox/killer.bmp", "styles/killer.bmp", "inbox/c.mask.bmp"):
        (home / name).unlink()
    for path in (home / "state").glob("*-looks.json"):
        path.unlink()
    assert (
        subprocess.run(
            [sys.executable, "-m", "nst_pipeline", "preview", "inbox/a.png", *options], cwd=home
        ).returncode
        == 0
    )
    (home / "sheet.png").unlink()
    left = [path for path in before if "killer" not in path.name and "mask" not in path.name]
    assert sorted(home.rglob("*")) == left
