"""Pages of the documentation site that are made of files outside of docs/; a hook of MkDocs."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
FILES = ("pipeline.yaml", "LICENSE", "NOTICE", "nst_pipeline/manifest/manifest.schema.json")
"""What pages link to as it is."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, and the files that they link to."""
    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_moved(text)))
    template = (ROOT / "nst_pipeline" / "config" / "pipeline.yaml").read_text(encoding="utf-8")
    files.append(File.generated(config, "settings.md", content=_settings(template)))
    for name in FILES:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Have links out of docs/ lead to what `on_files` added."""
    return markdown.replace("](../", "](")


def _moved(text: str) -> str:
    """Return a text with links that are right in docs/, where MkDocs has it."""
    text = re.sub(r"\]\(docs/", "](", text)
    for source, page in PAGES.items():
        text = text.replace(f"]({source})", f"]({page})")
    return text


def _settings(template: str) -> str:
    return (
        "# Settings\n\n`nst-pipeline init` writes this file, `pipeline.yaml`, which explains every "
        f"key. What a commented key shows is its default.\n\n```yaml\n{template}```\n"
    )
