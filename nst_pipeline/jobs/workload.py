"""What there is to paint, how much of it is painted, and how long the rest takes."""

from collections.abc import Iterable

from nst_pipeline.files import as_text
from nst_pipeline.jobs.job import Job
from nst_pipeline.jobs.pace import Pace, StepsDone

Key = tuple[str, str]
"""A content's path and a style's name: what a record has of a job, too."""


class Workload:
    """The jobs of a plan and those in flight, by what they cost (`step_costs`).

    A job counts from the plan on, or from when it is handed over, until it is over: a later plan
    knows nothing of what a worker has ready.

    Attributes:
        left: what is to be painted still.
        beyond: what the jobs cost that no plan has come to yet.
    """

    def __init__(self) -> None:
        """Have nothing to do, and one worker."""
        self.left = self.beyond = 0
        self._costs: dict[Key, int] = {}
        self._in_flight: dict[str, set[str]] = {}  # styles by content
        self._steps, self._pace, self._workers = StepsDone(), Pace(None), 1

    def __contains__(self, key: Key) -> bool:
        """Tell whether a job is to be done, or at work."""
        return key in self._costs

    def plan(self, jobs: Iterable[Job], seconds_per_pixel: float | None) -> None:
        """Have jobs to do, and those that are in flight; others than these are over.

        Args:
            jobs: the jobs.
            seconds_per_pixel: what earlier ones took; None: nobody knows.
        """
        self._pace = Pace(seconds_per_pixel)
        self._use()
        for key in [key for key in self._costs if key[1] not in self._in_flight.get(key[0], ())]:
            self.over(key)
        for job in jobs:
            self._count(job)

    def use(self, workers: int) -> None:
        """Note how many workers there are from now on."""
        self._workers = workers
        self._use()

    def handed_over(self, job: Job) -> None:
        """Note that a worker has a job, and will begin it."""
        content, style = key_of(job)
        self._in_flight.setdefault(content, set()).add(style)
        self._count(job)
        self._use()

    def stepped(self, job: Job, done: int, total: int) -> None:
        """Note that a job has done ``done`` of ``total`` steps."""
        self._count(job)
        self._pace.begin()
        new = self._steps.move(key_of(job), job.style.recipe, done, total)
        self._pace.advance(new)
        self.left -= new

    def released(self, job: Job, is_over: bool) -> None:
        """Note that a worker has a job no more, and whether it is to be done again."""
        content, style = key = key_of(job)
        styles = self._in_flight.get(content, set())
        styles.discard(style)
        if not styles:
            self._in_flight.pop(content, None)
        if is_over:
            self.over(key)
        elif key in self._costs:
            self.left += self._steps.done(key)
            self._steps.forget(key)
        self._use()

    def over(self, key: Key) -> None:
        """Note that a job is over, however far it came."""
        if key in self._costs:
            self.left -= self._costs.pop(key) - self._steps.done(key)
            self._steps.forget(key)

    def cost(self, job: Job) -> int:
        """Return what a job costs in all."""
        return self._steps.all(job.style.recipe)

    def done(self, job: Job) -> int:
        """Return how much of it is done."""
        return self._steps.done(key_of(job))

    def left_seconds(self, job: Job) -> float | None:
        """Return how long its worker still takes for a job; None: nobody knows yet."""
        return self._pace.left_seconds(self.cost(job) - self.done(job))

    def all_left_seconds(self) -> float | None:
        """Return how long everything still takes; None: there is nothing, or nobody knows yet."""
        if not (self._costs or self.beyond):
            return None
        return self._pace.all_left_seconds(self.left + self.beyond)

    def _count(self, job: Job) -> None:
        if (key := key_of(job)) not in self._costs:
            self._costs[key] = self.cost(job)
            self.left += self._costs[key]

    def _use(self) -> None:
        # A worker that has nothing to do neither shortens the rest nor says how long work takes.
        self._pace.use(min(self._workers, max(1, len(self._in_flight))))


def key_of(job: Job) -> Key:
    """Return what tells a job from the others of a plan."""
    return as_text(job.content.path), job.style.name
