"""The estimate of memory is arithmetic, and what there is comes from the system."""

import gc
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import wave
from painting import narrow_vgg, with_paper_names
from safetensors.torch import load_file, save_file

from nst_pipeline.config.networks import VGG16, VGG19
from nst_pipeline.engine import StyleTransfer, make_recipe, memory
from nst_pipeline.engine.devices import Precision
from nst_pipeline.engine.memory import (
    Need,
    available_bytes,
    estimate,
    fits,
    fitting_batch,
    refusal,
)

WIDTHS = {"conv1_1": 4, "conv1_2": 8}


def test_estimate_counts_what_lives_while_the_gradient_goes_back() -> None:
    need = estimate(WIDTHS, ["relu1_2"], ["relu1_1"], (10, 20), history_size=3, heap_block=0)
    plane, matrix = 10 * 20 * 4, 4 * 4 * 4
    # Both convolutions' outputs, the content's and the style's differences, then the gradients of
    # relu1_2's output and input.
    assert need.network == (4 + 8 + 8 + 8 + 8) * plane + matrix
    assert need.optimiser == 3 * plane * (2 * 3 + memory.VECTORS)
    assert need.targets == 8 * plane + 2 * matrix
    assert need.total == need.network + need.optimiser + need.targets


def test_estimate_grows_with_the_batch_and_shrinks_with_the_precision() -> None:
    layers = ["relu1_2"], ["relu1_1"], (64, 64)
    one, two = (estimate(WIDTHS, *layers, batch=batch) for batch in (1, 2))
    assert (two.network, two.optimiser) == (2 * one.network, 2 * one.optimiser)
    half = estimate(WIDTHS, *layers, value_bytes=2)
    assert half.network < 0.6 * one.network and half.optimiser == one.optimiser


def test_estimate_counts_the_features_under_each_mask() -> None:
    layers = ["relu1_2"], ["relu1_1"], (64, 64)
    none, two = (estimate(WIDTHS, *layers, regions=regions) for regions in (0, 2))
    assert two.network - none.network >= 2 * 4 * 64 * 64 * 4


def test_what_a_heap_holds_stays_and_large_blocks_are_given_back() -> None:
    widths = WIDTHS | {"conv2_1": 4}
    layers = ["relu2_1"], ["relu1_2"], (64, 64)
    exact, all_, some = (
        estimate(widths, *layers, heap_block=most).network
        for most in (0, memory.HEAP_BLOCK, 4 * 32 * 32 * 4)
    )
    assert exact < some < all_


def test_what_a_heap_keeps_of_copies_with_a_border_counts_and_large_ones_do_not() -> None:
    layers = ["relu1_2"], ["relu1_1"], (64, 64)
    with_, without, none = (
        estimate(WIDTHS, *layers, padding="replicate", heap_block=most).network
        for most in (5 * 66 * 66 * 4, 4 * 66 * 66 * 4 - 1, 0)
    )
    assert with_ - without >= 4 * 66 * 66 * 4 and without - none >= 3 * 66 * 66 * 4


def test_a_style_of_the_pixels_alone_needs_no_network() -> None:
    assert estimate(WIDTHS, [], ["pixels"], (64, 64)).network == 0


@pytest.mark.parametrize("padding", ["zeros", "replicate"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("regions", [0, 2])
def test_estimate_is_what_torch_allocates(regions: int, precision: Precision, padding: str) -> None:
    check_estimate("compact", regions, precision, padding)


@pytest.mark.parametrize("layers", [VGG19, VGG16], ids=["vgg19", "vgg16"])
def test_estimate_is_what_torch_allocates_whichever_the_network(
    layers: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / "w.safetensors"
    state = with_paper_names(narrow_vgg(layers, widths=(16, 24, 32, 32, 48)), layers)
    save_file(state, path)
    last = [layer for layer in layers if layer.startswith("relu")][-1]
    check_estimate(str(path), 0, "fp32", "zeros", style_layers=["relu1_1", "relu3_3", last])


def check_estimate(
    weights: str, regions: int, precision: Precision, padding: str, **changes: Any
) -> None:
    changes |= {"size": "original", "scales": 1, "iterations": 1, "history_size": 3}
    made = make_recipe(**changes, padding=padding)
    transfer = StyleTransfer(made, device="cpu", precision=precision, weights=weights)
    names = [f"region{number}" for number in range(regions)]
    masks = {name: np.full((192, 256), 255, np.uint8) for name in names}
    style = {name: wave(256, 192, 2) for name in names} or wave(256, 192, 2)
    gc.collect()  # what others left behind is not freed in the middle
    with torch.profiler.profile(profile_memory=True) as profiler:
        transfer.run(wave(256, 192, 1), [style], masks=masks)
    events = profiler.profiler.kineto_results.events()  # type: ignore[union-attr]
    sizes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    peak = max(itertools.accumulate(bytes_ for _, bytes_ in sizes))
    state = load_file(transfer.weights.path)
    need = estimate(
        {key.removesuffix(".bias"): len(value) for key, value in state.items() if "bias" in key},
        made.content_layers,
        made.style_layers,
        (192, 256),
        history_size=3,
        value_bytes=transfer.dtype.itemsize,
        pooling=made.pooling,
        regions=regions,
        heap_block=0,
        padding=padding,
    )
    assert need.total == pytest.approx(peak, rel=0.1)


@pytest.mark.parametrize(("available", "batch"), [(0, 0), (111, 0), (112, 1), (500, 4), (9999, 8)])
def test_fitting_batch_is_the_largest_that_fits_in_the_share(available: int, batch: int) -> None:
    assert fitting_batch(lambda n: Need(100 * n, 0, 0), available, wanted=8) == batch


def test_need_tells_its_parts() -> None:
    assert str(Need(7 * 10**9, 2 * 10**9, 10**8)) == (
        "9.1 GB (network 7.0, optimiser 2.0, targets 0.1)"
    )


def test_every_batch_fits_where_nobody_knows_the_memory() -> None:
    assert fitting_batch(lambda n: Need(10**15, 0, 0), None, wanted=8) == 8


def test_a_refusal_names_the_picture_the_need_and_a_way_out() -> None:
    need = Need(7 * 10**9, 2 * 10**9, 10**8)
    assert not fits(need, 4 * 10**9)
    assert str(refusal((4000, 6000), need, 4 * 10**9, is_tiled=False)) == (
        "memory: the picture of 6000 x 4000 needs 9.1 GB (network 7.0, optimiser 2.0, targets 0.1) "
        "of 4.0 GB; set tile to 'on', or a smaller recipe.size"
    )
    assert str(refusal((4000, 6000), None, None, is_tiled=True)) == (
        "memory: the picture of 6000 x 4000 needs more memory than there is; "
        "set a smaller recipe.size"
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
