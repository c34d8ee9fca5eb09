"""What is made from the code is committed as the code makes it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nst_pipeline.errors import PipelineError

ROOT = Path(__file__).parents[2]
MAN_PAGE = ROOT / "share" / "nst-pipeline.1"


def subclasses(kind: type[PipelineError]) -> set[type[PipelineError]]:
    return {kind}.union(*map(subclasses, kind.__subclasses__()))


def test_the_schema_and_the_man_page_are_what_the_code_makes() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "generate", "--check"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_man_page_has_every_exit_code_and_variable() -> None:
    page = MAN_PAGE.read_text()
    codes = {kind.exit_code for kind in subclasses(PipelineError)}
    assert codes | {0, 1} == set(map(int, re.findall(r"^\\fB(\d+)\\fR$", page, re.MULTILINE)))
    source = "".join(path.read_text() for path in (ROOT / "nst_pipeline" / "cli").glob("*.py"))
    variables = set(re.findall(r'envvar="(\w+)"', source))
    assert len(variables) == 3
    assert all(f"\\fB{name}\\fR" in page for name in variables)


@pytest.mark.parametrize(
    "command", [["groff", "-man", "-Tutf8", "-ww", "-z"], ["mandoc", "-Tlint", "-Wwarning"]]
)
def test_the_man_page_is_set_without_a_warning(command: list[str]) -> None:
    if not shutil.which(command[0]):
        pytest.skip(f"there is no {command[0]}")
    done = subprocess.run([*command, MAN_PAGE], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
