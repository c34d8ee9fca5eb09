"""The documents lead where they say, and the site has all of them."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files_that_are_there(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:\s]+)\)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_the_site_has_every_document() -> None:
    site = yaml.load((ROOT / "mkdocs.yml").read_text(), yaml.BaseLoader)
    pages = {page for entry in site["nav"] for page in entry.values()}
    made = {"index.md", "settings.md", "contributing.md", "changelog.md"}
    assert pages == made | {path.name for path in (ROOT / "docs").glob("*.md")}


@pytest.mark.skipif(not find_spec("material"), reason="there is no MkDocs; see scripts/docs")
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
