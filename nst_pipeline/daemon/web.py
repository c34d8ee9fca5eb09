"""The live page while a daemon lives: where it is served, and what becomes of that on a reload."""

import errno
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from nst_pipeline.config.pipeline import Config
from nst_pipeline.config.sections import LOOPBACK, HttpSettings
from nst_pipeline.daemon.live import Live
from nst_pipeline.errors import UnavailableError

if TYPE_CHECKING:
    from nst_pipeline.daemon.pages import Pages
    from nst_pipeline.daemon.server import Server

log = logging.getLogger(__name__)

End = Literal["stopping", "stopped", "failed", "moved"]
"""Why streams end: the daemon is told to stop, has stopped, or failed; or the page moves."""


class Web:
    """Serves the live page where the settings say so, or nowhere."""

    def __init__(
        self, live: Live, figures: Callable[[], bytes], is_stopping: Callable[[], bool]
    ) -> None:
        """Serve nothing yet; the arguments are as `Pages` takes them."""
        self._live, self._figures, self._is_stopping = live, figures, is_stopping
        self._served: tuple[Config, Pages, Server] | None = None

    def use(self, config: Config) -> None:
        """Serve as these settings say from now on; what cannot be leaves all as it was.

        Raises:
            UnavailableError: the address cannot be served at, or packages are missing.
        """
        http = config.http
        before = self._served[0].http if self._served else None
        if http and self._served and before and before.address == http.address:
            _, pages, server = self._served
            pages.show(config, http)
            self._served = config, pages, server
            return
        try:
            served = self._serve(config, http) if http else None
        except UnavailableError as error:
            if http and before and before.port == http.port and _is_taken(error):
                self._move(config, http)  # it may be we who have the port
                return
            raise
        self.close("moved")
        self._served = served

    def _move(self, config: Config, http: HttpSettings) -> None:
        """Serve at another address of the same port: not before the old one is free."""
        old = self._served[0] if self._served else None
        self.close("moved")
        try:
            self._served = self._serve(config, http)
        except UnavailableError:
            if old and old.http:
                self._served = self._serve(old, old.http)
            raise

    def close(self, why: End) -> None:
        """End what is served, and say why to those who look on."""
        if self._served:
            _, pages, server = self._served
            pages.events.end(why)
            server.close()
            pages.close()
        self._served = None

    def _serve(self, config: Config, http: HttpSettings) -> "tuple[Config, Pages, Server]":
        try:
            from nst_pipeline.daemon.pages import Pages
            from nst_pipeline.daemon.server import Server, listen
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn"):
                raise
            raise UnavailableError(
                "http: the live page needs two packages more: pip install 'nst-pipeline[web]'; or "
                "take http out of the settings"
            ) from error
        listener = listen(http)
        host, port = listener.getsockname()[:2]
        pages = Pages(config, http, self._live, self._figures, self._is_stopping)
        server = Server(listener, pages.app)
        log.info("live page at http://%s:%d/", f"[{host}]" if ":" in host else host, port)
        if not http.is_loopback:
            log.warning(
                "http: %s: whoever reaches this machine sees the pictures and their names; http: "
                "%s:%d is for this machine alone",
                http.address, LOOPBACK, port,
            )  # fmt: skip
        return config, pages, server


def _is_taken(error: UnavailableError) -> bool:
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE
