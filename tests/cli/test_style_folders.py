"""The commands with folders of styles, and with styles for the inbox's folders."""

import json
from pathlib import Path

import pytest
from conftest import Program, picture
from PIL import Image


@pytest.fixture
def home(project: Path) -> Path:
    """Return a project whose styles are a folder's images, of which one is none."""
    text = (project / "pipeline.yaml").read_text().split("styles:")[0]
    (project / "pipeline.yaml").write_text(
        f"{text}styles: styles/\nfolders: {{sub: {{styles: [oil, soot]}}, late: {{}}}}\n"
    )
    (project / "styles/bad.jpg").write_text("hello")
    (project / "inbox/sub").mkdir()
    (project / "inbox/hill.png").rename(project / "inbox/sub/hill.png")
    return project


def test_run_paints_them_tells_what_it_leaves_out_and_records_them(
    home: Path, program: Program, here: Program
) -> None:
    done = program("run")
    assert done.returncode == 0, done.stderr
    made = {str(path.relative_to(home / "outbox")) for path in (home / "outbox").rglob("*.png")}
    assert made == {"boat-ink.png", "boat-oil.png", "sub/hill-oil.png"}
    assert f"style    {home}/styles/bad.jpg: not an image" in done.stdout
    (manifest,) = (home / "outbox/manifests").iterdir()
    told = json.loads(manifest.read_text())["config"]
    assert set(told["styles"]) == {"ink", "oil"} and set(told["folders"]["sub"]["styles"]) == {
        "oil"
    }
    picture(seed=9).save(home / "styles/red.png")
    again = here("run").stdout
    assert "boat.jpg in red" in again and "1 job done, 0 failed, 3 skipped" in again


def test_check_names_every_style_and_what_is_left_out(home: Path, here: Program) -> None:
    done = here("check")
    assert done.returncode == 0
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert "styles     ink, oil" in lines
    assert "folders.sub.styles: no style 'soot' is there; known: bad, ink, oil" in lines
    assert any(line.startswith(f"{home}/styles/bad.jpg: not an image") for line in lines)
    assert "in folder  sub: oil" in lines
    assert "in folder  late (no such folder yet): ink, oil" in lines
    assert "jobs       3 to paint, 0 done already, 0 cannot be painted" in lines


def test_dry_run_tells_the_same_also_as_json(home: Path, here: Program) -> None:
    said = here("run", "--dry-run").stdout
    assert "would paint 3" in said and f"style   {home}/styles/bad.jpg: not an image" in said
    rows = json.loads(here("run", "--dry-run", "--json").stdout)
    assert [(Path(row["content"]).name, row["style"]) for row in rows] == [
        ("boat.jpg", "ink"), ("boat.jpg", "oil"), ("hill.png", "oil"),
    ]  # fmt: skip


def test_of_very_many_that_are_left_out_a_run_names_ten(home: Path, here: Program) -> None:
    for number in range(20):
        (home / f"styles/bad{number}.jpg").write_text("hello")
    lines = [line for line in here("run").stdout.splitlines() if line.startswith("style ")]
    assert len(lines) == 11 and lines[-1] == "style    and 12 more like these"
    assert sum("bad" in line for line in here("check").stdout.splitlines()) == 22


def test_an_empty_folder_ends_a_run_and_a_check_with_where_what_and_cure(
    home: Path, here: Program
) -> None:
    for image in (home / "styles").iterdir():
        image.unlink()
    for command in ("run", "check"):
        done = here(command)
        assert done.returncode == 78 and "Traceback" not in done.stderr
        told = f"{home}/styles: no image there; put some in, or name another folder"
        assert told in done.stdout + done.stderr
    done = here("preview", "inbox/boat.jpg")
    assert done.returncode == 64 and "put an image into the folder of styles" in done.stderr


def test_preview_shows_every_style_of_the_folder(home: Path, here: Program) -> None:
    (home / "styles/bad.jpg").unlink()
    picture(seed=9).save(home / "styles/ink.jpg")
    picture(seed=8).save(home / "styles/red.png")
    done = here("preview", "inbox/boat.jpg", "--size", "32", "--iterations", "1", "-o", "p.png")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 painted" in done.stdout and "two styles of one name, ink" in done.stderr
    with Image.open(home / "p.png") as sheet:
        assert "boat.jpg in 2 styles" in sheet.info["Title"]


def test_status_and_the_unit_know_them(home: Path, here: Program) -> None:
    assert here("status").returncode == 0
    unit = here("install-service", "--user", "--print")
    assert unit.returncode == 0 and "ExecStart" in unit.stdout
