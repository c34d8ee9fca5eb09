"""Which executor the settings ask for."""

from nst_pipeline.config.pipeline import Config
from nst_pipeline.config.weights import Weights
from nst_pipeline.workers import local
from nst_pipeline.workers.protocol import Executor


def make_executor(config: Config, weights: Weights) -> Executor:
    """Return the executor of a cluster if the settings have one, else the local one."""
    if config.cluster.address is None:
        return local.LocalExecutor(config, weights)
    from nst_pipeline.workers.cluster import ClusterExecutor

    return ClusterExecutor(config, weights)
