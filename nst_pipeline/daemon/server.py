"""A web server that nobody can hold up: few clients at a time, and each but for a moment."""

import contextlib
import io
import logging
import resource
import socket
import threading
import time
from collections.abc import Callable
from socketserver import ThreadingMixIn
from typing import Any, TextIO
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import WSGIApplication

log = logging.getLogger(__name__)

CLIENTS = 8
"""How many clients are served at a time; for one more, the one that came first is hung up on."""
CLIENT_SECONDS = 5.0
"""How long a client may take for everything."""
RESERVED_DESCRIPTORS = 48
"""File descriptors that are left to the work: with fewer, no client is served."""


def serve(host: str, port: int, app: WSGIApplication) -> Callable[[], None]:
    """Serve ``app`` in threads of its own; return what ends that.

    Raises:
        OSError: the address cannot be served at.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    server = _Server(family, address)
    server.set_app(app)
    thread = threading.Thread(target=server.serve_forever, name="http", daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop


class _Handler(WSGIRequestHandler):
    timeout = CLIENT_SECONDS

    def log_message(self, *_: object) -> None:
        """Say nothing: what clients ask for is their own text."""

    def get_stderr(self) -> TextIO:
        return io.StringIO()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads, request_queue_size = True, 128

    def __init__(self, family: socket.AddressFamily, address: Any) -> None:
        self.address_family = family
        self._since: dict[socket.socket, float] = {}
        self._room = threading.Semaphore(CLIENTS)
        super().__init__(address, _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            request, address = super().get_request()
        except OSError:  # no descriptor is left: it would be asked for again at once
            time.sleep(0.1)
            raise
        # A new descriptor has the lowest number that is free.
        if request.fileno() >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVED_DESCRIPTORS:
            request.close()
            raise OSError("too few descriptors are left")
        return request, address

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            for first in list(self._since)[:1]:
                _hang_up(first)
            self._room.acquire()
        self._since[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        if self._since.pop(request, None) is not None:
            self._room.release()

    def service_actions(self) -> None:
        late = time.monotonic() - CLIENT_SECONDS
        for request, since in list(self._since.items()):
            if since < late:
                _hang_up(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a client of metrics.http was not served", exc_info=True)


def _hang_up(request: socket.socket) -> None:
    """Have whatever the client's thread reads or writes end, and with it the thread."""
    with contextlib.suppress(OSError):  # it ended by itself
        request.shutdown(socket.SHUT_RDWR)
