"""The executor that has tasks painted by a cluster of Ray. Imports no Ray: its driver does."""

import contextlib
import importlib.util
import logging
import os
import pickle
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from nst_pipeline.config.pipeline import Config
from nst_pipeline.config.weights import Weights
from nst_pipeline.errors import Abandoned, UnavailableError
from nst_pipeline.files import shown
from nst_pipeline.jobs.job import Job
from nst_pipeline.jobs.outcome import Machine, Outcome
from nst_pipeline.workers.cluster_causes import CLIENT, start
from nst_pipeline.workers.cluster_messages import (
    TASKS_READY,
    Connected,
    Crew,
    Done,
    Glimpsed,
    Halt,
    LookOn,
    Lost,
    Note,
    Over,
    Place,
    Report,
    Request,
    Setup,
    Step,
    Submit,
    Told,
)
from nst_pipeline.workers.protocol import Progress, Task, WorkerState

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.2
"""How often, without any news, it is asked whether to go on."""
CONNECT_SECONDS = 30.0
"""How long a cluster may take to answer, and the driver on a busy machine to ask."""
CLIENT_SECONDS = 60.0
"""How long a head may take that begins a process for us first."""
SEND_SECONDS = 30.0
"""How long the driver may take nothing of what it is sent; it reads all the time."""
BEGIN_SECONDS = 120.0
"""How long one of this machine may take to begin."""
CLOSE_SECONDS = 90.0
"""How long the driver may take to end: what is at work makes its checkpoint."""
LOST_SECONDS = 5.0
"""How long it may take when there is no cluster any more, or none yet."""
HALTED_SECONDS = 60.0
"""How long what is to end may take for it; longer than a step, shorter than systemd waits."""
SAID_LINES = 8
"""Of what the driver printed, so much is told when it ends unforeseen."""
TOKEN = "~/.ray/auth_token"
DRIVER = "nst_pipeline.workers.cluster_driver"


class Link:
    """The driver's process, and the socket to it.

    Attributes:
        places: where there is room for workers; None: not known yet.
    """

    def __init__(self, setup: Setup) -> None:
        """Begin the process.

        Raises:
            UnavailableError: the library is not there.
        """
        self.address = setup.config.cluster.address or ""
        if importlib.util.find_spec("ray") is None:
            raise self.lost("Ray is not installed; pip install 'nst-pipeline[cluster]'")
        ours, theirs = socket.socketpair()
        patience = struct.pack("@ll", int(SEND_SECONDS), int(SEND_SECONDS % 1 * 1e6))
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
        self._socket = ours
        self._connection = Connection(os.dup(ours.fileno()))
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the rest
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", DRIVER, str(theirs.fileno())],
                stdin=subprocess.DEVNULL, stdout=self._said, stderr=self._said,
                pass_fds=[theirs.fileno()],
                cwd=Path(__file__).parents[2],  # and not where anybody's files are modules
                start_new_session=True,  # a Ctrl-C is for us alone
            )  # fmt: skip
        self._deadline = time.monotonic() + _connect_seconds(self.address)
        self._is_hung = False
        self.places: tuple[Place, ...] | None = None
        self.send(setup)

    def lost(self, reason: str) -> UnavailableError:
        """Return the error that there is no cluster."""
        return UnavailableError(f"cluster {self.address}: {reason}")

    def send(self, request: Request) -> None:
        """Send a message; that nobody takes it is told when the next is to be received."""
        try:
            self._connection.send(request)
        except BlockingIOError:  # a part may be there, so nothing can be sent any more
            self._is_hung = True
        except OSError:
            pass

    def receive(self, seconds: float) -> Report | None:
        """Return the next message; None: there is none in so many seconds.

        Raises:
            UnavailableError: there will be none any more.
        """
        if self._is_hung:
            raise self.lost(f"its driver, process {self._process.pid}, hangs; it is ended")
        if not self._connection.poll(seconds):
            if self.places is None and time.monotonic() > self._deadline:
                raise self.lost(self._silence())
            return None
        try:
            report: Report = self._connection.recv()
        except (EOFError, OSError) as error:
            self._tell_said()
            raise self.lost(
                "the connection broke: its head has ended, or the node of this machine"
            ) from error
        if isinstance(report, Lost):
            raise self.lost(report.reason)
        if isinstance(report, Connected):
            self.places = report.places
        return report

    def _tell_said(self) -> None:
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").splitlines()[-SAID_LINES:]
        for line in lines:
            log.warning("cluster %s: its driver said: %s", self.address, shown(line))

    def _silence(self) -> str:
        """Return why there may be no answer, for people."""
        self._said.seek(0)
        if b"AuthToken" in self._said.read():
            return f"asks for its token; {TOKEN} of its head belongs there here, too"
        node = "" if self.address.startswith(CLIENT) else ", or has no node on this machine"
        return f"does not answer{node}; {start(self.address)}"

    def close(self, seconds: float) -> None:
        """Have the process end, and all that it began."""
        until = time.monotonic() + seconds
        if self._is_hung:
            self._process.kill()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        # What it still says is of no interest, but it must be able to say it.
        with contextlib.suppress(OSError):
            self._socket.settimeout(1.0)
            while time.monotonic() < until:
                with contextlib.suppress(TimeoutError):
                    if not self._socket.recv(2**20):
                        break
        self._connection.close()
        self._said.close()
        self._socket.close()
        try:
            self._process.wait(max(LOST_SECONDS, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@dataclass(eq=False)
class InCluster:
    """A task that the cluster has.

    Attributes:
        jobs: those that nothing came of yet, by their places.
        halted: when it was told to end, of `time.monotonic`; None: it was not.
    """

    jobs: dict[int, Job]
    halted: float | None = None


class ClusterExecutor:
    """Has a cluster paint, by as many workers as it has; they are begun by the first task."""

    def __init__(self, config: Config, weights: Weights) -> None:
        """Begin nothing."""
        self._config, self._weights = config, weights
        self._link: Link | None = None
        self._tasks: dict[int, InCluster] = {}
        self._number = 0
        self._crew: dict[str, WorkerState] = {}
        self._is_stuck = False  # a worker did not end what it was to

    @property
    def capacity(self) -> int:
        """Two tasks a worker: one at work, and one that is ready when it is over."""
        return max(0, max(1, TASKS_READY * len(self._crew)) - len(self._tasks))

    @property
    def outlives_workers(self) -> bool:
        """Yes: what a worker was at is told as a failure."""
        return True

    def submit(self, task: Task) -> None:
        """Take a task, and begin to connect if there is no connection.

        Raises:
            UnavailableError: the library is not there.
        """
        payload = pickle.dumps(_sendable(task))
        if self._link is None:
            self._link = Link(Setup(self._config, self._weights))
        self._number += 1
        keys, name = tuple(job.key for job in task.jobs), shown(task.content.path)
        self._tasks[self._number] = InCluster(dict(enumerate(task.jobs)))
        self._link.send(Submit(self._number, payload, keys, name))

    def poll(self, progress: Progress) -> Iterator[Outcome]:
        """Give the outcomes that there are; if there are none, wait for some or for room.

        Raises:
            UnavailableError: there is no cluster, or none that can paint.
        """
        has_some = False
        while self._tasks and not has_some:
            for outcome in self._news(progress):
                has_some = True
                yield outcome
            if self.capacity:
                return

    def drain(self, progress: Progress) -> Iterator[Outcome]:
        """Give the outcomes of everything submitted; raises as `poll` does."""
        while self._tasks:
            yield from self._news(progress)

    def machine(self) -> Machine | None:
        """Return None: each outcome tells it."""
        return None

    def workers(self) -> list[WorkerState]:
        """Tell what the workers do."""
        return list(self._crew.values())

    def close(self) -> None:
        """End everything submitted, after the steps at work, and the workers."""
        can_end = self._link is not None and self._link.places is not None and not self._is_stuck
        self._close(CLOSE_SECONDS if can_end else LOST_SECONDS)

    def _close(self, seconds: float) -> None:
        link, self._link = self._link, None
        self._tasks.clear()
        self._crew.clear()
        self._is_stuck = False
        if link:
            link.close(seconds)

    def _news(self, progress: Progress) -> Iterator[Outcome]:
        """Wait a little for news, and take in all that there are."""
        link = self._link
        assert link
        try:
            report = link.receive(LOOK_SECONDS)
            while report:
                yield from self._take_in(report, progress)
                report = link.receive(0)
        except UnavailableError:
            self._close(LOST_SECONDS)
            raise
        try:
            progress.check()
            if progress.wants_glimpse():
                link.send(LookOn())
        except Abandoned:
            self._halt(list(self._tasks))
        yield from self._given_up()

    def _given_up(self) -> Iterator[Outcome]:
        """Have nothing come of tasks whose worker does not end them."""
        for number, held in list(self._tasks.items()):
            if held.halted is not None and time.monotonic() > held.halted + HALTED_SECONDS:
                del self._tasks[number]
                self._is_stuck = True
                for job in held.jobs.values():
                    yield Outcome(job, None)

    def _halt(self, numbers: list[int]) -> None:
        assert self._link
        wanted = [number for number in numbers if self._tasks[number].halted is None]
        for number in wanted:
            self._tasks[number].halted = time.monotonic()
        if wanted:
            self._link.send(Halt(tuple(wanted)))

    def _take_in(self, report: Report, progress: Progress) -> Iterator[Outcome]:
        if isinstance(report, Note):
            log.log(report.level, "cluster %s: %s", self._config.cluster.address, report.text)
        elif isinstance(report, Crew):
            old = self._crew
            self._crew = {
                name: old.get(name) or WorkerState(name, node)
                for name, node in report.nodes.items()
            }
        elif isinstance(report, Told) and (held := self._tasks.get(report.event.task)):
            yield from self._told(report, held, progress)

    def _told(self, told: Told, held: InCluster, progress: Progress) -> Iterator[Outcome]:
        event, number = told.event, told.event.task
        if isinstance(event, Done):
            job, machine = held.jobs.pop(event.job), event.machine
            node = self._crew[told.worker].node if told.worker in self._crew else ""
            if machine:
                machine = replace(machine, node=node, worker=told.worker)
                self._note(
                    told.worker, device=machine.device, memory_bytes=machine.memory_bytes,
                    jobs_done=self._crew[told.worker].jobs_done + 1 if node else 0,
                )  # fmt: skip
            self._note(told.worker, job=None, done=0, total=0)
            yield Outcome(job, event.outcome, machine)
            return
        if isinstance(event, Over):
            del self._tasks[number]
            return
        try:
            job = held.jobs[event.job]
            if isinstance(event, Step):
                self._note(told.worker, job=job, done=event.done, total=event.total)
                progress.stepped(job, event.done, event.total, event.loss)
            elif isinstance(event, Glimpsed):
                progress.glimpsed(job, event.glimpse)
        except Abandoned:
            self._halt([number])

    def _note(self, worker: str, **changes: Any) -> None:
        if worker in self._crew:
            self._crew[worker] = replace(self._crew[worker], **changes)


def _connect_seconds(address: str) -> float:
    if address == "local":
        return BEGIN_SECONDS
    return CLIENT_SECONDS if address.startswith(CLIENT) else CONNECT_SECONDS


def places(config: Config) -> tuple[Place, ...]:
    """Return where a cluster would begin workers.

    Raises:
        UnavailableError: there is no cluster.
    """
    link = Link(Setup(config, None, is_trial=True))
    try:
        while link.places is None:
            link.receive(LOOK_SECONDS)
    finally:
        link.close(LOST_SECONDS)
    return link.places


def _sendable(task: Task) -> Task:
    """Return a task that can be pickled: a read-only view of a mapping cannot."""
    jobs = tuple(replace(job, content=_plain(job.content)) for job in task.jobs)
    return replace(task, content=_plain(task.content), jobs=jobs)


def _plain(content: Any) -> Any:
    return replace(content, companions=dict(content.companions))
