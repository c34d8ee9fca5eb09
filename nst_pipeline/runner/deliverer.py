"""The deliverer: tells hooks of jobs that are over, beside the painting, at least once each."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Literal

from nst_pipeline.config.hooks import Event
from nst_pipeline.config.pipeline import Config
from nst_pipeline.errors import HookError, PipelineError
from nst_pipeline.files import shown
from nst_pipeline.jobs.delivery_table import Delivery, DeliveryTable, Hook
from nst_pipeline.jobs.ledger import DatabaseError, Ledger, ledger_path
from nst_pipeline.manifest.model import JobRecord
from nst_pipeline.runner.commands import KILL_SECONDS, run_command
from nst_pipeline.runner.hooks import environment, hooks_of

log = logging.getLogger(__name__)

LONGEST_SECONDS = 3600.0
"""The longest wait before another attempt."""
IDLE_SECONDS = 60.0
"""How often is looked for what is due, at least."""
TROUBLE_SECONDS = 5.0
"""How long a courier waits that could not use the ledger."""
STEP_SECONDS = 0.05

Outcome = Literal["delivered", "failed", "given_up"]
"""What came of an attempt."""
OnAttempt = Callable[[Event, Outcome, int], None]
"""Takes an event, what came of an attempt to tell of one, and how many deliveries wait."""


class Deliverer:
    """Has a courier for each hook; nothing at all where there is none.

    Attributes:
        has_begun: whether it tells anybody.
    """

    def __init__(self, config: Config, on_attempt: OnAttempt) -> None:
        """Tell nobody yet; ``on_attempt`` is called by the couriers' threads."""
        self._config, self._on_attempt = config, on_attempt
        self._couriers: list[_Courier] = []
        self.has_begun = False

    def begin(self, ledger: Ledger) -> None:
        """Begin to tell, unless that was begun; forget what hooks were to be told that are gone."""
        if self.has_begun:
            return
        self.has_begun = True
        hooks = hooks_of(self._config)
        for (event, kind), count in ledger.deliveries.drop_all_but(hooks).items():
            log.warning(
                "on_%s: %d deliveries are dropped: the settings have no such %s any more",
                event, count, kind,
            )  # fmt: skip
        self._couriers = [_Courier(self._config, hook, self._on_attempt) for hook in hooks]
        for courier in self._couriers:
            courier.start()

    def wake(self) -> None:
        """Have looked at once for what is due."""
        for courier in self._couriers:
            courier.wake()

    def wait(self, ledger: Ledger, seconds: float, check: Callable[[], None]) -> int:
        """Wait, at most so long, for what is due now; return how many deliveries of it are left.

        ``check`` is called all the while, and may end the wait by raising.
        """
        table, begun = ledger.deliveries, ledger.deliveries.now()
        while (left := table.waiting(until=begun)) and table.now() < begun + seconds:
            check()
            time.sleep(STEP_SECONDS)
        return left

    def is_at_work(self) -> bool:
        """Tell whether a hook is told something at this moment."""
        return any(courier.is_at_work for courier in self._couriers)

    def finish(self, grace_seconds: Callable[[], float]) -> None:
        """Begin no further delivery, and let those at work end, while there is grace."""
        for courier in self._couriers:
            courier.finish()
        while any(courier.is_alive() for courier in self._couriers) and grace_seconds() > 0:
            time.sleep(STEP_SECONDS)

    def close(self) -> None:
        """End everything; what is at work is delivered again the next time."""
        for courier in self._couriers:
            courier.close()
        deadline = time.monotonic() + 2 * KILL_SECONDS
        for courier in self._couriers:
            courier.join(max(0.0, deadline - time.monotonic()))
        self._couriers, self.has_begun = [], False


class _Courier(threading.Thread):
    """Tells one hook, one job after the other, so that none that hangs holds up another."""

    def __init__(self, config: Config, hook: Hook, on_attempt: OnAttempt) -> None:
        super().__init__(name="courier", daemon=True)
        self._config, self._hook, self._on_attempt = config, hook, on_attempt
        self._settings = config.hooks[hook[0]]
        self._woken = threading.Event()
        self._is_finishing = self._is_closed = False
        self._told = ""
        self.is_at_work = False

    def wake(self) -> None:
        self._woken.set()

    def finish(self) -> None:
        self._is_finishing = True
        self.wake()

    def close(self) -> None:
        self._is_closed = True
        self.finish()

    def run(self) -> None:
        told = ""
        while not self._is_finishing:
            try:
                with Ledger(ledger_path(self._config.state), is_relaxed=True) as ledger:
                    self._serve(ledger.deliveries)
            except Exception as error:  # noqa: BLE001 - the next try may find it mended
                is_foreseen = isinstance(error, PipelineError | DatabaseError)
                what = str(error) if is_foreseen else f"{type(error).__name__}: {error}"
                if what != told:
                    log.error("on_%s: %s; deliveries wait", self._hook[0], shown(what))
                told = what
                self._woken.clear()
                if not self._is_finishing:
                    self._rest(TROUBLE_SECONDS)

    def _serve(self, table: DeliveryTable) -> None:
        while True:
            self._woken.clear()  # before anything is looked at, so that nothing is lost
            if self._is_finishing:
                return
            if delivery := table.begin(self._hook):
                self._attempt(table, delivery)
            else:
                due = table.next_try(self._hook)
                self._rest(IDLE_SECONDS if due is None else due - table.now())

    def _rest(self, seconds: float) -> None:
        self._woken.wait(min(max(seconds, 0.01), IDLE_SECONDS))

    def _attempt(self, table: DeliveryTable, delivery: Delivery) -> None:
        problem, settings = "", self._settings
        try:
            if delivery.attempts > settings.max_attempts:
                raise HookError("the process ended during the last attempt")
            self.is_at_work = True
            if not self._tell(delivery):
                table.put_back(delivery)
                return
        except HookError as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, no result is to suffer
            problem = type(error).__name__
            log.debug("unforeseen in a hook", exc_info=True)
        finally:
            self.is_at_work = False
        if not problem:
            self._told = ""
            table.end(delivery)
            log.debug("on_%s: %s", self._hook[0], f"{self._settings.target(self._hook[1])}: told")
            self._report("delivered", table)
        else:
            self._failed(table, delivery, problem)

    def _tell(self, delivery: Delivery) -> bool:
        """Make an attempt; return whether it came to its end.

        Raises:
            HookError: it failed.
        """
        (event, kind), hook = self._hook, self._settings
        body = delivery.record.encode()
        if kind == "command":
            assert hook.command
            values = environment(self._config, event, delivery)
            return run_command(hook.command, values, body, hook.timeout_seconds, self._is_over)
        # Here, because nobody else needs HTTP.
        from nst_pipeline.runner.webhook import post, secret_of

        assert hook.url
        secret = secret_of(hook)
        return post(hook.url, body, delivery.key, secret, hook.timeout_seconds, self._is_over)

    def _is_over(self) -> bool:
        return self._is_closed

    def _failed(self, table: DeliveryTable, delivery: Delivery, problem: str) -> None:
        (event, kind), hook = self._hook, self._settings
        what = f"on_{event}: {hook.target(kind)}: {problem}"
        if delivery.attempts >= hook.max_attempts:
            record = JobRecord.model_validate_json(delivery.record)
            name = f"{shown(record.content.path)} in {record.style.name}"
            what += f"; given up for {name} after {hook.max_attempts} attempts"
            table.note_failure(what)
            table.end(delivery)
            log.error("%s", what)
            self._report("given_up", table)
            return
        wait = min(hook.retry_seconds * 2 ** min(delivery.attempts - 1, 30), LONGEST_SECONDS)
        table.note_failure(what)
        table.put_off(delivery, wait)
        # What is wrong with a hook is so for all that it is to be told.
        log.log(
            logging.DEBUG if problem == self._told else logging.WARNING,
            "%s; attempt %d of %d, the next in %.0f s",
            what, delivery.attempts, hook.max_attempts, wait,
        )  # fmt: skip
        self._told = problem
        self._report("failed", table)

    def _report(self, outcome: Outcome, table: DeliveryTable) -> None:
        self._on_attempt(self._hook[0], outcome, table.waiting())
