"""The web server under clients that mean it ill."""

import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from support import free_port, wait_until

from nst_pipeline.daemon import server


def hello(_: object, start: Callable[..., object]) -> list[bytes]:
    start("200 OK", [])
    return [b"hello"]


@contextmanager
def served() -> Iterator[int]:
    port = free_port()
    stop = server.serve("127.0.0.1", port, hello)
    try:
        yield port
    finally:
        stop()


def ask(port: int) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
        said: bytes = answer.read()
    return said


def half_open(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), 60)
    client.sendall(b"GET / HTTP/1.1\r\nHost:")
    return client


def clients() -> int:
    return sum("process_request_thread" in thread.name for thread in threading.enumerate())


def test_many_clients_that_never_finish_keep_nobody_out_and_are_few_at_a_time() -> None:
    most = 0
    with served() as port, ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(half_open(port))
            most = max(most, clients())
        assert ask(port) == b"hello"
        assert 0 < most <= server.CLIENTS + 1  # one may just be ending


def test_a_client_has_only_so_long_however_busy_it_seems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CLIENT_SECONDS", 0.3)
    with served() as port, half_open(port) as client:
        wait_until(clients)
        wait_until(lambda: is_hung_up(client))
        wait_until(lambda: not clients())
        monkeypatch.undo()
        assert ask(port) == b"hello"


def is_hung_up(client: socket.socket) -> bool:
    try:
        client.sendall(b"x")  # slow, but never quiet
    except OSError:
        return True
    return False


def test_the_last_descriptors_are_for_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    with served() as port:
        monkeypatch.setattr(server, "RESERVED_DESCRIPTORS", 2**62)
        with socket.create_connection(("127.0.0.1", port), 60) as client:
            assert client.recv(1) == b""
        monkeypatch.undo()
        assert ask(port) == b"hello"


def test_nothing_that_a_client_says_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    with served() as port:
        for said in (b"GET /\x1b[2J HTTP/1.1\r\n\r\n", b"\x1b\xff\n", b"GET / HTTP/9.9\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", port), 60) as client:
                client.sendall(said)
                while client.recv(4096):
                    pass
        assert ask(port) == b"hello"
    assert capfd.readouterr() == ("", "")
