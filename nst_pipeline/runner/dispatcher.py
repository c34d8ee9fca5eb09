"""The dispatcher: hands contents to the executor, and takes back what comes of them."""

import contextlib
import functools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import groupby

from nst_pipeline.config.pipeline import Config
from nst_pipeline.config.weights import Weights
from nst_pipeline.errors import (
    Abandoned,
    DiskFullError,
    PipelineError,
)
from nst_pipeline.folders import Folders
from nst_pipeline.inbox.patience import Patience
from nst_pipeline.inbox.scanner import Scanner
from nst_pipeline.jobs.job import Content, Job
from nst_pipeline.jobs.ledger import DatabaseError, Ledger
from nst_pipeline.jobs.outcome import Failure, Machine, Outcome, failure
from nst_pipeline.jobs.pace import note_pace
from nst_pipeline.jobs.planning import Plan, Policy
from nst_pipeline.jobs.state import IN_QUEUE, JobState
from nst_pipeline.manifest.recorder import Recorder
from nst_pipeline.runner.disposal import Disposal
from nst_pipeline.runner.hooks import Notes
from nst_pipeline.runner.in_flight import JobsInFlight
from nst_pipeline.runner.intake import Intake, Taken, unforeseen
from nst_pipeline.runner.loading import Loaded, Loader, was_begun
from nst_pipeline.runner.observer import Observer
from nst_pipeline.workers.protocol import Executor, Glimpse, Progress, Task

TELL_SECONDS = 0.5
"""How often, at most, it is told what the workers do."""
REPEAT_SECONDS = 0.2
"""How long contents that need no painting keep the results of others waiting, at most."""
BREATH_SECONDS = 0.01
"""How long an executor is left alone that has nothing to tell and does not wait itself."""


class Dispatcher:
    """Carries out plans with one executor; it is the `Progress` that the executor tells.

    An executor whose worker is this process (`Executor.outlives_workers` is false) paints what was
    begun before and not finished alone, so that no other content is blamed should it end the
    process, and a plan is carried out to its end before the next is made. Where workers die alone,
    they tell themselves whom to blame, all of them are kept busy, and the work of one plan goes on
    while the next is made.
    """

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        folders: Folders,
        observer: Observer,
        policy: Policy,
        scanner: Scanner,
        patience: Patience,
        notes: Notes,
    ) -> None:
        """Have nothing in flight.

        Args:
            config: the settings.
            ledger: holds the jobs.
            folders: to reach the results in.
            observer: told of the progress.
            policy: of `run` or `watch`.
            scanner: knows the age of files.
            patience: has files wait for what is not their fault.
            notes: of what hooks are to be told.
        """
        self._config, self._ledger, self._observer = config, ledger, observer
        self._policy, self._scanner, self._patience = policy, scanner, patience
        self._intake = Intake(config, ledger, folders, observer, policy, scanner, patience, notes)
        self._loader = Loader(config, ledger, observer, policy, patience, self._intake)
        self._executor: Executor | None = None
        self._weights: Weights | None = None
        self._disposal: Disposal | None = None
        self._in_flight = JobsInFlight(observer, scanner)
        self._came: list[Outcome] = []
        self._look_is_due = self._is_ending = False
        self._told = self._planned = 0.0

    def carry_out(
        self,
        plan: Plan,
        executor_for: Callable[[Weights], Executor],
        recorder: Recorder | None,
        disposal: Disposal | None,
        force: bool = False,
    ) -> None:
        """Do what a plan has to do.

        Where workers die alone and new files may be looked for, jobs may be left in flight; the
        next call goes on with them, and `finish` waits for them.

        Args:
            plan: what to do; its jobs are in the ledger.
            executor_for: gives the executor, once there is something to paint.
            recorder: of the run; None only if there is nothing to do.
            disposal: of the sources; None: they stay as they are.
            force: paint also what was painted before, for another name.
        """
        if self._weights and plan.weights != self._weights:
            self.finish()
            self._executor = None  # it has them
        self._weights, self._disposal = plan.weights, disposal
        self._loader.disposal = disposal
        self._intake.recorder, self._intake.is_outdated = recorder, False
        self._intake.seconds, self._intake.pixels = 0.0, 0
        self._intake.again = []
        self._look_is_due = False
        self._planned = self._ledger.jobs.now() - plan.seconds
        if disposal:
            disposal.dispose_of_done()
        todo = _by_content(plan.todo)
        self._do_one_by_one(plan, todo, force, executor_for)
        if self._is_apart():
            self._keep_busy(plan, todo, force)
        if not (self._is_apart() and self._policy.looks):
            self._drain()
        if not self._in_flight:
            self._tell_workers(at_once=True)
        if self._intake.pixels:
            seconds, pixels = self._intake.seconds, self._intake.pixels
            note_pace(self._ledger, self._config, plan.weights, seconds, pixels)
        if disposal:
            disposal.dispose_of_all()

    def _do_one_by_one(
        self,
        plan: Plan,
        todo: deque[list[Job]],
        force: bool,
        executor_for: Callable[[Weights], Executor],
    ) -> None:
        """Carry out a plan with the one worker that this process is; stop if it is not."""
        while todo and not self._is_apart():
            jobs = todo.popleft()
            is_suspect = self._config.watch.max_attempts == 1 or was_begun(plan, jobs)
            if is_suspect or self._clashes(jobs):
                self._drain()
            if self._is_to_stop():
                return
            if one := self._loader.load(plan, jobs, force, self._fail_all):
                self._executor = executor_for(plan.weights)
                if self._is_apart():
                    todo.appendleft(jobs)
                    return
                self._hand_over([one])
            while self._executor and self._executor.capacity == 0:
                self._take_in(self._executor.poll)
            if is_suspect:
                self._drain()

    def _keep_busy(self, plan: Plan, todo: deque[list[Job]], force: bool) -> None:
        """Carry out a plan with many workers, until it is over or there is reason for another."""
        assert self._executor
        look_at = time.monotonic() + self._config.watch.poll_seconds
        self._intake.are_apart, has_polled = True, False
        while (todo or self._in_flight) and not self._is_to_stop():
            try:
                self._fill(plan, todo, force)
            except PipelineError:
                self._settle()
                raise
            self._settle()  # after it, for no worker waits for that
            # The plan after this one is made while workers still have a task ready.
            is_used_up = self._policy.looks and (not todo or self._executor.capacity > 0)
            if has_polled and is_used_up and (plan.more or self._is_look_due(look_at)):
                return
            has_polled = True
            self._poll()
            todo.extend(_by_content(self._intake.again))
            self._intake.again = []
        self._settle()

    def _fill(self, plan: Plan, todo: deque[list[Job]], force: bool) -> None:
        """Hand over as much as the executor takes."""
        assert self._executor
        begun = time.monotonic()
        while (room := self._executor.capacity) and (some := self._next(todo, room)):
            try:
                loaded = [
                    one
                    for jobs in some
                    if (one := self._loader.load(plan, jobs, force, self._fail_all))
                ]
            except DiskFullError:
                self.finish()  # there is room for what is at work
                raise
            self._hand_over(loaded)
            if loaded or time.monotonic() - begun > REPEAT_SECONDS:
                return

    def _is_look_due(self, look_at: float) -> bool:
        """Tell whether a new plan may have something to do for workers that wait."""
        # What was due before this plan was made is nothing for the next one either.
        retry = self._ledger.jobs.next_try(after=self._planned)
        is_retry_due = retry is not None and retry <= self._ledger.jobs.now()
        return is_retry_due or time.monotonic() >= look_at

    def _next(self, todo: deque[list[Job]], room: int) -> list[list[Job]]:
        """Take the jobs of some contents out of those to do, but for those that are in flight."""
        found: list[list[Job]] = []
        left: list[list[Job]] = []
        busy = self._in_flight.parts()
        only_urgent = self._in_flight.has_urgent_waiting(self._workers())
        while todo and len(found) < room:
            jobs = todo.popleft()
            parts = {part for job in jobs for part in (job.output, job.key)}
            is_to_wait = only_urgent and not self._scanner.is_urgent(jobs[0].content.found)
            (left if is_to_wait or parts & busy else found).append(jobs)
            busy |= parts
        todo.extendleft(reversed(left))
        return found

    def finish(self) -> None:
        """Wait for what is at work; what only waits for a worker goes back to the queue."""
        if self._in_flight:
            self._is_ending = True
            self._drain()
            self._is_ending = False
            self._tell_workers(at_once=True)

    def has_jobs_in_flight(self) -> bool:
        """Tell whether a worker has something to do."""
        return bool(self._in_flight)

    def put_back(self, reason: str = "") -> None:
        """Publish what came already; queue the rest again, as if it had not been begun.

        Args:
            reason: what a job did to the device, if it did; that is an attempt of those at work,
                and they are given up when it was the last.
        """
        # What cannot be published is painted again.
        with contextlib.suppress(PipelineError, OSError):
            self._settle()
        guilty = self._at_work()
        for one in self._in_flight:
            self._in_flight.release(one.job, is_over=False)
            if self._ledger.jobs.state(one.entry.id) != JobState.RUNNING:
                continue
            if not reason or one.job.content not in guilty:
                self._ledger.jobs.requeue(one.entry.id, is_attempt=False)
            elif one.entry.attempts + 1 < self._config.watch.max_attempts:
                self._ledger.jobs.requeue(one.entry.id, reason)
            else:
                self._intake.give_up(one.job, one.entry, reason)

    def _at_work(self) -> list[Content]:
        """Return the contents that are painted, as far as anybody knows."""
        begun = self._in_flight.begun()
        if self._is_apart():
            return begun
        return begun[:1] or [one.job.content for one in self._in_flight][:1]

    def _is_apart(self) -> bool:
        """Tell whether workers die alone."""
        return self._executor is not None and self._executor.outlives_workers

    # What the executor tells

    def stepped(self, job: Job, done: int, total: int, loss: float) -> None:
        """Pass a step on.

        Raises:
            Abandoned: the job is not to be begun, or not to be finished.
        """
        one = self._in_flight.of(job)
        if one is None:
            raise Abandoned  # somebody else has it by now
        if not one.has_begun:
            if self._is_ending or self._observer.should_stop():
                raise Abandoned
            wanted, apart = self._is_look_wanted(), self._is_apart()
            if self._in_flight.gives_way(one, self._workers(), wanted, may_wait=apart):
                raise Abandoned
            self._in_flight.begin(one)
        self._observer.check()
        if self._ledger.jobs.state(one.entry.id) == JobState.CANCELLED:
            raise Abandoned
        self._observer.stepped(job, done, total, loss)

    def check(self) -> None:
        """Pass a sign of life on.

        Raises:
            Abandoned: the work is to end.
        """
        self._observer.check()
        self._tell_workers()
        is_to_end = self._is_ending or self._observer.should_stop()
        if self._is_apart() and not self._in_flight.begun() and is_to_end:
            raise Abandoned  # nobody need wait for a worker to come

    def wants_glimpse(self) -> bool:
        """Tell whether somebody looks on."""
        return self._observer.wants_glimpse()

    def glimpsed(self, job: Job, glimpse: Glimpse) -> None:
        """Pass a glimpse on."""
        self._observer.glimpsed(job, glimpse)

    def _tell_workers(self, at_once: bool = False) -> None:
        if self._executor and (at_once or time.monotonic() - self._told >= TELL_SECONDS):
            self._told = time.monotonic()
            self._observer.workers(self._executor.workers())

    def _workers(self) -> int:
        """Return how many workers there are now."""
        return len(self._executor.workers()) if self._executor else 0

    # Handing over

    def _clashes(self, jobs: list[Job]) -> bool:
        """Tell whether one of the jobs is in flight already, for another name."""
        return not self._in_flight.parts().isdisjoint(job.key for job in jobs)

    def _is_to_stop(self) -> bool:
        """Tell whether no further job of the plan is to be begun."""
        return self._observer.should_stop() or self._is_look_wanted() or self._intake.is_outdated

    def _is_look_wanted(self) -> bool:
        """Tell whether to look for new files before the next content."""
        self._look_is_due |= self._policy.looks and self._observer.should_look()
        return self._look_is_due

    def _hand_over(self, loaded: list[Loaded]) -> None:
        """Note that contents are at work from now on, all at once, and hand them over."""
        assert self._executor
        self._note_kind(self._executor)
        workers, before = self._workers(), self._in_flight.contents()
        tasks = []
        with self._ledger.jobs.together(is_durable=True):
            for number, one in enumerate(loaded, start=before):
                # Before it is started, so that whatever ends us puts it back.
                self._in_flight.add(one.jobs, number, workers)
                started = [job for job, entry in one.jobs if self._ledger.jobs.start(entry.id)]
                for job, _ in one.jobs:
                    if job not in started:
                        self._in_flight.release(job, is_over=True)
                if started:
                    tasks.append(Task(one.content, tuple(started), one.data, one.was_begun))
        for task in tasks:
            with unforeseen(functools.partial(self._fail_all, list(task.jobs))):
                self._executor.submit(task)
        for content in {one.content for one in loaded} - {task.content for task in tasks}:
            if self._disposal:
                self._disposal.dispose_of(content.path)

    def _note_kind(self, executor: Executor) -> None:
        """Note whether a job can end this process, for whoever finds out that it was ended."""
        kind = "apart" if executor.outlives_workers else "here"
        if kind != (self._ledger.fact("workers") or "here"):
            self._ledger.set_fact("workers", kind)

    # Taking in

    def _drain(self) -> None:
        if self._executor is None:
            return
        while self._is_apart() and self._in_flight:  # results do not wait for each other
            self._poll()
            self._settle()
        self._take_in(self._executor.drain)
        self._settle()

    def _poll(self) -> None:
        assert self._executor
        polled = time.monotonic()
        self._take_in(self._executor.poll)
        if not self._came and time.monotonic() - polled < BREATH_SECONDS:
            time.sleep(BREATH_SECONDS)

    def _take_in(self, outcomes: Callable[[Progress], Iterator[Outcome]]) -> None:
        """Take in what comes; those of many workers are left to be settled together."""
        try:
            for outcome in outcomes(self):
                self._came.append(outcome)
                if not self._is_apart():
                    self._settle()
        except Exception as error:
            self._settle()
            if isinstance(error, PipelineError | DatabaseError):
                raise
            self._break(failure(error))
        self._tell_workers()

    def _settle(self) -> None:
        """Do what is to be done with the outcomes that came."""
        came, self._came = self._came, []
        taken: list[Taken] = []
        for outcome in came:
            if one := self._in_flight.of(outcome.job):
                taken.append((one, outcome))
        if not taken:
            return
        self._note_machines([outcome.machine for _, outcome in taken])
        self._intake.take_in(taken)
        for one, _ in taken:
            is_over = self._ledger.jobs.state(one.entry.id) not in IN_QUEUE
            self._in_flight.release(one.job, is_over)
        self._observer.queued(self._ledger.jobs.queue_length())
        if self._disposal:
            for path in dict.fromkeys(one.job.content.path for one, _ in taken):
                self._disposal.dispose_of(path)

    def _note_machines(self, machines: Iterable[Machine | None]) -> None:
        told = self._executor and self._executor.machine()
        latest = {one.place: one for one in machines if one}
        for machine in [told] if told else latest.values():
            self._observer.noted(machine)
            if self._intake.recorder:
                self._intake.recorder.note(machine)

    # What goes wrong

    def _fail_all(self, jobs: list[Job], why: Failure) -> None:
        """Fail jobs of one content that something unforeseen happened to."""
        known = self._ledger.jobs.of_source(jobs[0].content.path)
        flying = [self._in_flight.release(job, is_over=False) for job in jobs]
        entries = [
            one.entry if one else known[job.style.name, job.key]
            for job, one in zip(jobs, flying, strict=True)
        ]
        self._intake.blame(list(zip(jobs, entries, strict=True)), why)

    def _break(self, why: Failure) -> None:
        """Have done with an executor that broke: what it was at fails, what waited waits again."""
        assert self._executor
        self._executor.close()
        guilty = self._at_work()
        for one in self._in_flight:
            if one.job.content in guilty:
                self._fail_all([one.job], why)
            else:
                self._in_flight.release(one.job, is_over=False)
                self._intake.put_off(one.job, one.entry, replace(why, kind="changed"))
        if self._disposal:
            for content in guilty:
                self._disposal.dispose_of(content.path)


def _by_content(jobs: Iterable[Job]) -> deque[list[Job]]:
    return deque(list(group) for _, group in groupby(jobs, key=lambda job: job.content))
