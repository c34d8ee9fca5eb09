"""The web server under clients that mean it ill."""

import asyncio
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import Receive, Scope, Send
from support import wait_until

from nst_pipeline.config.sections import HttpSettings
from nst_pipeline.daemon import server
from nst_pipeline.errors import UnavailableError

HELLO = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
STREAM = b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Say hello; or something that never ends; or raise."""

    async def much() -> object:
        while True:
            await asyncio.sleep(0)
            yield b"x" * 65536

    if scope["path"] == "/broken":
        raise ValueError("of nobody's making")
    answer = StreamingResponse(much()) if scope["path"] == "/stream" else PlainTextResponse("hello")
    await answer(scope, receive, send)


@contextmanager
def served() -> Iterator[int]:
    listener = server.listen(HttpSettings(address="127.0.0.1:0"))
    port = listener.getsockname()[1]
    running = server.Server(listener, app)
    try:
        yield port
    finally:
        running.close()
        assert not [thread for thread in threading.enumerate() if thread.name == "http"]


def ask(port: int) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
        said: bytes = answer.read()
    return said


def client(port: int, said: bytes) -> socket.socket:
    one = socket.create_connection(("127.0.0.1", port), 60)
    one.sendall(said)
    return one


def is_hung_up(one: socket.socket) -> bool:
    """Tell whether the server is done with a client that says ever more, slowly."""
    try:
        one.sendall(b"x")
        one.settimeout(0.01)
        return one.recv(65536) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def count_open(clients: list[socket.socket]) -> int:
    return sum(not is_hung_up(one) for one in clients)


def test_many_clients_that_never_finish_keep_nobody_out_and_are_few_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "CLIENTS", 8)
    with served() as port, ExitStack() as stack:
        half = b"GET / HTTP/1.1\r\nHost:"
        clients = [stack.enter_context(client(port, half)) for _ in range(200)]
        assert ask(port) == b"hello"
        wait_until(lambda: count_open(clients) <= 8)


def test_who_is_served_is_hung_up_on_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CLIENTS", 4)
    with served() as port, ExitStack() as stack:
        first = stack.enter_context(client(port, STREAM))
        assert first.recv(12) == b"HTTP/1.1 200"
        for _ in range(20):
            stack.enter_context(client(port, b"GET"))
        assert ask(port) == b"hello"
        for _ in range(100):
            assert first.recv(65536)


def test_a_client_has_only_so_long_to_ask_however_busy_it_seems(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "ASK_SECONDS", 0.3)
    monkeypatch.setattr(server, "LOOK_SECONDS", 0.05)
    with served() as port, client(port, b"GET / HTTP/1.1\r\nHost: ") as one:
        wait_until(lambda: is_hung_up(one))
        assert ask(port) == b"hello"


def test_a_client_that_takes_nothing_of_what_it_asked_for_is_hung_up_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "TAKE_SECONDS", 0.3)
    monkeypatch.setattr(server, "LOOK_SECONDS", 0.05)
    with served() as port, client(port, STREAM) as one, client(port, STREAM) as other:
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            assert other.recv(65536)  # who takes it, gets it, for as long as it lasts
        wait_until(lambda: _has_ended(one))


def _has_ended(one: socket.socket) -> bool:
    """Take what there still is; tell whether that ends."""
    one.settimeout(0.05)
    try:
        for _ in range(1000):
            if not one.recv(65536):
                return True
    except TimeoutError:
        return False
    except OSError:
        return True
    return False


def test_the_last_descriptors_are_for_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    with served() as port:
        monkeypatch.setattr(server, "RESERVED_DESCRIPTORS", 2**62)
        with socket.create_connection(("127.0.0.1", port), 60) as one:
            assert _has_ended(one)
        monkeypatch.undo()
        assert ask(port) == b"hello"


def test_nothing_that_a_client_says_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    with served() as port:
        for said in (b"GET /\x1b[2J HTTP/1.1\r\n\r\n", b"\x1b\xff\n", b"GET / HTTP/9.9\r\n\r\n"):
            with client(port, said) as one:
                while one.recv(4096):
                    pass
        assert ask(port) == b"hello"
    assert capfd.readouterr() == ("", "")


def test_an_answer_that_breaks_is_logged_as_all_else_and_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with served() as port:
        with client(port, b"GET /broken HTTP/1.0\r\n\r\n") as one:
            assert one.recv(12) == b"HTTP/1.1 500"
        assert ask(port) == b"hello"
    assert "of nobody's making" in caplog.text


def test_signals_stay_whose_they_were() -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with served() as port:
        assert ask(port) == b"hello"
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_an_address_that_is_taken_is_told_with_what_to_do() -> None:
    with served() as port, pytest.raises(UnavailableError) as told:
        server.listen(HttpSettings(address=f"127.0.0.1:{port}"))
    assert str(told.value) == (
        f"http: 127.0.0.1:{port}: Address already in use; stop the program that has this port, or "
        "give another (0: any that is free)"
    )


@pytest.mark.parametrize("address", ["203.0.113.1:0", "no.such.host.invalid:0"])
def test_an_address_that_is_not_ours_is_told_with_what_to_do(address: str) -> None:
    with pytest.raises(UnavailableError, match=f"http: {address}: .*; give an address of this"):
        server.listen(HttpSettings(address=address))


def test_streams_are_ended_when_the_server_is() -> None:
    with served() as port:
        one = client(port, STREAM)
        assert one.recv(12) == b"HTTP/1.1 200"
    with one:
        wait_until(lambda: _has_ended(one))
