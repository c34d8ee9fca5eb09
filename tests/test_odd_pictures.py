"""The whole program with files that are odd or wrong: one never stops the others."""

import io
import json
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Program, picture
from PIL import Image
from support import draw, make_home, manifests, wait_until
from typer.testing import CliRunner

from nst_pipeline.cli.app import app

RECIPE = {"size": 32, "iterations": 1}
MISTYPED = (  # ImageDescription as a rational
    b"Exif\0\0MM\0*"
    + struct.pack(">IHHHII I", 8, 1, 0x010E, 5, 1, 26, 0)
    + struct.pack(">II", 1, 1)
)


def mistyped(path: Path, seed: int = 0) -> None:
    """Write a photograph with a tag of the wrong type."""
    picture(seed=seed).save(path, "JPEG", exif=MISTYPED)
    with Image.open(path) as image, pytest.raises(AttributeError):
        image.getexif().tobytes()


def pages(path: Path) -> None:
    """Write a scan: a preview, and the page."""
    picture(32, 24).save(path, "TIFF", save_all=True, append_images=[picture(64, 48, 3)])


def animation(path: Path, seed: int = 0) -> None:
    picture(seed=seed).save(path, "GIF", save_all=True, append_images=[picture(seed=seed + 1)])


def jobs(home: Path) -> list[dict[str, Any]]:
    (manifest,) = manifests(home)
    return sorted(manifest["jobs"], key=lambda job: job["content"]["path"])


def test_run_paints_what_is_mistyped_wherever_it_stands(tmp_path: Path, here: Program) -> None:
    home = make_home(tmp_path / "home", recipe=RECIPE)
    for name in ("style.png", "inbox/a.jpg", "inbox/a.mask.jpg", "inbox/a.init.jpg"):
        mistyped(home / name, len(name))
    draw(home / "inbox/b.png", 1)
    done = here("check", cwd=home)
    assert done.returncode == 0, done.stdout + done.stderr
    done = here("run", cwd=home)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert {job["status"] for job in jobs(home)} == {"done"} and len(jobs(home)) == 2
    done = here("preview", "inbox/a.jpg", "--size", "32", "--iterations", "1", cwd=home)
    assert done.returncode == 0, done.stdout + done.stderr


def test_watch_paints_what_is_mistyped(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", recipe=RECIPE)
    mistyped(home / "style.png", 1)
    mistyped(home / "inbox/a.jpg", 2)
    draw(home / "inbox/b.png", 3)
    process = subprocess.Popen(
        [sys.executable, "-m", "nst_pipeline", "watch"], cwd=home, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: {"a-s.png", "b-s.png"} <= {p.name for p in home.glob("outbox/*")})
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def test_whatever_a_decoder_raises_is_the_files_own_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nst_pipeline.images import decoding

    def broken(data: io.BytesIO) -> Any:
        raise ZeroDivisionError("a decoder divides by nothing")

    home = make_home(tmp_path / "home", recipe=RECIPE)
    picture().save(home / "inbox/a.bmp")
    draw(home / "inbox/b.png", 1)
    monkeypatch.setitem(decoding.READERS, "BMP", broken)
    monkeypatch.chdir(home)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    done = CliRunner().invoke(app, ["run"])
    assert done.exit_code == 1
    first, second = jobs(home)
    assert first["status"] == "failed" and second["status"] == "done"
    assert "ZeroDivisionError: a decoder divides by nothing" in first["error"]["reason"]
    assert "a.bmp: damaged or cut short" in first["error"]["reason"]
    done = CliRunner().invoke(app, ["preview", "inbox/a.bmp", "inbox/b.png", "--size", "32",
                                    "--iterations", "1"])  # fmt: skip
    assert done.exit_code == 1 and "a decoder divides by nothing" in done.stdout


def test_further_pages_and_frames_are_told_once_and_stand_in_the_manifest(
    tmp_path: Path, here: Program
) -> None:
    home = make_home(tmp_path / "home", styles={"s": "style.png", "t": "style2.png"}, recipe=RECIPE)
    animation(home / "style.png", 5)
    pages(home / "inbox/scan.tif")
    animation(home / "inbox/scan.mask.gif", 7)
    draw(home / "inbox/plain.png")
    done = here("run", cwd=home)
    assert done.returncode == 0, done.stderr
    for note in (
        "scan.tif: has 2 pages; number 2, the largest, is used",
        "scan.mask.gif: has several frames; the first is used",
        "style.png: has several frames; the first is used",
    ):
        assert done.stdout.count(note) == 1
    told = {
        (Path(job["content"]["path"]).name, job["style"]["name"]): [
            note.split(": ")[0].rpartition("/")[2] for note in job["notes"]
        ]
        for job in jobs(home)
    }
    assert told == {
        ("plain.png", "s"): ["style.png"],
        ("plain.png", "t"): [],
        ("scan.tif", "s"): ["scan.tif", "scan.mask.gif", "style.png"],
        ("scan.tif", "t"): ["scan.tif", "scan.mask.gif"],
    }
    sizes = {tuple(job["content"]["size"]) for job in jobs(home)}
    assert sizes == {(48, 64)}
    done = here("preview", "inbox/scan.tif", "--size", "32", "--iterations", "1", cwd=home)
    assert done.stdout.count("scan.tif: has 2 pages") == 1
    assert done.stdout.count("style.png: has several frames") == 1


def test_the_daemon_logs_further_frames_once(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", styles={"s": "style.png", "t": "style2.png"}, recipe=RECIPE)
    animation(home / "inbox/a.gif")
    process = subprocess.Popen(
        [sys.executable, "-m", "nst_pipeline", "watch", "--log-format", "json"],
        cwd=home, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        wait_until(lambda: len(list(home.glob("outbox/a-*.png"))) == 2)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    lines = [json.loads(line) for line in log.splitlines()]
    told = [line for line in lines if "has several frames" in json.dumps(line)]
    assert len(told) == 1


def test_exif_is_kept_as_said_and_yes_goes_on_to_mean_all(tmp_path: Path, here: Program) -> None:
    block = Image.Exif()
    block[0x0132] = "2020:01:02 03:04:05"
    block[0x8825] = {1: "N"}
    for word, has_date, has_place in (("date", True, False), ("true", True, True)):
        home = make_home(tmp_path / word, recipe=RECIPE)
        settings = json.loads((home / "pipeline.yaml").read_text())
        text = json.dumps(settings)[:-1] + f', "output": {{"keep_exif": {word}, "dpi": 300}}}}'
        (home / "pipeline.yaml").write_text(text)
        picture().save(home / "inbox/a.jpg", exif=block)
        assert here("run", cwd=home).returncode == 0
        with Image.open(home / "outbox/a-s.png") as image:
            image.load()
            exif = image.getexif()
            assert (0x0132 in exif) is has_date and (1 in exif.get_ifd(0x8825)) is has_place
            assert image.info["dpi"] == pytest.approx((300, 300), abs=0.01)
