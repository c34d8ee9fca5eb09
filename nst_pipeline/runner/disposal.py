"""What becomes of a source after its last job: moved, deleted, given up or left, as configured."""

import contextlib
import logging
import os
import stat
from pathlib import Path

from nst_pipeline.config.pipeline import Config
from nst_pipeline.errors import CannotCreateError, OutputError
from nst_pipeline.files import shown
from nst_pipeline.folders import Folders
from nst_pipeline.inbox import reading
from nst_pipeline.inbox.companions import shares_companions
from nst_pipeline.inbox.patience import Kind, Patience
from nst_pipeline.inbox.scanner import Scanner, SourceFile, is_unchanged
from nst_pipeline.jobs.file_table import Move
from nst_pipeline.jobs.job import Content, Job
from nst_pipeline.jobs.ledger import Ledger
from nst_pipeline.jobs.planning import Broken, Plan, Policy
from nst_pipeline.jobs.state import IN_QUEUE, Entry, JobState
from nst_pipeline.runner.moves import deletion, dispose, failure_report, report_path

log = logging.getLogger(__name__)

WRITER_SECONDS = 0.5
"""How often, at most, a file that somebody writes to is looked at."""


class Disposal:
    """Disposes of the sources of a plan, each as soon as it has no job left to do."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        folders: Folders,
        plan: Plan,
        scanner: Scanner,
        policy: Policy,
        patience: Patience,
    ) -> None:
        """Dispose of nothing yet."""
        self._config, self._ledger, self._folders, self._plan = config, ledger, folders, plan
        self._scanner, self._policy, self._patience = scanner, policy, patience
        self._open: dict[Path, list[Job]] = {}
        for job in (*plan.todo, *(held.job for held in plan.held)):
            self._open.setdefault(job.content.path, []).append(job)

    def dispose_of_done(self) -> None:
        """Dispose of the contents that the plan has nothing to do for."""
        contents = {id(done.content): done.content for done in self._plan.done}
        done = [
            content.found
            for content in contents.values()
            if content.found.signature and content.path not in self._open
        ]
        left = {one.source for one in self._ledger.files.failed()}
        for found in done:
            if found.path in left:
                self._ledger.files.forgive_left(found.path)
        if self._config.on_success == "keep":
            self._finish(done)
            return
        for found in done:
            self._put_away(found)

    def dispose_of_all(self) -> None:
        """Dispose of every content that had a job to do and has none left."""
        for path in list(self._open):
            self.dispose_of(path)

    def dispose_of(self, path: Path) -> None:
        """Dispose of a content, if it had jobs to do and has none left."""
        jobs = self._open.get(path)
        if jobs is None:
            return
        content = jobs[0].content
        known = self._ledger.jobs.of_source(path)
        entries = [known[job.style.name, job.key] for job in jobs]
        states = {entry.state for entry in entries}
        if states & {*IN_QUEUE, JobState.GONE} or not content.found.signature:
            return
        del self._open[path]
        if JobState.FAILED in states:
            self._give_up(content, [e for e in entries if e.state == JobState.FAILED])
        elif JobState.CANCELLED in states:
            self._finish([content.found])
        else:
            self._ledger.files.forgive_left(path)
            if self._config.on_success == "keep":
                self._finish([content.found])
            else:
                self._put_away(content.found)

    # What waits

    def broken_for_good(self) -> list[Broken]:
        """Return the files that were refused twice, at last after the grace; the others wait."""
        final = []
        for broken in self._plan.broken:
            left = self._grace_seconds(broken.found)
            kinds: tuple[Kind, ...] = ("refused", "disposal")
            is_certain = any(self._patience.tries(broken.found, kind) for kind in kinds)
            if broken.is_final or (left <= 0 and is_certain):
                final.append(broken)
            else:
                wait = left if left > 0 else None
                self._patience.put_off(broken.found, broken.reason, "refused", wait)
        return final

    def leave_broken(self) -> None:
        """Note what no job could be made of, and leave it to the next run."""
        if self._plan.broken:
            self._ledger.files.fail_left({b.found.path: b.reason for b in self._plan.broken})

    def give_up_broken(self, broken: Broken) -> None:
        """Move away a file that no job could be made of."""
        found, reason = broken.found, broken.reason
        report = failure_report(found.path, reason, 0, [], self._retry_command(found))
        if self._is_to_move(found):
            self._move_to_failed(found, reason, report)
            return
        self._patience.forget(found.path)
        self._ledger.files.reject(found.path, found.signature or "", reason)
        self._leave_failed(found, reason)

    def next_due(self) -> float | None:
        """Return in how many seconds something that waits is due; forget what went away."""
        waits = [waiting.seconds for waiting in self._patience.waiting()]
        settle = self._config.watch.settle_seconds
        ages = [self._scanner.age_seconds(found) for found in self._plan.arriving]
        # Older ones are those that somebody holds open for writing.
        waits += [settle - age if age < settle else max(settle, WRITER_SECONDS) for age in ages]
        # Not Path.is_dir, which raises for a folder that may not be searched.
        if os.path.isdir(self._config.inbox):  # noqa: PTH112
            self._drop_vanished()
        if (due := self._ledger.jobs.next_try()) is not None:
            waits.append(due - self._ledger.jobs.now())
        return max(0.01, min(waits)) if waits else None

    def _drop_vanished(self) -> None:
        """Take the jobs out of the queue whose source is not in the inbox any more."""
        inbox = self._config.inbox
        self._ledger.jobs.drop(
            entry.id
            for entry in self._ledger.jobs.in_state(JobState.QUEUED)
            if not (entry.source.is_relative_to(inbox) and _is_found(entry.source, inbox))
        )

    def _grace_seconds(self, found: SourceFile) -> float:
        return self._config.watch.grace_seconds - self._scanner.age_seconds(found)

    # Where sources go

    def _give_up(self, content: Content, failed: list[Entry]) -> None:
        reason = failed[0].reason
        if not self._policy.retries:  # the next run tries again
            self._ledger.files.fail(content.path, content.path, reason)
            return
        jobs = [
            {"style": e.style, "reason": e.reason, "trace": e.trace, "attempts": e.attempts}
            for e in failed
        ]
        attempts = max(entry.attempts for entry in failed)
        report = failure_report(
            content.path, reason, attempts, jobs, self._retry_command(content.found), content.sha256
        )
        if self._is_to_move(content.found):
            self._move_to_failed(content.found, reason, report)
        else:
            self._leave_failed(content.found, reason)

    def _is_to_move(self, found: SourceFile) -> bool:
        return self._config.on_failure == "move" and self._is_file(found.path)

    def _move_to_failed(self, found: SourceFile, reason: str, report: str) -> None:
        """Move a source to the failed folder; what is impossible now is tried again."""
        target = self._config.failed / found.folder / found.path.name
        move = Move(found.path, target, found.identity or "", "fail", report)
        place = self._move(found, move, self._companion_moves(found, self._config.failed, reason))
        if place is not None:
            names = shown(found.path.name), shown(place), shown(report_path(place).name)
            log.info("%s is at %s now (see %s)", *names)

    def _leave_failed(self, found: SourceFile, reason: str) -> None:
        log.info("%s stays in the inbox", shown(found.path.name))
        self._ledger.files.fail(found.path, found.path, reason)
        self._finish([found])

    def _put_away(self, found: SourceFile) -> None:
        """Move or delete a source whose jobs are done."""
        if self._plan.palette.arriving:
            return  # the next plan may have another style for it
        if self._folders.is_link(found.path):
            self._finish([found])
        elif self._config.on_success == "delete":
            move = deletion(self._folders, found.path, found.identity or "")
            self._move(found, move, self._companion_moves(found, None))
        else:
            target = self._config.processed / found.folder / found.path.name
            move = Move(found.path, target, found.identity or "", "move")
            self._move(found, move, self._companion_moves(found, self._config.processed))

    def _retry_command(self, found: SourceFile) -> str:
        name = shown(found.folder / found.path.name)
        # No name passes for an option.
        return self._config.command("retry", f"./{name}" if name.startswith("-") else name)

    def _companion_moves(
        self, found: SourceFile, folder: Path | None, reason: str = ""
    ) -> list[Move]:
        """Return the moves of a source's companions, none if another picture needs them.

        Args:
            found: the source.
            folder: where they go; None: they are deleted.
            reason: why the source failed; empty: it did not.
        """
        files = [
            one for one in found.companions if one.identity and not self._folders.is_link(one.path)
        ]
        if not files or shares_companions(found.path):
            return []
        moves = []
        for one in files:
            path, seen = one.path, one.identity or ""
            if folder is None:
                moves.append(deletion(self._folders, path, seen))
                continue
            target = folder / found.folder / path.name
            why = f"goes with {shown(found.path.name)}: {reason}"
            report = failure_report(path, why, 0, [], self._retry_command(found)) if reason else ""
            moves.append(Move(path, target, seen, "fail" if reason else "move", report))
        return moves

    def _move(self, found: SourceFile, move: Move, companions: list[Move]) -> Path | None:
        """Carry out the moves of a source; one that stays, as it was, is tried again later."""
        place, reason = None, f"{shown(found.path)}: cannot be moved away"
        try:
            place = dispose(self._ledger, self._folders, move, companions)
        except (CannotCreateError, OutputError) as error:
            reason = str(error)
            if not self._patience.tries(found, "disposal"):
                log.error("%s", reason)
        if is_unchanged(found):
            self._patience.put_off(found, reason, "disposal")
        else:
            self._patience.forget(found.path)
        return place

    def _is_file(self, path: Path) -> bool:
        with contextlib.suppress(OSError):
            return stat.S_ISREG(self._folders.status(path).st_mode)
        return False

    def _finish(self, files: list[SourceFile]) -> None:
        """Leave files where they are, and out of all plans until they change."""
        # One with companions is looked at by the next process again: they may change meanwhile.
        self._ledger.files.finish(
            (f.path, f.signature or "", "" if f.companions else self._plan.digest) for f in files
        )
        if self._policy.remembers:
            for found in files:
                self._scanner.add_finished(found)


def _is_found(source: Path, inbox: Path) -> bool:
    """Tell whether a search of the inbox would find a file."""
    try:
        reading.status(source, inbox)
    except OSError:
        return False
    return True
