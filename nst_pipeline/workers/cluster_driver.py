"""The process that knows Ray: it begins a cluster's workers, and hands tasks to them.

A process of its own, for Ray ends the process that uses it when the cluster's head is lost. It
ends itself, and all that it began, when the process that began it is gone.
"""

import contextlib
import functools
import logging
import operator
import os
import secrets
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import nst_pipeline
from nst_pipeline.config.sections import ClusterSettings
from nst_pipeline.errors import PipelineError
from nst_pipeline.workers.cluster_causes import CLIENT, INSTALL, HeadLost, last_line, start
from nst_pipeline.workers.cluster_messages import (
    Connected,
    Lost,
    Note,
    Place,
    Setup,
)
from nst_pipeline.workers.cluster_nodes import chosen, spots
from nst_pipeline.workers.cluster_scheduler import NODES_SECONDS, Gone, Scheduler
from nst_pipeline.workers.scratch import make_scratch, remove_scratch

END_SECONDS = 15.0
"""How long the end itself may take."""
KNOCK_SECONDS = 5.0
"""How long a host has to take a connection."""
CLIENT_SETTINGS = {
    "RAY_CLIENT_INITIAL_CONNECTION_TIMEOUT_S": "2",  # three times
    "RAY_CLIENT_MAX_CONNECTION_TIMEOUT_S": "2",
    "RAY_CLIENT_RECONNECT_GRACE_PERIOD": "10",  # also of the workers, when this process is killed
}
"""How long Ray's client waits, in seconds."""
CLIENT_TRIES = 3
"""The head begins a process for each client by a fork, which now and then crashes."""
SOCKET_ROOM = 20
"""Letters that the folder for temporary files may have, for sockets below it have long names."""
TOKEN = "~/.ray/auth_token"


def main() -> None:
    """Do what comes by the socket whose number is the argument, until its other end is closed."""
    link = Connection(int(sys.argv[1]))
    os.set_inheritable(link.fileno(), False)
    setup: Setup = link.recv()
    is_local = setup.config.cluster.address == "local"
    scratch = make_scratch(SOCKET_ROOM) if is_local else None
    if scratch:  # all that Ray and the workers write is to go with it
        os.environ["TMPDIR"] = str(scratch)
        paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    os.chdir(scratch or "/")  # workers look for modules where their driver is
    inbox = Inbox(link, scratch)
    try:
        _serve(link, setup, inbox)
    except Gone:
        pass
    except PipelineError as error:
        with contextlib.suppress(OSError):
            link.send(Lost(str(error)))
    except Exception as error:  # noqa: BLE001 - told to whom it is of use
        with contextlib.suppress(OSError):
            link.send(Note(logging.ERROR, traceback.format_exc()))
            link.send(Lost(f"{type(error).__name__}: {error}"))
    finally:
        if scratch:
            remove_scratch(scratch)
    os._exit(0)  # at once, whatever threads of Ray's there are


class Inbox:
    """Reads what the executor wants from the beginning on, so that it never waits for us.

    Attributes:
        queue: of what is to be done next.
        is_connected: whether there is a cluster.
        scheduler: who does it, once there is a cluster.
    """

    def __init__(self, link: Connection, scratch: Path | None) -> None:
        """Begin to read."""
        self._link, self._scratch = link, scratch
        self.queue: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.is_connected = False
        self.scheduler: Scheduler | None = None
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                self.queue.put(functools.partial(self._take, self._link.recv()))
        if not self.is_connected:  # Ray may take minutes to give up
            if self._scratch:
                remove_scratch(self._scratch)
            os._exit(1)
        self.queue.put(_end)

    def _take(self, request: object) -> None:
        assert self.scheduler
        self.scheduler.take(request)


def _serve(link: Connection, setup: Setup, inbox: Inbox) -> None:
    ray = _connect(setup)
    inbox.is_connected = True
    scheduler: Scheduler | None = None

    def note_signal(*_: object) -> None:  # who began us decides when we end
        if scheduler:
            scheduler.is_signalled = True

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, note_signal)
    try:
        room = spots(ray.nodes(), setup.config.cluster, setup.config.device)
        places = chosen(room, set(), setup.config.cluster.workers)
        link.send(Connected(tuple(Place(spot.node, spot.device) for spot in places)))
        if setup.is_trial:
            return
        scheduler = inbox.scheduler = Scheduler(setup, link, inbox.queue, ray)
        looking = threading.Thread(target=_look, args=(scheduler, inbox.queue, ray), daemon=True)
        looking.start()
        try:
            scheduler.run()
        except Gone:
            scheduler.end()
    except (HeadLost, ConnectionError) as error:
        lost = error if isinstance(error, HeadLost) else HeadLost()
        with contextlib.suppress(OSError):
            link.send(Lost(str(lost)))  # now, for nothing of Ray's may answer any more
    finally:
        guard = threading.Timer(END_SECONDS, os._exit, (1,))
        guard.daemon = True
        guard.start()
        with contextlib.suppress(Exception):
            if scheduler:
                scheduler.dismiss()
            ray.shutdown()


def _end() -> None:
    raise Gone


def _look(scheduler: Scheduler, queue: SimpleQueue[Any], ray: Any) -> None:
    while True:
        with contextlib.suppress(Exception):  # what lasts is told by the time that it lasts
            asked = time.monotonic()
            queue.put(functools.partial(scheduler.note_nodes, ray.nodes(), asked))
        time.sleep(NODES_SECONDS)


def _connect(setup: Setup) -> Any:
    """Connect to a cluster, or begin one; return the library.

    Raises:
        PipelineError: there is none, or no library.
    """
    address = setup.config.cluster.address
    assert address
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address == "local":
        # Ray's switch for systems where a cluster is one machine: all listens at 127.0.0.1 alone.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        options |= {"include_dashboard": False, "_temp_dir": os.environ["TMPDIR"]}
        options["num_cpus"] = _local_cpus(setup.config.cluster)
    elif address != "auto":
        _knock(address)
        if _has_token():  # Ray itself looks for one with auto alone
            os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ |= CLIENT_SETTINGS | os.environ
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise PipelineError(f"{error}; {INSTALL}") from error
    try:
        _begin_ray(ray, address, options)
    except Exception as error:  # noqa: BLE001 - of many kinds, Ray's and others
        reason = last_line(error).partition(". ")[0]  # what follows is advice that is not ours
        raise PipelineError(f"no cluster there ({reason}); {start(address)}") from error
    if address.startswith(CLIENT):
        _greet_head(ray)
    return ray


def _begin_ray(ray: Any, address: str, options: dict[str, Any]) -> None:
    for _ in range(CLIENT_TRIES - 1):
        with contextlib.suppress(ConnectionAbortedError):
            ray.init(address, **options)
            return
    ray.init(address, **options)


class _Version:
    """Becomes, where it is unpickled, the version of nst-pipeline there."""

    def __reduce__(self) -> tuple[Any, ...]:
        return operator.attrgetter("__version__"), (nst_pipeline,)


def _greet_head(ray: Any) -> None:
    """See that the head understands us: all that Ray's client tells workers, it unpickles.

    Raises:
        PipelineError: it does not.
    """
    ours = nst_pipeline.__version__
    try:
        there = ray.get(ray.put(_Version()))
    except ImportError as error:
        raise PipelineError(
            f"its head cannot run nst-pipeline {ours}: {last_line(error)}; {INSTALL} there"
        ) from error
    if there != ours:
        raise PipelineError(
            f"its head has nst-pipeline {there}, and this is {ours}; install the same version there"
        )


def _has_token() -> bool:
    """Tell whether this user has a token for clusters that ask for one."""
    given = os.environ.keys() & {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}
    return bool(given) or os.path.exists(os.path.expanduser(TOKEN))  # noqa: PTH110, PTH111


def _local_cpus(settings: ClusterSettings) -> int | None:
    """Return how many cores Ray is to count on; None: those that there are."""
    if settings.workers == "auto":
        return None
    return max(settings.workers * settings.cpus_per_worker, os.cpu_count() or 1)


def _knock(address: str) -> None:
    """See that somebody listens at an address, which Ray alone would take long to see.

    Raises:
        PipelineError: nobody does.
    """
    host, _, port = address.removeprefix(CLIENT).rpartition(":")
    try:
        socket.create_connection((host, int(port)), KNOCK_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:  # of names and ports that none can have
        raise PipelineError(f"nobody answers there ({error}); {start(address)}") from error


if __name__ == "__main__":
    main()
