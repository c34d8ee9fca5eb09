"""The estimate of memory is arithmetic, and what there is comes from the system."""

from pathlib import Path

import pytest
import torch

from nst_pipeline.engine import memory
from nst_pipeline.engine.memory import Need, available_bytes, estimate, fitting_batch

WIDTHS = {"conv1_1": 4, "conv1_2": 8}


def test_estimate_counts_what_lives_while_the_gradient_goes_back() -> None:
    need = estimate(WIDTHS, ["relu1_2"], ["relu1_1"], (10, 20), history_size=3)
    plane = 10 * 20 * 4
    # Both convolutions' outputs and the content's difference, then the two gradients.
    assert need.network == (4 + 8 + 8 + 8 + 8) * plane
    assert need.optimiser == 3 * plane * (2 * 3 + memory.VECTORS)
    assert need.targets == 8 * plane + 4 * 4 * 4
    assert need.total == need.network + need.optimiser + need.targets


def test_estimate_grows_with_the_batch_and_shrinks_with_the_precision() -> None:
    layers = ["relu1_2"], ["relu1_1"], (64, 64)
    one, two = (estimate(WIDTHS, *layers, batch=batch) for batch in (1, 2))
    assert (two.network, two.optimiser) == (2 * one.network, 2 * one.optimiser)
    half = estimate(WIDTHS, *layers, value_bytes=2)
    assert 2 * half.network == one.network and half.optimiser == one.optimiser


@pytest.mark.parametrize(("available", "batch"), [(0, 0), (111, 0), (112, 1), (500, 4), (9999, 8)])
def test_fitting_batch_is_the_largest_that_fits_in_the_share(available: int, batch: int) -> None:
    assert fitting_batch(lambda n: Need(100 * n, 0, 0), available, most=8) == batch


def test_need_tells_its_parts() -> None:
    assert str(Need(7 * 10**9, 2 * 10**9, 10**8)) == (
        "9.1 GB (network 7.0, optimiser 2.0, targets 0.1)"
    )


def test_available_memory_is_the_machines_or_less() -> None:
    found = available_bytes(torch.device("cpu"))
    assert found is not None and found > 0


def test_a_control_group_allows_its_limit_less_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "memory.current").write_text("600\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 100\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._cgroup_free(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    assert memory._cgroup_free(tmp_path) == 500


def test_groups_above_count_too(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("0::/a/b\n")
    assert memory._cgroups(tmp_path, own) == [tmp_path / "a/b", tmp_path / "a", tmp_path]
