"""A server on this machine that takes what webhooks send."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Answers with the statuses it was given, one a request, and then with 204.

    Attributes:
        statuses: still to be answered with; 0: the answer never ends.
        requests: each path with its headers and body.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.statuses: list[int] = []
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.is_over = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/hook/s3cretpath"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append((self.path, headers, body))
        status = self.server.statuses.pop(0) if self.server.statuses else 204
        while not status and not self.server.is_over.wait(0.05):
            self.wfile.write(b"H")
        self.send_response(status or 500)
        if 300 <= status < 400:
            self.send_header("location", f"{self.server.url}/elsewhere")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def receiving() -> Iterator[Server]:
    """Give a server at work."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.is_over.set()
            server.shutdown()
            thread.join()
