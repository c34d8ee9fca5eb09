"""What of the outbox the live page shows, and what that costs."""

import asyncio
import threading
from pathlib import Path

import pytest
from starlette.requests import Request
from support import configure, draw, make_home, run_once

from nst_pipeline.daemon import shelf
from nst_pipeline.daemon.live import Live
from nst_pipeline.daemon.pages import THREADS, Pages
from nst_pipeline.daemon.shelf import Shelf
from nst_pipeline.gallery.pictures import SMALL
from nst_pipeline.gallery.pieces import ID_DIGITS


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = make_home(tmp_path / "home", http="127.0.0.1:0")
    draw(home / "inbox/a.png", 1)
    return home


def test_a_result_too_large_for_a_thumbnail_is_read_once_and_shown_by_the_gallery_s(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(home)
    run_once(config)
    shown = Shelf(config)
    (result,) = shown.latest()
    path, away = config.outbox / "a-s.png", home / "away.png"
    path.rename(away)
    assert shown.thumbnail(result.job, SMALL) is None  # which may pass
    away.rename(path)
    with monkeypatch.context() as small:
        small.setattr(shelf, "THUMBNAIL_PIXELS", 10)
        assert shown.thumbnail(result.job, SMALL) is None
    assert shown.thumbnail(result.job, SMALL) is None  # it is not tried again
    assert Shelf(config).thumbnail(result.job, SMALL)
    name = result.sha256[:ID_DIGITS]
    made = config.outbox / f"gallery/pictures/{name[:2]}/{name}-{SMALL}.webp"
    made.parent.mkdir(parents=True)
    made.write_bytes(b"the gallery's")
    assert shown.thumbnail(result.job, SMALL) == b"the gallery's"


def test_thumbnails_hold_up_no_other_answer(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, go_on = configure(home, http="127.0.0.1:0"), threading.Event()
    assert config.http

    def slow(*_: object) -> bytes:
        go_on.wait(60)
        return b"made"

    monkeypatch.setattr(Shelf, "thumbnail", slow)
    pages = Pages(config, config.http, Live(), lambda: b"", lambda: False)

    def asked(path: str) -> Request:
        return Request({"type": "http", "method": "GET", "path": path, "headers": [],
                        "raw_path": path.encode(), "query_string": b"job=1"})  # fmt: skip

    async def ask() -> int:
        some = [
            asyncio.create_task(pages.thumbnail(asked("/thumbnail"))) for _ in range(THREADS + 1)
        ]
        await asyncio.sleep(0)  # they have begun
        try:
            async with asyncio.timeout(30):
                answer = await pages.result(asked("/none.png"))
        finally:
            go_on.set()
        assert [bytes(one.body) for one in await asyncio.gather(*some)] == [b"made"] * len(some)
        return answer.status_code

    assert asyncio.run(ask()) == 404
    pages.close()
