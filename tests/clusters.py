"""Clusters of Ray on this machine, with several nodes, and what is seen of their processes."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from pathlib import Path

import pytest
from crashing import crashing
from support import free_port, wait_until

MARK = "NST_PIPELINE_TEST_CLUSTER"
"""The variable by which the processes of a cluster are known, and those that use it."""


class Nodes:
    """A cluster, whose head has no room for workers; use `nodes` to make one.

    Attributes:
        address: of its head.
        client_address: likewise, for Ray's client; it has none unless it is asked for.
    """

    def __init__(self, folder: Path, has_clients: bool = False) -> None:
        self._folder = folder / "ray"
        self._folder.mkdir()
        ours, theirs = Pipe()
        with theirs:
            number = theirs.fileno()
            host = Path(__file__).with_name("cluster_host.py")
            self._process = subprocess.Popen([sys.executable, host, str(number)], pass_fds=[number])
        self._link = ours
        port = free_port() if has_clients else None
        self.client_address = f"ray://127.0.0.1:{port}"
        self.add(cpus=0, include_dashboard=False, ray_client_server_port=port)
        if port:  # what listens there begins after the node
            wait_until(lambda: is_heard(port))

    def add(self, cpus: int = 1, **options: object) -> int:
        """Add a node, wait until it is there, and return its number."""
        options |= {
            "num_cpus": cpus, "num_gpus": 0, "object_store_memory": 80 * 2**20,
            "node_ip_address": "127.0.0.1", "temp_dir": str(self._folder),
        }  # fmt: skip
        self._link.send((dict(os.environ), options))
        self.address, number = self._link.recv()
        return number

    def remove(self, node: int) -> None:
        """Remove a node at once, as if its machine were switched off."""
        self._link.send(node)
        self._link.recv()

    def close(self) -> None:
        """End all its processes."""
        self._link.close()
        assert self._process.wait(60) == 0


def is_heard(port: int) -> bool:
    """Tell whether anybody listens at a port of this machine."""
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def marked(folder: Path) -> Iterator[str]:
    """Have all processes begun in the block known by a mark, and gone at its end.

    Workers among them are ended by a BMP, with a signal that no decoder is blamed for.
    """
    mark, temporary = uuid.uuid4().hex, tempfile.mkdtemp(prefix="nstr-", dir="/tmp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARK, mark)
        patch.setenv("RAY_TMPDIR", temporary)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # all listens at 127.0.0.1 alone
        patch.setenv("RAY_AUTH_MODE", "disabled")
        for name, value in crashing(folder / "site", "pixels", signal.SIGKILL).items():
            patch.setenv(name, value)
        try:
            yield mark
        finally:
            try:
                wait_until(lambda: not processes(mark), 30)
            finally:
                for pid in processes(mark):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def nodes(folder: Path, has_clients: bool = False) -> Iterator[Nodes]:
    """Make a cluster for a block; afterwards none of its processes is left."""
    with marked(folder) as mark:
        cluster = Nodes(Path(os.environ["RAY_TMPDIR"]), has_clients)
        try:
            yield cluster
        finally:
            cluster.close()
            for pid in processes(mark, "ray::"):  # of nodes that were removed at once
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Return a cluster with two nodes of one core, shared by the tests of a module."""
    with nodes(tmp_path_factory.mktemp("cluster"), has_clients=True) as made:
        for name in ("north", "south"):
            made.add(node_name=name)
        yield made


def processes(mark: str, title: str = "") -> list[int]:
    """Return the processes with a mark, but this one, whose command line holds ``title``."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            if wanted not in (entry / "environ").read_bytes().split(b"\0"):
                continue
            if title.encode() in (entry / "cmdline").read_bytes().replace(b"\0", b" "):
                found.append(int(entry.name))
    return found


def workers(mark: str) -> list[int]:
    """Return the processes of workers."""
    return processes(mark, "ray::ClusterWorker")


def drivers(mark: str) -> list[int]:
    """Return the processes of drivers."""
    return processes(mark, "cluster_driver")
