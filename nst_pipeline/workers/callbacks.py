"""The engine's callbacks for jobs: progress, snapshots and checkpoints. Imports torch."""

import time
from collections.abc import Sequence

from PIL import Image

from nst_pipeline.config.pipeline import Config
from nst_pipeline.engine import Callbacks, Checkpoint, read_checkpoint
from nst_pipeline.images.animation import snapshot_steps
from nst_pipeline.jobs.job import Job
from nst_pipeline.workers.handover import JobGlimpse, JobStep, TaskInWork
from nst_pipeline.workers.protocol import Glimpse
from nst_pipeline.workers.supply import Supply

GLIMPSE_SHARE = 100
"""Glimpses take no more than one part in so many of the time that the engine has."""


class JobCallbacks(Callbacks):
    """Tells of jobs of one recipe, and keeps their snapshots and checkpoints."""

    def __init__(
        self, config: Config, jobs: Sequence[Job], work: TaskInWork, supply: Supply
    ) -> None:
        """Serve the jobs, given to the engine in this order.

        Args:
            config: says what is kept.
            jobs: of one content and recipe.
            work: the task that they are of; takes the snapshots.
            supply: keeps the checkpoints.
        """
        self._supply, self._jobs, self._work = supply, jobs, work
        self._asked = self._rest_until = 0.0
        self.snapshot_steps = snapshot_steps(config.output, jobs[0].style.recipe.steps)
        self.checkpoint_seconds = config.checkpoint_seconds or float("inf")

    def stepped(self, index: int, done: int, total: int, loss: float) -> None:
        """Tell how far a job is."""
        self._work.events.put(JobStep(self._jobs[index], done, total, loss))

    def check(self) -> None:
        """Tell that the engine goes on, and end the task if it is to end."""
        self._work.beat()

    def snapshot(self, index: int, done: int, picture: Image.Image) -> None:
        """Keep a snapshot, each step's once: of work that is begun again, the last."""
        frames = self._work.frames.setdefault(self._jobs[index].output, [])
        frames[:] = [frame for frame in frames if frame[0] < done] + [(done, picture)]

    def wants_glimpse(self) -> bool:
        """Tell whether one is wanted, and enough time has passed since the last."""
        self._asked = time.monotonic()
        if not self._work.glimpse.is_set() or self._asked < self._rest_until:
            return False
        self._work.glimpse.clear()  # one that fails is not tried again at once
        return True

    def glimpse(self, index: int, done: int, picture: Image.Image) -> None:
        """Hand a glimpse over."""
        self._work.events.put(JobGlimpse(self._jobs[index], Glimpse(done, picture)))
        now = time.monotonic()
        self._rest_until = now + GLIMPSE_SHARE * (now - self._asked)

    def checkpoint(self, indices: range, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint."""
        self._supply.keep(self._keys(indices), checkpoint.to_bytes())

    def resume(self, indices: range) -> Checkpoint | None:
        """Return the checkpoint that an earlier worker kept of these jobs."""
        data = self._supply.find(self._keys(indices))
        return read_checkpoint(data) if data else None

    def _keys(self, indices: range) -> list[str]:
        return [self._jobs[index].key for index in indices]
