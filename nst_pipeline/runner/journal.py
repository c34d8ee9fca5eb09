"""A run's record, kept in the manifest and in the ledger at once."""

from nst_pipeline.config.pipeline import Config
from nst_pipeline.files import ensure_folder
from nst_pipeline.jobs.ledger import Ledger
from nst_pipeline.jobs.outcome import Machine
from nst_pipeline.jobs.planning import Plan
from nst_pipeline.manifest import runs
from nst_pipeline.manifest.model import DeviceRecord, JobRecord, Recorder
from nst_pipeline.manifest.records import resolved
from nst_pipeline.runner.observer import Listener


class Journal:
    """Begins with the first thing worth recording."""

    def __init__(self, config: Config, ledger: Ledger, listener: Listener) -> None:
        """Record nothing yet."""
        self._config, self._ledger, self._listener = config, ledger, listener
        self._recorder: Recorder | None = None
        self._is_open = False

    @property
    def count(self) -> int:
        """How many jobs it tells of."""
        return self._recorder.count if self._recorder else 0

    def recorder(self, plan: Plan) -> Recorder:
        """Return what makes the manifest."""
        if self._recorder is None:
            config = resolved(self._config, plan.weights.id)
            self._recorder = Recorder(self._config.outbox, plan.weights, config)
        return self._recorder

    def begin(self, plan: Plan) -> None:
        """Note that from now on there is something to put in order if we are killed.

        Raises:
            CannotCreateError, OutputError: the outbox cannot be written to.
        """
        if not self._is_open:
            ensure_folder(self._config.outbox)
            self._ledger.set_fact("clean", "no")
            runs.begin(self._ledger, self.recorder(plan))
            self._is_open = True
        self._listener.planned(plan)

    def finish(self, record: JobRecord) -> None:
        """Record what became of a job, durably, and tell the listener."""
        assert self._recorder
        self._recorder.add(record)
        runs.keep(self._ledger, self._recorder, record)
        self._recorder.save_if_due()
        self._listener.finished(record)

    def add(self, record: JobRecord) -> None:
        """Record a job that could not be finished; written with the end."""
        assert self._recorder
        self._recorder.add(record)

    def note(self, machine: Machine) -> None:
        """Record what is painted on."""
        if self._recorder:
            device = DeviceRecord.model_validate(
                {"name": machine.device, "precision": machine.precision}
            )
            self._recorder.device = device
            self._recorder.cache_hits = machine.cache_hits
            self._recorder.cache_misses = machine.cache_misses

    def close(self, status: runs.Ending) -> None:
        """Record the run's end, with everything in order.

        Raises:
            CannotCreateError, OutputError: the outbox cannot be written to.
        """
        if self._recorder is None:
            return
        self._recorder.end(status)
        if self._is_open:
            self._recorder.save()
            runs.end(self._ledger, self._recorder)
            self._ledger.set_fact("clean", "yes")
