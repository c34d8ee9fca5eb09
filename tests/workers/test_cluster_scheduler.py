"""Who gets which task of a cluster, and what a death costs, with a Ray that does nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest

from nst_pipeline import __version__
from nst_pipeline.config.pipeline import load
from nst_pipeline.config.weights import resolve
from nst_pipeline.errors import PipelineError
from nst_pipeline.jobs.looking import decoders
from nst_pipeline.jobs.outcome import EncodedResult, Failure
from nst_pipeline.workers import cluster_scheduler
from nst_pipeline.workers.cluster_crew import Worker
from nst_pipeline.workers.cluster_messages import (
    Broken,
    Done,
    Note,
    Opened,
    Over,
    Read,
    Ready,
    Report,
    Setup,
    Step,
    Submit,
    Told,
)
from nst_pipeline.workers.cluster_scheduler import Scheduler

RESULT = EncodedResult(b"", (1, 1), (1, 1), 1, "", {}, {}, 1.0)
BROKEN = "device: cuda: this machine has 0 CUDA devices"


class Actor:
    """Takes every call and answers none; ``calls`` are their names and arguments."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        def remote(*arguments: object) -> SimpleNamespace:
            self.calls.append((name, arguments))
            future = SimpleNamespace(add_done_callback=lambda act: None)
            return SimpleNamespace(future=lambda: future)

        return SimpleNamespace(remote=remote)


def silent_ray() -> Any:
    """Return a library whose actors are `Actor`s."""
    made = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=Actor))
    strategies = SimpleNamespace(NodeAffinitySchedulingStrategy=lambda *_, **__: None)
    return SimpleNamespace(
        remote=lambda **_: lambda cls: made,
        kill=lambda actor: None,
        exceptions=SimpleNamespace(RayTaskError=RuntimeError),
        util=SimpleNamespace(scheduling_strategies=strategies),
    )


class Bench:
    """A scheduler with nodes of so many GPUs each, by name, and a clock that is set by hand.

    Attributes:
        told: what it tells the executor.
        now: of its clock.
    """

    def __init__(self, config: Any, **gpus: int) -> None:
        self.told: list[Report] = []
        self.now = 1000.0
        link: Any = SimpleNamespace(send=self.told.append)
        self.scheduler = Scheduler(
            Setup(config, resolve("compact")), link, SimpleQueue(), silent_ray()
        )
        self.nodes = {name: self.node(name, count) for name, count in gpus.items()}

    @staticmethod
    def node(name: str, gpus: int) -> dict[str, Any]:
        return {
            "NodeID": name * 4, "Alive": True, "NodeName": name, "NodeManagerAddress": "10.0.0.1",
            "NodeManagerHostname": name, "Resources": {"CPU": 16, "GPU": gpus},
        }  # fmt: skip

    @property
    def workers(self) -> list[Worker]:
        return list(self.scheduler._workers.values())

    def look(self, seconds: float = 1) -> None:
        """Have so many seconds pass, and the nodes be looked at."""
        self.now += seconds
        self.scheduler.note_nodes(list(self.nodes.values()), self.now)

    def settle(self) -> None:
        """Have all new workers begin."""
        for worker in self.workers:
            if not worker.is_ready:
                self.scheduler._greeted(worker, greeting())
                self.scheduler._begun(worker, None)
                self.scheduler._heard(worker, [Ready()])

    def submit(self, count: int) -> None:
        """Give it tasks of two jobs, numbered from 1, and have them handed out."""
        for number in range(1, count + 1):
            keys = f"{number}a", f"{number}b"
            self.scheduler.take(Submit(number, b"", keys, f"{number}.jpg"))
        self.scheduler._hand_out()

    def hear(self, worker: Worker, *events: Callable[[int], Any]) -> None:
        """Have a worker tell of its first task."""
        given = self.scheduler._tasks[worker.tasks[0]].given
        self.scheduler._heard(worker, [event(given) for event in events])

    def work(self, worker: Worker) -> None:
        """Have a worker be at its first task."""
        self.hear(worker, Opened, Read, lambda given: Step(given, 0, 5, 10, 1.0))

    def outcomes(self) -> list[Any]:
        """Return the outcomes told; those of jobs that came to nothing are None."""
        told = [one.event for one in self.told if isinstance(one, Told)]
        return [one.outcome for one in told if isinstance(one, Done)]

    def failures(self) -> list[str]:
        return [one.reason for one in self.outcomes() if isinstance(one, Failure)]

    def notes(self) -> list[str]:
        return [one.text for one in self.told if isinstance(one, Note)]


def greeting(**changes: Any) -> dict[str, Any]:
    plain = {"version": __version__, "python": "3.11", "torch": "2", "decoders": decoders()}
    return plain | changes


Make = Callable[..., Bench]


@pytest.fixture
def bench(project: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Return what makes benches; the time is that of the last."""
    config = load(project / "pipeline.yaml").model_copy(update={"device": "auto"})

    def make(**gpus: int) -> Bench:
        made = Bench(config, **gpus)
        monkeypatch.setattr(cluster_scheduler, "time", SimpleNamespace(monotonic=lambda: made.now))
        made.look()
        return made

    return make


def test_one_broken_gpu_takes_no_other_with_it_and_blames_no_job(bench: Make) -> None:
    one = bench(a=8)
    one.settle()
    one.submit(8)
    broken, *others = one.workers
    for worker in others:
        one.work(worker)
    one.hear(broken, Opened, Read, lambda _: Broken(BROKEN, is_unable=True))
    assert one.workers == others and one.failures() == []
    one.scheduler._hand_out()
    assert sorted(number for worker in others for number in worker.tasks) == [*range(1, 9)]
    one.look(0.5)
    assert one.workers == others
    one.look(1)
    assert len(one.workers) == 8


def test_a_worker_that_cannot_paint_is_begun_anew_less_and_less_often(bench: Make) -> None:
    one = bench(a=1, b=1)
    one.settle()
    begun = 0
    for _ in range(100):
        for worker in one.workers:
            if worker.spot.node == "a":
                begun += 1
                one.scheduler._heard(worker, [Ready(), Broken(BROKEN, is_unable=True)])
        one.look()
    assert begun == 7


def test_where_a_worker_painted_the_next_is_begun_without_the_waits_of_before(bench: Make) -> None:
    one = bench(a=1)
    one.submit(1)
    for seconds in (1, 2, 4, 8):
        (worker,) = one.workers
        one.scheduler._lose(worker, "it was killed while it began")
        one.look(seconds / 2)
        assert one.workers == []
        one.look(seconds / 2)
    one.settle()
    one.scheduler._hand_out()
    (worker,) = one.workers
    one.work(worker)
    one.scheduler._lose(worker, "it was killed")
    one.look()
    (worker,) = one.workers
    one.scheduler._lose(worker, "it was killed while it began")
    one.look(1)
    assert len(one.workers) == 1


def test_where_no_worker_can_paint_it_is_the_end(bench: Make) -> None:
    one = bench(a=1, b=2)
    one.settle()
    one.submit(3)
    for worker in one.workers:
        one.work(worker)
    for worker in one.workers:
        one.look()
        one.scheduler._heard(worker, [Broken(BROKEN, is_unable=True)])
    with pytest.raises(PipelineError, match=f"node a cannot paint: {BROKEN}; node b cannot"):
        one.look()
    assert one.failures() == []


LOST_DEVICE = "device: cuda: an illegal memory access was encountered"


def lose_device(one: Bench, worker: Worker) -> None:
    """Have a worker's device break at its first task, after a step."""
    one.work(worker)
    one.scheduler._heard(worker, [Broken(LOST_DEVICE, False, has_lost_device=True)])


def at(one: Bench, node: str) -> Worker:
    """Return the worker on a node of one."""
    return next(worker for worker in one.workers if worker.spot.node == node)


def revive(one: Bench) -> None:
    """Have a worker in every place, and all tasks handed out that can be."""
    one.look(100)
    one.settle()
    one.scheduler._hand_out()


def test_a_device_that_breaks_costs_no_task_anything_and_its_worker_is_replaced_later(
    bench: Make,
) -> None:
    one = bench(a=1, b=1)
    one.settle()
    one.submit(1)
    (first,) = [worker for worker in one.workers if worker.tasks]
    lose_device(one, first)
    one.scheduler._hand_out()
    (second,) = one.workers
    assert second.tasks == [1] and one.outcomes() == []
    assert one.notes()[-1].endswith(f"cannot paint, and is begun anew later: {LOST_DEVICE}")
    one.look(0.5)
    assert one.workers == [second]
    one.look(1)
    assert len(one.workers) == 2 and first not in one.workers
    one.hear(second, lambda given: Done(given, 0, None), lambda given: Done(given, 1, None), Over)
    one.look(10)
    assert one.outcomes() == [None, None]


def test_what_breaks_the_devices_of_two_workers_is_to_blame_and_nothing_else_is(
    bench: Make,
) -> None:
    one = bench(a=1, b=1)
    one.settle()
    one.submit(4)
    first = next(worker for worker in one.workers if worker.tasks[0] == 1)
    lose_device(one, first)
    (second,) = one.workers
    second.tasks.sort()  # it paints 2, and has 4 ready
    one.hear(second, Opened, Read)
    one.hear(second, *[lambda given, job=job: Done(given, job, RESULT) for job in (0, 1)], Over)
    one.scheduler._hand_out()
    assert 1 in second.tasks
    second.tasks.sort()
    lose_device(one, second)
    one.look(100)
    failed = f"1.jpg: the worker on {second.spot.node} lost its device, and so did one before"
    assert one.failures() == [f"{failed}: {LOST_DEVICE}"] * 2
    revive(one)
    assert sorted(number for worker in one.workers for number in worker.tasks) == [3, 4]


@pytest.mark.parametrize("submitted", [2, 3])
def test_where_a_device_broke_at_a_task_it_is_not_given_again_while_there_are_others(
    bench: Make, submitted: int
) -> None:
    one = bench(a=1, b=1)
    one.settle()
    one.submit(submitted)
    lost = at(one, "a").tasks[0]
    one.work(at(one, "b"))
    lose_device(one, at(one, "a"))
    one.scheduler._hand_out()
    revive(one)
    assert lost not in at(one, "a").tasks
    assert len(at(one, "a").tasks) == submitted - 2  # of what waits elsewhere it takes the rest
    one.scheduler._lose(at(one, "b"), "its node is gone")
    one.scheduler._hand_out()
    assert lost in at(one, "a").tasks  # rather than nowhere


def test_what_a_worker_only_read_while_its_device_broke_is_not_suspect(bench: Make) -> None:
    one = bench(a=1, b=1)
    one.settle()
    one.submit(4)
    first = at(one, "a")
    number = first.tasks[1]
    one.scheduler._heard(first, [Opened(one.scheduler._tasks[number].given)])
    lose_device(one, first)
    held = one.scheduler._tasks
    assert [held[n].lost_at is not None for n in (1, 2, 3, 4)].count(True) == 1
    assert held[number].lost_at is None and one.outcomes() == []


def test_a_device_that_breaks_at_each_task_is_tried_less_and_less_often(bench: Make) -> None:
    one = bench(a=1)
    one.settle()
    begun = 0
    for number in range(1, 101):
        one.scheduler.take(Submit(number, b"", ("a", "b"), f"{number}.jpg"))
        one.scheduler._hand_out()
        for worker in one.workers:
            begun += 1
            lose_device(one, worker)
        one.look()
        one.settle()
    assert begun == 7
    revive(one)
    (worker,) = one.workers
    one.hear(worker, Opened, Read, lambda given: Done(given, 0, RESULT))  # all is well again
    one.scheduler._heard(worker, [Broken(LOST_DEVICE, False, has_lost_device=True)])
    one.look(1)
    assert len(one.workers) == 1


def test_a_worker_takes_no_task_before_it_has_the_network(bench: Make) -> None:
    one = bench(a=1)
    (worker,) = one.workers
    one.scheduler._greeted(worker, greeting())
    one.scheduler._begun(worker, None)
    one.submit(1)
    assert worker.tasks == [] and not worker.is_ready
    one.scheduler._heard(worker, [Ready()])
    one.scheduler._hand_out()
    assert worker.tasks == [1]


def test_when_all_nodes_are_refused_after_results_it_is_the_end(bench: Make) -> None:
    one = bench(a=2)
    one.settle()
    one.submit(2)
    first, second = one.workers
    for worker in (first, second):
        one.work(worker)
    one.hear(first, lambda given: Done(given, 0, Failure("bad")), Over)
    one.scheduler._greeted(first, greeting(version="0.0.1"))
    assert one.failures() == ["bad"] and one.workers == []
    with pytest.raises(PipelineError, match=r"node a has nst-pipeline 0\.0\.1"):
        one.look()


def test_a_node_that_could_not_read_what_is_read_here_is_refused(bench: Make) -> None:
    one = bench(a=2, b=1)
    first = next(worker for worker in one.workers if worker.spot.node == "a")
    one.scheduler._greeted(first, greeting(decoders=decoders() | {"pillow": ""}))
    one.look(100)
    assert [worker.spot.node for worker in one.workers] == ["b"]
    assert any("node a lacks pillow, which is here" in note for note in one.notes())
    one.scheduler._greeted(one.workers[0], greeting(decoders=decoders() | {"pillow": "0.1"}))
    assert len(one.workers) == 1


def test_what_a_worker_did_before_it_could_no_more_is_not_told_twice(bench: Make) -> None:
    one = bench(a=1, b=1)
    one.settle()
    one.submit(1)
    first = next(worker for worker in one.workers if worker.tasks)
    one.work(first)
    one.hear(first, lambda given: Done(given, 0, Failure("bad")))
    one.hear(first, lambda _: Broken(BROKEN, is_unable=True))
    one.scheduler._hand_out()
    (second,) = one.workers
    assert second.tasks == [1] and ("paint", (2, b"", [1], {})) in second.actor.calls
    del one.told[:]
    one.work(second)
    one.hear(second, lambda given: Done(given, 0, Failure("bad")))
    assert one.told == []
    one.hear(second, lambda given: Step(given, 1, 1, 10, 1.0))
    assert len(one.told) == 1


KILLED = "The actor is dead: connection error code 2. End of file"
LOST = "The actor is dead because its owner has died. Owner Id: 0100ff Owner's node has crashed."


def die(one: Bench, worker: Worker, text: str = KILLED) -> None:
    one.scheduler._failed(worker, OSError(text))


def test_what_a_worker_died_at_is_told_once_the_cluster_has_outlived_it(bench: Make) -> None:
    one = bench(a=1, b=1)
    one.settle()
    one.submit(4)
    first, _ = one.workers
    one.work(first)
    die(one, first)
    one.scheduler.note_nodes(list(one.nodes.values()), one.now - 0.1)
    one.look(0.5)
    assert one.outcomes() == []
    one.look()
    died = "1.jpg: the worker on a died: its process was killed, or crashed"
    assert one.failures() == [died, died]
    one.look()
    assert len(one.outcomes()) == 2


def two_at_work(bench: Make) -> tuple[Bench, Worker, Worker]:
    """Return a bench, and its two workers, each of which is at a task."""
    one = bench(a=2)
    one.settle()
    one.submit(2)
    first, second = one.workers
    one.work(first)
    one.work(second)
    return one, first, second


def test_when_all_are_asked_to_end_a_death_is_no_attempt(bench: Make) -> None:
    one, first, second = two_at_work(bench)
    die(one, first)
    one.scheduler.is_signalled = True
    die(one, second)
    one.look(2)
    assert one.outcomes() == [None] * 4


def test_while_it_ends_a_death_is_no_attempt(bench: Make) -> None:
    one, first, second = two_at_work(bench)
    die(one, first)
    one.scheduler._queue.put(lambda: die(one, second))
    one.scheduler.end()
    assert one.outcomes() == [None] * 4


def test_a_death_for_want_of_this_process_is_the_loss_of_the_cluster(bench: Make) -> None:
    one = bench(a=1)
    one.settle()
    one.submit(1)
    (worker,) = one.workers
    one.work(worker)
    with pytest.raises(PipelineError) as error:
        die(one, worker, LOST)
    assert "Owner" not in str(error.value) and one.outcomes() == []
