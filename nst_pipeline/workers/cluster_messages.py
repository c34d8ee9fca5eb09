"""What a cluster's executor, its driver and its workers say to each other.

The executor is in our process, the driver in a process of its own that alone knows Ray, and the
workers are Ray's actors, wherever they run. All of it is pickled.
"""

from dataclasses import dataclass
from typing import Any

from nst_pipeline.config.pipeline import Config
from nst_pipeline.config.weights import Weights
from nst_pipeline.jobs.outcome import EncodedResult, Failure, Machine
from nst_pipeline.workers.protocol import Glimpse

# From the executor to the driver


@dataclass(frozen=True)
class Setup:
    """What to connect to, and what all tasks need; the first message.

    ``is_trial``: begin no workers, and tell only which there would be.
    """

    config: Config
    weights: Weights | None
    is_trial: bool = False


@dataclass(frozen=True)
class Submit:
    """A task.

    Attributes:
        task: its number.
        payload: the pickled `Task`.
        keys: of its jobs.
        name: of its content, for people.
    """

    task: int
    payload: bytes
    keys: tuple[str, ...]
    name: str


@dataclass(frozen=True)
class Halt:
    """End tasks before their time."""

    tasks: tuple[int, ...]


@dataclass(frozen=True)
class LookOn:
    """Somebody wants a glimpse of what is at work."""


Request = Setup | Submit | Halt | LookOn


# From a worker to the driver


@dataclass(frozen=True)
class Ready:
    """The worker has all that it needs, and takes tasks."""


@dataclass(frozen=True)
class Opened:
    """The worker is about to read a task, which may end it; it waits until that is known."""

    task: int


@dataclass(frozen=True)
class Read:
    """A task is read, and waits for those before it."""

    task: int


@dataclass(frozen=True)
class Step:
    """How far a job is; ``job`` is its place in the task."""

    task: int
    job: int
    done: int
    total: int
    loss: float


@dataclass(frozen=True)
class Glimpsed:
    """A job's picture as it grows."""

    task: int
    job: int
    glimpse: Glimpse


@dataclass(frozen=True)
class Done:
    """What became of a job."""

    task: int
    job: int
    outcome: EncodedResult | Failure | None
    machine: Machine | None = None


@dataclass(frozen=True)
class Over:
    """All is told of a task."""

    task: int


@dataclass(frozen=True)
class Ask:
    """A question that the worker waits for the answer of: arguments of `Supply.read`, or none.

    Without arguments it is about the network's file.
    """

    number: int
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Keep:
    """A checkpoint to keep, of jobs with these keys."""

    keys: tuple[str, ...]
    data: bytes


@dataclass(frozen=True)
class Broken:
    """The worker can do nothing any more.

    Attributes:
        reason: why, for people.
        is_unable: for want of the device or of the network, whatever its task.
        has_lost_device: its device broke while it painted.
    """

    reason: str
    is_unable: bool
    has_lost_device: bool = False


TaskEvent = Opened | Read | Step | Glimpsed | Done | Over
Event = TaskEvent | Ready | Ask | Keep | Broken


# From the driver to the executor


@dataclass(frozen=True)
class Place:
    """Where there is room for a worker.

    Attributes:
        node: name of the computer.
        device: what it would paint on, for people.
    """

    node: str
    device: str


@dataclass(frozen=True)
class Connected:
    """The cluster is there, with room for workers in these places."""

    places: tuple[Place, ...]


@dataclass(frozen=True)
class Crew:
    """The workers that there are: the name of each, and the name of its node."""

    nodes: dict[str, str]


@dataclass(frozen=True)
class Told:
    """What a worker tells; of `Step`, `Glimpsed`, `Done` and `Over` alone."""

    worker: str
    event: Step | Glimpsed | Done | Over


@dataclass(frozen=True)
class Note:
    """A line for the log."""

    level: int
    text: str


@dataclass(frozen=True)
class Lost:
    """There is no cluster, or none that can be used; the last message."""

    reason: str


@dataclass(frozen=True)
class Alive:
    """Sent while the driver ends, to see whether we are still there."""


Report = Connected | Crew | Told | Note | Lost | Alive

TASKS_READY = 2
"""Tasks that a worker has at most: one at work, and one that is ready when it is over."""
