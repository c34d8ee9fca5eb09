"""The process that a cluster of `clusters` lives in: it adds and removes nodes as it is told.

A process of its own, for Ray ends the process that uses it when the cluster's head is lost.
"""

import itertools
import os
import sys
from contextlib import suppress
from multiprocessing.connection import Connection

from ray.cluster_utils import Cluster


def main() -> None:
    """Do what comes by the socket whose number is the argument, until its other end is closed.

    What comes is a node to remove, or the environment and the options of a node to add; the
    answer to the latter is the cluster's address and the node's number.
    """
    link = Connection(int(sys.argv[1]))
    os.set_inheritable(link.fileno(), False)
    cluster, nodes, numbers = Cluster(), {}, itertools.count()
    with suppress(EOFError, OSError):
        while True:
            wanted = link.recv()
            if isinstance(wanted, int):
                cluster.remove_node(nodes.pop(wanted), allow_graceful=False)
                link.send(None)
            else:
                environment, options = wanted
                os.environ.clear()
                os.environ.update(environment)
                nodes[number := next(numbers)] = cluster.add_node(**options)
                link.send((cluster.address, number))
    cluster.shutdown()


if __name__ == "__main__":
    main()
