"""What people wait for before anything is painted: `check`, the first iteration, a preview."""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nst_pipeline

Row = dict[str, object]

PACKAGE = Path(nst_pipeline.__file__).parent
SIZE = 256
"""Of the preview's pictures."""

STARTED = """
import os, sys, time
from nst_pipeline import cli
from nst_pipeline.cli import display
def stepped(*_):
    os.write(1, str(time.time()).encode())
    os._exit(0)
display.Display.stepped = stepped
sys.argv = ["nst-pipeline", "run"]
cli.main()
"""


def measure(rounds: int | None, quick: bool = False) -> list[Row]:
    """Measure processes in a folder as `init` makes it, with the sample pictures.

    Args:
        rounds: how often each is measured, after once that does not count; None: 5 times.
        quick: preview smaller pictures, and measure from the first time on.
    """
    with tempfile.TemporaryDirectory(prefix="nst-bench-") as folder:
        place = Place(Path(folder))
        size, iterations = (64, ("--iterations", "1")) if quick else (SIZE, ())
        seconds = {
            "check, the first of a day": place.first_check,
            "check": place.check,
            "start to the first iteration": place.start,
            f"preview at {size} px, a style of three": lambda: place.preview(size, iterations),
        }
        return [row(what, each, rounds or 5, not quick) for what, each in seconds.items()]


def row(what: str, measured: Callable[[], float], rounds: int, warms_up: bool) -> Row:
    """Return the median of what is measured, the lowest and the highest."""
    seconds = [measured() for _ in range(rounds + warms_up)][warms_up:]
    return {
        "what": what,
        "rounds": rounds,
        "seconds": statistics.median(seconds),
        "low": min(seconds),
        "high": max(seconds),
    }


class Place:
    """A folder as `init` makes it, in which nothing was painted yet, and a cache of its own."""

    def __init__(self, root: Path) -> None:
        """Make it."""
        self.home, self.cache = root / "home", root / "cache"
        self.environment = os.environ | {
            "PYTHONPATH": str(PACKAGE.parent),
            "XDG_CACHE_HOME": str(self.cache),
        }
        self._run(root, "init", "home")
        shutil.copytree(PACKAGE / "samples" / "contents", self.home / "inbox", dirs_exist_ok=True)
        self.styles = len(list((self.home / "styles").iterdir()))

    def _run(self, folder: Path, *arguments: str) -> float:
        command = [sys.executable, "-m", "nst_pipeline", *arguments]
        begun = time.perf_counter()
        subprocess.run(
            command, cwd=folder, env=self.environment, stdout=subprocess.DEVNULL, check=True
        )
        return time.perf_counter() - begun

    def first_check(self) -> float:
        """Return the seconds of a `check` that knows nothing of the machine."""
        shutil.rmtree(self.cache, ignore_errors=True)
        return self.check()

    def check(self) -> float:
        """Return the seconds of a `check`."""
        return self._run(self.home, "check")

    def start(self) -> float:
        """Return the seconds from the start of the process to the first iteration's report."""
        shutil.rmtree(self.home / "state")  # the last one was cut short
        command = [sys.executable, "-c", STARTED]
        begun = time.time()
        done = subprocess.run(
            command, cwd=self.home, env=self.environment, stdout=subprocess.PIPE, check=True
        )
        return float(done.stdout.split()[-1]) - begun

    def preview(self, size: int, options: tuple[str, ...]) -> float:
        """Return the seconds of a preview of one picture in every style, for each style."""
        arguments = ("preview", "inbox/landscape.jpg", "--size", str(size), *options)
        return self._run(self.home, *arguments) / self.styles
