"""A worker of a cluster: an actor of Ray, which paints as this process would.

It reaches nothing of the folders that the executor works with. What it needs it asks for, and
what it makes it tells, both by `poll`, which the driver calls again and again.
"""

import contextlib
import itertools
import os
import pickle
import platform
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from nst_pipeline import __version__
from nst_pipeline.config.pipeline import Config
from nst_pipeline.config.weights import COMPACT_PATH, PUBLISHED, Weights
from nst_pipeline.digests import file_digest
from nst_pipeline.errors import DeviceLostError, PipelineError, UnavailableError
from nst_pipeline.files import shown
from nst_pipeline.jobs.job import Job
from nst_pipeline.jobs.looking import decoders
from nst_pipeline.workers import checkpoints
from nst_pipeline.workers.cluster_messages import (
    Ask,
    Broken,
    Done,
    Event,
    Glimpsed,
    Keep,
    Opened,
    Over,
    Read,
    Ready,
    Step,
)
from nst_pipeline.workers.local import LocalExecutor
from nst_pipeline.workers.protocol import Glimpse, Task
from nst_pipeline.workers.scratch import make_scratch, remove_scratch

Given = tuple[int, bytes, list[int], dict[str, bytes]]
"""A task's number, the pickled `Task`, the places of its jobs that are not done, and their
checkpoints by their names."""
LEAVE_SECONDS = 0.2
"""How long the answer to the last call may take on its way."""
STEP_SECONDS = 0.2
"""How often steps are told, if there is nothing else to tell."""


GROUPS = {"tell": 1, "poll": 1}
"""Of methods: those of one wait for each other alone. With the threads of each."""
Method = TypeVar("Method", bound=Callable[..., Any])


def _in_group(name: str) -> Callable[[Method], Method]:
    """Return what puts a method into a group, as `ray.method` does.

    Not by the call, for what is called by way of Ray's client takes no group.
    """

    def mark(method: Method) -> Method:
        method.__ray_concurrency_group__ = name  # type: ignore[attr-defined]
        return method

    return mark


class ClusterWorker:
    """Paints tasks in a thread of its own; what Ray calls only hands over."""

    def __init__(self) -> None:
        """Begin nothing: first it is to be seen whether we understand each other."""
        self._news = _News()
        self._work: _Work | None = None

    def hello(self) -> dict[str, Any]:
        """Tell what runs here, in a form that no version changes."""
        return {
            "version": __version__,
            "python": platform.python_version(),
            "torch": version("torch"),
            "decoders": decoders(),
            "pid": os.getpid(),
        }

    @_in_group("tell")
    def begin(
        self, config: Config, weights: Weights, weights_sha256: str, threads: int, sharing: int
    ) -> None:
        """Be ready for tasks.

        Args:
            config: the settings.
            weights: the network's; the path is the executor's.
            weights_sha256: of that file.
            threads: that torch computes with on a CPU.
            sharing: workers on this computer, this one included, which have its memory together.
        """
        config = config.model_copy(update={"limits": config.limits.shared_by(sharing)})
        os.environ["OMP_NUM_THREADS"] = str(threads)  # torch is not loaded yet
        self._work = _Work(config, weights, weights_sha256, self._news)
        threading.Thread(target=self._work.run, name="work", daemon=True).start()

    @_in_group("tell")
    def paint(self, number: int, payload: bytes, left: list[int], kept: dict[str, bytes]) -> None:
        """Take a task; see `Given`."""
        assert self._work
        self._work.give((number, payload, left, kept))

    @_in_group("tell")
    def halt(self, number: int) -> None:
        """End a task before its time."""
        assert self._work
        self._work.halted.add(number)

    @_in_group("tell")
    def look_on(self) -> None:
        """Have a glimpse taken."""
        assert self._work
        self._work.is_looked_at = True

    @_in_group("tell")
    def answer(self, number: int, value: object) -> None:
        """Take the answer of a question: bytes, or an error to raise."""
        self._news.answer(number, value)

    @_in_group("poll")
    def poll(self, seconds: float) -> list[Event]:
        """Return what there is to tell, after so many seconds at the latest."""
        return self._news.take(seconds)

    @_in_group("tell")
    def leave(self) -> None:
        """Remove what lies on this computer's disk, and end, also when Ray's head is lost."""
        if self._work:
            self._work.remove()
        threading.Timer(LEAVE_SECONDS, os._exit, (0,)).start()


class _News:
    """What the worker has to tell, and the answers of what it asked."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._steps: dict[tuple[int, int], Step] = {}
        self._answers: dict[int, object] = {}
        self._condition = threading.Condition()
        self._questions = itertools.count()
        self._told = self._returned = self._known = 0  # events
        self._step_due = 0.0

    def tell(self, event: Event) -> int:
        """Have an event told; return how many there were with it."""
        with self._condition:
            self._events.append(event)
            self._told += 1
            self._condition.notify_all()
            return self._told

    def tell_surely(self, event: Event) -> None:
        """Have an event told, and wait until it is known."""
        with self._condition:
            number = self.tell(event)
            self._condition.wait_for(lambda: self._known >= number)

    def step(self, step: Step) -> None:
        """Have a step told, unless a further one is in its place."""
        with self._condition:
            self._steps[step.task, step.job] = step
            self._condition.notify_all()

    def take(self, seconds: float) -> list[Event]:
        """Return the events since the last call, once there are some or the time is over."""
        until = time.monotonic() + seconds
        with self._condition:
            self._known = self._returned  # whoever calls again has what was returned
            self._condition.notify_all()
            while not self._events:
                due = min(until, self._step_due) if self._steps else until
                if (left := due - time.monotonic()) <= 0:
                    break
                self._condition.wait(left)
            events = [*self._steps.values(), *self._events]
            self._steps, self._events, self._returned = {}, [], self._told
            self._step_due = time.monotonic() + STEP_SECONDS
            return events

    def ask(self, *arguments: Any) -> Any:
        """Return the answer of a question, or raise it."""
        with self._condition:
            number = next(self._questions)
            self.tell(Ask(number, arguments))
            self._condition.wait_for(lambda: number in self._answers)
            answer = self._answers.pop(number)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def answer(self, number: int, value: object) -> None:
        """Take the answer of a question."""
        with self._condition:
            self._answers[number] = value
            self._condition.notify_all()


class _Work:
    """The thread that paints: the `Supply` and the `Progress` of a local executor.

    Attributes:
        targets: none: style targets are kept in memory alone.
        halted: tasks that are to be ended.
        is_looked_at: whether a glimpse is wanted.
    """

    def __init__(self, config: Config, weights: Weights, sha256: str, news: _News) -> None:
        self._config, self._weights, self._sha256, self._news = config, weights, sha256, news
        self._given: SimpleQueue[Given] = SimpleQueue()
        self._tasks: deque[tuple[int, Task]] = deque()
        self._jobs: dict[Path, tuple[int, int]] = {}
        self._kept: dict[int, dict[str, bytes]] = {}
        self._scratch: Path | None = None
        self.targets: Path | None = None
        self.halted: set[int] = set()
        self.is_looked_at = False

    def give(self, given: Given) -> None:
        """Have a task painted after those before."""
        self._given.put(given)

    def remove(self) -> None:
        """Remove what lies on the disk."""
        if self._scratch:
            remove_scratch(self._scratch)

    def run(self) -> None:
        """Paint what is given, without an end."""
        try:
            self._executor = LocalExecutor(self._config, self._weights_here(), self)
            self._news.tell(Ready())
            while True:
                self._open(self._given.get())
                while self._tasks:
                    self._paint()
        except BaseException as error:  # noqa: BLE001 - told to whom it is of use
            foreseen = isinstance(error, PipelineError)
            what = str(error) if foreseen else f"{type(error).__name__}: {error}"
            is_unable = isinstance(error, UnavailableError)
            self._news.tell(Broken(what, is_unable, isinstance(error, DeviceLostError)))

    def _open(self, given: Given) -> None:
        number, payload, left, self._kept[given[0]] = given
        if number in self.halted:
            self._end(number, [Done(number, index, None) for index in left])
            return
        self._news.tell_surely(Opened(number))  # for its bytes may end this process
        task: Task = pickle.loads(payload)
        task = replace(task, jobs=tuple(task.jobs[index] for index in left))
        for index, job in zip(left, task.jobs, strict=True):
            self._jobs[job.output] = number, index
        self._executor.submit(task)
        self._tasks.append((number, task))
        self._news.tell(Read(number))

    def _paint(self) -> None:
        number, task = self._tasks[0]
        self._check_halt()
        for outcome in self._executor.poll(self):
            place = self._jobs[outcome.job.output]
            self._news.tell(Done(*place, outcome.outcome, outcome.machine))
        self._tasks.popleft()
        for job in task.jobs:
            del self._jobs[job.output]
        self._end(number, [])

    def _end(self, number: int, events: list[Done]) -> None:
        self.halted.discard(number)
        del self._kept[number]
        for event in events:
            self._news.tell(event)
        self._news.tell(Over(number))

    def _weights_here(self) -> Weights:
        """Return the weights with a path of this computer: where they are already, or put there.

        Raises:
            UnavailableError: they can be neither.
        """
        ours = self._weights
        published = PUBLISHED.get(ours.id)
        candidates = published.paths() if published else [COMPACT_PATH]
        for path in candidates:
            with contextlib.suppress(OSError):
                if file_digest(path) == self._sha256:
                    return replace(ours, path=path)
        try:
            self._scratch = make_scratch()
            path = self._scratch / f"weights{ours.path.suffix}"
            path.write_bytes(self._news.ask())
        except OSError as error:
            raise UnavailableError(f"weights: {shown(str(error))}") from error
        return replace(ours, path=path)

    # What the executor asks for, in either of its threads

    def read(self, path: Path, sha256: str, root: Path | None = None) -> bytes:
        """Have a file read where it is; see `Supply.read`."""
        data: bytes = self._news.ask(path, sha256, root)
        return data

    def keep(self, keys: Sequence[str], data: bytes) -> None:
        """Send a checkpoint where it outlives this computer."""
        self._news.tell(Keep(tuple(keys), data))

    def find(self, keys: Sequence[str]) -> bytes | None:
        """Return the checkpoint that came with the task."""
        name = checkpoints.name(keys)
        return next((kept[name] for kept in list(self._kept.values()) if name in kept), None)

    # What the executor tells

    def stepped(self, job: Job, done: int, total: int, loss: float) -> None:
        """Tell a step."""
        self._news.step(Step(*self._jobs[job.output], done, total, loss))
        self._check_halt()

    def check(self) -> None:
        """Make the next task ready while this one is painted."""
        self._check_halt()
        if self._executor.capacity:
            with contextlib.suppress(Empty):
                self._open(self._given.get_nowait())

    def wants_glimpse(self) -> bool:
        """Tell whether one is wanted, once."""
        is_wanted, self.is_looked_at = self.is_looked_at, False
        return is_wanted

    def glimpsed(self, job: Job, glimpse: Glimpse) -> None:
        """Tell a glimpse."""
        self._news.tell(Glimpsed(*self._jobs[job.output], glimpse))

    def _check_halt(self) -> None:
        for place, (number, _) in enumerate(self._tasks):
            if number in self.halted:
                self._executor.halt(place)
