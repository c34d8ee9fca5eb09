"""Which worker of a cluster gets which task, and what becomes of it when one dies."""

import contextlib
import functools
import itertools
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from typing import Any

from nst_pipeline import __version__
from nst_pipeline.config.pipeline import Config
from nst_pipeline.config.weights import COMPACT_PATH, Weights
from nst_pipeline.digests import file_digest
from nst_pipeline.errors import PipelineError
from nst_pipeline.files import counted
from nst_pipeline.jobs.looking import decoders
from nst_pipeline.jobs.outcome import EncodedResult, Failure
from nst_pipeline.workers import checkpoints
from nst_pipeline.workers.cluster_causes import (
    INSTALL,
    HeadLost,
    cause,
    last_line,
    tells_loss,
)
from nst_pipeline.workers.cluster_crew import (
    Ending,
    Ground,
    Held,
    Verdict,
    Worker,
    blame,
    giving,
    taking,
)
from nst_pipeline.workers.cluster_messages import (
    TASKS_READY,
    Alive,
    Ask,
    Broken,
    Crew,
    Done,
    Event,
    Glimpsed,
    Halt,
    Keep,
    LookOn,
    Note,
    Opened,
    Over,
    Read,
    Ready,
    Report,
    Setup,
    Step,
    Submit,
    TaskEvent,
    Told,
)
from nst_pipeline.workers.cluster_nodes import Spot, chosen, spots
from nst_pipeline.workers.cluster_store import Store
from nst_pipeline.workers.cluster_worker import GROUPS, ClusterWorker
from nst_pipeline.workers.supply import Disk

POLL_SECONDS = 5.0
"""How long a worker is waited for at a time."""
NODES_SECONDS = 1.0
"""How often it is looked which nodes there are."""
LOST_SECONDS = 15.0
"""A head that does not answer for so long is lost."""
HALT_SECONDS = 60.0
"""How long, at the end, what is at work may take to make its checkpoint."""
SLOW_SECONDS = 30.0
"""It is told of a worker that has not begun after so long."""


class Gone(Exception):  # noqa: N818 - no error: it is how this process ends
    """The executor wants nothing any more, or is gone."""


class Scheduler:
    """Keeps a crew of workers, gives them the tasks, and tells the executor what comes of them.

    Attributes:
        is_signalled: whether this process was asked to end, and so may the workers have been.
    """

    def __init__(self, setup: Setup, link: Connection, queue: SimpleQueue[Any], ray: Any) -> None:
        """Begin nothing.

        Args:
            setup: what to do.
            link: to the executor.
            queue: of what is to be done next, by functions without arguments.
            ray: the library, connected.
        """
        assert setup.weights
        self._config, self._weights, self._ray = setup.config, setup.weights, ray
        self._link, self._queue = link, queue
        self._disk = Disk(self._config)
        self._weights_sha256 = _file_sha256(self._weights)
        self._store = Store(ray)
        self._actors = ray.remote(concurrency_groups=GROUPS)(ClusterWorker)
        self._tasks: dict[int, Held] = {}
        self._waiting: deque[int] = deque()
        self._givings = itertools.count(1)
        self._given: dict[int, int] = {}  # task of each giving
        self._workers: dict[tuple[str, int], Worker] = {}
        self._ground = Ground()
        self._nodes_at = time.monotonic()
        self._had_workers = self._is_short = self._is_ending = False
        self._verdicts: list[Verdict] = []
        self.is_signalled = False

    def run(self) -> None:
        """Work until the executor wants nothing any more.

        Raises:
            Gone: that is so.
            PipelineError: the cluster is lost, or of no use.
        """
        while True:
            with contextlib.suppress(Empty):
                self._queue.get(timeout=NODES_SECONDS)()
                while not self._queue.empty():
                    self._queue.get()()
            if time.monotonic() - self._nodes_at > LOST_SECONDS:
                raise HeadLost(f"its head has not answered for {LOST_SECONDS:.0f} s")
            self._hand_out()

    def tell(self, report: Report) -> None:
        """Tell the executor something.

        Raises:
            Gone: there is nobody to tell.
        """
        try:
            self._link.send(report)
        except OSError as error:
            raise Gone from error

    # What the executor wants

    def take(self, request: object) -> None:
        """Do what the executor wants."""
        if isinstance(request, Submit):
            self._tasks[request.task] = Held(request, set(range(len(request.keys))))
            self._waiting.append(request.task)
        elif isinstance(request, Halt):
            for number in request.tasks:
                self._halt(number)
        elif isinstance(request, LookOn):
            for worker in self._workers.values():
                if worker.tasks:
                    self._call(worker, "look_on")

    def _halt(self, number: int) -> None:
        if not (held := self._tasks.get(number)) or held.is_halted:
            return
        held.is_halted = True
        if number in self._waiting:
            self._waiting.remove(number)
            self._finish("", number, None)
        for worker in self._workers.values():
            if number in worker.tasks:
                self._call(worker, "halt", held.given)

    def _finish(self, name: str, number: int, outcome: Failure | None) -> None:
        """Have the rest of a task come to nothing."""
        held = self._tasks.pop(number)
        for job in sorted(held.left):
            self.tell(Told(name, Done(number, job, outcome)))
        self.tell(Told(name, Over(number)))

    def end(self) -> None:
        """Have everything at work make its checkpoint, for as long as somebody wants it."""
        until, self._is_ending = time.monotonic() + HALT_SECONDS, True
        self._judge()
        for number in list(self._tasks):
            self._halt(number)
        while self._tasks and time.monotonic() < until:
            self.tell(Alive())
            with contextlib.suppress(Empty):
                self._queue.get(timeout=0.2)()

    def dismiss(self) -> None:
        """End all workers."""
        last = [self._call(worker, "leave") for worker in self._workers.values() if worker.is_ready]
        if last:
            self._ray.wait(last, num_returns=len(last), timeout=2.0)
        for worker in self._workers.values():
            self._ray.kill(worker.actor)

    # The crew

    def note_nodes(self, nodes: list[dict[str, Any]], asked: float) -> None:
        """Have a worker wherever there is room for one.

        Args:
            nodes: those of the cluster.
            asked: when it was asked for them, of `time.monotonic`.

        Raises:
            PipelineError: there is none, and never was; or none that can paint.
        """
        self._nodes_at = time.monotonic()
        if self._is_ending:
            return
        self._judge(asked)
        settings = self._config.cluster
        room = spots(nodes, settings, self._config.device)
        alive = {node["NodeID"] for node in nodes if node["Alive"]}
        for worker in list(self._workers.values()):
            if worker.spot.node_id not in alive:
                self._lose(worker, "its node is gone")
        now, taken = time.monotonic(), set(self._workers)
        open_room = [one for one in room if one.key in taken or self._ground.is_open(one, now)]
        for spot in chosen(open_room, taken, settings.workers):
            if spot.key not in taken:
                self._begin(spot)
        for worker in self._workers.values():
            self._tell_slow(worker)
        self._tell_shortage(room)

    def _begin(self, spot: Spot) -> None:
        strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            spot.node_id, soft=False
        )
        actor = self._actors.options(
            num_cpus=spot.cpus, num_gpus=spot.gpus, scheduling_strategy=strategy,
            max_restarts=0, max_task_retries=0,
        ).remote()  # fmt: skip
        worker = self._workers[spot.key] = Worker(spot, actor, time.monotonic())
        self._then(actor.hello.remote(), worker, self._greeted)

    def _greeted(self, worker: Worker, greeting: dict[str, Any]) -> None:
        if greeting["version"] != __version__:
            self._refuse(
                worker, f"has nst-pipeline {greeting['version']}, and this is {__version__}; "
                "install the same version there",
            )  # fmt: skip
            return
        there = greeting["decoders"]
        lacking = [name for name, ours in decoders().items() if ours and not there[name]]
        if lacking:
            names = " ".join(lacking)
            self._refuse(worker, f"lacks {names}, which is here; pip install {names} there")
            return
        spot = worker.spot
        begun = self._call(
            worker,
            "begin",
            _config_at(self._config, spot),
            self._weights,
            self._weights_sha256,
            spot.cpus,
            sum(one.spot.node_id == spot.node_id for one in self._workers.values()),
        )
        self._then(begun, worker, self._begun)
        self._note(
            logging.INFO,
            f"worker {spot.worker}: {spot.device}; Python {greeting['python']}, "
            f"torch {greeting['torch']}",
        )

    def _begun(self, worker: Worker, _: None) -> None:
        self._listen(worker)

    def _listen(self, worker: Worker) -> None:
        self._then(self._call(worker, "poll", POLL_SECONDS), worker, self._heard)

    def _refuse(self, worker: Worker, reason: str) -> None:
        """Have no worker on its node."""
        node = worker.spot.node
        self._ground.refused[worker.spot.node_id] = f"node {node} {reason}"
        self._note(logging.WARNING, f"node {node} {reason}; it gets no worker")
        for one in list(self._workers.values()):
            if one.spot.node_id == worker.spot.node_id:
                self._lose(one, reason, "unable")

    def _lose(self, worker: Worker, why: str, ending: Ending = "died") -> None:
        """Do without a worker; what is to blame (`blame`) will be a failure, all else goes on.

        Args:
            worker: the worker.
            why: it is no more, for people.
            ending: how it ended.
        """
        if self._workers.get(worker.spot.key) is not worker:
            return
        del self._workers[worker.spot.key]
        self._ray.kill(worker.actor)
        if not worker.is_ready or ending != "died":
            self._ground.put_off(worker.spot.key, time.monotonic(), ending)
        if worker.spot.node_id not in self._ground.refused:
            what = "died" if ending == "died" else "cannot paint, and is begun anew later"
            self._note(logging.WARNING, f"worker {worker.spot.worker} {what}: {why}")
        guilty = blame(worker, ending, self._tasks)
        for number in reversed(worker.tasks):
            held = self._tasks[number]
            if number in guilty:
                lost = "died" if ending == "died" else "lost its device, and so did one before"
                reason = f"{held.submitted.name}: the worker on {worker.spot.node} {lost}: {why}"
                verdict = Verdict(time.monotonic(), worker.spot.worker, number, Failure(reason))
                self._verdicts.append(verdict)
            elif held.is_halted or not held.left:
                self._finish(worker.spot.worker, number, None)
            else:
                self._waiting.appendleft(number)
        self._tell_crew()
        if self._is_ending:
            self._judge()

    def _judge(self, asked: float = math.inf) -> None:
        """Tell what workers died of, once the cluster has outlived them a little.

        When it ends itself, or is ended with all of us, its workers are often the first to go.
        """
        due = [one for one in self._verdicts if asked >= one.since + NODES_SECONDS]
        self._verdicts = [one for one in self._verdicts if one not in due]
        is_the_end = self.is_signalled or self._is_ending
        for one in due:
            self._finish(one.worker, one.task, None if is_the_end else one.failure)

    def _tell_crew(self) -> None:
        ready = [worker.spot for worker in self._workers.values() if worker.is_ready]
        self.tell(Crew({spot.worker: spot.node for spot in ready}))

    def _tell_slow(self, worker: Worker) -> None:
        if worker.is_ready or worker.is_slow or time.monotonic() < worker.begun + SLOW_SECONDS:
            return
        worker.is_slow = True
        self._note(
            logging.WARNING,
            f"worker {worker.spot.worker} has not begun after {SLOW_SECONDS:.0f} s; "
            "`ray status` shows what else has its place",
        )

    def _tell_shortage(self, room: list[Spot]) -> None:
        if obstacles := self._ground.obstacles(room):
            raise PipelineError("; ".join(sorted(obstacles)))
        is_short = not room and not self._workers
        if is_short and not self._had_workers:
            settings, device = self._config.cluster, self._config.device
            raise PipelineError(
                f"no node has room for a worker with {counted(settings.cpus_per_worker, 'core')} "
                f"and the device {device}; `ray status` shows what it has"
            )
        if is_short != self._is_short:
            if is_short:
                self._note(logging.WARNING, "the cluster has no worker any more; waiting for nodes")
            self._is_short = is_short

    def _note(self, level: int, text: str) -> None:
        self.tell(Note(level, text))

    # Talking with workers

    def _call(self, worker: Worker, method: str, *arguments: object) -> Any:
        return getattr(worker.actor, method).remote(*arguments)

    def _then(self, reference: Any, worker: Worker, act: Callable[[Worker, Any], None]) -> None:
        """Have something done with what a worker answers; if it does not, it is lost."""

        def take(future: Any) -> None:
            self._queue.put(functools.partial(self._answered, worker, future, act))

        reference.future().add_done_callback(take)

    def _answered(self, worker: Worker, future: Any, act: Callable[[Worker, Any], None]) -> None:
        if self._workers.get(worker.spot.key) is not worker:
            return
        if error := future.exception():
            self._failed(worker, error)
        else:
            act(worker, future.result())

    def _failed(self, worker: Worker, error: BaseException) -> None:
        """Do without a worker that raised an error, or died.

        Raises:
            HeadLost: it is not the worker that is gone.
        """
        if tells_loss(error):
            raise HeadLost
        is_task = isinstance(error, self._ray.exceptions.RayTaskError)
        is_ours = is_task or "creation task" in str(error)
        if is_ours and not worker.is_ready:
            problem = f"cannot run nst-pipeline {__version__}: {last_line(error)}"
            self._refuse(worker, f"{problem}; {INSTALL} there")
        else:
            self._lose(worker, cause(error))

    def _heard(self, worker: Worker, events: list[Event]) -> None:
        for event in events:
            self._take_in(worker, event)
            if self._workers.get(worker.spot.key) is not worker:
                return
        self._listen(worker)

    def _take_in(self, worker: Worker, event: Event) -> None:
        if isinstance(event, Keep):
            checkpoints.keep(self._config.state, event.keys, event.data)
        elif isinstance(event, Ask):
            self._call(worker, "answer", event.number, self._answer(event))
        elif isinstance(event, Ready):
            worker.is_ready = self._had_workers = True
            self._tell_crew()
        elif isinstance(event, Broken):
            if event.is_unable:
                spot = worker.spot
                self._ground.unable[spot.key] = f"node {spot.node} cannot paint: {event.reason}"
                self._lose(worker, event.reason, "unable")
            else:
                self._lose(worker, event.reason, "lost device" if event.has_lost_device else "died")
        else:
            number = self._given[event.task]
            if isinstance(event, Over):
                del self._given[event.task]
            if (held := self._tasks.get(number)) and held.given == event.task:
                self._take_in_of(worker, number, held, event)

    def _take_in_of(self, worker: Worker, number: int, held: Held, event: TaskEvent) -> None:
        """Take in what a worker tells of a task that it has."""
        if isinstance(event, Step) or (isinstance(event, Done) and event.outcome):
            self._ground.note_step(worker.spot.key)
        if isinstance(event, Done) and isinstance(event.outcome, EncodedResult):
            self._ground.note_result(worker.spot.key)
        if isinstance(event, Opened):
            worker.opened.add(number)
            return
        if isinstance(event, Read):
            worker.read.add(number)
            return
        if isinstance(event, Step | Glimpsed | Done) and event.job not in held.left:
            return  # done before, by a worker that could not do the rest
        if isinstance(event, Done):
            held.left.remove(event.job)
        elif isinstance(event, Over):
            del self._tasks[number]
            worker.forget(number)
        self.tell(Told(worker.spot.worker, replace(event, task=number)))

    def _answer(self, question: Ask) -> Any:
        """Return what a worker asks for, as a reference into the object store, or an error."""
        try:
            if not question.arguments:
                sha256 = self._weights_sha256
                return self._store.put(sha256, self._weights.path.read_bytes)
            path, sha256, root = question.arguments
            return self._store.put(sha256, lambda: self._disk.read(path, sha256, root))
        except (PipelineError, OSError) as error:
            return error

    # Handing out

    def _hand_out(self) -> None:
        """Give what waits to the workers that have the least to do."""
        ready = [worker for worker in self._workers.values() if worker.is_ready]
        are_all_there = all(worker.is_ready or worker.is_slow for worker in self._workers.values())
        most = TASKS_READY if are_all_there else 1  # what has no worker yet is soon to have one
        while found := giving(self._waiting, ready, self._tasks, most):
            worker, number = found
            self._waiting.remove(number)
            self._give(worker, number)
        for idle in [worker for worker in ready if not worker.tasks]:
            if found := taking(idle, ready, self._tasks):
                busy, number = found
                busy.forget(number)
                self._call(busy, "halt", self._tasks[number].given)
                self._give(idle, number)

    def _give(self, worker: Worker, number: int) -> None:
        held = self._tasks[number]
        kept = checkpoints.of_jobs(self._config.state, held.submitted.keys)
        held.given = next(self._givings)
        self._given[held.given] = number
        worker.tasks.append(number)
        left = sorted(held.left)
        self._call(worker, "paint", held.given, held.submitted.payload, left, kept)
        if held.is_halted:
            self._call(worker, "halt", held.given)


def _config_at(config: Config, spot: Spot) -> Config:
    """Return the settings of a worker, whose process sees its own device alone."""
    device = config.device.partition(":")[0] if spot.gpus else "cpu"
    return config.model_copy(update={"device": device})


def _file_sha256(weights: Weights) -> str:
    return weights.sha256 if weights.path == COMPACT_PATH else file_digest(weights.path)
