"""What a worker of a cluster does by itself. Without Ray."""

from pathlib import Path
from typing import Any

import pytest

from nst_pipeline.config.memory import machine_bytes
from nst_pipeline.config.pipeline import Config, parse
from nst_pipeline.config.weights import resolve
from nst_pipeline.workers import cluster_worker


@pytest.mark.parametrize(
    ("given", "expected"), [("auto", machine_bytes() // 2 // 4), (2**30, 2**30)]
)
def test_workers_of_one_machine_have_its_memory_together(
    given: Any, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Config] = []

    class Work:
        def __init__(self, config: Config, *_: object) -> None:
            taken.append(config)

        def run(self) -> None:
            pass

    monkeypatch.setattr(cluster_worker, "_Work", Work)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    data = {"styles": {"s": "/etc/passwd"}, "limits": {"max_memory_bytes": given}}
    config = parse(data, tmp_path)
    cluster_worker.ClusterWorker().begin(config, resolve("compact"), "", 1, 4)
    assert taken[0].limits.memory_bytes == expected
