"""A cluster's worker by itself, without Ray."""

import pickle
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import plan_of, wait_until

from nst_pipeline.config.memory import machine_bytes
from nst_pipeline.config.pipeline import Config, load, parse
from nst_pipeline.config.weights import resolve
from nst_pipeline.errors import DeviceLostError
from nst_pipeline.jobs.job import Job
from nst_pipeline.jobs.ledger import Ledger
from nst_pipeline.workers import cluster_worker
from nst_pipeline.workers.cluster import _sendable
from nst_pipeline.workers.cluster_messages import Broken, Done, Event, Over, Ready, Step
from nst_pipeline.workers.cluster_worker import ClusterWorker
from nst_pipeline.workers.engine_thread import EngineThread
from nst_pipeline.workers.handover import TaskInWork
from nst_pipeline.workers.protocol import Task


@pytest.fixture
def config(project: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Return settings for two contents in two styles, which take long."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    path = project / "pipeline.yaml"
    path.write_text(path.read_text().replace("iterations: 3", "iterations: 100000, scales: 1"))
    return load(path)


def payloads(config: Config) -> Iterator[bytes]:
    """Give the pickled task of each content."""
    with Ledger(None) as ledger:
        todo = plan_of(config, ledger).todo
    for content in dict.fromkeys(job.content for job in todo):
        jobs = tuple(job for job in todo if job.content == content)
        yield pickle.dumps(_sendable(Task(content, jobs, content.path.read_bytes())))


class Heard(list[Event]):
    """What a worker told."""

    def __init__(self, config: Config, sha256: str = "") -> None:
        super().__init__()
        self.worker, weights = ClusterWorker(), resolve(config.weights)
        before = set(threading.enumerate())
        self.worker.begin(config, weights, sha256 or weights.sha256, 1, 1)
        self.threads = set(threading.enumerate()) - before

    def close(self) -> None:
        """End the worker's threads, whatever they are at."""
        work = self.worker._work
        assert work
        work.give(None)  # type: ignore[arg-type] - no task: nobody foresaw that
        work.halted.update(range(10))

        def has_ended() -> bool:
            self.hear()
            return not any(one.is_alive() for one in self.threads)

        wait_until(has_ended)
        if hasattr(work, "_executor"):
            work._executor.close()

    def of(self, kind: type) -> list[Any]:
        return [event for event in self if isinstance(event, kind)]

    def hear(self) -> None:
        """Take in what it tells, and answer what it asks."""
        for event in self.worker.poll(0.2):
            self.append(event)
            if question := getattr(event, "arguments", None):
                self.worker.answer(event.number, question[0].read_bytes())  # type: ignore[union-attr]

    def wait_for(self, kind: type, count: int = 1) -> None:
        """Listen until there is so much of a kind."""

        def are_there() -> bool:
            self.hear()
            return len(self.of(kind)) >= count

        wait_until(are_there)


Hear = Callable[..., Heard]


@pytest.fixture
def hear() -> Iterator[Hear]:
    """Return what makes workers whose threads end with the test, whatever comes of it."""
    made: list[Heard] = []

    def one(*arguments: Any) -> Heard:
        made.append(Heard(*arguments))
        return made[-1]

    yield one
    for heard in made:
        heard.close()


def test_a_worker_paints_the_jobs_that_are_left_alone(config: Config, hear: Hear) -> None:
    first, _ = payloads(config)
    heard = hear(config)
    heard.worker.paint(7, first, [1], {})
    heard.wait_for(Step)
    heard.worker.halt(7)
    heard.wait_for(Over)
    assert isinstance(heard[0], Ready) and heard.of(Done) == [Done(7, 1, None)]
    assert {event.job for event in heard.of(Step)} == {1}


def test_what_is_ended_before_its_turn_is_not_begun(
    config: Config, hear: Hear, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    paint = EngineThread._paint

    def note(engine: EngineThread, work: TaskInWork, jobs: list[Job]) -> Any:
        begun.append(jobs[0].content.path.stem)
        return paint(engine, work, jobs)

    monkeypatch.setattr(EngineThread, "_paint", note)
    heard = hear(config)
    for number, payload in enumerate(payloads(config)):
        heard.worker.paint(number, payload, [0, 1], {})
    heard.wait_for(Step)
    heard.wait_for(Step, len(heard.of(Step)) + 2)
    heard.worker.halt(1)
    heard.wait_for(Step, len(heard.of(Step)) + 2)
    heard.worker.halt(0)
    heard.wait_for(Over, 2)
    assert len(begun) == 1 and [event.outcome for event in heard.of(Done)] == [None] * 4


def test_a_worker_without_room_for_the_network_says_that_it_can_never_paint(
    config: Config, hear: Hear, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    heard = hear(config, "0" * 64)
    heard.wait_for(Broken)
    (broken,) = heard.of(Broken)
    assert broken.is_unable and broken.reason.startswith("weights: ") and not heard.of(Ready)


def test_a_worker_whose_device_breaks_says_so_and_paints_no_more(
    config: Config, hear: Hear, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(*_: object) -> None:
        raise DeviceLostError("device: cuda: broke")

    monkeypatch.setattr(EngineThread, "_paint", lose)
    first, second = payloads(config)
    heard = hear(config)
    heard.worker.paint(0, first, [0, 1], {})
    heard.worker.paint(1, second, [0, 1], {})
    heard.wait_for(Broken)
    assert heard.of(Broken) == [Broken("device: cuda: broke", False, has_lost_device=True)]
    assert not heard.of(Done)


@pytest.mark.parametrize(
    ("given", "expected"), [("auto", machine_bytes() // 2 // 4), (2**30, 2**30)]
)
def test_workers_of_one_machine_have_its_memory_together(
    given: Any, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Config] = []

    class Work:
        def __init__(self, config: Config, *_: object) -> None:
            taken.append(config)

        def run(self) -> None:
            pass

    monkeypatch.setattr(cluster_worker, "_Work", Work)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    data = {"styles": {"s": "/etc/passwd"}, "limits": {"max_memory_bytes": given}}
    config = parse(data, tmp_path)
    cluster_worker.ClusterWorker().begin(config, resolve("compact"), "", 1, 4)
    assert taken[0].limits.memory_bytes == expected
