"""How long a daemon may take to end."""

from nst_pipeline.config.pipeline import Config
from nst_pipeline.daemon.status import read_file
from nst_pipeline.jobs.lock import Holder

STEP_SECONDS = 60.0
"""Beyond `watch.stop_seconds`: no step is ended in its middle, and one may be long."""
CLUSTER_SECONDS = 180.0
"""The same where a cluster paints: its workers end what they are at, and then themselves."""


def end_seconds(config: Config) -> float:
    """Return how long a daemon with these settings may take from SIGTERM to its end, at most."""
    beyond = CLUSTER_SECONDS if config.cluster.address else STEP_SECONDS
    return config.watch.stop_seconds + beyond


def told(config: Config) -> dict[str, float]:
    """Return what a daemon tells of itself in its status, for `stop`, which may know it otherwise.

    It may have been given a cluster on its command line, and not have read what changed since.
    """
    return {"stop_seconds": config.watch.stop_seconds, "end_seconds": end_seconds(config)}


def times_of(who: Holder, config: Config) -> tuple[float, float]:
    """Return how long a daemon's job at work may go on, and how long itself may take to end.

    Args:
        who: the daemon.
        config: the settings as they are now, for a daemon that does not tell.
    """
    found = read_file(config.state)
    known = told(config) | (found if found.get("pid") == who.pid else {})
    return known["stop_seconds"], known["end_seconds"]
