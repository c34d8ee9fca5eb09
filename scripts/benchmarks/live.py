"""What viewers of the live page cost the painting: the same job, with and without them."""

import os
import re
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import pairs

Row = dict[str, object]

STREAMS, HALF_OPEN = 200, 40
EVENTS = b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
HALF = b"GET / HTTP/1.1\r\nHost:"


def measure(rounds: int | None = None, quick: bool = False) -> list[Row]:
    """Return a row: the seconds of jobs with viewers, 40 of them half-open, and without.

    Args:
        rounds: pairs of jobs; None: 8.
        quick: small and few.
    """
    count = rounds or (2 if quick else 8)
    with (
        tempfile.TemporaryDirectory(prefix="nst-bench-") as folder,
        daemon(Path(folder), iterations=20 if quick else 150) as (paint, port),
    ):
        paint()  # loads the network
        timed = []
        for number in range(count):
            if number % 2:
                alone = paint()
            with viewers(port):
                watched = paint()
            if not number % 2:
                alone = paint()
            timed.append((watched, alone))
    return [pairs.row(timed, "watched", "alone", streams=STREAMS, half_open=HALF_OPEN)]


@contextmanager
def daemon(root: Path, iterations: int) -> Iterator[tuple["Painter", int]]:
    """Start a daemon that paints one style; give what paints a picture, and the page's port."""
    (root / "inbox").mkdir()
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (192, 256, 3), np.uint8)).save(root / "style.png")
    (root / "pipeline.yaml").write_text(
        "weights: compact\nhttp: 127.0.0.1:0\nstyles: {s: style.png}\n"
        f"recipe: {{size: 256, iterations: {iterations}}}\nwatch: {{settle_seconds: 0}}\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    log = root / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "nst_pipeline", "watch"], cwd=root, env=environment,
            stdout=out, stderr=out,
        )  # fmt: skip
    try:
        found = wait_for(log, r"live page at http://127\.0\.0\.1:(\d+)/", process)
        yield Painter(root, log, process), int(found[1])
    finally:
        process.terminate()
        process.wait()


class Painter:
    """Drops pictures one by one, each a little different, and waits for each."""

    def __init__(self, root: Path, log: Path, process: subprocess.Popen[bytes]) -> None:
        """Drop nothing yet."""
        self._root, self._log, self._process = root, log, process
        self._number = 0

    def __call__(self) -> float:
        """Have one painted; return the seconds that the job took."""
        self._number += 1
        pixels = np.random.default_rng(1).integers(0, 256, (192, 256, 3), np.uint8)
        pixels[0, 0] = self._number % 256
        name = f"{self._number}.png"
        Image.fromarray(pixels).save(self._root / name)
        (self._root / name).rename(self._root / "inbox" / name)
        done = rf"done \S+/{self._number}\.png in s -> \S+ in ([\d.]+) s"
        return float(wait_for(self._log, done, self._process)[1])


def wait_for(log: Path, pattern: str, process: subprocess.Popen[bytes]) -> re.Match[str]:
    """Return where a pattern stands in a log, once it does."""
    while (found := re.search(pattern, log.read_text())) is None:
        if process.poll() is not None:
            raise RuntimeError(log.read_text())
        time.sleep(0.1)
    return found


@contextmanager
def viewers(port: int) -> Iterator[None]:
    """Have many look at the page, and many more say nothing to the end."""
    is_over = threading.Event()
    with selectors.DefaultSelector() as selector:
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(STREAMS)]
        for client in clients:
            client.sendall(EVENTS)
            selector.register(client, selectors.EVENT_READ)
        for _ in range(HALF_OPEN):
            clients.append(socket.create_connection(("127.0.0.1", port)))
            clients[-1].sendall(HALF)

        def read() -> None:
            while not is_over.is_set():
                for key, _ in selector.select(0.2):
                    if not key.fileobj.recv(65536):  # type: ignore[union-attr]
                        selector.unregister(key.fileobj)

        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield
        finally:
            is_over.set()
            reader.join()
            for client in clients:
                client.close()
