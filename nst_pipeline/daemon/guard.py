"""What every answer of the live page obeys, whatever it is: who may ask, and what may be loaded."""

import ipaddress
import re
import socket

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nst_pipeline.config.sections import HttpSettings

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
}
"""Of every answer: nothing is loaded but from here, and no other page may show it."""
READING = ("GET", "HEAD")
REFUSED = (
    "This machine is not asked for by that name. If the name is yours, put it into pipeline.yaml: "
    "http: {address: ..., names: [it]}\n"
)


class Guard:
    """Lets through who reads, and asks for this machine by one of its own names.

    A page from elsewhere can have its own name point at this machine (DNS rebinding), and could
    then read what only people here may; but the name that it asks by stays its own.
    """

    def __init__(self, app: ASGIApp, settings: HttpSettings) -> None:
        """Guard an app."""
        self._app = app
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            return
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        app = self._app
        if len(hosts) != 1 or not is_ours(hosts[0].decode("latin-1"), self.settings):
            app = PlainTextResponse(REFUSED, 421)
        elif scope["method"] not in READING:
            app = PlainTextResponse("This is only to be read.\n", 405, {"allow": "GET, HEAD"})
        await app(scope, receive, _with_headers(send))


def is_ours(host: str, settings: HttpSettings) -> bool:
    """Tell whether a Host header names this machine, by an address or a name of its own."""
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(:[0-9]{1,5})?", host)
    if found is None:
        return False
    name = found[1].strip("[]").lower()
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        own = {"localhost", settings.host.lower(), *settings.names}
        if not settings.is_loopback:
            own.add(socket.gethostname().lower())
        return name.removesuffix(".") in own
    # No name led here, so nobody can have turned it.
    return address.is_loopback or not settings.is_loopback


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = {name.lower() for name, _ in message["headers"]}
            more = [(name, value) for name, value in HEADERS.items() if name not in given]
            message = {**message, "headers": [*message["headers"], *more]}
        await send(message)

    return send_with_headers
