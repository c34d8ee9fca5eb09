"""What follows a source's last job: it is moved, deleted or given up, and left out from then on."""

import logging
import time
from pathlib import Path

from nst_pipeline.config.pipeline import Config
from nst_pipeline.errors import OutputError
from nst_pipeline.files import shown, signature
from nst_pipeline.inbox.companions import shares_companions
from nst_pipeline.inbox.scanner import Scanner, SourceFile
from nst_pipeline.jobs.job import Content, Job
from nst_pipeline.jobs.ledger import Ledger
from nst_pipeline.jobs.planning import Broken, Plan
from nst_pipeline.jobs.states import Entry
from nst_pipeline.runner.moves import (
    Move,
    deletion,
    dispose,
    failure_report,
    record_failure,
    report_path,
)

log = logging.getLogger(__name__)

WRITER_SECONDS = 0.5
"""How often, at most, a file that somebody writes to is looked at."""


class Settler:
    """Settles the sources of a plan; with a scanner, as a daemon does."""

    def __init__(
        self, config: Config, ledger: Ledger, plan: Plan, scanner: Scanner | None = None
    ) -> None:
        """Only a daemon gives files up: a run tells, and leaves them."""
        self._config, self._ledger, self._plan, self._scanner = config, ledger, plan, scanner
        self._open: dict[Path, list[Job]] = {}
        for job in (*plan.todo, *(held.job for held in plan.held)):
            self._open.setdefault(job.content.path, []).append(job)

    def settle_done(self) -> None:
        """Settle the contents that the plan has nothing to do for."""
        contents = {id(done.content): done.content for done in self._plan.done}
        done = [
            content.found
            for content in contents.values()
            if content.found.signature and content.path not in self._open
        ]
        if self._config.on_success != "keep":
            for found in done:
                self._put_away(found)
            return
        self._ledger.settle_all((f.path, f.signature or "", self._settled_for(f)) for f in done)
        if self._scanner:
            for found in done:
                self._scanner.add_finished(found)

    def settle_all(self) -> None:
        """Settle every content that had a job to do and has none left."""
        for path in list(self._open):
            self.settle(path)

    def settle(self, path: Path) -> None:
        """Settle a content that had one, if it has no job left to do and is not settled yet."""
        jobs = self._open.get(path)
        if jobs is None:
            return
        content = jobs[0].content
        known = {(e.style, e.key): e for e in self._ledger.of_source(path)}
        entries = [
            known.get((job.style.name, job.key)) or self._plan.entries.get(job.output)
            for job in jobs
        ]
        states = {entry.state if entry else "queued" for entry in entries}
        if states & {"queued", "running", "committing", "gone"} or not content.found.signature:
            return
        del self._open[path]
        if "failed" in states:
            self._give_up(content, [e for e in entries if e and e.state == "failed"])
        elif "cancelled" in states or self._config.on_success == "keep":
            self._leave(content.found)
        else:
            self._put_away(content.found)

    def hopeless(self) -> list[Broken]:
        """Return the files that had their time to become pictures."""
        return [b for b in self._plan.broken if self._grace_seconds(b.found) <= 0]

    def give_up_broken(self, broken: Broken) -> None:
        """Move away a file that no job could be made of."""
        report = failure_report(broken.found.path, broken.reason, 0, [], _retry(broken.found))
        self._move_to_failed(broken.found, broken.reason, report, broken.reason)

    def next_due(self) -> float | None:
        """Return in how many seconds something that waits is due; forget what went away."""
        waits = [self._grace_seconds(b.found) for b in self._plan.broken]
        if self._scanner:
            settle = self._config.watch.settle_seconds
            ages = [self._scanner.age_seconds(found) for found in self._plan.waiting]
            # Older ones are those that somebody holds open for writing.
            waits += [settle - age if age < settle else max(settle, WRITER_SECONDS) for age in ages]
        gone = [
            e.id
            for e in self._ledger.entries("state = 'queued'")
            if not (e.source.is_relative_to(self._config.inbox) and e.source.exists())
        ]
        if self._config.inbox.is_dir():
            self._ledger.mark("gone", gone)
        if (due := self._ledger.next_try()) is not None:
            waits.append(due - time.time())
        return max(0.01, min(waits)) if waits else None

    def _grace_seconds(self, found: SourceFile) -> float:
        age = self._scanner.age_seconds(found) if self._scanner else 0.0
        return self._config.watch.grace_seconds - age

    def _give_up(self, content: Content, failed: list[Entry]) -> None:
        if self._scanner is None:
            return
        reason = failed[0].reason
        jobs = [
            {"style": e.style, "reason": e.reason, "trace": e.trace, "attempts": e.attempts}
            for e in failed
        ]
        attempts = max(entry.attempts for entry in failed)
        report = failure_report(
            content.path, reason, attempts, jobs, _retry(content.found), content.sha256
        )
        self._move_to_failed(content.found, reason, report)

    def _move_to_failed(
        self, found: SourceFile, reason: str, report: str, problem: str | None = None
    ) -> None:
        if self._config.on_failure == "move" and found.path.is_file():
            target = self._config.failed / found.folder / found.path.name
            move = Move(found.path, target, found.signature or "", "fail", report)
            place = self._move(move, self._along(found, self._config.failed, reason))
            if place is not None:
                log.error("%s; moved to %s (see %s)", reason, shown(place), report_path(place).name)
                return
        else:
            log.error("%s; left in the inbox", reason)
        record_failure(self._ledger, found.path, found.path, reason)
        self._leave(found, problem)

    def _put_away(self, found: SourceFile) -> None:
        if found.path.is_symlink():
            self._leave(found)
        elif self._config.on_success == "delete":
            self._move(deletion(found.path, found.signature or ""), self._along(found, None))
        else:
            target = self._config.processed / found.folder / found.path.name
            move = Move(found.path, target, found.signature or "", "move")
            self._move(move, self._along(found, self._config.processed))
        if found.path.exists() and _same(found):
            self._leave(found)  # it cannot be moved; we told

    def _along(self, found: SourceFile, folder: Path | None, reason: str = "") -> list[Move]:
        """Return the moves of the companions, unless another picture needs them; None: deletion."""
        files = [one for one in found.companions if one.signature and not one.path.is_symlink()]
        if not files or shares_companions(found.path):
            return []
        moves = []
        for one in files:
            path, known = one.path, one.signature or ""
            if folder is None:
                moves.append(deletion(path, known))
                continue
            target = folder / found.folder / path.name
            told = f"goes with {shown(found.path.name)}: {reason}"
            report = failure_report(path, told, 0, [], _retry(found)) if reason else ""
            moves.append(Move(path, target, known, "fail" if reason else "move", report))
        return moves

    def _move(self, move: Move, along: list[Move]) -> Path | None:
        try:
            return dispose(self._ledger, move, along)
        except OutputError as error:
            log.error("%s", error)
            return None

    def _leave(self, found: SourceFile, problem: str | None = None) -> None:
        """Leave a file where it is, and out of all plans until it changes."""
        self._ledger.settle(found.path, found.signature or "", self._settled_for(found), problem)
        if self._scanner:
            self._scanner.add_finished(found)

    def _settled_for(self, found: SourceFile) -> str:
        """Return the digest of the plan that has nothing left for a file; empty: none knows."""
        # One with companions is looked at by the next process again: they may change meanwhile.
        return "" if found.companions else self._plan.digest


def _same(found: SourceFile) -> bool:
    return signature(found.path.stat()) == found.signature


def _retry(found: SourceFile) -> str:
    return f"nst-pipeline retry {shown(found.folder / found.path.name)}"
