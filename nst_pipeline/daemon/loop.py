"""The daemon: decides when the runner runs, and waits for what it cannot run without."""

import functools
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from nst_pipeline.config.pipeline import Config
from nst_pipeline.config.weights import Weights
from nst_pipeline.daemon.live import is_paused
from nst_pipeline.daemon.notifier import Notifier
from nst_pipeline.daemon.reporter import Reporter
from nst_pipeline.daemon.signals import Signals
from nst_pipeline.errors import (
    Abandoned,
    ConfigError,
    DeviceLostError,
    DiskFullError,
    InboxGoneError,
    PipelineError,
)
from nst_pipeline.files import free_bytes, shown
from nst_pipeline.inbox.file_watcher import FileWatcher, WakeUp
from nst_pipeline.inbox.mounts import mount_point
from nst_pipeline.jobs.lock import Lock
from nst_pipeline.jobs.planning import Plan, make_scanner
from nst_pipeline.runner.runner import Hooks, run_standing
from nst_pipeline.workers.protocol import Executor, OnStep

log = logging.getLogger(__name__)

OBSTACLE_SECONDS = 5.0
"""How often the daemon looks whether what it waits for is there."""
TROUBLE_SECONDS = (1.0, 300.0)
"""The shortest and the longest wait after an error that is nobody's job's."""
SCAN_SHARE = 10
"""However many events come, no more than one part in so many of the time goes into scans."""
REST_SECONDS = 0.2
"""The shortest time between two scans that events ask for."""


class MakeChecked(Protocol):
    """Makes an executor that calls ``check`` before every step."""

    def __call__(
        self, config: Config, weights: Weights, on_step: OnStep, check: Callable[[], None]
    ) -> Executor:
        """Make it."""


def watch(load: Callable[[], Config], make_executor: MakeChecked, wait: bool = False) -> None:
    """Paint whatever arrives in the inbox, until SIGTERM or SIGINT.

    Args:
        load: reads the settings; called again on SIGHUP.
        make_executor: makes what paints.
        wait: wait for another process that works with the state folder.

    Raises:
        LockedError: there is one, and we are not to wait.
        ConfigError, UnavailableError, CannotCreateError: it cannot even begin.
        DeviceLostError: the device broke; start the daemon again.
    """
    config = load()
    with Lock(config.state, "watch", wait):
        daemon = _Daemon(config, load, make_executor)
        try:
            daemon.run()
        finally:
            daemon.close()


class _Daemon:
    def __init__(
        self, config: Config, load: Callable[[], Config], make_executor: MakeChecked
    ) -> None:
        self._config, self._load, self._make_executor = config, load, make_executor
        self._bell, self._notifier = WakeUp(), Notifier()
        self._reporter = Reporter(config, self._notifier)
        self._signals = Signals(self._bell.set, config.watch.stop_seconds)
        self._hooks = Hooks(
            should_stop=self._should_stop, rung=self._rung, check=self._check,
            again=self._note_due, looked=self._looked, timed=self._reporter.timed,
            machine=self._reporter.machine,
        )  # fmt: skip
        self._mount: Path | None = None
        self._has_begun = False
        self._trouble_seconds = 0.0
        self._rest_until = 0.0
        self._due: float | None = None
        self._settings()

    def _settings(self) -> None:
        """Make what depends on the settings."""
        config = self._config
        self._signals.stop_seconds = config.watch.stop_seconds
        self._scanner = make_scanner(config)
        self._watcher = FileWatcher(config.inbox, config.watch.polling, self._bell.set)
        self._mount = None

    def run(self) -> None:
        """Work until told to stop."""
        try:
            with self._signals:
                self._notifier.extend()
                log.info("watching %s", shown(self._config.inbox))
                while not self._signals.stopping:
                    self._turn()
                self._reporter.state("stopping")
        except Abandoned:
            log.warning("stopped at once; what was at work is queued again")

    def close(self) -> None:
        """Free everything."""
        self._notifier.tell(STOPPING=1)
        self._watcher.close()
        self._reporter.close()
        self._bell.close()

    def _turn(self) -> None:
        self._bell.clear()  # before anything is looked at, so that no later ring is lost
        if self._signals.stopping:
            return
        if self._signals.reload:
            self._reload()
        if obstacle := self._obstacle():
            self._reporter.state(*obstacle, level=logging.WARNING)
            self._ready()
            self._notifier.alive()
            self._bell.wait(OBSTACLE_SECONDS)
            return
        try:
            self._look()
            self._trouble_seconds = 0.0
        except (InboxGoneError, DiskFullError) as error:
            if self._obstacle() is None:  # over already, or less room than a result takes
                self._trouble(error)
        except DeviceLostError:
            raise
        except PipelineError as error:
            if not self._has_begun:
                raise
            self._trouble(error)

    def _look(self) -> None:
        self._watcher.arm()
        self._due = None
        make = functools.partial(self._make_executor, check=self._check)
        run_standing(self._config, make, self._reporter, self._hooks, self._scanner)
        self._ready()
        if self._should_stop():
            return
        self._reporter.state("idle")
        watch = self._config.watch
        wait = watch.rescan_seconds if self._watcher.has_events else watch.poll_seconds
        if self._due is not None:
            wait = min(wait, self._due - time.monotonic())
        self._bell.wait(wait)
        self._rest(self._rest_until - time.monotonic())

    def _ready(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._notifier.tell(READY=1)

    def _rest(self, seconds: float) -> None:
        """Let more events come in, but no signal wait."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._bell.clear()
            if self._signals.stopping or self._signals.reload:
                return
            self._bell.wait(left)

    def _trouble(self, error: PipelineError) -> None:
        low, high = TROUBLE_SECONDS
        self._trouble_seconds = min(high, max(low, 2 * self._trouble_seconds))
        if isinstance(error, DiskFullError):  # room comes without a sign
            self._trouble_seconds = min(OBSTACLE_SECONDS, self._trouble_seconds)
        self._reporter.error(str(error))
        self._reporter.state("waiting", f"{error}; tried again in {self._trouble_seconds:.0f} s")
        self._rest(self._trouble_seconds)

    # What the daemon waits for

    def _obstacle(self) -> tuple[str, str] | None:
        config = self._config
        if is_paused(config.state):
            return "paused", "`nst-pipeline resume` goes on"
        if not self._has_inbox():
            return "waiting", f"for the inbox {shown(config.inbox)}: not there, or not mounted"
        wanted = config.limits.min_free_bytes
        for folder in (config.outbox, config.state):
            if free_bytes(folder) < wanted:
                return "waiting", (
                    f"for room: {shown(folder)} has less than limits.min_free_bytes ({wanted:,})"
                )
        return None

    def _has_inbox(self) -> bool:
        """Tell whether the inbox is there, on the file system that it was on."""
        try:
            if not self._config.inbox.is_dir():
                return False
            mount = mount_point(self._config.inbox)
        except OSError:
            return False
        if self._mount is None:
            self._mount = mount
        # Where a mount has gone, an empty folder of the file system below shows through.
        return not (mount != self._mount and self._mount.is_relative_to(mount))

    # The runner's hooks

    def _should_stop(self) -> bool:
        return self._signals.stopping or self._signals.reload or is_paused(self._config.state)

    def _check(self) -> None:
        self._signals.check()
        self._notifier.alive()
        if self._signals.stopping:
            self._reporter.stopping(self._config.watch.stop_seconds)

    def _rung(self) -> bool:
        now = time.monotonic()
        is_due = self._bell.is_set() or (self._due is not None and now >= self._due)
        if not is_due or now < self._rest_until:
            return False
        self._bell.clear()
        self._due = None
        return True

    def _note_due(self, seconds: float) -> None:
        due = time.monotonic() + seconds
        self._due = due if self._due is None else min(self._due, due)

    def _looked(self, plan: Plan) -> None:
        rest = max(REST_SECONDS, SCAN_SHARE * plan.seconds)
        self._rest_until = time.monotonic() + rest
        self._reporter.looked(plan)
        if plan.waiting:
            self._note_due(self._config.watch.settle_seconds)
        if not self._has_begun:
            self._ready()

    def _reload(self) -> None:
        self._signals.reload = False
        self._notifier.reloading()
        try:
            config = self._load()
            if config.state != self._config.state or config.metrics != self._config.metrics:
                raise ConfigError(["state and metrics cannot change while watching; restart"])
        except PipelineError as error:
            self._reporter.error(f"the settings stay as they were: {error}")
        else:
            self._config = config
            self._watcher.close()
            self._settings()
            log.info("the settings were read again")
        self._notifier.tell(READY=1)
