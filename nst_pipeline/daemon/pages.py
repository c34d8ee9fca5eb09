"""The live page and its neighbours: what each address answers with."""

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import unquote_to_bytes

from starlette.applications import Starlette
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

import nst_pipeline
from nst_pipeline.config.pipeline import Config
from nst_pipeline.config.sections import HttpSettings
from nst_pipeline.daemon.events import Events
from nst_pipeline.daemon.guard import Guard
from nst_pipeline.daemon.live import Live
from nst_pipeline.daemon.page_state import page_state
from nst_pipeline.daemon.shelf import RESULT_TYPES, Found, Shelf
from nst_pipeline.daemon.status import read_status
from nst_pipeline.errors import PipelineError
from nst_pipeline.files import shown
from nst_pipeline.gallery.pictures import LARGE, SMALL
from nst_pipeline.images.reduction import as_jpeg

ASSETS = Path(__file__).with_name("assets")
STYLE = Path(str(nst_pipeline.__file__)).parent / "gallery/assets/style.css"
"""The tokens and the type that all our pages share."""
FILES = {
    "/": (ASSETS / "live.html", "text/html"),
    "/live.css": (ASSETS / "live.css", "text/css"),
    "/live.js": (ASSETS / "live.js", "text/javascript"),
    "/icon.svg": (ASSETS / "icon.svg", "image/svg+xml"),
    "/favicon.ico": (ASSETS / "icon.svg", "image/svg+xml"),
    "/style.css": (STYLE, "text/css"),
}
"""The page, and what it consists of."""
LOOK_SECONDS, LOOK_SHARE = 1.0, 50
"""How long what was read is believed, at least, and in how many parts of the time it is read."""
THREADS = 2
PART_BYTES = 256 * 1024
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"

SHOWN_ALONE = "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'"
"""The policy of a picture: browsers show it in a page of their own, with a style of their own."""

T = TypeVar("T")


class AnyName(StringConvertor):
    """The rest of a path, of any bytes: newlines, too."""

    regex = "(?s:.*)"


register_url_convertor("any", AnyName())


class Looked(Generic[T]):
    """What a function returned not long ago; the longer it takes, the less often it is called."""

    def __init__(self, read: Callable[[], T], pool: ThreadPoolExecutor) -> None:
        """Call ``read`` in a thread of ``pool``."""
        self._read, self._pool = read, pool
        self._lock = asyncio.Lock()
        self._found: T | None = None
        self._until = -math.inf

    async def get(self) -> T:
        """Return it; raises what the function raises."""
        async with self._lock:
            if self._found is None or time.monotonic() >= self._until:
                begun, loop = time.monotonic(), asyncio.get_running_loop()
                self._found = await loop.run_in_executor(self._pool, self._read)
                now = time.monotonic()
                self._until = now + max(LOOK_SECONDS, LOOK_SHARE * (now - begun))
            return self._found


class Pages:
    """What a daemon shows.

    Attributes:
        app: answers requests.
        events: tells those who look on.
    """

    def __init__(
        self,
        config: Config,
        settings: HttpSettings,
        live: Live,
        figures: Callable[[], bytes],
        is_stopping: Callable[[], bool],
    ) -> None:
        """Show a daemon.

        Args:
            config: its settings.
            settings: those of the page.
            live: what it does.
            figures: gives its figures for Prometheus.
            is_stopping: tells whether it is to stop.
        """
        self._live, self._figures = live, figures
        self._pool = ThreadPoolExecutor(THREADS, "http")
        self._slow = ThreadPoolExecutor(1, "thumbnails")  # they hold nobody else up
        self.events = Events(live, self._state, is_stopping)
        self._jpegs: dict[int, tuple[int, bytes]] = {}
        self.app = Guard(_routes(self), settings)
        self.show(config, settings)

    def show(self, config: Config, settings: HttpSettings) -> None:
        """Show it with these settings from now on; safe in any thread."""
        self._config, self._shelf = config, Shelf(config)
        self._status = Looked(lambda: read_status(config), self._pool)
        self._latest = Looked(self._shelf.latest, self._pool)
        self.app.settings = settings

    def close(self) -> None:
        """Begin nothing more."""
        for pool in (self._pool, self._slow):
            pool.shutdown(wait=False, cancel_futures=True)

    async def own_file(self, request: Request) -> Response:
        """Answer with a part of the page."""
        path, kind = FILES[request.url.path]
        return Response(path.read_bytes(), media_type=kind, headers={"cache-control": "no-cache"})

    async def status(self, _: Request) -> Response:
        """Answer with what `status --json` prints."""
        try:
            status = await self._status.get()
        except PipelineError as error:
            return PlainTextResponse(f"{error}\n", 503)
        return Response(json.dumps(status.to_plain()), media_type="application/json")

    async def metrics(self, _: Request) -> Response:
        """Answer with the figures for Prometheus."""
        return Response(self._figures(), media_type=PROMETHEUS)

    async def health(self, _: Request) -> Response:
        """Answer with 200 while the daemon makes progress or idles soundly, else with 503."""
        ailment = self._live.ailment()
        return PlainTextResponse(f"{shown(ailment) or 'well'}\n", 503 if ailment else 200)

    async def growing(self, request: Request) -> Response:
        """Answer with how the picture of a job at work looks."""
        number = _number(request)
        glimpse = self._live.glimpse(number)
        if glimpse is None:
            return _nothing()
        done, data = self._jpegs.get(number, (None, b""))
        if done != glimpse.done:
            data = await self._in_pool(lambda: as_jpeg(glimpse.picture))
            kept = {n: jpeg for n, jpeg in self._jpegs.items() if self._live.glimpse(n)}
            self._jpegs = kept | {number: (glimpse.done, data)}
        return Response(data, media_type="image/jpeg", headers={"cache-control": "no-store"})

    async def thumbnail(self, request: Request) -> Response:
        """Answer with one of the last results, small."""
        side = LARGE if "large" in request.query_params else SMALL
        number, shelf = _number(request), self._shelf
        data = await self._in_pool(lambda: shelf.thumbnail(number, side), self._slow)
        if data is None:
            return _nothing()
        headers = {"cache-control": "private, max-age=3600"}
        return Response(data, media_type="image/webp", headers=headers)

    async def result(self, request: Request) -> Response:
        """Answer with a result of the outbox."""
        place, shelf = _place(request, b"/"), self._shelf
        return await self._file(request, lambda: shelf.result(place))

    async def gallery(self, request: Request) -> Response:
        """Answer with a file of the gallery."""
        place, shelf = _place(request, b"/gallery/"), self._shelf
        if not place or place.endswith(b"/"):
            place += b"index.html"
        answer = await self._file(request, lambda: shelf.gallery(place))
        if answer.status_code == 404 and place == b"index.html":
            return Response((ASSETS / "no_gallery.html").read_bytes(), media_type="text/html")
        return answer

    async def stream(self, request: Request) -> Response:
        """Answer with all that is new, as it comes."""
        headers, kind = {"cache-control": "no-store"}, "text/event-stream"
        if request.method == "HEAD":
            return Response(media_type=kind, headers=headers)
        return StreamingResponse(self.events.stream(), media_type=kind, headers=headers)

    async def _state(self) -> dict[str, object]:
        status, latest = await self._status.get(), await self._latest.get()
        return page_state(self._config, self._live.view(), status, latest)

    async def _file(self, request: Request, find: Callable[[], Found | None]) -> Response:
        found = await self._in_pool(find)
        if found is None:
            return _nothing()
        headers = {"etag": found.tag, "cache-control": "no-cache"}
        if found.kind in RESULT_TYPES.values():
            headers["content-security-policy"] = SHOWN_ALONE
        is_known = request.headers.get("if-none-match") == found.tag
        if not is_known:
            headers["content-length"] = str(found.bytes)
        if is_known or request.method == "HEAD":
            found.file.close()
            return Response(None, 304 if is_known else 200, headers, found.kind)
        return StreamingResponse(_parts(found, self._pool), 200, headers, found.kind)

    async def _in_pool(
        self, function: Callable[[], T], pool: ThreadPoolExecutor | None = None
    ) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool or self._pool, function)


async def _parts(found: Found, pool: ThreadPoolExecutor) -> AsyncIterator[bytes]:
    """Give a file's bytes, part by part, as fast as they are taken."""
    loop, left = asyncio.get_running_loop(), found.bytes
    with found.file as file:
        while left and (part := await loop.run_in_executor(pool, file.read, min(left, PART_BYTES))):
            left -= len(part)
            yield part


def _routes(pages: Pages) -> Starlette:
    async def to_gallery(_: Request) -> Response:
        return RedirectResponse("/gallery/")

    return Starlette(
        routes=[
            *(Route(path, pages.own_file) for path in FILES),
            Route("/events", pages.stream),
            Route("/growing", pages.growing),
            Route("/thumbnail", pages.thumbnail),
            Route("/status.json", pages.status),
            Route("/metrics", pages.metrics),
            Route("/healthz", pages.health),
            Route("/gallery", to_gallery),
            Route("/gallery/{rest:any}", pages.gallery),
            Route("/{rest:any}", pages.result),
        ]
    )


def _nothing() -> Response:
    return PlainTextResponse("There is nothing of this name.\n", 404)


def _number(request: Request) -> int:
    text = request.query_params.get("job", "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0


def _place(request: Request, prefix: bytes) -> bytes:
    """Return the path that is asked for, whose bytes need be no text."""
    return unquote_to_bytes(request.scope["raw_path"]).removeprefix(prefix)
