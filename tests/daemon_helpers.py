"""What the tests of the daemon share: a place to work in, an executor that paints nothing."""

import io
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator

from PIL import Image

from nst_pipeline.config import Config
from nst_pipeline.executor import Failure, Machine, Outcome, Painting, Task
from nst_pipeline.jobs import Job

LOSSES = {"content": 1.0, "style": 1.0, "tv": 0.0, "total": 2.0}


class FakeExecutor:
    """Gives each content back as its own result; fails, waits or dies when told to.

    What it is to do with a content stands in a file beside it, named like the content with
    ``.do`` appended: ``fail``, ``oom``, ``input``, ``die`` (SIGKILL), ``slow`` (steps until the
    file is gone).
    """

    def __init__(
        self, config: Config, weights: object, on_step: Callable[[Job, int, float], None],
        check: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        self._on_step, self._check = on_step, check
        self._tasks: deque[Task] = deque()
        self._orders = config.inbox.parent / "orders"
        self._log = config.inbox.parent / "painted.log"

    @property
    def capacity(self) -> int:
        return 0 if self._tasks else 1

    def submit(self, task: Task) -> None:
        self._tasks.append(task)

    def poll(self) -> Iterator[Outcome]:
        task = self._tasks.popleft()
        for job in task.jobs:
            yield Outcome(job, self._paint(task, job))

    def drain(self) -> Iterator[Outcome]:
        while self._tasks:
            yield from self.poll()

    def machine(self) -> Machine:
        return Machine("fake", "fp32", 1, 1)

    def _paint(self, task: Task, job: Job) -> Painting | Failure:
        name = task.content.path.name
        order = self._orders / name
        what = order.read_text() if order.exists() else ""
        if what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if what in ("fail", "input"):
            return Failure(f"{name}: told to fail", kind="job" if what == "fail" else "input")
        if what == "oom":
            return Failure(f"{name}: out of memory")
        step = 1
        self._on_step(job, step, 2.0)
        while what == "slow" and order.exists():
            threading.Event().wait(0.01)
            step += 1
            if self._check:
                self._check()
            self._on_step(job, step, 2.0)
        assert task.copy is not None
        with Image.open(task.copy) as image:
            buffer = io.BytesIO()
            image.convert("RGB").save(buffer, "PNG")
        with self._log.open("a") as log:
            log.write(f"{name} {job.style.name}\n")
        size = (image.height, image.width)
        return Painting(buffer.getvalue(), size, size, step, "iterations", LOSSES, LOSSES, 0.01)
