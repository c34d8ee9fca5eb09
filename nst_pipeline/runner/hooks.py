"""Hooks: who is told of a job that is over, and of what.

What is to be told stands in the ledger before anybody is told: prepared before a job is over,
and released once it is, and its record in the manifest. `settle` decides, after a kill, about what
was prepared. `deliverer` tells.
"""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from nst_pipeline.config.hooks import Event, HookSettings, Kind
from nst_pipeline.config.pipeline import Config
from nst_pipeline.errors import HookError
from nst_pipeline.files import shown
from nst_pipeline.jobs.delivery_table import Delivery, Hook, Prepared
from nst_pipeline.jobs.ledger import Ledger
from nst_pipeline.jobs.state import FINISHED, Entry, JobState
from nst_pipeline.manifest.model import FileRecord, JobRecord
from nst_pipeline.runner.commands import find

PREFIX = b"NST_PIPELINE_"
JOBS = (b"EVENT", b"CONTENT", b"OUTPUT", b"STYLE", b"MANIFEST", b"RUN", b"DELIVERY")
"""What a command is told of its job, and not of another that began us; each after `PREFIX`."""
WITHHELD = (
    b"NOTIFY_SOCKET", b"WATCHDOG_USEC", b"WATCHDOG_PID",
    b"LISTEN_FDS", b"LISTEN_PID", b"LISTEN_FDNAMES",
)  # fmt: skip
"""What systemd tells us, and nobody else."""
OVER = (*FINISHED, JobState.REPLACED)
"""Of a job that made its output."""


class Notes:
    """Notes in the ledger what hooks are to be told; nothing where the settings have none.

    Attributes:
        manifest: of the run; None: it has none yet.
    """

    def __init__(self, config: Config, ledger: Ledger, wake: Callable[[], None]) -> None:
        """Note nothing yet; ``wake`` is called when there is something to tell."""
        self._hooks, self._table, self._wake = config.hooks, ledger.deliveries, wake
        self.manifest: Path | None = None

    def prepare(self, job: int, record: JobRecord) -> None:
        """Note what is to be told of a job, by its number, as soon as it is over."""
        if hook := self._hook(record):
            event, kinds = _event(record), hook.kinds()
            self._table.prepare(job, event, kinds, record.model_dump_json(), self.manifest)

    def release(self, job: int | None, record: JobRecord) -> None:
        """Have told what became of a job, now that it is durable; None: it never was one."""
        if hook := self._hook(record):
            event, kinds = _event(record), hook.kinds()
            self._table.note(job, event, kinds, record.model_dump_json(), self.manifest)
            self._wake()

    def _hook(self, record: JobRecord) -> HookSettings | None:
        return None if record.status == "skipped" else self._hooks.get(_event(record))


def _event(record: JobRecord) -> Event:
    return "failed" if record.status == "failed" else "done"


def hooks_of(config: Config) -> list[Hook]:
    """Return the hooks of settings."""
    return [(event, kind) for event, hook in config.hooks.items() for kind in hook.kinds()]


def settle(ledger: Ledger) -> None:
    """Have told, or not, what was prepared for jobs that nobody is at work on any more."""
    for prepared in ledger.deliveries.prepared():
        entry = ledger.jobs.get(prepared.job)
        with ledger.transaction():
            if prepared.event == "failed":  # which was noted together with the failure
                ledger.deliveries.release(prepared.job, prepared.record)
            elif entry.state in OVER and entry.final:
                ledger.deliveries.release(prepared.job, _completed(prepared, entry))
            else:
                ledger.deliveries.discard(prepared.job)


def _completed(prepared: Prepared, entry: Entry) -> str:
    """Return the record of a job that a kill kept from being recorded itself."""
    record = JobRecord.model_validate_json(prepared.record)
    size = record.output.size if record.output else None
    output = FileRecord.of(entry.final, sha256=entry.sha256, size=size)
    return record.model_copy(update={"output": output}).model_dump_json()


def environment(config: Config, event: Event, delivery: Delivery) -> dict[bytes, bytes]:
    """Return the environment of a hook's command: ours, less what is secret, and the job's paths.

    Paths are the very bytes of the files' names.
    """
    withheld = {hook.secret_env.encode() for hook in config.hooks.values() if hook.secret_env}
    withheld.update(WITHHELD)
    values = {name: value for name, value in os.environb.items() if name not in withheld}
    record = JobRecord.model_validate_json(delivery.record)
    told = {
        b"EVENT": event.encode(),
        b"CONTENT": _bytes(record.content),
        b"STYLE": os.fsencode(record.style.name),
        b"DELIVERY": delivery.key.encode(),
    }
    if record.output:
        told[b"OUTPUT"] = _bytes(record.output)
    if delivery.manifest:
        told[b"MANIFEST"] = os.fsencode(delivery.manifest)
        told[b"RUN"] = os.fsencode(delivery.manifest.stem)
    for name in JOBS:  # of a job that began us
        values.pop(PREFIX + name, None)
    return values | {PREFIX + name: value for name, value in told.items()}


def _bytes(file: FileRecord) -> bytes:
    return bytes.fromhex(file.raw) if file.raw else file.path.encode()


def describe(config: Config) -> Iterator[tuple[Event, str, bool]]:
    """Give each hook's event, what is to say of it, and whether it can be told anything."""
    for event, hook in config.hooks.items():
        for kind in hook.kinds():
            yield event, *_described(hook, kind)


def _described(hook: HookSettings, kind: Kind) -> tuple[str, bool]:
    name = hook.target(kind)
    if kind == "command":
        assert hook.command
        if program := find(hook.command[0]):
            return f"starts {shown(program)}", True
        return f"{name}: no such program, or not executable; install it, or name its path", False
    # Here, because nobody else needs HTTP.
    from nst_pipeline.runner.webhook import secret_of

    try:
        signed = "not signed; secret_file signs it" if secret_of(hook) is None else "signed"
    except HookError as error:
        return f"{name}: {error}", False
    if hook.secret_file and hook.secret_file.stat().st_mode & stat.S_IROTH:
        signed += f"; everybody may read the secret: chmod o-r {shown(hook.secret_file)}"
    return f"sends to {name}, {signed}", True
