"""The webhook of a hook: a job's record sent by HTTP, signed as standardwebhooks.com says.

``webhook-id`` is the same at each attempt at a delivery, and no other's; ``idempotency-key`` says
the same. ``webhook-signature`` is ``v1,`` and the base64 of the HMAC-SHA256, by the secret, of
``webhook-id``, ``webhook-timestamp`` (seconds since the epoch) and the body, with full stops
between them.
"""

import base64
import binascii
import contextlib
import hashlib
import hmac
import os
import socket
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

from nst_pipeline import __version__
from nst_pipeline.config.hooks import HookSettings
from nst_pipeline.errors import HookError
from nst_pipeline.files import cause, shown

POLL_SECONDS = 0.05
SECRET_BYTES = 4096
"""The longest secret."""
ENCODED_PREFIX = "whsec_"
"""What a secret begins with whose rest is its bytes in base64."""


def secret_of(settings: HookSettings) -> bytes | None:
    """Return the secret that a hook signs with; None: it signs nothing.

    Raises:
        HookError: it cannot be read, or is none; says nothing of what it is.
    """
    if settings.secret_env:
        where, text = settings.secret_env, os.environ.get(settings.secret_env, "").strip()
    elif settings.secret_file:
        where = f"secret_file {shown(settings.secret_file)}"
        try:
            with settings.secret_file.open("rb") as file:
                text = file.read(SECRET_BYTES + 1).strip().decode()
        except OSError as error:
            raise HookError(f"{where}: {cause(settings.secret_file, error)}") from error
        except UnicodeDecodeError:
            raise HookError(f"{where}: is no text") from None
    else:
        return None
    if not text or len(text) > SECRET_BYTES:
        raise HookError(f"{where}: holds no secret; put a long random text there")
    if not text.startswith(ENCODED_PREFIX):
        return text.encode()
    try:
        return base64.b64decode(text.removeprefix(ENCODED_PREFIX), validate=True)
    except binascii.Error:
        raise HookError(f"{where}: begins with {ENCODED_PREFIX} and is no base64") from None


def sign(secret: bytes, key: str, timestamp: str, body: bytes) -> str:
    """Return the signature of a delivery."""
    signed = f"{key}.{timestamp}.".encode() + body
    mac = hmac.new(secret, signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(mac).decode()}"


def post(
    url: str,
    body: bytes,
    key: str,
    secret: bytes | None,
    timeout_seconds: float,
    is_over: Callable[[], bool],
) -> bool:
    """Send a body by POST; return whether it was taken.

    Args:
        url: where it goes, and nowhere else: no redirection is followed.
        body: JSON.
        key: of the delivery.
        secret: signs it; None: it is not signed.
        timeout_seconds: how long everything may take.
        is_over: asked again and again; the attempt is ended when it says so.

    Raises:
        HookError: the answer is not one of success, or there is none in time.
    """
    timestamp = str(int(time.time()))
    headers = {
        "content-type": "application/json",
        "user-agent": f"nst-pipeline/{__version__}",
        "webhook-id": key,
        "webhook-timestamp": timestamp,
        "idempotency-key": key,
    }
    if secret is not None:
        headers["webhook-signature"] = sign(secret, key, timestamp, body)
    attempt = _Attempt(Request(url, body, headers, method="POST"), timeout_seconds)
    attempt.start()
    deadline = time.monotonic() + timeout_seconds
    while attempt.is_alive():
        attempt.join(POLL_SECONDS)
        is_late = time.monotonic() >= deadline
        if attempt.is_alive() and (is_late or is_over()):
            attempt.hang_up()
            if is_late:
                raise HookError(f"no answer within {timeout_seconds:g} s")
            return False
    if attempt.problem:
        raise HookError(attempt.problem)
    return True


class _Attempt(threading.Thread):
    """A request; a server that sends byte after byte holds up this thread alone.

    Attributes:
        problem: what went wrong, once it is over; empty: nothing did.
    """

    def __init__(self, request: Request, timeout_seconds: float) -> None:
        super().__init__(name="webhook", daemon=True)
        self._request, self._timeout = request, timeout_seconds
        self._connections: list[HTTPConnection] = []
        self.problem = "the attempt broke off"

    def run(self) -> None:
        opener = OpenerDirector()
        for handler in (
            ProxyHandler(), _Handler(self._connections), _SecureHandler(self._connections),
            HTTPDefaultErrorHandler(), HTTPErrorProcessor(),
        ):  # fmt: skip
            opener.add_handler(handler)
        try:
            opener.open(self._request, timeout=self._timeout).close()
            self.problem = ""
        except HTTPError as error:
            self.problem = f"answered with status {error.code}"
            if 300 <= error.code < 400:
                self.problem += "; redirections are not followed, give the address itself"
            error.close()
        except URLError as error:
            self.problem = _reason(error.reason)
        except (OSError, HTTPException, ValueError) as error:
            self.problem = _reason(error)

    def hang_up(self) -> None:
        """Have whatever the thread reads or writes end, and with it the thread."""
        for connection in self._connections:
            with contextlib.suppress(OSError, AttributeError):  # it is not connected
                connection.sock.shutdown(socket.SHUT_RDWR)


def _reason(error: object) -> str:
    """Return what went wrong; some messages would repeat the address."""
    if isinstance(error, OSError) and error.strerror:
        return shown(error.strerror)
    return type(error).__name__


class _Handler(HTTPHandler):
    def __init__(self, connections: list[HTTPConnection]) -> None:
        super().__init__()
        self._connections = connections

    def do_open(self, http_class: Any, req: Request, **options: Any) -> Any:
        return super().do_open(_noting(http_class, self._connections), req, **options)


class _SecureHandler(HTTPSHandler):
    def __init__(self, connections: list[HTTPConnection]) -> None:
        super().__init__()
        self._connections = connections

    def do_open(self, http_class: Any, req: Request, **options: Any) -> Any:
        return super().do_open(_noting(http_class, self._connections), req, **options)


def _noting(http_class: Any, connections: list[HTTPConnection]) -> Any:
    """Return what makes a connection and puts it into a list."""

    def make(*arguments: Any, **options: Any) -> HTTPConnection:
        connection: HTTPConnection = http_class(*arguments, **options)
        connections.append(connection)
        return connection

    return make
