"""The way back in after a kill."""

import logging

from nst_pipeline.config.pipeline import Config
from nst_pipeline.files import remove_temporaries, shown
from nst_pipeline.jobs.ledger import Ledger
from nst_pipeline.manifest import runs
from nst_pipeline.runner import moves, publishing
from nst_pipeline.workers import checkpoints

log = logging.getLogger(__name__)


def recover(config: Config, ledger: Ledger) -> None:
    """Bring to order what a killed process left; costs nothing where the last one ended well.

    Raises:
        CannotCreateError, OutputError: the outbox or the state folder cannot be written to.
    """
    if ledger.fact("clean") != "no" and not moves.pending(ledger):
        return
    publishing.recover(ledger, config.conflict_policy, config.watch.max_attempts, log.warning)
    moves.recover(ledger)
    for folder in (config.state, config.outbox, config.processed, config.failed):
        if removed := remove_temporaries(folder):
            log.warning("%s: removed %d unfinished files", shown(folder), removed)
    waiting = {entry.key for entry in ledger.entries("state IN ('queued', 'running')")}
    checkpoints.forget_all_but(config.state, waiting)
    for path in runs.rebuild(ledger):
        log.warning("%s: written anew from the ledger", shown(path))
    ledger.set_fact("clean", "yes")
