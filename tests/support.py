"""What tests share: a place to work in, an executor that paints nothing, a silent observer.

As a program, this is nst-pipeline with that executor.
"""

import io
import json
import math
import os
import random
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Self

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from nst_pipeline.config.pipeline import Config, load
from nst_pipeline.errors import Abandoned, DeviceLostError, ImageError, UnavailableError
from nst_pipeline.files import shown
from nst_pipeline.images.decoding import Pixels, decode, to_depth
from nst_pipeline.jobs.job import Job
from nst_pipeline.jobs.ledger import Ledger, ledger_path
from nst_pipeline.jobs.outcome import EncodedResult, Failure, Machine, Outcome
from nst_pipeline.jobs.planning import RUN, Plan, Policy, make_plan, make_scanner
from nst_pipeline.manifest.model import JobRecord
from nst_pipeline.manifest.recorder import Recorder
from nst_pipeline.runner.observer import Observer
from nst_pipeline.runner.runner import Runner
from nst_pipeline.workers.protocol import Glimpse, MakeExecutor, Progress, Task, WorkerState

LOSSES = {"content": 1.0, "style": 2.0, "tv": 0.0, "total": 3.0}
PATIENCE_SECONDS = 120.0
LONG = 86400
"""More seconds than any test takes, for what is not to come about by itself."""
UNPRIVILEGED = (
    ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
)
"""What a program is run under so that permissions hold for it, also where root tests it."""


class FakeExecutor:
    """Gives each content back as its own result; fails, waits or dies when told to.

    What it is to do with a content stands in ``orders/NAME`` beside the inbox: ``fail``, ``input``
    (is no picture), ``pass`` (may pass), ``cut`` (the result is cut short), ``die`` (SIGKILL),
    ``lost`` (the device is), ``raise`` (what nobody foresaw), or ``slow`` (steps until the order is
    taken away); with ``once`` after it, only the first time; with ``infinite``, so are its losses.
    What it painted stands in ``painted.log``. The program takes ``crash``, too: the process is
    killed when it looks at the file.

    Attributes:
        fates: a failure or an error for the contents of a stem.
        painted: the jobs that were painted.
        together: the stems of the contents at hand, each time one was handed over.
        limit: tasks that it takes.
    """

    def __init__(self, fates: dict[str, Failure | BaseException] | None = None, limit: int = 2):
        self.fates, self.limit = fates or {}, limit
        self.painted: list[Job] = []
        self.together: list[list[str]] = []
        self.made = 0
        self._tasks: deque[Task] = deque()
        self._home = Path()

    def __call__(self, config: Config, weights: object) -> Self:
        """Be made for some settings, as a class of executors is."""
        self._home = config.inbox.parent
        self.made += 1
        return self

    @property
    def capacity(self) -> int:
        return self.limit - len(self._tasks)

    @property
    def outlives_workers(self) -> bool:
        return False

    def submit(self, task: Task) -> None:
        assert self.capacity
        self._tasks.append(task)
        self.together.append([task.content.path.stem for task in self._tasks])

    def poll(self, progress: Progress) -> Iterator[Outcome]:
        task, is_over = self._tasks.popleft(), False
        for job in task.jobs:
            fate = self.fates.get(job.content.path.stem)
            if isinstance(fate, BaseException):
                raise fate
            outcome: EncodedResult | Failure | None = fate
            if not is_over and outcome is None:
                try:
                    outcome = self._paint(task, job, progress)
                except Abandoned:
                    is_over = True
            yield Outcome(job, outcome, self.machine())

    def drain(self, progress: Progress) -> Iterator[Outcome]:
        while self._tasks:
            yield from self.poll(progress)

    def machine(self) -> Machine:
        return Machine("fake", "fp32", 3, 4, threads=2)

    def workers(self) -> list[WorkerState]:
        return [WorkerState("fake")]

    def close(self) -> None:
        self._tasks.clear()

    def _paint(self, task: Task, job: Job, progress: Progress) -> EncodedResult | Failure:
        name = task.content.path.name
        order = self._home / "orders" / name
        what, _, how_often = (order.read_text() if order.exists() else "").partition(" ")
        if how_often == "once":
            order.unlink()
        if what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "lost":
            raise DeviceLostError("device: fake: lost")
        if what == "raise":
            raise MemoryError
        kinds: dict[str, Any] = {"fail": "job", "input": "input", "pass": "passing"}
        if what in kinds:
            return Failure(f"{name}: told to {what}", kind=kinds[what])
        step = 1
        loss = math.inf if how_often == "infinite" else 2.0
        progress.stepped(job, step, 2, loss)
        while what == "hang" and order.exists():
            threading.Event().wait(0.01)
        while what == "slow" and order.exists():
            threading.Event().wait(0.01)
            step += 1
            progress.check()
            if progress.wants_glimpse():
                picture = Image.frombytes("RGB", (64, 48), random.Random(step).randbytes(9216))
                progress.glimpsed(job, Glimpse(step, picture))
            progress.stepped(job, step, 2, loss)
        try:
            pixels = decode(task.data, name, 10**6).pixels
        except ImageError as error:
            return Failure(str(error), kind="input")
        self.painted.append(job)
        with (self._home / "painted.log").open("a") as log:
            log.write(f"{shown(name)} {job.style.name}\n")
        height, width = pixels.shape[:2]
        size = height * 3 // 4, width * 3 // 4
        beside = "".join(f", {digest}" for digest in task.content.companion_digests().values())
        data = _as_png(pixels, size, f"{shown(name)} in {job.style.name}{beside}")
        return EncodedResult(
            data[:200] if what == "cut" else data,
            size, (height, width), step, "iterations", LOSSES, LOSSES, 0.5,
            extras=_extras(job, data), curve=((size, [1, step], [3.0, 2.5]),),
        )  # fmt: skip


class _Worker:
    """A worker of `ManyWorkers`: what it is at, what it has ready, and when the former is over."""

    def __init__(self, name: str, node: str) -> None:
        self.name, self.node = name, node
        self.tasks: deque[Task] = deque()
        self.is_at_work = False
        self.job: Job | None = None
        self.steps = self.jobs_done = 0
        self.ends = 0.0


class ManyWorkers(FakeExecutor):
    """Paints nothing with several workers, two tasks each, of which any may be over first.

    Orders are those of `FakeExecutor`, but that ``die`` kills the worker and not the process. The
    file ``orders/.workers`` says, while it is there, how many workers there are; with ``lost`` in
    it, the cluster is.

    Attributes:
        count: how many workers there are.
        seconds: that a task takes.
        chance: decides which worker goes on next, and what `kills` does.
        kills: how many workers are still to be killed, at random moments.
        killed: the stems of the contents that were at work on workers that died.
        most: the most tasks that were in flight at a time.
    """

    def __init__(
        self,
        count: int = 4,
        seconds: float = 0.0,
        kills: int = 0,
        fates: dict[str, Failure | BaseException] | None = None,
        seed: int = 1,
    ):
        super().__init__(fates)
        self.count, self.seconds, self.kills = count, seconds, kills
        self.chance = random.Random(seed)
        self.killed: list[str] = []
        self.most = self._begun = 0
        self._crew: list[_Worker] = []
        self._waiting: deque[Task] = deque()
        self._closed: list[Outcome] = []

    @property
    def capacity(self) -> int:
        self._hire()
        in_flight = sum(len(one.tasks) for one in self._crew) + len(self._waiting)
        return max(0, max(1, 2 * len(self._crew)) - in_flight)  # one, while workers are started

    @property
    def outlives_workers(self) -> bool:
        return True

    def submit(self, task: Task) -> None:
        assert self.capacity
        fate = self.fates.get(f"submit {task.content.path.stem}")
        if isinstance(fate, BaseException):
            raise fate
        self._waiting.append(task)
        self._hand_out()
        self.together.append(sorted(t.content.path.stem for w in self._crew for t in w.tasks))
        self.most = max(self.most, len(self.together[-1]))

    def poll(self, progress: Progress) -> Iterator[Outcome]:
        until, found = time.monotonic() + 0.1, False
        while True:
            for outcome in self._news(progress):
                found = True
                yield outcome
            if self.capacity and (found or time.monotonic() >= until):
                return
            if not self._crew and time.monotonic() >= until:
                return
            if not found:
                threading.Event().wait(0.002)

    def drain(self, progress: Progress) -> Iterator[Outcome]:
        while self._waiting or any(worker.tasks for worker in self._crew):
            yield from self.poll(progress)

    def machine(self) -> Machine | None:  # type: ignore[override]
        return None

    def workers(self) -> list[WorkerState]:
        self._hire()
        return [
            WorkerState(
                one.name, one.node, "fake", 1000, one.job, min(one.steps, 2), 2, one.jobs_done
            )
            for one in self._crew
        ]  # fmt: skip

    def close(self) -> None:
        self._crew.clear()
        self._waiting.clear()

    def kill(self, worker: _Worker) -> Iterator[Outcome]:
        """Have a worker die; what it was at is a failure, and what it had ready waits again."""
        self._crew.remove(worker)
        if worker.is_at_work:
            task = worker.tasks.popleft()
            self.killed.append(task.content.path.stem)
            why = f"{task.content.path.name}: the worker on {worker.node} died"
            yield from (Outcome(job, Failure(why)) for job in task.jobs)
        self._waiting.extendleft(worker.tasks)

    def _hire(self) -> None:
        order = self._home / "orders/.workers"
        told = order.read_text() if order.exists() else str(self.count)
        if told == "lost":
            raise UnavailableError("cluster fake: its head has ended")
        while len(self._crew) < int(told):
            self._begun += 1
            self._crew.append(_Worker(f"w{self._begun}", f"n{self._begun % 2}"))
        for worker in self._crew[int(told) :]:
            self._closed += self.kill(worker)
        self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting and self._crew:
            worker = min(self._crew, key=lambda one: len(one.tasks))
            if len(worker.tasks) == 2:
                return
            worker.tasks.append(self._waiting.popleft())
        for idle in (one for one in self._crew if not one.tasks):
            if behind := [one for one in self._crew if len(one.tasks) == 2]:
                idle.tasks.append(behind[0].tasks.pop())

    def _news(self, progress: Progress) -> Iterator[Outcome]:
        self._hire()
        gone, self._closed = self._closed, []
        yield from gone
        try:
            progress.check()
        except Abandoned:
            tasks = [*self._waiting, *(task for one in self._crew for task in one.tasks)]
            self._waiting.clear()
            for one in self._crew:
                one.tasks.clear()
                one.is_at_work, one.job = False, None
            yield from (Outcome(job, None) for task in tasks for job in task.jobs)
        for worker in self.chance.sample(self._crew, len(self._crew)):
            if worker in self._crew:
                yield from self._go_on(worker, progress)
        self._hire()

    def _go_on(self, worker: _Worker, progress: Progress) -> Iterator[Outcome]:
        """Have a worker do a step: begin its task, paint it, or hand over what came of it."""
        if not worker.tasks:
            return
        task = worker.tasks[0]
        if not worker.is_at_work:
            worker.is_at_work, worker.ends = True, time.monotonic() + self.seconds
            worker.job, worker.steps = task.jobs[0], 0
        order = self._home / "orders" / task.content.path.name
        if order.exists() and order.read_text().startswith("die"):
            self._step(task, worker, progress)
            if order.read_text() == "die once":
                order.unlink()
            yield from self.kill(worker)
            return
        is_over = not self._step(task, worker, progress)
        if not is_over and self.kills and self.chance.random() < 0.8:
            self.kills -= 1
            yield from self.kill(worker)
            return
        if not is_over and (_is_slow(order) or time.monotonic() < worker.ends):
            return
        machine = Machine(
            "fake", "fp32", 3 + worker.jobs_done, 4, 0, 1000, 2, worker.node, worker.name
        )
        for job in task.jobs:
            fate = self.fates.get(job.content.path.stem)
            outcome: EncodedResult | Failure | None = None
            if isinstance(fate, BaseException):
                raise fate
            if not is_over:
                outcome = fate or self._paint(task, job, _Deaf())
                worker.jobs_done += isinstance(outcome, EncodedResult)
            yield Outcome(job, outcome, machine)
        worker.tasks.popleft()
        worker.is_at_work, worker.job = False, None
        self._hand_out()

    def _step(self, task: Task, worker: _Worker, progress: Progress) -> bool:
        """Tell of a step; return whether to go on."""
        worker.steps += 1
        try:
            for job in task.jobs:
                progress.stepped(job, min(worker.steps, 2), 2, 2.0)
        except Abandoned:
            return False
        return True


def _is_slow(order: Path) -> bool:
    return order.exists() and order.read_text() in ("slow", "hang")


class _Deaf(Observer):
    """The progress of who wants to hear of none."""


def _extras(job: Job, data: bytes) -> dict[str, bytes]:
    making = job.encoding.making
    extras = {".steps/00001.png": data} if job.encoding.snapshots else {}
    return extras if making == "none" else extras | {f".{making}": data}


def _as_png(pixels: Pixels, size: tuple[int, int], title: str) -> bytes:
    buffer, tag = io.BytesIO(), PngInfo()
    tag.add_text("title", title)
    image = Image.fromarray(to_depth(pixels, 8)).resize(size[::-1])
    image.save(buffer, "PNG", pnginfo=tag)
    return buffer.getvalue()


class SilentObserver(Observer):
    """An observer that only remembers what it was told."""

    def __init__(self) -> None:
        self.plans: list[Plan] = []
        self.records: list[JobRecord] = []

    def planned(self, plan: Plan) -> None:
        self.plans.append(plan)

    def finished(self, record: JobRecord) -> None:
        self.records.append(record)


def run_once(
    config: Config,
    executor: MakeExecutor | None = None,
    observer: Observer | None = None,
    paths: list[Path] | None = None,
    force: bool = False,
) -> Recorder:
    """Run once with an executor that paints nothing, unless another is given."""
    make = executor or FakeExecutor()
    with Runner(config, make, observer or SilentObserver()) as runner:
        return runner.run(paths, force)


def observed_run(config: Config, **options: Any) -> SilentObserver:
    """Run once with an executor that paints nothing; return who was told of it."""
    observer = SilentObserver()
    run_once(config, None, observer, **options)
    return observer


def home_of(config: Config) -> Path:
    """Return the folder that `make_home` made."""
    return config.inbox.parent


def plan_of(config: Config, ledger: Ledger, policy: Policy = RUN) -> Plan:
    """Return the plan of everything in the inbox, and queue its jobs."""
    plan = make_plan(config, ledger, make_scanner(config, None, 0), policy)
    ledger.jobs.add(plan.todo)
    return plan


def wait_until(condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for a condition; fail if it does not come about in good time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:.0f} s in vain")
        threading.Event().wait(0.02)


def draw(path: Path | bytes, seed: int = 0) -> None:
    """Write a small picture, another for each seed."""
    image = Image.frombytes("RGB", (8, 6), random.Random(seed).randbytes(144))
    buffer = io.BytesIO()
    image.resize((64, 48), Image.Resampling.BICUBIC).save(buffer, "PNG")
    with open(path, "wb") as file:  # noqa: PTH123 - the name may be no text
        file.write(buffer.getvalue())


def nest(folder: Path, name: str = "d") -> Path:
    """Make folders below one, nested deeper than Python nests calls; return the last."""
    for _ in range(sys.getrecursionlimit() + 100):
        folder /= name
        folder.mkdir()
    return folder


def settings_text(**changes: Any) -> str:
    """Return a pipeline.yaml that waits for nothing long."""
    settings: dict[str, Any] = {
        "styles": {"s": "style.png"},
        "recipe": {"size": 32, "iterations": 2},
        "weights": "compact",
        "device": "cpu",
        "limits": {"min_free_bytes": 0},
        "watch": {"settle_seconds": 0.1, "grace_seconds": 0.3, "rescan_seconds": 300,
                  "retry_seconds": 0.2, "stop_seconds": 30},
    }  # fmt: skip
    for key, value in changes.items():
        are_both = isinstance(settings.get(key), dict) and isinstance(value, dict)
        settings[key] = settings[key] | value if are_both else value
    return json.dumps(settings)


def make_home(home: Path, **changes: Any) -> Path:
    """Make an empty inbox, two style images, and settings; return the folder."""
    (home / "inbox").mkdir(parents=True)
    (home / "orders").mkdir()
    draw(home / "style.png", 1000)
    draw(home / "style2.png", 1001)
    configure(home, **changes)
    return home


def configure(home: Path, **changes: Any) -> Config:
    """Write the settings anew, and return them."""
    (home / "pipeline.yaml").write_text(settings_text(**changes))
    return load(home / "pipeline.yaml")


def make_hook(home: Path, script: str, name: str = "hook") -> list[str]:
    """Write a shell script that can be started; return the command that does."""
    path = home / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return [str(path)]


def told(home: Path) -> list[dict[str, Any]]:
    """Return the records that the hook `TELL` was given, in the order of their contents."""
    records = [json.loads(path.read_text()) for path in (home / "told").glob("*.json")]
    return sorted(records, key=lambda one: (one["content"]["path"], one["style"]["name"]))


TELL = """mkdir -p told
cat > told/$NST_PIPELINE_DELIVERY.part
env -0 > told/$NST_PIPELINE_DELIVERY.env
mv told/$NST_PIPELINE_DELIVERY.part told/$NST_PIPELINE_DELIVERY.json"""
"""A hook's script that keeps what it is given in the folder ``told`` of the home."""


def states(home: Path) -> dict[str, str]:
    """Return the state of each job of the ledger, by its content's name."""
    ledger = Ledger.to_read(ledger_path(home / "state"))
    if ledger is None:
        return {}
    with ledger:
        return {entry.source.name: str(entry.state) for entry in ledger.jobs.all()}


def attempts(home: Path) -> dict[str, int]:
    """Return how often each job of the ledger was begun, by its content's name."""
    ledger = Ledger.to_read(ledger_path(home / "state"))
    if ledger is None:
        return {}
    with ledger:
        return {entry.source.name: entry.attempts for entry in ledger.jobs.all()}


def make_due(home: Path) -> None:
    """Have each job and delivery that waits for its next attempt wait no longer."""
    with closing(sqlite3.connect(ledger_path(home / "state"))) as database, database:
        for table in ("jobs", "deliveries"):
            database.execute(f"UPDATE {table} SET next_try = 0")


def free_port() -> int:
    """Return a port that nobody listens at, and that no client is given by chance."""
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.SystemRandom().randrange(10_000, low)
        with socket.socket() as one, suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port


def painted(home: Path) -> list[str]:
    """Return the names of the contents that were painted, each time one was."""
    path = home / "painted.log"
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


def outputs(home: Path) -> list[str]:
    """Return the outbox's pictures, relative to it; also those with hidden names."""
    outbox = home / "outbox"
    found = (path.relative_to(outbox) for path in outbox.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if path.parts[0] != "manifests")


def manifests(home: Path) -> list[dict[str, Any]]:
    """Return the manifests, the oldest first."""
    paths = (home / "outbox/manifests").glob("*.json")
    return sorted(
        map(json.loads, (p.read_text() for p in paths)), key=lambda m: m["run"]["started"]
    )


def command(*arguments: object) -> list[str]:
    """Return what starts nst-pipeline with an executor that paints nothing."""
    return [sys.executable, __file__, *map(str, arguments)]


def program(home: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        command(*arguments), cwd=home, capture_output=True, text=True, timeout=120, check=False
    )


def as_nobody(act: Callable[[], object]) -> str:
    """Do something as the user `nobody`, in a process of its own; return the error it ended with.

    Only root can; the test is skipped otherwise.
    """
    import pytest  # here, because the program needs none

    if os.geteuid():
        pytest.skip("only root can become another user")
    read, write = os.pipe()
    if not (child := os.fork()):
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            act()
        except BaseException as error:  # noqa: BLE001 - it is what the caller wants to see
            os.write(write, str(error).encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with open(read) as said:  # noqa: PTH123 - a descriptor
        return said.read()


NOBODY = 65534


class Watch:
    """`nst-pipeline watch` as a process; use it as a context manager.

    It paints nothing, unless it is told that it ``paints``.
    """

    def __init__(
        self,
        home: Path,
        *arguments: str,
        before: Sequence[str] = (),
        paints: bool = False,
        **environment: str,
    ) -> None:
        self.home, self._environment = home, environment
        program = [sys.executable, "-m", "nst_pipeline"] if paints else command()
        self._command = [*before, *program, "watch", *arguments]
        self.log = home / "watch.log"

    def __enter__(self) -> Self:
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                self._command, cwd=self.home, stdout=log, stderr=log,
                env={**os.environ, **self._environment},
            )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def status(self) -> dict[str, Any]:
        """Return what `status --json` prints, without starting a process for it."""
        from nst_pipeline.daemon.status import read_status

        return read_status(load(self.home / "pipeline.yaml")).to_plain()

    def until_idle(self) -> None:
        """Wait until nothing is left to do."""
        wait_until(lambda: self.status()["state"] == "idle")

    def until_state(self, state: str) -> None:
        wait_until(lambda: self.status()["state"] == state)

    def until_painting(self) -> None:
        wait_until(lambda: self.status()["current"])

    def until_outputs(self, *names: str) -> None:
        """Wait until the outbox holds exactly these pictures."""
        wait_until(lambda: outputs(self.home) == sorted(names))

    def page(self) -> str:
        """Wait until there is a live page; return its address."""

        def found() -> list[str]:
            return re.findall(r"live page at (http://\S+/)", self.log.read_text())

        wait_until(found)
        return found()[-1]

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        """Ask it to stop; return its exit status."""
        self.send(signal.SIGTERM)
        return self.process.wait(PATIENCE_SECONDS)


def main() -> None:
    """Run nst-pipeline with the executor that paints nothing."""
    from nst_pipeline import cli
    from nst_pipeline.jobs import looking
    from nst_pipeline.workers import local

    identify = looking.identify

    def crash(data: bytes, name: str, max_pixels: int) -> tuple[int, int]:
        path = Path(name)
        order = path.parent.parent / "orders" / path.name
        if order.exists() and order.read_text() == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        return identify(data, name, max_pixels)

    looking.identify = crash

    count = int(os.environ.get("FAKE_WORKERS", "0"))
    fake = ManyWorkers(count, seconds=0.05) if count else FakeExecutor(limit=1)
    local.LocalExecutor = fake  # type: ignore[misc, assignment]
    cli.main()


if __name__ == "__main__":
    main()
