"""What everything around the engine costs: thirty jobs, and a plan of 300,000 jobs."""

import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from nst_pipeline.config.pipeline import Config, load
from nst_pipeline.config.weights import Weights
from nst_pipeline.jobs.ledger import Ledger, ledger_path
from nst_pipeline.jobs.planning import make_plan, make_scanner
from nst_pipeline.runner.observer import Observer
from nst_pipeline.runner.runner import Runner
from nst_pipeline.workers.local import LocalExecutor

Row = dict[str, object]

CONTENTS, STYLES = 10, 3
SIZE, ITERATIONS = 128, 20
RACY_SECONDS = 2.1
"""The digests of files younger than this are not remembered."""

# A child's maximum that the system tells its parent begins with the parent's own.
MEASURED = """
import atexit, sys
from pathlib import Path
from nst_pipeline import cli
def tell():
    lines = Path("/proc/self/status").read_text().splitlines()
    print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
atexit.register(tell)
sys.argv = ["nst-pipeline", "run"]
cli.main()
"""


def measure(rounds: int | None = None, files: int = 100_000, quick: bool = False) -> list[Row]:
    """Measure in temporary folders; a hundred thousand files take some minutes to make.

    Args:
        rounds: how often each is measured; None: 5 times.
        files: in the inbox of the plan.
        quick: a hundredth of them.
    """
    rounds = rounds or 5
    with tempfile.TemporaryDirectory(prefix="nst-bench-") as folder:
        return [
            jobs(Path(folder, "jobs"), rounds),
            plan(Path(folder, "plan"), rounds, files // 100 if quick else files),
        ]


def jobs(root: Path, rounds: int) -> Row:
    """Return the share of the wall time of thirty small jobs in which the engine waited.

    The wall time is that of the run from the engine's first moment to the run's end; the time
    inside is what the engine's thread spends making results.
    """
    shares, walls = [], []
    for number in range(rounds + 1):
        place = root / str(number)
        draw_place(place, CONTENTS)
        clock = Clock()
        with Runner(load(place / "pipeline.yaml"), clock.executor, Observer()) as runner:
            runner.run()
        walls.append(time.perf_counter() - clock.begun)
        shares.append(1 - clock.inside / walls[-1])
    del shares[0], walls[0]  # the first warms up
    return {
        "what": f"{CONTENTS * STYLES} jobs at {SIZE} px, {ITERATIONS} iterations",
        "seconds": statistics.median(walls),
        "outside %": 100 * statistics.median(shares),
        "low": 100 * min(shares),
        "high": 100 * max(shares),
    }


def plan(root: Path, rounds: int, files: int) -> Row:
    """Return the seconds and the peak memory of a run that finds everything done."""
    make_done(root, files)
    seconds, peak = [], 0
    for number in range(rounds + 1):
        begun = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", MEASURED], cwd=root, env=environment(),
            stdout=subprocess.PIPE, check=True,
        )  # fmt: skip
        if number:
            seconds.append(time.perf_counter() - begun)
        peak = max(peak, int(done.stdout.split()[-1]))
    return {
        "what": f"a run over {files:,} files x {STYLES} styles, all done",
        "seconds": statistics.median(seconds),
        "low": min(seconds),
        "high": max(seconds),
        "peak MB": peak / 1024,
    }


class Clock:
    """Measures what the engine's thread spends on results."""

    def __init__(self) -> None:
        """Begin when the first result is begun."""
        self.begun = self.inside = 0.0

    def executor(self, config: Config, weights: Weights) -> LocalExecutor:
        """Return an executor that is measured."""
        executor = LocalExecutor(config, weights)
        paint = executor._engine._paint
        transfer = executor._engine._transfer

        def loaded(recipe: object) -> object:
            found = transfer(recipe)  # type: ignore[arg-type]
            self.begun = self.begun or time.perf_counter()
            return found

        def timed(*arguments: object) -> Iterator[object]:
            results = iter(paint(*arguments))  # type: ignore[arg-type]
            while True:
                begun = time.perf_counter()
                result = next(results, None)
                self.inside += time.perf_counter() - begun
                if result is None:
                    return
                yield result

        executor._engine._paint = timed  # type: ignore[method-assign, assignment]
        executor._engine._transfer = loaded  # type: ignore[method-assign, assignment]
        return executor


def environment() -> dict[str, str]:
    """Return the environment of a process of this very program."""
    return os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}


def settings(**recipe: object) -> str:
    """Return a pipeline.yaml with three styles."""
    styles = "".join(f"  s{number}: s{number}.bmp\n" for number in range(STYLES))
    text = ", ".join(f"{key}: {value}" for key, value in recipe.items())
    return f"weights: compact\nrecipe: {{{text}}}\nwatch: {{settle_seconds: 0}}\nstyles:\n{styles}"


def draw_place(root: Path, contents: int) -> None:
    """Make a place with pictures as a camera makes them: larger than what is painted."""
    (root / "inbox").mkdir(parents=True)
    random = np.random.default_rng(0)
    names = [f"inbox/{number}.jpg" for number in range(contents)]
    names += [f"s{number}.bmp" for number in range(STYLES)]
    for name in names:
        coarse = Image.fromarray(random.integers(0, 256, (30, 40, 3), dtype=np.uint8))
        coarse.resize((1200, 900), Image.Resampling.BICUBIC).save(root / name)
    (root / "pipeline.yaml").write_text(settings(size=SIZE, iterations=ITERATIONS))


def make_done(root: Path, files: int) -> None:
    """Make a place where every job is done; inbox and outbox have folders of a thousand files."""
    (root / "inbox").mkdir(parents=True)
    for number in range(files):
        name = root / "inbox" / f"{number // 1000:03d}" / f"{number:06d}.bmp"
        name.parent.mkdir(exist_ok=True)
        name.write_bytes(pixel(number))
    for number in range(STYLES):
        (root / f"s{number}.bmp").write_bytes(pixel(2**24 - 1 - number))
    (root / "pipeline.yaml").write_text(settings(size=64))
    time.sleep(RACY_SECONDS)
    config = load(root / "pipeline.yaml")
    with Ledger(ledger_path(config.state)) as ledger, ledger.transaction():
        todo = make_plan(config, ledger, make_scanner(config, None, 0)).todo
        ledger.jobs.add(todo)
        for entry in ledger.jobs.all():
            ledger.jobs.start(entry.id)
            ledger.jobs.begin_commit(entry.id, entry.output, entry.output, entry.key)
            ledger.jobs.finish(entry.id)
            entry.output.parent.mkdir(parents=True, exist_ok=True)
            entry.output.touch()


def pixel(number: int) -> bytes:
    """Return a picture of one pixel (BMP), another for each number below 2**24."""
    header = struct.pack("<2sIHHI", b"BM", 58, 0, 0, 54)
    return header + struct.pack("<IiiHHIIiiIII", 40, 1, 1, 1, 24, 0, 4, 0, 0, 0, 0, number)
