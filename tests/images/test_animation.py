"""Snapshots, and the animation of them."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Program, picture
from PIL import Image

from nst_pipeline.config.settings import OutputSettings
from nst_pipeline.images.animation import animate, extra_path, snapshot_steps


def test_snapshots_lie_beside_the_result_and_the_manifest_names_them(
    project: Path, here: Program
) -> None:
    done = here("run", "--snapshots", "2", "--making", "gif", "--iterations", "5", "--json",
                   "-s", "ink", cwd=project)  # fmt: skip
    assert done.returncode == 0, done.stderr
    outbox = project / "outbox"
    steps = sorted(path.name for path in (outbox / "boat-ink.steps").iterdir())
    assert steps == ["00002.png", "00004.png"]
    with Image.open(outbox / "boat-ink.gif") as gif, Image.open(outbox / "boat-ink.png") as result:
        assert gif.n_frames == 3
        assert gif.size == result.size
    with Image.open(outbox / "boat-ink.steps/00002.png") as early:
        description = json.loads(early.getexif()[0x010E])
    assert description["steps"] == 2 and description["style"] == "ink"
    manifest = json.loads(done.stdout)
    assert manifest["jobs"][0]["extras"] == [
        str(outbox / "boat-ink.steps/00002.png"), str(outbox / "boat-ink.steps/00004.png"),
        str(outbox / "boat-ink.gif"),
    ]  # fmt: skip


def test_snapshots_do_not_make_finished_work_new(project: Path, here: Program) -> None:
    assert here("run", cwd=project).returncode == 0
    again = here("run", "--making", "webp", cwd=project)
    assert "nothing to do" in again.stdout


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_an_animation_ends_with_the_result_at_its_size(kind: str) -> None:
    frames = [(1, picture(32, 24, seed=1)), (2, picture(64, 48, seed=2))]
    data = animate(frames, Image.new("RGB", (64, 48), "red"), kind)
    with Image.open(io.BytesIO(data)) as animation:
        assert animation.n_frames == 3 and animation.size == (64, 48)
        animation.seek(2)
        red, green, blue = animation.convert("RGB").getpixel((30, 20))
    assert red > 240 and green < 15 and blue < 15


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_snapshots_and_animation_of_a_grey_result_are_grey(
    kind: str, project: Path, here: Program
) -> None:
    with (project / "pipeline.yaml").open("a") as settings:
        settings.write(f"output: {{mode: grey, snapshots: 1, making: {kind}}}\n")
    assert here("run", "-s", "ink", cwd=project).returncode == 0
    outbox = project / "outbox"
    for path in (outbox / "boat-ink.png", *(outbox / "boat-ink.steps").iterdir()):
        with Image.open(path) as picture:
            assert picture.mode == "L"
    with Image.open(outbox / f"boat-ink.{kind}") as animation:
        assert animation.n_frames >= 3
        for frame in range(animation.n_frames):
            animation.seek(frame)
            assert (np.ptp(np.asarray(animation.convert("RGB"), int), axis=2) <= 2).all()


def test_an_animation_alone_takes_its_own_number_of_snapshots() -> None:
    assert snapshot_steps(OutputSettings(), 300) == 0
    assert snapshot_steps(OutputSettings(making="gif"), 300) == 10
    assert snapshot_steps(OutputSettings(making="gif"), 5) == 1
    assert snapshot_steps(OutputSettings(making="gif", snapshots=50), 300) == 50


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".steps/00010.png"])
def test_the_longest_name_of_a_result_still_has_extras_of_its_own(
    tmp_path: Path, suffix: str
) -> None:
    assert extra_path(tmp_path / "photo-ink.png", suffix) == tmp_path / f"photo-ink{suffix}"
    results = [tmp_path / ("p" * 250 + f"{letter}.png") for letter in "ab"]
    extras = {extra_path(result, suffix) for result in results}
    for path in (*results, *extras):
        path.parent.mkdir(exist_ok=True)
        path.touch(exist_ok=False)
    assert len(extras) == 2
