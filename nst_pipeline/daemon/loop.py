"""The daemon: decides when the runner runs, and waits for what it cannot run without."""

import contextlib
import logging
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

from nst_pipeline.config.pipeline import Config
from nst_pipeline.daemon import ending
from nst_pipeline.daemon.control import is_asked_to_stop, is_paused
from nst_pipeline.daemon.notifier import Notifier
from nst_pipeline.daemon.reporter import Reporter
from nst_pipeline.daemon.signals import Signals
from nst_pipeline.daemon.wake_up import WakeUp
from nst_pipeline.daemon.web import Web
from nst_pipeline.errors import (
    Abandoned,
    CannotCreateError,
    ConfigError,
    DeviceLostError,
    DiskFullError,
    InboxGoneError,
    NoStylesError,
    PipelineError,
    StateGoneError,
    UnavailableError,
    UnreadableError,
)
from nst_pipeline.files import free_bytes, shown
from nst_pipeline.inbox.file_watcher import FileWatcher
from nst_pipeline.inbox.mounts import mount_point
from nst_pipeline.inbox.patience import STYLE_LOOKS_NAME, Patience
from nst_pipeline.inbox.style_folders import StyleFolders, searched_folders
from nst_pipeline.jobs.ledger import Ledger, ledger_path
from nst_pipeline.jobs.lock import Lock
from nst_pipeline.jobs.planning import Plan, find_styles, make_scanner
from nst_pipeline.runner.runner import Runner
from nst_pipeline.workers.protocol import MakeExecutor

log = logging.getLogger(__name__)

OBSTACLE_SECONDS = 5.0
"""How often the daemon looks whether what it waits for is there."""
BREATH_SECONDS = 1.0
"""How often, while it waits, it looks whether the state folder is still its own."""
TROUBLE_SECONDS = (1.0, 300.0)
"""The shortest and the longest wait after an error that is nobody's job's."""
SCAN_SHARE = 10
"""However many events come, no more than one part in so many of the time goes into scans."""
REST_SECONDS = 0.2
"""The shortest time between two scans that events ask for."""


def watch(load: Callable[[], Config], make_executor: MakeExecutor, wait: bool = False) -> None:
    """Paint whatever arrives in the inbox, until SIGTERM or SIGINT.

    Args:
        load: reads the settings; called again on SIGHUP.
        make_executor: makes what paints.
        wait: wait for another process that works with the state folder.

    Raises:
        LockedError: there is one, and we are not to wait.
        ConfigError, UnavailableError, CannotCreateError: it cannot even begin.
        DeviceLostError: the device broke; start the daemon again.
        StateGoneError: somebody deleted the state folder.
    """
    with contextlib.closing(WakeUp()) as wake_up, Signals(wake_up.set) as signals:
        config = load()
        with Lock(config.state, "watch", wait) as lock:
            daemon = _Daemon(config, load, make_executor, lock, wake_up, signals)
            try:
                daemon.run()
            finally:
                daemon.close()


class _Schedule:
    """When to look at the inbox again."""

    def __init__(self, wake_up: WakeUp) -> None:
        self._wake_up = wake_up
        self._rest_until = 0.0
        self._due: float | None = None

    def begin_look(self) -> None:
        """Take everything that was asked for until now as about to be done."""
        self._due = None

    def note_look(self, seconds: float) -> None:
        """Note that a look took so long, and rest in proportion."""
        self._rest_until = time.monotonic() + max(REST_SECONDS, SCAN_SHARE * seconds)

    def note_due(self, seconds: float) -> None:
        """Have a look taken in so many seconds, if none is due before."""
        due = time.monotonic() + seconds
        self._due = due if self._due is None else min(self._due, due)

    def is_due(self) -> bool:
        """Tell whether to look now: there is a reason to, and enough rest since the last look."""
        now = time.monotonic()
        has_reason = self._wake_up.is_set() or (self._due is not None and now >= self._due)
        if not has_reason or now < self._rest_until:
            return False
        self._wake_up.clear()
        self._due = None
        return True

    def due_seconds(self) -> float:
        """Return in how long a look is due that nobody needs to ask for."""
        return math.inf if self._due is None else self._due - time.monotonic()

    def rest_seconds(self) -> float:
        """Return how long the rest since the last look still is."""
        return self._rest_until - time.monotonic()


class _DaemonObserver(Reporter):
    """Reports what a run does, and answers for the daemon what it shall do."""

    def __init__(
        self,
        config: Config,
        notifier: Notifier,
        lock: Lock,
        signals: Signals,
        schedule: _Schedule,
    ) -> None:
        super().__init__(config, notifier)
        self._lock, self._signals, self._schedule = lock, signals, schedule

    def alive(self) -> None:
        self._lock.check()
        if is_asked_to_stop(self.config.state, self._lock.holder):
            self._signals.stop()
        super().alive()

    def looked(self, plan: Plan) -> None:
        self._schedule.note_look(plan.seconds)
        super().looked(plan)
        if plan.arriving or plan.palette.arriving:
            self._schedule.note_due(self.config.watch.settle_seconds)
        if plan.more:
            self._schedule.note_due(0)
        self.ready()

    def due(self, seconds: float) -> None:
        self._schedule.note_due(seconds)

    def should_stop(self) -> bool:
        signals = self._signals
        return signals.stopping or signals.reload or is_paused(self.config.state)

    def should_look(self) -> bool:
        return self._schedule.is_due()

    def check(self) -> None:
        self._signals.check()
        self.alive()
        if self._signals.stopping:
            self.stopping(self.config.watch.stop_seconds)


class _Daemon:
    def __init__(
        self,
        config: Config,
        load: Callable[[], Config],
        make_executor: MakeExecutor,
        lock: Lock,
        wake_up: WakeUp,
        signals: Signals,
    ) -> None:
        self._load, self._make_executor = load, make_executor
        self._lock, self._wake_up, self._signals = lock, wake_up, signals
        self._schedule, self._notifier = _Schedule(wake_up), Notifier()
        self._observer = _DaemonObserver(config, self._notifier, lock, signals, self._schedule)
        self._web = Web(
            self._observer.live, self._observer.metrics.text, lambda: self._signals.stopping
        )
        self._web.use(config)  # first, for it may be impossible
        self._trouble_seconds = 0.0
        self._use(config)

    def _use(self, config: Config) -> None:
        """Make what depends on the settings."""
        self._config = self._observer.config = config
        self._signals.stop_seconds = config.watch.stop_seconds
        self._scanner = make_scanner(config)
        self._runner = Runner(config, self._make_executor, self._observer)
        folders = {**searched_folders(config), config.inbox: True}
        self._file_watchers = [
            FileWatcher(folder, config.watch.polling, self._wake_up.set, is_deep)
            for folder, is_deep in folders.items()
        ]
        self._mount: Path | None = None
        self._observer.ends(ending.told(config))

    def run(self) -> None:
        """Work until told to stop."""
        try:
            with self._signals.taking_stops():
                self._notifier.extend()
                self._listen()
                log.info("watching %s", shown(self._config.inbox))
                while not self._signals.stopping:
                    self._turn()
                if self._runner.is_delivering():
                    left = self._signals.left_seconds()
                    self._observer.state("stopping", f"a hook may go on for {left:.0f} s")
                else:
                    self._observer.state("stopping")
                self._runner.end_deliveries(self._grace_seconds)
        except Abandoned:
            log.warning("stopped at once; what was at work is queued again")

    def close(self) -> None:
        """Free everything."""
        self._notifier.tell(STOPPING=1)
        self._close_watchers()
        self._runner.close()
        self._web.close("stopped" if self._signals.stopping else "failed")
        self._observer.close(is_ours=self._lock.is_held())

    def _grace_seconds(self) -> float:
        self._observer.alive()
        return self._signals.left_seconds()

    def _close_watchers(self) -> None:
        for watcher in self._file_watchers:
            watcher.close()

    def _listen(self) -> None:
        """Hear of what people ask as soon as they do, where the file system knows sockets."""
        try:
            self._wake_up.listen(self._config.state)
        except CannotCreateError as error:
            log.warning("%s", error)

    def _turn(self) -> None:
        self._wake_up.clear()  # before anything is looked at, so that nothing is lost
        self._lock.check()
        if self._signals.stopping:
            return
        if self._signals.reload:
            self._reload()
        try:
            self._runner.deliver()
            if obstacle := self._obstacle():
                self._observer.state(*obstacle, level=logging.WARNING)
                self._observer.ready()
                self._wait(OBSTACLE_SECONDS)
                return
            self._look()
            self._trouble_seconds = 0.0
            self._observer.mended("trouble")
        except NoStylesError as error:
            self._observer.ready()
            self._observer.state("waiting", "; ".join(error.problems), level=logging.WARNING)
            self._wait(OBSTACLE_SECONDS)
        except (InboxGoneError, DiskFullError) as error:
            if self._obstacle() is None:  # over already, or less room than a result takes
                self._wait_out(error)
        except UnreadableError as error:
            self._observer.ready()
            self._wait_out(error)
        except (DeviceLostError, StateGoneError):
            raise
        except Exception as error:
            if not self._observer.is_ready:
                raise
            if not isinstance(error, PipelineError):
                log.error("of nobody's job, and not foreseen", exc_info=error)
            self._wait_out(error)

    def _look(self) -> None:
        """Do what there is to do, then wait for the next reason to look."""
        for watcher in self._file_watchers:
            watcher.arm()
        self._schedule.begin_look()
        self._runner.run_standing(self._scanner)
        self._observer.ready()
        if self._observer.should_stop():
            return
        self._observer.state("idle")
        watch = self._config.watch
        has_events = all(watcher.has_events for watcher in self._file_watchers)
        seconds = watch.rescan_seconds if has_events else watch.poll_seconds
        self._wait(min(seconds, self._schedule.due_seconds()))
        self._rest(self._schedule.rest_seconds())

    def _wait(self, seconds: float) -> None:
        """Wait for something to happen, alive all the while.

        Raises:
            StateGoneError: somebody deleted the state folder.
        """
        until = time.monotonic() + seconds
        breath = min(BREATH_SECONDS, self._notifier.alive_seconds)
        while True:
            self._observer.alive()
            left = until - time.monotonic()
            if left <= 0 or self._wake_up.wait(min(left, breath)):
                return

    def _rest(self, seconds: float) -> None:
        """Let more events come in, but no signal wait."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._wake_up.clear()
            if self._signals.stopping or self._signals.reload:
                return
            self._wait(left)

    def _wait_out(self, error: Exception) -> None:
        """Report trouble that is not a job's, and wait before the next try, ever longer."""
        low, high = TROUBLE_SECONDS
        self._trouble_seconds = min(high, max(low, 2 * self._trouble_seconds))
        # Room, and a cluster, come without a sign.
        has_cluster = self._runner.outlives_workers
        if isinstance(error, DiskFullError) or (
            has_cluster and isinstance(error, UnavailableError)
        ):
            self._trouble_seconds = min(OBSTACLE_SECONDS, self._trouble_seconds)
        what = (
            str(error) if isinstance(error, PipelineError) else f"{type(error).__name__}: {error}"
        )
        self._observer.error(what, "trouble")
        self._observer.state("waiting", f"{what}; tried again in {self._trouble_seconds:.0f} s")
        self._rest(self._trouble_seconds)

    def _obstacle(self) -> tuple[str, str] | None:
        """Return what the daemon waits for, if for anything: its state and why."""
        config = self._config
        if is_paused(config.state):
            return "paused", f"`{config.command('resume')}` goes on"
        if not self._has_inbox():
            return "waiting", f"for the inbox {shown(config.inbox)}: not there, or not mounted"
        for folder in searched_folders(config):
            if not os.path.isdir(folder):  # noqa: PTH112 - Path.is_dir may raise
                return "waiting", f"for the styles' folder {shown(folder)}: not there"
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

    def _reload(self) -> None:
        self._signals.reload = False
        self._notifier.reloading()
        try:
            config = self._load()
            if config.state != self._config.state or config.metrics != self._config.metrics:
                raise ConfigError(["state and metrics cannot change while watching; restart"])
            with Ledger(ledger_path(config.state)) as ledger, contextlib.suppress(NoStylesError):
                looks = Patience(0, config.state / STYLE_LOOKS_NAME, self._observer.looks)
                folders = StyleFolders(config, 0, looks)
                find_styles(config, ledger, folders)  # where there is none yet, one may come
            self._web.use(config)
        except PipelineError as error:
            self._observer.error(f"the settings stay as they were: {error}", "settings")
        else:
            self._close_watchers()
            self._runner.close()
            self._use(config)
            log.info("the settings were read again")
            self._observer.mended("settings")
        self._notifier.tell(READY=1)
