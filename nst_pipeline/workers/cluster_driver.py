"""The process that knows Ray: it begins a cluster's workers, and hands tasks to them.

A process of its own, for Ray ends the process that uses it when the cluster's head is lost. It
ends itself, and all that it began, when the process that began it is gone.
"""

import contextlib
import functools
import logging
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from nst_pipeline import __version__
from nst_pipeline.config.weights import COMPACT_PATH, Weights
from nst_pipeline.digests import file_digest
from nst_pipeline.errors import PipelineError
from nst_pipeline.files import counted, shown
from nst_pipeline.jobs.outcome import Failure
from nst_pipeline.workers import checkpoints
from nst_pipeline.workers.cluster_messages import (
    TASKS_READY,
    Alive,
    Ask,
    Broken,
    Connected,
    Crew,
    Done,
    Event,
    Glimpsed,
    Halt,
    Keep,
    LookOn,
    Lost,
    Note,
    Opened,
    Over,
    Report,
    Setup,
    Step,
    Submit,
    Told,
)
from nst_pipeline.workers.cluster_nodes import Spot, spots
from nst_pipeline.workers.cluster_worker import ClusterWorker
from nst_pipeline.workers.scratch import make_scratch, remove_scratch
from nst_pipeline.workers.supply import Disk

POLL_SECONDS = 5.0
"""How long a worker is waited for at a time."""
NODES_SECONDS = 1.0
"""How often it is looked which nodes there are."""
LOST_SECONDS = 15.0
"""A head that does not answer for so long is lost."""
HALT_SECONDS = 60.0
"""How long, at the end, what is at work may take to make its checkpoint."""
END_SECONDS = 15.0
"""How long the end itself may take."""
RETRY_SECONDS = (1.0, 60.0)
"""The shortest and the longest wait after a worker that ended before it had begun."""
SLOW_SECONDS = 30.0
"""It is told of a worker that has not begun after so long."""
STORE_BYTES = 2**30
"""Of files that the workers asked for, so much stays in the object store for the next."""


class Gone(Exception):  # noqa: N818 - no error: it is how this process ends
    """The executor wants nothing any more, or is gone."""


@dataclass(eq=False)
class Crewman: ...
