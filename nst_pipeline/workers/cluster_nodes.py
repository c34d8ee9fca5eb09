"""Where in a cluster there is room for workers. Pure."""

import ipaddress
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nst_pipeline.config.sections import ClusterSettings

Node = Mapping[str, Any]
"""A node as `ray.nodes` tells of it."""
KIND = "accelerator_type:"
"""What the resource begins with that names a node's GPUs."""


@dataclass(frozen=True)
class Spot:
    """Room for a worker: a device, or a part of one.

    Attributes:
        node_id: of Ray.
        node: name of the computer.
        number: tells it from the others of its node.
        gpus: what it has of a GPU; 0: it paints on the CPU.
        cpus: cores.
        device: what it paints on, for people.
    """

    node_id: str
    node: str
    number: int
    gpus: float
    cpus: int
    device: str

    @property
    def key(self) -> tuple[str, int]:
        """Tells it from all others."""
        return self.node_id, self.number

    @property
    def worker(self) -> str:
        """What its worker is called."""
        return f"{self.node}/{self.number}"


def spots(nodes: Sequence[Node], settings: ClusterSettings, device: str) -> list[Spot]:
    """Return the room that there is, GPUs first; CPUs count only where a node has no GPU.

    Args:
        nodes: those of the cluster.
        settings: what a worker has.
        device: as configured.
    """
    alive = [node for node in nodes if node["Alive"]]
    names = node_names(alive)
    found = [spot for node in alive for spot in _spots_of(node, names, settings, device)]
    return sorted(found, key=lambda spot: (spot.gpus == 0, spot.number, spot.node))


def node_names(nodes: Sequence[Node]) -> dict[str, str]:
    """Return the name of each node by its id: as it was given, or that of the computer."""
    names = {node["NodeID"]: _name(node) for node in nodes}
    count = Counter(names.values())
    return {key: f"{name}-{key[:4]}" if count[name] > 1 else name for key, name in names.items()}


def _name(node: Node) -> str:
    name = str(node.get("NodeName") or node["NodeManagerAddress"])
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name
    return str(node.get("NodeManagerHostname") or name)


def _spots_of(
    node: Node, names: Mapping[str, str], settings: ClusterSettings, device: str
) -> list[Spot]:
    resources, key = node["Resources"], node["NodeID"]
    cpus = settings.cpus_per_worker
    room = int(resources.get("CPU", 0) // cpus)
    gpus = 0.0 if device == "cpu" else float(resources.get("GPU", 0))
    if gpus:
        share = settings.gpus_per_worker
        count = int(int(1 / share + 1e-6) * gpus)
        kinds = [name.removeprefix(KIND) for name in resources if name.startswith(KIND)]
        what = f"GPU ({', '.join(kinds)})" if kinds else "GPU"
        what += "" if share == 1 else f", {share:g} of one"
    elif device in ("auto", "cpu"):
        share, count, what = 0.0, room, f"CPU, {cpus} thread{'s' if cpus > 1 else ''}"
    else:
        return []
    return [Spot(key, names[key], i, share, cpus, what) for i in range(min(count, room))]


def chosen(room: Sequence[Spot], taken: set[tuple[str, int]], workers: int | str) -> list[Spot]:
    """Return the spots that are to have a worker.

    Args:
        room: where one could be.
        taken: the keys of those that have one.
        workers: how many there are to be; ``auto``: everywhere.
    """
    if workers == "auto":
        return list(room)
    first = sorted(room, key=lambda spot: spot.key not in taken)
    return first[: int(workers)]
