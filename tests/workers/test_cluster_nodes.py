"""Where in a cluster there is room for workers."""

from typing import Any

import pytest

from nst_pipeline.config.sections import ClusterSettings
from nst_pipeline.workers.cluster_nodes import chosen, spots


def node(key: str, alive: bool = True, name: str = "", **resources: float) -> dict[str, Any]:
    return {
        "NodeID": key * 8,
        "Alive": alive,
        "NodeName": name or "10.0.0.1",
        "NodeManagerAddress": "10.0.0.1",
        "NodeManagerHostname": "shop",
        "Resources": resources,
    }


def room(
    nodes: list[dict[str, Any]], device: str = "auto", **settings: Any
) -> list[tuple[str, str, float]]:
    found = spots(nodes, ClusterSettings(**settings), device)
    return [(spot.worker, spot.device, spot.gpus) for spot in found]


def test_each_gpu_has_a_worker_and_cores_only_where_there_is_none() -> None:
    gpus = node("a", name="press", CPU=16, GPU=2, **{"accelerator_type:H100": 1})
    assert room([node("b", CPU=2), gpus]) == [
        ("press/0", "GPU (H100)", 1),
        ("press/1", "GPU (H100)", 1),
        ("shop/0", "CPU, 1 thread", 0),
        ("shop/1", "CPU, 1 thread", 0),
    ]
    assert [worker for worker, *_ in room([node("b", CPU=2), gpus], "cuda")] == [
        "press/0",
        "press/1",
    ]
    assert len(room([gpus], "cpu", cpus_per_worker=4)) == 4


def test_a_gpu_is_shared_and_workers_have_their_cores() -> None:
    gpus = node("a", CPU=4, GPU=2)
    assert room([gpus], gpus_per_worker=0.3)[0][1:] == ("GPU, 0.3 of one", 0.3)
    assert len(room([gpus], gpus_per_worker=0.3)) == 4
    assert len(room([node("a", CPU=40, GPU=2)], gpus_per_worker=0.3)) == 6
    assert room([node("b", CPU=5)], cpus_per_worker=2) == [
        ("shop/0", "CPU, 2 threads", 0),
        ("shop/1", "CPU, 2 threads", 0),
    ]


def test_nodes_that_are_gone_or_without_cores_have_no_room() -> None:
    assert room([node("a", alive=False, CPU=4), node("b", GPU=1), node("c")]) == []


def test_nodes_of_one_name_are_told_apart() -> None:
    names = {worker for worker, *_ in room([node("a", CPU=1), node("b", CPU=1)])}
    assert names == {"shop-aaaa/0", "shop-bbbb/0"}


@pytest.mark.parametrize(("workers", "count"), [("auto", 6), (4, 4), (9, 6)])
def test_so_many_are_chosen_and_those_at_work_stay(workers: Any, count: int) -> None:
    all_room = spots([node(key, CPU=3) for key in "ab"], ClusterSettings(), "auto")
    first = chosen(all_room, set(), workers)
    assert len(first) == count
    if count < 6:
        assert {spot.node_id for spot in first} == {"a" * 8, "b" * 8}
        taken = {spot.key for spot in all_room[-count:]}
        assert {spot.key for spot in chosen(all_room, taken, workers)} == taken
