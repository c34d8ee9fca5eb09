"""The program as its users have it: a process, its output and its exit code."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Program, command, picture
from PIL import Image

TEMPLATE = Path(__file__).parents[2] / "nst_pipeline" / "config" / "pipeline.yaml"


def test_run_paints_the_inbox_in_every_style_and_says_so(project: Path, program: Program) -> None:
    (project / "inbox" / "sub").mkdir()
    picture(seed=5).save(project / "inbox" / "sub" / "tree.webp")
    done = program("run")
    assert done.returncode == 0, done.stderr
    outputs = sorted(
        str(p.relative_to(project / "outbox")) for p in project.rglob("outbox/**/*.png")
    )
    assert outputs == [
        "boat-ink.png", "boat-oil.png", "hill-ink.png", "hill-oil.png", "sub/tree-ink.png",
        "sub/tree-oil.png",
    ]  # fmt: skip
    with Image.open(project / "outbox" / "boat-ink.png") as image:
        assert image.size == (48, 36)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("weights  compact")
    assert re.match(
        r"done     inbox/boat.jpg in ink -> outbox/boat-ink.png  [\d.]+ s, loss", lines[1]
    )
    assert lines[-1].startswith("6 jobs done, 0 failed, 0 skipped in")
    (manifest,) = (project / "outbox" / "manifests").iterdir()
    assert json.loads(manifest.read_text())["totals"]["done"] == 6


def test_second_run_does_nothing_says_so_and_does_not_import_torch(
    project: Path, program: Program, here: Program
) -> None:
    here("run")
    again = program("run", PYTHONPROFILEIMPORTTIME="1")
    assert again.returncode == 0
    assert again.stdout == "nothing to do: 4 jobs done before; --force paints what is done again\n"
    assert "| pydantic" in again.stderr and "torch" not in again.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"], ["weights"]])
def test_help_imports_neither_torch_nor_pydantic_models(
    arguments: list[str], program: Program
) -> None:
    shown = program(*arguments, PYTHONPROFILEIMPORTTIME="1")
    assert shown.returncode == 0
    assert "| typer" in shown.stderr
    assert "torch" not in shown.stderr and "nst_pipeline.config.pipeline" not in shown.stderr


def test_json_prints_the_manifest_and_nothing_else_there(
    project: Path, program: Program, here: Program
) -> None:
    done = program("run", "--json")
    manifest = json.loads(done.stdout)
    assert manifest["totals"]["done"] == 4
    (path,) = (project / "outbox" / "manifests").iterdir()
    assert json.loads(path.read_text())["jobs"] == manifest["jobs"]
    assert json.loads(here("run", "--json").stdout)["totals"]["skipped"] == 4


def test_dry_run_tells_what_would_happen_and_leaves_no_trace(
    project: Path, program: Program, here: Program
) -> None:
    (project / "inbox" / "bad.jpg").write_text("hello")
    told = program("run", "--dry-run")
    assert told.returncode == 0
    assert f"paint   {project}/inbox/boat.jpg in ink: {project}/outbox/boat-ink.png" in told.stdout
    assert re.search(r"fail   .*bad.jpg: not an image", told.stdout)
    assert "would paint 4, skip 0, fail 2" in told.stdout
    assert not (project / "outbox").exists() and not (project / "state").exists()
    here("run")
    assert "would paint 0, skip 4, fail 2" in here("run", "--dry-run").stdout
    forced = here("run", "--dry-run", "--force").stdout
    assert "would paint 4 (4 in the place of what is there), skip 0, fail 2" in forced
    assert f"replace {project}/inbox/boat.jpg in ink: {project}/outbox/boat-ink.png" in forced


def test_a_dry_run_tells_a_bad_file_once_and_what_is_passed_over(
    project: Path, here: Program
) -> None:
    (project / "inbox" / "bad.jpg").write_text("hello")
    (project / "inbox" / "film.mov").write_text("hello")
    told = here("run", "--dry-run").stdout
    assert told.count("bad.jpg") == 1 and "\npassed  1 file by its name\n" in told
    rows = json.loads(here("run", "--dry-run", "--json").stdout)
    assert [row["style"] for row in rows if row["action"] == "fail"] == ["ink", "oil"]


def test_a_dry_run_and_check_tell_what_a_run_would_only_copy(project: Path, here: Program) -> None:
    for name in ("a.jpg", "b.jpg"):
        shutil.copy(project / "inbox" / "boat.jpg", project / "inbox" / name)
    assert "would paint 4, copy 4, skip 0" in here("run", "--dry-run").stdout
    assert "4 to paint, 4 to copy, 0 done" in here("check").stdout
    assert "would paint 8, skip 0" in here("run", "--dry-run", "--force").stdout
    assert here("run").stdout.count("same as") == 4
    (project / "inbox" / "b.jpg").rename(project / "inbox" / "c.jpg")
    assert "would paint 0, copy 2, skip 6" in here("run", "--dry-run").stdout


def test_an_inbox_under_another_name_has_its_results_there_already(
    project: Path, here: Program
) -> None:
    here("run")
    (project / "inbox").rename(project / "pictures")
    done = here("run", "--inbox", "pictures").stdout
    assert done.count("  there already\n") == 4 and "same as" not in done


def test_check_tells_all_styles_that_are_no_images_below_each_other(
    project: Path, here: Program
) -> None:
    for name in ("ink.png", "oil.png"):
        (project / "styles" / name).write_text("hello")
    told = here("check")
    assert told.returncode == 78
    assert re.search(r"\nproblem    styles.ink: .*\n {11}styles.oil: ", told.stdout)


def test_one_bad_file_fails_alone_with_exit_1(project: Path, here: Program) -> None:
    whole = (project / "inbox" / "boat.jpg").read_bytes()
    (project / "inbox" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (project / "inbox" / "folder.png").mkdir()
    done = here("run")
    assert done.returncode == 1
    assert re.search(r"failed   .*cut.jpg: damaged or cut short", done.stdout)
    assert re.search(r"failed   .*folder.png: a folder", done.stdout)
    assert "4 jobs done, 4 failed" in done.stdout


def test_pictures_and_a_style_are_enough_without_a_config_file(
    tmp_path: Path, program: Program, here: Program
) -> None:
    picture(seed=1).save(tmp_path / "photo.jpg")
    picture(seed=2).save(tmp_path / "style.jpg")
    arguments = ["run", "photo.jpg", "-s", "style.jpg", "--outbox", "out", "--size", 48,
                 "--iterations", 2, "--weights", "compact", "--device", "cpu"]  # fmt: skip
    assert program(*arguments).returncode == 0
    assert (tmp_path / "out" / "photo-style.png").is_file()
    assert here(*arguments).stdout.startswith("nothing to do")
    assert here("run", ".", *arguments[2:]).stdout.startswith("nothing to do")
    (tmp_path / "empty").mkdir()
    told = here("run", "empty", *arguments[2:]).stdout
    assert told == "nothing to do: no pictures in empty\n"


def test_styles_and_folders_can_be_chosen_on_the_command_line(project: Path, here: Program) -> None:
    picture(seed=7).save(project / "pen.png")
    done = here("run", "-s", "ink", "-s", "pen.png", "--outbox", "other", "--iterations", 1)
    assert done.returncode == 0
    names = sorted(path.name for path in (project / "other").glob("*.png"))
    assert names == ["boat-ink.png", "boat-pen.png", "hill-ink.png", "hill-pen.png"]
    manifest = json.loads(next((project / "other" / "manifests").iterdir()).read_text())
    assert manifest["config"]["styles"]["ink"]["recipe"]["iterations"] == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["run", "--no-such-option"], 64, "no-such-option"),
        (["run", "--size", "3"], 64, "--size"),
        (["run", "-s", "inc"], 64, "did you mean 'ink'"),
        (["run", "gone.jpg"], 64, "gone.jpg"),
        (["run", "--device", "gpu"], 64, "'gpu' is no device"),
        (["run", "--outbox", "inbox/out"], 64, "lies in the inbox"),
        (["run", "-c", "gone.yaml"], 78, "gone.yaml"),
        (["run", "--inbox", "gone"], 78, "no such folder"),
        (["run", "--device", "cuda:7"], 69, "cuda:7"),
        (["run", "--device", "xpu:7"], 69, "0 XPU devices that torch can use; give auto or cpu"),
        (["run", "--device", "mps:1"], 64, "'mps:1' is no device"),
        (["run", "--weights", "gone.pth"], 69, "gone.pth"),
        (["run", "--outbox", "pipeline.yaml"], 73, "permissions"),
    ],
)
def test_exit_codes_tell_what_was_wrong(
    arguments: list[str], code: int, said: str, project: Path, here: Program
) -> None:
    done = here(*arguments)
    assert done.returncode == code
    assert said in done.stderr and "Traceback" not in done.stderr


def test_a_wrong_config_is_told_whole_with_exit_78(
    project: Path, program: Program, here: Program
) -> None:
    path = project / "pipeline.yaml"
    path.write_text(path.read_text() + "devise: cpu\noutput: {format: bmp}\n")
    for done in (program("run"), here("check")):
        assert done.returncode == 78
        assert "pipeline.yaml:8: devise: unknown key; did you mean 'device'?" in done.stderr
        assert "pipeline.yaml:9: output.format" in done.stderr


def test_without_a_config_file_the_way_on_is_shown(tmp_path: Path, program: Program) -> None:
    done = program("run")
    assert done.returncode == 64
    assert "nst-pipeline run photo.jpg -s style.jpg" in done.stderr


def test_check_shows_what_a_run_would_use(project: Path, program: Program) -> None:
    shown = program("check")
    assert shown.returncode == 0
    for said in (
        "device     cpu: ",
        "precision  ",
        "weights    compact: ",
        f"inbox      {project}/inbox: readable",
        f"outbox     {project}/outbox: will be made",
        "styles     ink, oil",
        "jobs       4 to paint, 0 done already, 0 cannot be painted",
    ):
        assert said in shown.stdout
    assert not (project / "state").exists()


def test_check_tells_every_problem_of_folders_device_and_weights_at_once(
    project: Path, here: Program
) -> None:
    path = project / "pipeline.yaml"
    text = path.read_text().replace("device: cpu", "device: cuda:7")
    path.write_text(text.replace("compact", "gone.pth") + "inbox: gone\noutbox: pipeline.yaml/x\n")
    shown = here("check")
    assert shown.returncode == 69
    for said in ("cuda:7", "gone: no such folder; create it", "cannot be made", "gone"):
        assert said in shown.stdout


def test_init_writes_a_pipeline_that_runs_and_overwrites_nothing(
    tmp_path: Path, program: Program, here: Program
) -> None:
    assert program("init", "new").returncode == 0
    assert (tmp_path / "new" / "pipeline.yaml").read_text() == TEMPLATE.read_text()
    assert here("check", "-c", "new/pipeline.yaml").returncode == 0
    picture().save(tmp_path / "new" / "inbox" / "boat.jpg")
    done = here("run", "-c", "new/pipeline.yaml", "--size", 32, "--iterations", 1)
    assert "3 jobs done, 0 failed" in done.stdout
    (tmp_path / "new" / "pipeline.yaml").write_text("mine")
    again = here("init", "new")
    assert again.returncode == 73 and "left as it is" in again.stderr
    assert (tmp_path / "new" / "pipeline.yaml").read_text() == "mine"


def test_a_terminal_gets_a_progress_display(project: Path) -> None:
    primary, secondary = pty.openpty()
    process = subprocess.Popen(
        command("run"),
        cwd=project,
        stdout=secondary,
        stderr=secondary,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(secondary)
    shown = b""
    while True:
        try:
            shown += os.read(primary, 4096)
        except OSError:
            break
    os.close(primary)
    assert process.wait() == 0
    assert b"of 4 jobs" in shown and b"boat.jpg in ink" in shown and b"\x1b[" in shown


def test_a_kill_at_any_moment_leaves_whole_files_and_the_next_run_does_the_rest(
    project: Path, here: Program
) -> None:
    settings = project / "pipeline.yaml"
    quick, endless = settings.read_text(), "{image: styles/oil.png, recipe: {iterations: 100000}}"
    settings.write_text(quick.replace("styles/oil.png", endless))
    process = subprocess.Popen(command("run"), cwd=project, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("done"):
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    for path in (project / "outbox").glob("*.png"):
        with Image.open(path) as image:
            image.load()
    (manifest,) = (project / "outbox" / "manifests").glob("*.json")
    assert json.loads(manifest.read_text())["run"]["status"] == "running"
    settings.write_text(quick)
    rest = json.loads(here("run", "--json").stdout)["totals"]
    assert (rest["done"], rest["skipped"]) == (3, 1)
    assert len(list((project / "outbox").glob("*.png"))) == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_in_good_order(number: signal.Signals, project: Path) -> None:
    slow = project / "pipeline.yaml"
    slow.write_text(slow.read_text().replace("iterations: 3", "iterations: 100000"))
    process = subprocess.Popen(
        command("run"), cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stdout.readline().startswith("weights")
        process.send_signal(number)
        said, errors = process.communicate(timeout=100)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 128 + number
    assert "Traceback" not in errors
    assert "stopped  0 jobs done, 0 failed, 4 left; nothing that is done is lost" in said
    (manifest,) = (project / "outbox" / "manifests").iterdir()
    assert json.loads(manifest.read_text())["run"]["status"] == "stopped"


def test_names_that_are_not_utf_8_are_painted_and_shown(project: Path, program: Program) -> None:
    for path in (project / "inbox").iterdir():
        path.unlink()
    name = os.fsdecode(b"caf\xe9.png")
    picture().save(os.fsencode(project / "inbox" / name), "PNG")
    done = program("run", "-s", "ink", LC_ALL="C")
    assert done.returncode == 0 and "caf\\xe9.png in ink" in done.stdout
    assert os.fsencode(project / "outbox") + b"/caf\xe9-ink.png" in map(
        os.fsencode, (project / "outbox").iterdir()
    )


@pytest.fixture
def tiny_disk(project: Path) -> Iterator[Path]:
    """The outbox on a file system of 64 KiB."""
    outbox = project / "outbox"
    outbox.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", outbox], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.strip()}")
    yield outbox
    subprocess.run(["umount", outbox], check=True)


def test_a_full_disk_ends_with_exit_74_and_nothing_half_written(
    project: Path, tiny_disk: Path, program: Program
) -> None:
    with (project / "pipeline.yaml").open("a") as settings:
        settings.write("limits: {min_free_bytes: 0}\n")
    done = program("run", "--size", 256, "--iterations", 1)
    assert done.returncode == 74
    assert "No space left on device" in done.stderr and "Traceback" not in done.stderr
    for path in tiny_disk.glob("*.png"):
        with Image.open(path) as image:
            image.load()
    assert not list(tiny_disk.glob(".nst-*"))


def test_who_ends_a_run_twice_in_a_hurry_blames_no_picture(project: Path, here: Program) -> None:
    slow = project / "pipeline.yaml"
    text = slow.read_text().replace("settle_seconds: 0", "settle_seconds: 0, max_attempts: 1")
    slow.write_text(text.replace("iterations: 3", "iterations: 100000"))
    process = subprocess.Popen(command("run"), cwd=project, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline().startswith("weights")
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 130 and "stopped  0 jobs done" in said
    slow.write_text(text)
    assert "4 jobs done, 0 failed" in here("run").stdout


def test_a_preview_that_is_ended_says_that_there_is_none(project: Path) -> None:
    arguments = command("preview", "inbox/boat.jpg", "--iterations", 100_000)
    process = subprocess.Popen(arguments, cwd=project, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline().startswith("weights")
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 130
    assert said.endswith("stopped  preview-boat.png: not written; a preview begins anew\n")


def test_the_time_a_run_takes_is_told_from_a_trial_and_then_from_what_was_done(
    project: Path, here: Program
) -> None:
    assert re.search(r"\ntime       about \d+ .*, by a short trial, for 4 pictures\n",
                     here("check").stdout)  # fmt: skip
    here("run")
    said = here("run", "--dry-run", "--force").stdout
    assert re.search(r"\ntime: about \d+ s, as fast as the last ones here\n$", said)
    assert "\ntime" not in here("check").stdout


CHECKED = """
import atexit, sys
from nst_pipeline import cli
atexit.register(lambda: print("torch", "torch" in sys.modules))
sys.argv = ["nst-pipeline", "check"]
cli.main()
"""


def test_a_second_check_says_the_same_of_a_processor_without_loading_torch(project: Path) -> None:
    def check(**env: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", CHECKED], cwd=project, env=os.environ | env, text=True,
            capture_output=True, check=True,
        )  # fmt: skip
        return done.stdout.splitlines()

    first, second, other = check(), check(), check(OMP_NUM_THREADS="2")
    assert first[-1] == "torch True" and second[-1] == "torch False"
    assert first[:-1] == second[:-1] and any("by a short trial" in line for line in second)
    assert other[-1] == "torch True" and any(", 2 threads" in line for line in other)


def test_a_dry_run_fails_as_the_run_would_for_want_of_the_device(
    project: Path, here: Program
) -> None:
    done = here("run", "--dry-run", "--device", "cuda:7")
    assert done.returncode == 69 and "cuda:7" in done.stderr and not done.stdout


def test_a_picture_without_the_masks_of_a_style_is_told_before_the_run(
    project: Path, here: Program
) -> None:
    text = (project / "pipeline.yaml").read_text()
    style = "{regions: {sky: styles/oil.png, ground: styles/ink.png}}"
    (project / "pipeline.yaml").write_text(text.replace("styles/oil.png", style))
    said = here("check").stdout
    assert "2 to paint, 0 done already, 2 cannot be painted" in said
    assert "boat.jpg in oil: there is no mask of the region sky; put boat.mask.sky.png" in said
    listed = here("run", "--dry-run").stdout
    assert listed.count("fail    ") == 2 and "would paint 2, skip 0, fail 2" in listed


def test_pictures_of_one_name_get_the_shortest_folders_that_tell_them_apart(
    project: Path, here: Program
) -> None:
    for name in ("p1", "p2"):
        (project / name).mkdir()
        shutil.copy(project / "inbox/boat.jpg", project / name / "boat.jpg")
    done = here("run", "p1/boat.jpg", "p2/boat.jpg", "-s", "ink", "--outbox", "out")
    assert done.returncode == 0
    made = sorted(str(path.relative_to(project / "out")) for path in project.rglob("out/**/*.png"))
    assert made == ["p1/boat-ink.png", "p2/boat-ink.png"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["check"], ["run", "--dry-run"], ["status"], ["retry", "--all-failed"], ["pause"],
        ["resume"], ["install-service", "--print", "--user"], ["preview", "inbox"],
    ],
)  # fmt: skip
def test_the_environment_names_the_settings_for_every_command(
    arguments: list[str], project: Path, here: Program
) -> None:
    (project / "pipeline.yaml").write_text("wrong: 1")
    (project / "mine.yaml").write_text("wronger: 1")
    told = here(*arguments, NST_PIPELINE_CONFIG="mine.yaml")
    assert told.returncode == 78 and "mine.yaml:1: wronger: unknown key" in told.stderr
    told = here(arguments[0], "-c", "pipeline.yaml", *arguments[1:2],
                   NST_PIPELINE_CONFIG="mine.yaml")  # fmt: skip
    assert told.returncode == 78 and "pipeline.yaml:1: wrong: unknown key" in told.stderr


def test_the_environment_says_how_watch_logs(project: Path, here: Program) -> None:
    told = here("watch", NST_PIPELINE_LOG_FORMAT="xml")
    assert told.returncode == 64 and "--log-format xml: give auto" in told.stderr
    told = here("watch", NST_PIPELINE_LOG_LEVEL="loud")
    assert told.returncode == 64 and "--log-level loud: give debug" in told.stderr


def test_init_writes_the_schema_that_its_settings_name(tmp_path: Path, here: Program) -> None:
    assert here("init", "new").returncode == 0
    named = (tmp_path / "new" / "pipeline.yaml").read_text().split("\n")[0].partition("$schema=")[2]
    schema = (tmp_path / "new" / named).read_text()
    assert schema == TEMPLATE.with_name("pipeline.schema.json").read_text()
    assert here("schema").stdout == schema


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user without a home")
def test_who_has_no_home_paints_with_the_weights_that_are_shipped() -> None:
    code = (
        "import os; from nst_pipeline.config import weights\n"
        "weights.resolve('compact')\n"  # which imports what that user cannot read
        "os.setuid(54321)\n"
        "print(weights.resolve('auto').id)\n"
        "try: weights.resolve('imagenet')\n"
        "except weights.UnavailableError as error: print(error)\n"
    )
    without = ("HOME", "TORCH_HOME", "XDG_CACHE_HOME")
    environment = {key: value for key, value in os.environ.items() if key not in without}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == [
        "compact",
        "weights: ~/.cache/torch: nobody's home; set TORCH_HOME to the folder that keeps "
        "downloaded weights",
    ], done.stderr
