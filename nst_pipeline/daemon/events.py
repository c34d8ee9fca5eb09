"""Server-sent events: all that is new, told to everybody who looks on."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from nst_pipeline.daemon.live import Live
from nst_pipeline.errors import PipelineError
from nst_pipeline.files import shown

log = logging.getLogger(__name__)

EVENT_SECONDS = 1.0
"""How often, at most, it is told what is new."""
VIEWER_SECONDS = 0.05
"""How much less often for each who looks: all together they cost the work next to nothing."""
TICK_SECONDS = 0.25
"""How often it is looked whether the daemon is to stop."""
KEEP_ALIVE_SECONDS = 15.0
"""No stream is silent for longer, so that its end is noticed."""
ALIVE = "event: alive\ndata:\n\n"
RETRY = "retry: 2000\n\n"


class Events:
    """Streams of what is new. Nothing is found out, or computed, while there is none."""

    def __init__(
        self,
        live: Live,
        state: Callable[[], Awaitable[dict[str, object]]],
        is_stopping: Callable[[], bool],
    ) -> None:
        """Have no stream yet.

        Args:
            live: is told how many look on.
            state: gives what there is to tell.
            is_stopping: tells whether the daemon is to stop.
        """
        self._live, self._state, self._is_stopping = live, state, is_stopping
        self._why, self._told = "", ""
        self._before, self._trouble = dict[str, object](), ""
        self._news = asyncio.Event()
        self._teller: asyncio.Task[None] | None = None

    def end(self, why: str) -> None:
        """Have every stream end at once, and say why; safe in any thread."""
        self._why = why

    async def stream(self) -> AsyncIterator[str]:
        """Give the state, and each change of it, to one who looks on."""
        self._live.viewers += 1
        try:
            if self._teller is None or self._teller.done():
                self._told, self._before = "", {}  # they may be old
                self._teller = asyncio.create_task(self._tell())
            told = ""
            yield RETRY
            while not self._teller.done():
                news = self._news
                if self._told != told:
                    told = self._told
                    yield told
                    continue
                try:
                    async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                        await news.wait()
                except TimeoutError:
                    yield ALIVE
            yield _event("end", {"why": self._why})
        finally:
            self._live.viewers -= 1

    async def _tell(self) -> None:
        """Find out what is new, for all together, as long as somebody looks on."""
        due = 0.0
        try:
            while self._live.viewers and not self._why:
                now = time.monotonic()
                if now >= due:
                    due = now + EVENT_SECONDS + VIEWER_SECONDS * self._live.viewers
                    await self._look()
                if self._is_stopping():
                    self._why = self._why or "stopping"
                else:
                    await asyncio.sleep(TICK_SECONDS)
        finally:
            self._announce()

    async def _look(self) -> None:
        """Tell what is new, or why nobody knows."""
        try:
            self._say(await self._state())
            self._trouble = ""
        except PipelineError as error:
            self._say({"unknown": shown(error)})
        except Exception as error:  # noqa: BLE001 - the daemon goes on, and so does its page
            trouble = f"{type(error).__name__}: {error}"
            if trouble != self._trouble:
                log.error("the live page does not know what there is to tell", exc_info=error)
            self._trouble = trouble
            self._say({"unknown": shown(trouble)})

    def _say(self, state: dict[str, object]) -> None:
        if state != self._before:
            self._told = _event("state", state | {"now": time.time()})
            self._before = state
            self._announce()

    def _announce(self) -> None:
        self._news, news = asyncio.Event(), self._news
        news.set()


def _event(kind: str, data: dict[str, object]) -> str:
    return f"event: {kind}\ndata: {json.dumps(data, allow_nan=False)}\n\n"
