"""What watches the engine for the pipeline. Imports torch."""

from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from nst_pipeline.config.pipeline import Config
from nst_pipeline.engine import Checkpoint, FunctionCallbacks, read_checkpoint
from nst_pipeline.images.animation import Frames, snapshot_steps
from nst_pipeline.jobs.job import Job
from nst_pipeline.workers import checkpoints


class JobCallbacks(FunctionCallbacks):
    """Tells of jobs of one recipe, and keeps their snapshots and checkpoints."""

    def __init__(
        self,
        config: Config,
        jobs: Sequence[Job],
        frames: dict[Path, Frames],
        stepped: Callable[[Job, int, float], None],
        beat: Callable[[], None],
    ) -> None:
        """Watch the jobs, given to the engine in this order.

        Args:
            config: says what is kept.
            jobs: of one content and recipe.
            frames: takes the snapshots, by output.
            stepped: told of the progress.
            beat: called after every step.
        """
        super().__init__(lambda i, done, total, loss: stepped(jobs[i], done, loss), beat)
        self._state, self._jobs, self._frames = config.state, jobs, frames
        self.snapshot_steps = snapshot_steps(config.output, jobs[0].style.recipe.steps)
        self.checkpoint_seconds = config.checkpoint_seconds or float("inf")

    def snapshot(self, index: int, done: int, picture: Image.Image) -> None:
        """Keep a snapshot, each step's once: of work that is begun again, the last."""
        frames = self._frames.setdefault(self._jobs[index].output, [])
        frames[:] = [frame for frame in frames if frame[0] < done] + [(done, picture)]

    def checkpoint(self, indices: range, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint in the state folder."""
        checkpoints.keep(self._state, self._keys(indices), checkpoint.to_bytes())

    def resume(self, indices: range) -> Checkpoint | None:
        """Return the checkpoint that an earlier process kept of these jobs."""
        data = checkpoints.find(self._state, self._keys(indices))
        return read_checkpoint(data) if data else None

    def _keys(self, indices: range) -> list[str]:
        return [self._jobs[index].key for index in indices]
