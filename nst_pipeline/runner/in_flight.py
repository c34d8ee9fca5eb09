"""The jobs in flight: which workers have, which of them have begun, and what gives way to what."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nst_pipeline.inbox.scanner import Scanner
from nst_pipeline.jobs.job import Content, Job
from nst_pipeline.jobs.state import Entry
from nst_pipeline.runner.observer import Observer

Place = tuple[Path, str]
"""An output and a job's key: no two jobs in flight have both."""


@dataclass(eq=False)
class InFlight:
    """A job that a worker has.

    Attributes:
        job: the job.
        entry: what the ledger held of it before it was handed over.
        before: how many contents were in flight when its own was handed over; while there are more
            workers than that, it has one of its own.
        is_ahead: whether its content was handed over while all workers had another.
        has_begun: whether it made a step.
    """

    job: Job
    entry: Entry
    before: int
    is_ahead: bool
    has_begun: bool = False


class JobsInFlight:
    """Those that were handed over, in that order, until their worker is done with them."""

    def __init__(self, observer: Observer, scanner: Scanner) -> None:
        """Have none; ``observer`` is told of each, ``scanner`` knows which are urgent."""
        self._observer, self._scanner = observer, scanner
        self._held: dict[Place, InFlight] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._held)

    def __iter__(self) -> Iterator[InFlight]:
        """Give all that there are now; they may go meanwhile."""
        return iter(list(self._held.values()))

    def of(self, job: Job) -> InFlight | None:
        """Return what is known of a job; None: it is not in flight."""
        return self._held.get(_place(job))

    def contents(self) -> int:
        """Return how many contents there are."""
        return len({one.job.content.path for one in self})

    def parts(self) -> set[Path | str]:
        """Return the outputs and the keys that no other job may have meanwhile."""
        return {part for place in self._held for part in place}

    def begun(self) -> list[Content]:
        """Return the contents of those that made a step."""
        return [one.job.content for one in self if one.has_begun]

    def add(self, jobs: list[tuple[Job, Entry]], before: int, workers: int) -> None:
        """Have jobs of one content handed over, as the one after ``before`` others.

        Args:
            jobs: the jobs, each with what the ledger holds of it.
            before: how many contents are in flight.
            workers: how many there are; while the first are being started, 0: it waits for them.
        """
        for job, entry in jobs:
            is_ahead = before >= max(1, workers)
            self._held[_place(job)] = InFlight(job, entry, before, is_ahead)
            self._observer.handed_over(job)

    def begin(self, begun: InFlight) -> None:
        """Note that a job made its first step: its content is at work."""
        begun.has_begun = True
        for one in self:
            if one.job.content == begun.job.content:
                one.is_ahead = False

    def release(self, job: Job, is_over: bool) -> InFlight | None:
        """Have a job in flight no more; return what was known of it, if it was."""
        one = self._held.pop(_place(job), None)
        if one:
            self._observer.released(job, is_over)
        return one

    def has_urgent_waiting(self, workers: int) -> bool:
        """Tell whether an urgent content waits for one of so many workers that have others."""
        return any(
            not one.has_begun and one.before >= workers and self._is_urgent(one) for one in self
        )

    def gives_way(self, one: InFlight, workers: int, is_look_wanted: bool, may_wait: bool) -> bool:
        """Tell whether a job that a worker is about to begin is to go back to the queue.

        Only what was handed over ahead of its time does: nothing is lost by that, and it goes back
        once and not ever. A worker that was only being started meanwhile may have it, unless what
        is urgent wants the place.

        Args:
            one: the job.
            workers: how many there are.
            is_look_wanted: whether to look for new files before the next content.
            may_wait: whether urgent contents go first.
        """
        if not one.is_ahead:
            return False
        if is_look_wanted and one.before >= workers:
            return True
        return may_wait and not self._is_urgent(one) and self.has_urgent_waiting(workers)

    def _is_urgent(self, one: InFlight) -> bool:
        return self._scanner.is_urgent(one.job.content.found)


def _place(job: Job) -> Place:
    return job.output, job.key
