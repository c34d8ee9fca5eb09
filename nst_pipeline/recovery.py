"""The way back in after a kill."""

import logging

from nst_pipeline import checkpoints, commit, disposal, runs
from nst_pipeline.config import Config
from nst_pipeline.files import remove_temporaries, shown
from nst_pipeline.ledger import Ledger

log = logging.getLogger(__name__)


def recover(config: Config, ledger: Ledger) -> None:
    """Bring to order what a killed process left; costs nothing where the last one ended well.

    Raises:
        CannotCreateError, OutputError: the outbox or the state folder cannot be written to.
    """
    if ledger.fact("clean") != "no" and not disposal.pending(ledger):
        return
    commit.recover(ledger, config.conflict_policy, config.watch.max_attempts, log.warning)
    disposal.recover(ledger)
    for folder in (config.state, config.outbox, config.processed, config.failed):
        if removed := remove_temporaries(folder):
            log.warning("%s: removed %d unfinished files", shown(folder), removed)
    waiting = {entry.key for entry in ledger.entries("state IN ('queued', 'running')")}
    checkpoints.forget_all_but(config.state, waiting)
    for path in runs.rebuild(ledger):
        log.warning("%s: written anew from the ledger", shown(path))
    ledger.set_fact("clean", "yes")
