"""Weights to download in tests: small ones that are published as large ones are, and a mirror."""

import contextlib
import hashlib
import http.server
import io
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
import torch
from painting import narrow_vgg

from nst_pipeline.config.weights import PUBLISHED, Published


@dataclass(frozen=True)
class StandIn:
    """Weights that take the place of published ones: narrow, with a classifier.

    Attributes:
        published: as the program knows them.
        data: the file's bytes.
    """

    published: Published
    data: bytes


def stand_in(network: str, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Have narrow weights take the place of those published as ``network``."""
    published, file = PUBLISHED[network], io.BytesIO()
    torch.save(narrow_vgg(published.layers), file)
    data = file.getvalue()
    name = f"{published.basename.partition('-')[0]}-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    monkeypatch.setitem(PUBLISHED, network, replace(published, basename=name))
    return StandIn(PUBLISHED[network], data)


@dataclass
class Mirror:
    """An HTTP server on loopback with a fault to choose."""

    data: bytes
    fault: str = ""
    requests: list[str] = field(default_factory=list)
    url: str = ""
    released: threading.Event = field(default_factory=threading.Event)


@contextlib.contextmanager
def serving(data: bytes) -> Iterator[Mirror]:
    """Serve ``data`` at the mirror's address."""
    state = Mirror(data)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.requests.append(self.path)
            if state.fault == "404":
                self.send_error(404)
                return
            if state.fault == "silent":
                state.released.wait(30)
                return
            sent = state.data[::-1] if state.fault == "wrong" else state.data
            self.send_response(200)
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            half = state.fault in ("truncated", "stalled")
            self.wfile.write(sent[: len(sent) // 2] if half else sent)
            if state.fault == "stalled":
                self.wfile.flush()
                state.released.wait(30)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        state.url = f"http://127.0.0.1:{httpd.server_port}/weights.pth"
        yield state
        state.released.set()
        httpd.shutdown()
        thread.join()
