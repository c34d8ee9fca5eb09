"""The executor of a cluster: what it paints, and what is lost when something ends. Real Ray."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from clusters import MARK, Nodes, drivers, marked, nodes, processes, workers
from conftest import picture
from fuzzing import originals
from support import PATIENCE_SECONDS, free_port, plan_of, wait_until

from nst_pipeline import __version__
from nst_pipeline.config.pipeline import Config, load
from nst_pipeline.config.sections import ClusterSettings
from nst_pipeline.config.weights import resolve
from nst_pipeline.errors import Abandoned, UnavailableError
from nst_pipeline.jobs.job import Job
from nst_pipeline.jobs.ledger import Ledger
from nst_pipeline.jobs.outcome import EncodedResult, Failure, Outcome
from nst_pipeline.runner.observer import Observer
from nst_pipeline.workers import cluster
from nst_pipeline.workers.cluster import ClusterExecutor
from nst_pipeline.workers.local import LocalExecutor
from nst_pipeline.workers.protocol import Executor, Glimpse, Task

OTHER_VERSION = """
import importlib.machinery, sys
class Finder:
    def find_spec(self, name, path, target=None):
        if name == "nst_pipeline":
            spec = importlib.machinery.PathFinder.find_spec(name, path)
            load = spec.loader.exec_module
            def exec_module(module):
                load(module)
                module.__version__ = "0.0.1"
            spec.loader.exec_module = exec_module
            return spec
sys.meta_path.insert(0, Finder())
"""
"""A ``sitecustomize`` that has nst-pipeline be of another version."""
BROKEN_DEVICE = """
import importlib.machinery, sys
class Finder:
    def find_spec(self, name, path, target=None):
        if name == "nst_pipeline.engine.batch":
            spec = importlib.machinery.PathFinder.find_spec(name, path)
            load = spec.loader.exec_module
            def exec_module(module):
                from nst_pipeline.errors import DeviceLostError
                load(module)
                def paint(*_):
                    raise DeviceLostError("device: cuda: an illegal memory access")
                module.Batch.paint = paint
            spec.loader.exec_module = exec_module
            return spec
sys.meta_path.insert(0, Finder())
"""
"""A ``sitecustomize`` that has the device break whenever something is painted."""
LONG = 100_000
"""Steps that nobody waits for."""


@pytest.fixture(autouse=True)
def _nothing_left(two: Nodes) -> Iterator[None]:
    """See that no test leaves a driver, or a worker, behind."""
    yield
    mark = os.environ[MARK]
    wait_until(lambda: not drivers(mark) and not workers(mark), 30)


Make = Callable[[Config], ClusterExecutor]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Return what makes executors that are closed after the test, whatever comes of it.

    They wait for a cluster as long as tests wait, however busy the machine is.
    """
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", PATIENCE_SECONDS)
    made: list[ClusterExecutor] = []

    def one(config: Config) -> ClusterExecutor:
        made.append(ClusterExecutor(config, resolve(config.weights)))
        return made[-1]

    yield one
    for executor in made:
        executor.close()


@pytest.fixture
def inbox(project: Path) -> Path:
    for path in (project / "inbox").iterdir():
        path.unlink()
    return project / "inbox"


def config_of(project: Path, address: str | None, steps: int = 3, **changes: Any) -> Config:
    """Return the settings of a project for a cluster, with so many steps at one scale."""
    config = load(project / "pipeline.yaml")
    recipe = config.styles["ink"].recipe.model_copy(update={"iterations": steps, "scales": 1})
    styles = {n: s.model_copy(update={"recipe": recipe}) for n, s in config.styles.items()}
    changes |= {"styles": styles, "cluster": ClusterSettings(address=address)}
    return config.model_copy(update=changes)


def tasks(config: Config) -> list[Task]:
    """Return a task for each content, in the order of their names."""
    with Ledger(None) as ledger:
        todo = plan_of(config, ledger).todo
    contents = dict.fromkeys(job.content for job in todo)
    return [
        Task(one, tuple(job for job in todo if job.content == one), one.path.read_bytes())
        for one in contents
    ]


@dataclass(eq=False)
class Watcher(Observer):
    """Sees which jobs are at work, and ends those that it is told to, or all."""

    done: dict[str, int] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    ends_all: bool = False
    glimpses: list[Glimpse] = field(default_factory=list)
    looks: bool = False
    act: Callable[[], object] | None = None
    until: float = field(default_factory=lambda: time.monotonic() + PATIENCE_SECONDS)

    def stepped(self, job: Job, done: int, total: int, loss: float) -> None:
        stem = job.content.path.stem
        self.first.setdefault(stem, done)
        self.done[stem] = max(done, self.done.get(stem, 0))
        if stem in self.ended:
            raise Abandoned

    def check(self) -> None:
        assert time.monotonic() < self.until, f"in vain: {self.done}"
        if self.act:
            self.act()
        if self.ends_all:
            raise Abandoned

    def wants_glimpse(self) -> bool:
        return self.looks

    def glimpsed(self, job: Job, glimpse: Glimpse) -> None:
        self.glimpses.append(glimpse)


def paint(executor: Executor, todo: list[Task], watcher: Watcher | None = None) -> list[Outcome]:
    """Have tasks painted, as many at a time as the executor takes; return all outcomes."""
    found, watcher = [], watcher or Watcher()
    for task in todo:
        while not executor.capacity:
            found += executor.poll(watcher)
        executor.submit(task)
    return [*found, *executor.drain(watcher)]


def data_of(outcomes: list[Outcome]) -> dict[str, bytes]:
    assert all(isinstance(one.outcome, EncodedResult) for one in outcomes), outcomes
    return {one.job.output.name: one.outcome.data for one in outcomes}


def stems(outcomes: list[Outcome], kind: type | None) -> list[str]:
    """Return the contents of the outcomes of a kind, a stem for each."""
    return sorted(
        one.job.content.path.stem
        for one in outcomes
        if (one.outcome is None if kind is None else isinstance(one.outcome, kind))
    )


def test_a_cluster_paints_the_same_bytes_as_this_process(
    project: Path, two: Nodes, make: Make
) -> None:
    inbox = project / "inbox"
    picture(seed=3).save(inbox / "hill.init.png")
    picture(seed=4).convert("L").save(inbox / "boat.mask.png")
    config = config_of(project, two.address)
    todo = tasks(config)
    local = LocalExecutor(config, resolve(config.weights))
    expected = data_of(paint(local, todo))
    local.close()
    executor = make(config)
    assert executor.capacity and executor.workers() == []
    outcomes = paint(executor, todo)
    assert {state.node for state in executor.workers()} == {"north", "south"}
    assert sum(state.jobs_done for state in executor.workers()) == 4
    assert executor.capacity == 4 and executor.outlives_workers and executor.machine() is None
    executor.close()
    assert data_of(outcomes) == expected and len(expected) == 4
    machines = [one.machine for one in outcomes if one.machine]
    assert len(machines) == 4 and {one.threads for one in machines} == {1}
    assert {one.node for one in machines} <= {"north", "south"}


@pytest.mark.parametrize("by", ["address", "client_address"])
def test_what_a_killed_worker_was_at_fails_and_what_it_had_ready_goes_on(
    project: Path, inbox: Path, two: Nodes, make: Make, by: str
) -> None:
    for name in "abcd":
        picture(seed=ord(name)).save(inbox / f"{name}.png")
    config = config_of(project, getattr(two, by), LONG)
    executor = make(config)
    watcher = Watcher()
    killed: list[set[str]] = []

    def kill_one() -> None:
        if len(watcher.done) == 2 and not killed:
            pid = workers(os.environ[MARK])[0]
            killed.append(set(watcher.done))
            os.kill(pid, signal.SIGKILL)
        if len(watcher.done) >= 3:  # another one is at work in its place
            watcher.ends_all = True

    watcher.act = kill_one
    outcomes = paint(executor, tasks(config), watcher)
    executor.close()
    failed = set(stems(outcomes, Failure))
    assert len(failed) == 1 and failed < killed[0]
    assert len(stems(outcomes, None)) == 6 and len(outcomes) == 8
    (failure,) = {o.outcome.reason for o in outcomes if isinstance(o.outcome, Failure)}
    assert "died: its process was killed, or crashed" in failure
    assert {o.outcome.kind for o in outcomes if isinstance(o.outcome, Failure)} == {"passing"}


def test_workers_follow_the_nodes_as_they_come_and_go(
    project: Path, inbox: Path, two: Nodes, make: Make
) -> None:
    for name in "abcdef":
        picture(seed=ord(name)).save(inbox / f"{name}.png")
    config = config_of(project, two.address, LONG)
    executor = make(config)
    watcher, added = Watcher(), []

    def change() -> None:
        at_work = {state.node: state.job for state in executor.workers() if state.job}
        if not added and len(at_work) == 2:
            added.append(two.add(node_name="east"))
        if "east" in at_work and len(added) == 1:
            added.append(at_work["east"].content.path.stem)
            two.remove(added[0])
        if len(added) == 2 and len(executor.workers()) == 2:
            watcher.ends_all = True

    watcher.act = change
    outcomes = paint(executor, tasks(config), watcher)
    executor.close()
    assert set(stems(outcomes, Failure)) == {added[1]} and len(outcomes) == 12
    assert "east" in next(o.outcome.reason for o in outcomes if isinstance(o.outcome, Failure))


def test_a_cluster_without_any_node_waits_for_one_and_goes_on(
    project: Path, inbox: Path, make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "ab":
        picture(seed=ord(name)).save(inbox / f"{name}.png")
    waiting = "the cluster has no worker any more; waiting for nodes"
    with nodes(tmp_path) as one:
        first = one.add(node_name="first")
        config = config_of(project, one.address, LONG)
        executor = make(config)
        watcher, seen = Watcher(), list[str]()

        def change() -> None:
            if watcher.done and not seen:
                seen.extend(watcher.done)
                one.remove(first)
            if waiting in caplog.text and len(seen) == 1:
                assert executor.workers() == []
                seen.append("none")
                one.add(node_name="second")
            if len(watcher.done) == 2:
                assert {state.node for state in executor.workers()} == {"second"}
                watcher.ends_all = True

        watcher.act = change
        outcomes = paint(executor, tasks(config), watcher)
        executor.close()
    assert set(stems(outcomes, Failure)) == {seen[0]} and len(outcomes) == 4
    assert {*stems(outcomes, None)} == {"a", "b"} - {seen[0]}
    assert caplog.text.count(waiting) == 1


def test_what_kills_its_workers_takes_no_other_with_it(
    project: Path, inbox: Path, two: Nodes, make: Make
) -> None:
    (inbox / "a.bmp").write_bytes(originals()["bmp"])
    for name in "bc":
        picture(seed=ord(name)).save(inbox / f"{name}.png")
    config = config_of(project, two.address)
    executor = make(config)
    for _ in range(2):
        outcomes = paint(executor, tasks(config))
        assert stems(outcomes, Failure) == ["a", "a"]
        assert stems(outcomes, EncodedResult) == ["b", "b", "c", "c"]
    executor.close()


def test_a_task_is_ended_on_its_node_and_the_others_go_on(
    project: Path, inbox: Path, two: Nodes, make: Make
) -> None:
    for name in "ab":
        picture(seed=ord(name)).save(inbox / f"{name}.png")
    config = config_of(project, two.address, LONG)
    executor = make(config)
    watcher = Watcher(ended={"a"}, looks=True)
    outcomes: list[Outcome] = []

    def end_rest() -> None:
        if watcher.done.get("b", 0) > 50 and watcher.glimpses and "a" in stems(outcomes, None):
            watcher.ended.add("b")

    watcher.act = end_rest
    for task in tasks(config):
        executor.submit(task)
    for outcome in executor.drain(watcher):
        outcomes.append(outcome)
    executor.close()
    assert stems(outcomes, None) == ["a", "a", "b", "b"]
    assert stems(outcomes[:2], None) == ["a", "a"]


def test_a_checkpoint_comes_to_the_state_folder_and_goes_to_whoever_goes_on(
    project: Path, inbox: Path, two: Nodes, make: Make
) -> None:
    picture(seed=1).save(inbox / "a.png")
    config = config_of(project, two.address, LONG, checkpoint_seconds=0.05)
    executor, (task,) = make(config), tasks(config)
    for is_resumed in (False, True):
        watcher = Watcher()

        def end(watcher: Watcher = watcher) -> None:
            watcher.ends_all = watcher.done.get("a", 0) > 200

        watcher.act = end
        assert stems(paint(executor, [task], watcher), None) == ["a", "a"]
        assert list((config.state / "checkpoints").iterdir())
        assert (watcher.first["a"] >= 100) == is_resumed


def test_what_is_at_work_makes_its_checkpoint_when_the_executor_is_closed(
    project: Path, inbox: Path, two: Nodes, make: Make
) -> None:
    for name in "ab":
        picture(seed=ord(name)).save(inbox / f"{name}.png")
    config = config_of(project, two.address, LONG, checkpoint_seconds=3)
    executor, folder, todo = make(config), config.state / "checkpoints", tasks(config)

    def kept() -> list[str]:
        names = [path.name[:64] for path in folder.glob("[0-9a-f]*")]
        return [t.content.path.stem for t in todo if {job.key for job in t.jobs} & {*names}]

    class Interrupted(Exception):
        pass

    def interrupt() -> None:
        if kept() == ["a", "b"]:
            raise Interrupted

    with pytest.raises(Interrupted):
        paint(executor, todo, Watcher(act=interrupt))
    for path in folder.iterdir():  # the next are due in three seconds, unless all is halted
        path.unlink()
    executor.close()
    assert kept() == ["a", "b"]


def test_a_node_whose_device_breaks_at_whatever_it_paints_costs_no_task_anything(
    project: Path, inbox: Path, two: Nodes, make: Make, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    for name in "abcdefgh":
        picture(seed=ord(name)).save(inbox / f"{name}.png")
    broke = "worker bad/0 cannot paint, and is begun anew later: device: cuda: an illegal"
    watcher = Watcher()

    def end() -> None:
        watcher.ends_all = caplog.text.count(broke) >= 2

    watcher.act = end
    site = tmp_path / "broken"
    site.mkdir()
    (site / "sitecustomize.py").write_text(BROKEN_DEVICE)
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ["PYTHONPATH"]]))
        node = two.add(node_name="bad")
    try:
        config = config_of(project, two.address, LONG)
        executor = make(config)
        outcomes = paint(executor, tasks(config), watcher)
        executor.close()
    finally:
        two.remove(node)
    assert len(outcomes) == 16 and stems(outcomes, Failure) == []


def test_a_node_with_another_version_is_refused_by_both_names(
    project: Path, two: Nodes, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    (tmp_path / "sitecustomize.py").write_text(OTHER_VERSION)
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]]))
        node = two.add(node_name="old")
    try:
        config = config_of(project, two.address)
        executor = make(config)
        watcher = Watcher()
        outcomes = paint(executor, tasks(config), watcher)
        assert {state.node for state in executor.workers()} <= {"north", "south"}
        executor.close()
    finally:
        two.remove(node)
    data_of(outcomes)
    assert f"node old has nst-pipeline 0.0.1, and this is {__version__}" in caplog.text


def test_a_head_that_knows_us_not_is_refused_where_it_has_to_read_what_workers_are_told(
    project: Path, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(OTHER_VERSION)
    with marked(tmp_path):
        with monkeypatch.context() as patch:
            patch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]]))
            one = Nodes(Path(os.environ["RAY_TMPDIR"]), has_clients=True)
        try:
            config = config_of(project, one.client_address)
            wanted = rf"head has nst-pipeline 0\.0\.1, and this is {__version__}"
            with pytest.raises(UnavailableError, match=wanted):
                paint(make(config), tasks(config))
        finally:
            one.close()


def test_a_cluster_without_a_node_on_this_machine_is_told_with_what_to_do(
    project: Path, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 8.0)  # Ray itself looks for one for a minute
    with nodes(tmp_path) as one:
        (raylet,) = processes(os.environ[MARK], "raylet/raylet")
        os.kill(raylet, signal.SIGKILL)
        config = config_of(project, one.address)
        wanted = f"has no node on this machine; .* `ray start --address={one.address}` the node"
        with pytest.raises(UnavailableError, match=f"^cluster {one.address}: .*{wanted}"):
            paint(make(config), tasks(config))


def test_a_driver_that_hangs_is_lost_and_ended(
    project: Path, inbox: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "SEND_SECONDS", 0.5)
    picture(600, 600, seed=1).save(inbox / "large.png")  # more than a socket holds
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = config_of(project, f"127.0.0.1:{silent.getsockname()[1]}")
        executor, (task,) = make(config), tasks(config)
        executor.submit(replace(task, data=b""))
        assert executor._link
        process = executor._link._process
        process.send_signal(signal.SIGSTOP)
        executor.submit(task)
        with pytest.raises(UnavailableError, match=f"its driver, process {process.pid}, hangs"):
            paint(executor, [])
        assert process.returncode == -signal.SIGKILL and executor.capacity


def test_no_cluster_is_told_by_its_address(
    project: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 4.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port in (free_port(), silent.getsockname()[1]):
            config = config_of(project, f"127.0.0.1:{port}")
            executor = make(config)
            with pytest.raises(UnavailableError, match=f"^cluster 127.0.0.1:{port}: .*`ray st"):
                paint(executor, tasks(config))


def test_a_worker_that_hangs_keeps_nobody_who_ends(
    project: Path, inbox: Path, two: Nodes, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "HALTED_SECONDS", 0.5)
    picture(seed=1).save(inbox / "a.png")
    executor, watcher = make(config := config_of(project, two.address, LONG)), Watcher()

    def hang() -> None:
        if watcher.done:
            for pid in workers(os.environ[MARK]):
                os.kill(pid, signal.SIGSTOP)
            watcher.ends_all = True

    watcher.act = hang
    assert stems(paint(executor, tasks(config), watcher), None) == ["a", "a"]
    executor.close()


@pytest.mark.parametrize("address", [".:6379", "127.0.0.1:99999"])
def test_an_address_that_none_can_have_is_told(project: Path, make: Make, address: str) -> None:
    config = config_of(project, address)
    with pytest.raises(UnavailableError, match=f"^cluster {address}: nobody answers there"):
        paint(make(config), tasks(config))


def test_what_the_driver_crashes_of_is_told(
    project: Path, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    site, config = tmp_path / "broken", config_of(project, "auto")
    (site / "ray").mkdir(parents=True)
    (site / "ray/__init__.py").write_text("raise ZeroDivisionError('by none')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ["PYTHONPATH"]]))
    with pytest.raises(UnavailableError, match="cluster auto: ZeroDivisionError: by none"):
        paint(make(config), tasks(config))
    (site / "ray/__init__.py").write_text(
        "import os, sys\nprint('oh', file=sys.stderr)\nos._exit(3)"
    )
    with pytest.raises(UnavailableError, match="the connection broke"):
        paint(make(config), tasks(config))
    assert "its driver said: oh" in caplog.text and "ZeroDivisionError" in caplog.text


def test_whoever_waits_for_a_cluster_is_free_to_go_on_and_to_end(
    project: Path, inbox: Path, make: Make
) -> None:
    picture(600, 600, seed=1).save(inbox / "large.png")  # more than a socket holds
    with socket.create_server(("127.0.0.1", 0)) as silent:
        executor = make(config_of(project, f"127.0.0.1:{silent.getsockname()[1]}"))
        (task,) = tasks(executor._config)
        assert len(task.data) > 2**19

        class Interrupted(Exception):
            pass

        def interrupt() -> None:
            raise Interrupted

        executor.submit(task)
        with pytest.raises(Interrupted):
            list(executor.poll(Watcher(act=interrupt)))
        assert executor._link
        process = executor._link._process
        executor.close()
        assert process.returncode == 1, "it was killed"


def test_a_lost_head_ends_nothing_but_what_it_had(
    project: Path, make: Make, tmp_path: Path
) -> None:
    config = config_of(project, None, LONG)
    todo = tasks(config)
    with nodes(tmp_path) as one:
        one.add()
        config = config_of(project, one.address, LONG)
        executor = make(config)
        watcher, lost = Watcher(), []

        def lose() -> None:
            if watcher.done and not lost:
                lost.append(one.close())

        watcher.act = lose
        with pytest.raises(UnavailableError, match="cluster"):
            paint(executor, todo, watcher)
        assert executor.workers() == [] and executor.capacity
        executor.close()


def test_without_the_library_it_is_told_what_to_install(
    project: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda _: None)
    config = config_of(project, "auto")
    with pytest.raises(UnavailableError, match=r"pip install 'nst-pipeline\[cluster\]'"):
        make(config).submit(tasks(config)[0])


def test_our_own_process_does_not_load_the_library() -> None:
    code = "import sys, nst_pipeline.workers.cluster; sys.exit('ray' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
