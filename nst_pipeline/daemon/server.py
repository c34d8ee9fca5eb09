"""A web server in a thread of its own that nobody can hold up, and that holds nobody up."""

import asyncio
import contextlib
import errno
import logging
import os
import resource
import socket
import threading
import time
from collections.abc import Iterable
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from nst_pipeline.config.sections import HttpSettings
from nst_pipeline.errors import UnavailableError

log = logging.getLogger(__name__)

CLIENTS = 256
"""How many clients are served at a time; for one more, the one that came first is hung up on."""
ASK_SECONDS = 5.0
"""How long a client may take to say what it wants."""
TAKE_SECONDS = 30.0
"""How long a client may take nothing of what it asked for."""
LOOK_SECONDS = 1.0
"""How often it is looked who takes too long."""
END_SECONDS = 1.0
"""How long answers may go on when the server ends."""
RESERVED_DESCRIPTORS = 48
"""File descriptors that are left to the work: with fewer, no client is served."""
ACCEPTED, WAITING = 8, 128
"""How many clients are taken in at once, before any is hung up on; and how many may wait."""
NICENESS = 5
"""How much the thread steps back behind those that paint."""


def listen(settings: HttpSettings) -> socket.socket:
    """Return a socket at the settings' address, before anything else is begun.

    Raises:
        UnavailableError: the address cannot be served at.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=128)
    except OSError as error:
        raise UnavailableError(
            f"http: {settings.address}: {_cause(error)}; {_cure(error)}"
        ) from error


def _cause(error: OSError) -> str:
    """Return why, without what Python adds to it."""
    if isinstance(error, socket.gaierror) or not error.errno:
        return error.strerror or str(error)
    return os.strerror(error.errno)


def _cure(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "stop the program that has this port, or give another (0: any that is free)"
    if error.errno == errno.EACCES:
        return "give a port above 1023"
    return "give an address of this machine, such as 127.0.0.1:8080"


class Server:
    """Serves an app until it is closed."""

    def __init__(self, listener: socket.socket, app: ASGIApp) -> None:
        """Begin, in a thread; the socket is ours from now on."""
        config = uvicorn.Config(
            app, http=_Client, ws="none", lifespan="off", log_config=None, log_level=logging.ERROR,
            access_log=False, proxy_headers=False, server_header=False, backlog=ACCEPTED,
            timeout_keep_alive=round(ASK_SECONDS), timeout_graceful_shutdown=round(END_SECONDS),
        )  # fmt: skip
        self._server = _Server(config)
        self._listener = listener
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Hang up on everybody, and end the thread."""
        self._server.should_exit = True
        self._thread.join()

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # Linux: of this thread alone
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        with self._listener:
            asyncio.run(self._serve())

    async def _serve(self) -> None:
        asyncio.get_running_loop().set_exception_handler(_note)
        watcher = asyncio.create_task(_hang_up_on_the_slow(self._server))
        await self._server.serve(sockets=[self._listener])
        watcher.cancel()
        while clients := _clients(self._server.server_state.connections):
            for client in clients:
                client.transport.abort()
            await asyncio.sleep(0)


def _note(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    log.debug("a client was not served: %s", context["message"], exc_info=context.get("exception"))


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(WAITING)  # asyncio takes in as many at once as it has wait


class _Client(H11Protocol):
    """A client's connection, with bounds on how many there are and on how long each may take."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.since = self.moved = time.monotonic()
        self.left = 0
        super().connection_made(transport)
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        # A new descriptor has the lowest number that is free.
        number = transport.get_extra_info("socket").fileno()
        if number >= descriptors - RESERVED_DESCRIPTORS:
            transport.abort()
            return
        clients = [one for one in _clients(self.connections) if not one.transport.is_closing()]
        if len(clients) > min(CLIENTS, (descriptors - RESERVED_DESCRIPTORS) // 4):
            # Who has still to say something first, and who came first of them.
            min(clients, key=lambda one: (one.is_served(), one.since)).transport.abort()

    def is_served(self) -> bool:
        """Tell whether it has asked for something, and has not got all of it."""
        return self.cycle is not None and not self.cycle.response_complete

    def on_response_complete(self) -> None:
        self.since = time.monotonic()
        super().on_response_complete()

    def look(self, now: float) -> None:
        """Hang up on a client that takes too long."""
        left = self.transport.get_write_buffer_size()
        if not left or left != self.left:
            self.left, self.moved = left, now
        asks_too_long = not self.is_served() and now - self.since > ASK_SECONDS
        if asks_too_long or now - self.moved > TAKE_SECONDS:
            self.transport.abort()


async def _hang_up_on_the_slow(server: uvicorn.Server) -> None:
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        now = time.monotonic()
        for client in _clients(server.server_state.connections):
            client.look(now)


def _clients(connections: Iterable[object]) -> list[_Client]:
    return [one for one in connections if isinstance(one, _Client)]
