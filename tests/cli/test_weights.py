from pathlib import Path

import pytest
import torch
from conftest import Program
from mirror import serving, stand_in
from painting import narrow_vgg
from typer.testing import CliRunner

from nst_pipeline.cli.app import app
from nst_pipeline.config.networks import VGG16
from nst_pipeline.config.weights import COMPACT_PATH, PUBLISHED


@pytest.fixture
def vgg16(tmp_path: Path) -> Path:
    """Return a file of a narrow VGG-16."""
    torch.save(narrow_vgg(VGG16), tmp_path / "vgg16.pth")
    return tmp_path / "vgg16.pth"


def shown(*arguments: str) -> list[str]:
    """Return the lines that the program prints, in this process, about stand-ins."""
    done = CliRunner().invoke(app, ["weights", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout.splitlines()


def test_weights_shows_what_is_on_disk_how_large_and_what_would_be_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = stand_in("vgg16", monkeypatch)
    imagenet, vgg16 = PUBLISHED.values()
    before = [
        f"imagenet  {imagenet.path}: not there; {imagenet.hint}",
        f"vgg16     {vgg16.path}: not there; {vgg16.hint}",
        f"compact   {COMPACT_PATH}: {COMPACT_PATH.stat().st_size / 1e6:.1f} MB",
        f"auto      means compact, {COMPACT_PATH}",
    ]
    assert shown() == before
    with serving(given.data) as mirror:
        whole = f"{vgg16.path}: {len(given.data) / 1e6:.1f} MB"
        assert shown("fetch", "vgg16", "--url", mirror.url) == [
            f"vgg16     {whole}",
            "          of which 59 MB are used; `nst-pipeline weights fetch vgg16 "
            "--convolutions-only` keeps these in a file of their own",
        ]
        line, note = shown("fetch", "vgg16", "--convolutions-only", "--url", mirror.url)
    assert note == f"          {vgg16.path} is not needed for them any more"
    (path,) = vgg16.path.parent.glob("vgg16-*-convolutions-*.safetensors")
    alone = f"{path}: {path.stat().st_size / 1e6:.1f} MB"
    assert line == f"vgg16     {alone}"
    both = [f"vgg16     {whole}", f"vgg16     {alone}, the convolutions alone"]
    assert shown() == [before[0], *both, before[2], f"auto      means vgg16, {vgg16.path}"]
    vgg16.path.unlink()
    assert shown() == [before[0], both[1], before[2], f"auto      means vgg16, {path}"]


def test_fetch_downloads_vgg_19_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    given = stand_in("imagenet", monkeypatch)
    with serving(given.data) as mirror:
        (line,) = shown("fetch", "--convolutions-only", "--url", mirror.url)
    (path,) = given.published.path.parent.iterdir()
    assert line.startswith(f"imagenet  {path}: ")


def test_fetch_of_unknown_weights_is_wrong_usage(program: Program) -> None:
    done = program("weights", "fetch", "vgg17")
    assert done.returncode == 64
    assert done.stderr == "weights fetch vgg17: give imagenet or vgg16\n"


def test_weights_fetch_ends_with_exit_73_where_the_cache_cannot_be_made(
    program: Program, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    done = program("weights", "fetch", TORCH_HOME=str(tmp_path / "file"))
    assert done.returncode == 73
    assert done.stderr.startswith(f"{tmp_path}/file/hub/checkpoints: no files can be created here")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["vgg16"], ["vgg16", "--convolutions-only"], []])
def test_weights_fetch_ends_with_exit_69_when_the_file_is_not_the_one_expected(
    arguments: list[str], here: Program
) -> None:
    with serving(b"other weights") as mirror:
        done = here("weights", "fetch", *arguments, "--url", mirror.url)
    assert done.returncode == 69
    assert "another file than expected" in done.stderr and "Traceback" not in done.stderr
    command = " ".join(["fetch", *arguments[:1]])
    assert f"`nst-pipeline weights {command} --url URL` loads it from a mirror" in done.stderr
    assert here("weights").stdout.count("not there") == 2


@pytest.mark.parametrize("network", PUBLISHED)
def test_run_tries_the_download_of_weights_and_tells_when_it_fails(
    network: str, project: Path, program: Program
) -> None:
    done = program("run", "--weights", network, HTTPS_PROXY="http://127.0.0.1:1")
    assert done.returncode == 69
    assert "refused" in done.stderr and "--url" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["check"], ["run"], ["run", "--dry-run"], ["watch"], ["preview", "inbox/boat.jpg"]],
    ids=lambda arguments: " ".join(arguments),
)
def test_a_layer_that_the_weights_lack_is_a_configuration_error_before_anything_is_painted(
    arguments: list[str], project: Path, here: Program, vgg16: Path
) -> None:
    path = project / "pipeline.yaml"
    text = path.read_text().replace("compact", vgg16.name)
    path.write_text(text.replace("iterations: 3", "style_layers: [relu1_1, relu3_4]"))
    done = here(*arguments)
    assert done.returncode == 78
    said = f"recipe.style_layers: the weights {vgg16} have no relu3_4; their layers are conv1_1, "
    assert said in done.stdout + done.stderr and "relu5_3, pool5\n" in done.stdout + done.stderr
    assert not list(project.glob("outbox/*")) and not list(project.glob("preview*"))


def test_a_swept_layer_that_the_weights_lack_is_told_before_the_work(
    project: Path, here: Program, vgg16: Path
) -> None:
    arguments = ["preview", "inbox/boat.jpg", "--weights", vgg16.name, "--size", 32]
    done = here(*arguments, "--sweep", "content_layers=[relu2_2],[relu3_4]")
    assert done.returncode == 78 and "have no relu3_4; their layers are" in done.stderr
    assert not done.stdout
    assert not list(project.glob("preview*"))


def test_a_vgg_16_paints_and_is_recorded(project: Path, here: Program, vgg16: Path) -> None:
    done = here("run", "--weights", vgg16.name, "inbox/boat.jpg")
    assert done.returncode == 0 and f"weights  {vgg16}: the file" in done.stdout
    assert len(list(project.glob("outbox/boat-*.png"))) == 2
    assert here("run", "--weights", vgg16.name, "inbox/boat.jpg").stdout.startswith("nothing")
