"""Completion as a shell asks for it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def executable(tmp_path: Path) -> Path:
    """Return the program as it is installed, a file of its name."""
    path = tmp_path / "bin" / "nst-pipeline"
    path.parent.mkdir()
    path.write_text(f"#!{sys.executable}\nfrom nst_pipeline.cli import main\nmain()\n")
    path.chmod(0o755)
    return path


def completed(executable: Path, folder: Path, line: str, **env: str) -> tuple[list[str], str]:
    """Return what the last word of a line can become, and what Python told of its imports."""
    words = line.split(" ")
    asked = {"_NST_PIPELINE_COMPLETE": "complete_bash", "COMP_WORDS": line,
             "COMP_CWORD": str(len(words) - 1), "PYTHONPATH": str(ROOT)}  # fmt: skip
    done = subprocess.run(
        [executable], cwd=folder, env={**os.environ, **asked, **env}, capture_output=True, text=True
    )
    return done.stdout.split(), done.stderr


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nst-pipeline sta", ["status"]),
        ("nst-pipeline weights ", ["fetch"]),
        ("nst-pipeline weights fetch v", ["vgg16"]),
        ("nst-pipeline run -s ", ["ink", "oil"]),
        ("nst-pipeline preview --style o", ["oil"]),
        ("nst-pipeline run --device c", ["cpu", "cuda"]),
        ("nst-pipeline watch --log-format j", ["json", "journald"]),
        ("nst-pipeline run -c gone.yaml -s ", []),
        ("nst-pipeline run photo", []),
    ],
)
def test_a_word_is_completed(line: str, words: list[str], executable: Path, project: Path) -> None:
    found, imports = completed(executable, project, line, PYTHONPROFILEIMPORTTIME="1")
    assert found == words
    assert "| typer" in imports and "torch" not in imports


def test_style_names_are_those_of_the_settings_that_are_named(
    executable: Path, project: Path
) -> None:
    (project / "pipeline.yaml").rename(project / "mine.yaml")
    assert completed(executable, project, "nst-pipeline run -s ")[0] == []
    assert completed(executable, project, "nst-pipeline run -c mine.yaml -s i")[0] == ["ink"]
    found, _ = completed(
        executable, project, "nst-pipeline run -s i", NST_PIPELINE_CONFIG="mine.yaml"
    )
    assert found == ["ink"]


def test_wrong_settings_complete_nothing_and_say_nothing(executable: Path, project: Path) -> None:
    (project / "pipeline.yaml").write_text("styles: [")
    assert completed(executable, project, "nst-pipeline run -s ") == ([], "")


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
def test_bash_completes_with_what_show_completion_prints(executable: Path, project: Path) -> None:
    script = (
        'eval "$(nst-pipeline --show-completion)"\n'
        "complete -p nst-pipeline\n"
        'COMP_WORDS=(nst-pipeline run -s "") COMP_CWORD=3\n'
        "_nst_pipeline_completion nst-pipeline\n"
        'echo "${COMPREPLY[@]}"\n'
    )
    (project / "script").write_text(script)
    done = subprocess.run(
        ["bash", "script"],
        cwd=project, capture_output=True, text=True,
        env={**os.environ, "PATH": f"{executable.parent}:{os.environ['PATH']}",
             "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].endswith("-F _nst_pipeline_completion nst-pipeline")
    assert lines[1] == "ink oil"
