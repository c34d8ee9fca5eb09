"""How many workers one process keeps busy: workers that only sleep, and return a valid PNG.

Nothing is simulated but the painting: plans, ledger, publishing and records are the program's own.
A worker takes its next task from the one it has ready, at the moment that the last is over, however
busy the process is that gives them out; only when there is none ready, it waits.
"""

import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.pipeline import environment, pixel
from nst_pipeline.config.pipeline import Config, load
from nst_pipeline.config.weights import Weights
from nst_pipeline.jobs.job import Job
from nst_pipeline.jobs.outcome import EncodedResult, Machine, Outcome
from nst_pipeline.jobs.planning import make_scanner
from nst_pipeline.runner.runner import Runner
from nst_pipeline.workers.protocol import Progress, Task, WorkerState

Row = dict[str, object]

LONGEST_SECONDS = 80.0
"""Of few workers, a row takes no longer than that."""
STEPS = 10
"""A job tells of as many steps."""
MOMENT_SECONDS = 0.1
RACY_SECONDS = 2.1
"""The digests of files younger than this are not remembered."""
LOSSES = {"content": 1.0, "style": 2.0, "tv": 0.0, "total": 3.0}


def measure(
    workers: list[int] | None = None,
    cluster_jobs: int = 5000,
    seconds: float = 1.0,
    sizes: list[int] | None = None,
    quick: bool = False,
) -> list[Row]:
    """Measure in temporary folders, each row in a process of its own.

    Args:
        workers: how many there are.
        cluster_jobs: that are done; by few workers fewer.
        seconds: that a job takes.
        sizes: the longer side of the results, in pixels.
        quick: few and short jobs.
    """
    jobs = min(cluster_jobs, 40) if quick else cluster_jobs
    seconds = min(seconds, 0.05) if quick else seconds
    counts = workers or ([1, 4] if quick else [1, 8, 32, 64])
    side = (sizes or [512])[0]
    rows = []
    for count in counts:
        fewer = min(jobs, round(count * LONGEST_SECONDS / seconds))
        rows.append(_row("run", count, fewer, seconds, side))
    rows.append(_row("watch", counts[-1], jobs, seconds, side))
    rows += [_row(command, counts[-1], jobs, 0.0, side) for command in ("run", "watch")]
    return rows


def _row(command: str, workers: int, jobs: int, seconds: float, side: int) -> Row:
    arguments = json.dumps([command, workers, jobs, seconds, side])
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.cluster", arguments],
        cwd=Path(__file__).parents[1], env=environment(), stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    row: Row = json.loads(done.stdout)
    return row


def run(command: str, workers: int, jobs: int, seconds: float, side: int) -> Row:
    """Do jobs with workers that sleep; return what they waited, and what it took."""
    with tempfile.TemporaryDirectory(prefix="nst-bench-") as folder:
        home = Path(folder)
        _make_place(home, jobs)
        sleepers = Sleepers(workers, seconds, _png(side), jobs)
        config = load(home / "pipeline.yaml")
        observer = _observer(command, config)
        time.sleep(RACY_SECONDS)
        cpu = time.process_time()
        with Runner(config, sleepers, observer) as runner:
            if command == "run":
                runner.run()
            else:
                scanner = make_scanner(config)
                while sleepers.done < jobs:
                    runner.run_standing(scanner)
        cpu = time.process_time() - cpu
        outputs = sum(1 for path in (home / "outbox").glob("*.png"))
        assert outputs == jobs == sleepers.done, (outputs, jobs, sleepers.done)
        return {
            "command": command, "workers": workers, "jobs": jobs, "seconds a job": seconds,
            "waiting %": 100 * sleepers.waiting_share() if seconds else "",
            "jobs/s": jobs / sleepers.wall_seconds(),
            "CPU ms a job": 1000 * cpu / jobs,
            "MB at 1/5": sleepers.memory[0], "MB at the end": sleepers.memory[-1],
        }  # fmt: skip


def _observer(command: str, config: Config) -> object:
    if command == "run":
        from rich.console import Console

        from nst_pipeline.cli.display import Display

        return Display(Console(file=io.StringIO()), config, lambda: None)
    from nst_pipeline.daemon.notifier import Notifier
    from nst_pipeline.daemon.reporter import Reporter

    return Reporter(config, Notifier())


def _make_place(home: Path, jobs: int) -> None:
    (home / "inbox").mkdir()
    for number in range(jobs):
        (home / "inbox" / f"{number:06}.bmp").write_bytes(pixel(number))
    (home / "style.bmp").write_bytes(pixel(2**24 - 1))
    (home / "pipeline.yaml").write_text(
        "weights: compact\nrecipe: {size: 64, iterations: 10}\nstyles: {s: style.bmp}\n"
        "watch: {settle_seconds: 0}\nlimits: {min_free_bytes: 0}\n"
    )


def _png(side: int) -> bytes:
    """Return a picture such as a pastiche is: coarse, with some grain."""
    random, buffer = np.random.default_rng(0), io.BytesIO()
    coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((side, side * 3 // 4), Image.Resampling.BICUBIC), np.int16)
    grain = random.integers(-4, 5, smooth.shape)
    pixels = np.clip(smooth + grain, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass
class Sleeper:
    """A worker: its tasks, the first of which it is at since ``begun``."""

    name: str
    node: str
    tasks: deque[tuple[Task, float]] = field(default_factory=deque)
    begun: float = 0.0
    first: float | None = None
    last: float = 0.0
    told: int = 0
    waited: float = 0.0
    done: int = 0


class Sleepers:
    """An executor whose workers only sleep."""

    outlives_workers = True

    def __init__(self, count: int, seconds: float, png: bytes, jobs: int) -> None:
        """Have so many workers, whose jobs take so long; ``jobs``: how many there will be."""
        self._crew = [Sleeper(f"w{n}", f"n{n // 8}") for n in range(count)]
        self._seconds, self._png, self._jobs = seconds, png, jobs
        self._begun = 0.0
        self.memory: list[float] = []
        self.done = 0

    def __call__(self, config: Config, weights: Weights) -> "Sleepers":
        """Be made for some settings, as a class of executors is."""
        return self

    @property
    def capacity(self) -> int:
        """Two tasks a worker."""
        return sum(2 - len(one.tasks) for one in self._crew)

    def submit(self, task: Task) -> None:
        """Give a task to the worker that has the least to do."""
        now = time.perf_counter()
        self._begun = self._begun or now
        worker = min(self._crew, key=lambda one: (len(one.tasks), one.last))
        if not worker.tasks:
            worker.waited += now - worker.last if worker.first is not None else 0.0
            worker.first = now if worker.first is None else worker.first
            worker.begun, worker.told = now, 0
        worker.tasks.append((task, now))

    def poll(self, progress: Progress) -> Iterator[Outcome]:
        """Give all that is over; wait for a moment if nothing is."""
        until, found = time.perf_counter() + MOMENT_SECONDS, False
        while not found and time.perf_counter() < until:
            for worker in self._crew:
                for outcome in self._over(worker, progress):
                    found = True
                    yield outcome
            progress.check()
            if not found:
                time.sleep(min(0.005, MOMENT_SECONDS))

    def drain(self, progress: Progress) -> Iterator[Outcome]:
        """Give the rest."""
        while any(one.tasks for one in self._crew):
            yield from self.poll(progress)

    def _over(self, worker: Sleeper, progress: Progress) -> Iterator[Outcome]:
        while worker.tasks:
            task, _ = worker.tasks[0]
            (job,) = task.jobs
            passed = time.perf_counter() - worker.begun
            steps = STEPS if passed >= self._seconds else int(STEPS * passed / self._seconds)
            while worker.told < steps:
                worker.told += 1
                progress.stepped(job, worker.told, STEPS, 2.0)
            if passed < self._seconds:
                return
            worker.tasks.popleft()
            worker.last = worker.begun + self._seconds
            worker.told = 0
            if worker.tasks:
                worker.begun = max(worker.last, worker.tasks[0][1])
                worker.waited += worker.begun - worker.last
            worker.done += 1
            self.done += 1
            if self.done in (self._jobs // 5, self._jobs):
                self.memory.append(_resident_mb())
            machine = Machine(
                "sleeps", "fp32", worker.done, 1, node=worker.node, worker=worker.name
            )
            yield Outcome(job, self._result(job), machine)

    def _result(self, job: Job) -> EncodedResult:
        size, steps = (384, 512), list(range(1, STEPS + 1))
        return EncodedResult(
            self._png, size, size, STEPS, "iterations", LOSSES, LOSSES, self._seconds,
            curve=((size, steps, [3.0] * STEPS),),
        )  # fmt: skip

    def machine(self) -> None:
        """Tell nothing: each outcome does."""

    def workers(self) -> list[WorkerState]:
        """Tell what the workers do."""
        return [
            WorkerState(
                one.name, one.node, "sleeps", None, one.tasks[0][0].jobs[0] if one.tasks else None,
                one.told, STEPS, one.done,
            )
            for one in self._crew
        ]  # fmt: skip

    def close(self) -> None:
        """End everything."""
        for worker in self._crew:
            worker.tasks.clear()

    def wall_seconds(self) -> float:
        """Return the time from the first task to the end of the last."""
        return time.perf_counter() - self._begun

    def waiting_share(self) -> float:
        """Return how much of its time, from its first task to its last, a worker waited."""
        whole = sum(one.last - one.first for one in self._crew if one.first is not None)
        return sum(one.waited for one in self._crew) / whole


def _resident_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) / 1024


if __name__ == "__main__":
    sys.path.insert(0, os.fspath(Path(__file__).parents[1]))
    row = run(*json.loads(sys.argv[1]))
    sys.stdout.write(json.dumps(row))
