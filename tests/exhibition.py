"""What the gallery's tests share: a place where hostile names were painted, and its data."""

import json
import os
from pathlib import Path
from typing import Any

from PIL import Image
from support import FakeExecutor, draw, make_home, run_once

from nst_pipeline.config.pipeline import Config, load
from nst_pipeline.gallery.pages import data_of
from nst_pipeline.gallery.site import Update, update
from nst_pipeline.jobs.outcome import Failure

HOSTILE_STYLE = """<img src=x onerror="document.title='hit'">'&#39;"""
HOSTILE_REASON = """</script><script>document.title='hit'</script>"'&quot; no paint"""
HOSTILE_NAMES = (
    b"<script>document.title='hit'<",  # with what follows it a whole element
    b"quoted \"a\" 'b' &amp; `c` ${d}.png",
    b"line\nend\r\t#1 50% %2e%2e?x=1&y=2;.png",
    b"\xff\xfe\x80.png",
    b"n" * 251 + b".png",
    " \N{RIGHT-TO-LEFT OVERRIDE}gnp.\N{SNOWMAN}.png".encode(),
)


def make_exhibition(home: Path, is_hostile: bool = True, **changes: Any) -> Path:
    """Paint some pictures with an executor that paints nothing; return the folder."""
    styles = {"ink": "style.png", "oil": "style2.png"}
    if is_hostile:
        styles[HOSTILE_STYLE] = "style.png"
    make_home(home)
    change(home, styles=styles, watch={"settle_seconds": 0}, **changes)
    inbox = os.fsencode(home / "inbox")
    names = [b"boat.png", b"trip/hill.png"]
    if is_hostile:
        script, *others = HOSTILE_NAMES
        names += [script + b"/script>.png", *others]
        (home / "inbox/broken <b>.png").write_text("no picture")
        draw(home / "inbox/bad.png", 77)
        exif = Image.Exif()
        exif[0x010E] = exif[0x013B] = HOSTILE_REASON
        with Image.open(home / "style.png") as image:
            image.resize((900, 600)).save(home / "inbox/large.jpg", exif=exif)
    for number, name in enumerate(names):
        path = inbox + b"/" + name
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        draw(path, number)
    run_once(settings(home), FakeExecutor({"bad": Failure(HOSTILE_REASON, kind="job")}))
    return home


def change(home: Path, **changes: Any) -> None:
    """Change keys of the settings."""
    path = home / "pipeline.yaml"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def settings(home: Path) -> Config:
    """Return the settings of a place."""
    return load(home / "pipeline.yaml")


def refresh(home: Path) -> Update:
    """Bring the gallery of a place up to date."""
    return update(settings(home))


def data(home: Path, name: str) -> Any:
    """Return what a file of the gallery's data holds."""
    return data_of((home / "outbox/gallery/data" / name).read_bytes())


def contents(home: Path) -> dict[str, Any]:
    """Return the contents of all pages, by their names."""
    pages = sorted((home / "outbox/gallery/data").glob("page-*.js"))
    found = [data_of(path.read_bytes()) for path in pages]
    return {one["name"]: one for page in found for one in page["contents"]}


def pieces(home: Path) -> dict[tuple[str, str], Any]:
    """Return all that is known of each piece, by its content's and its style's names."""
    found = {}
    for name, content in contents(home).items():
        details = data(home, f"{content['id']}.js")["pieces"]
        for piece in content["pieces"]:
            found[name, piece["style"]] = piece | details[piece["id"]]
    return found
