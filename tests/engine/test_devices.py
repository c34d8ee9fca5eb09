"""Devices: which are taken, precisions, memory that is let go, and a device that breaks."""

import weakref
from typing import Any

import numpy as np
import pytest
import torch
from conftest import picture
from objectives import differentiate, rosenbrock
from painting import small_recipe, transfer

from nst_pipeline.config.pipeline import check_device
from nst_pipeline.engine import colour, devices, optimiser
from nst_pipeline.engine.devices import (
    detect_lost_device,
    free_bytes,
    is_fast_at_bf16,
    is_out_of_memory,
    release_memory,
    resolve_device,
    resolve_precision,
    used_bytes,
    widest_float,
)
from nst_pipeline.engine.lbfgs import Lbfgs
from nst_pipeline.errors import DeviceLostError, UnavailableError

THERE = {
    kind
    for kind, is_there in {
        "cuda": torch.cuda.is_available(),
        "xpu": torch.xpu.is_available(),
        "mps": torch.backends.mps.is_available(),
    }.items()
    if is_there
}


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "cuda:12", "xpu", "xpu:1", "mps"])
def test_the_devices_of_all_makers_have_names(name: str) -> None:
    assert check_device(name) == name


@pytest.mark.parametrize("name", ["gpu", "mps:0", "cpu:0", "xpu:", "rocm", "xpu:1000", "meta"])
def test_what_is_no_device_is_refused_with_all_that_are(name: str) -> None:
    with pytest.raises(ValueError, match="give auto, cpu, cuda, cuda:N, xpu, xpu:N or mps"):
        check_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:98", "xpu", "xpu:98", "mps"])
def test_a_device_that_torch_has_not_is_refused_with_a_cure(name: str) -> None:
    kind = name.partition(":")[0]
    if kind in THERE and name == kind:
        pytest.skip("this machine has it")
    with pytest.raises(UnavailableError) as refused:
        resolve_device(name)
    counted = f"{devices._count(kind)} {kind.upper()} devices"
    assert str(refused.value) == (
        f"device: {name}: this machine has {counted} that torch can use; give auto or cpu"
    )
    assert refused.value.exit_code == 69


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        ({"cuda", "xpu", "mps"}, "cuda"),
        ({"xpu", "mps"}, "xpu"),
        ({"mps"}, "mps"),
        (set(), "cpu"),
    ],
)
def test_auto_takes_the_first_that_is_there(
    there: set[str], taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "_count", lambda kind: int(kind in there))
    assert resolve_device("auto") == torch.device(taken)


def test_a_device_that_cannot_try_bf16_gets_fp32_and_memory_that_nobody_tells() -> None:
    unable = torch.device("meta")  # on which nothing can be computed
    assert not is_fast_at_bf16(unable)
    assert resolve_precision("auto", unable) == torch.float32
    assert resolve_precision("bf16", unable) == torch.bfloat16
    assert widest_float(unable) == torch.float32
    assert free_bytes(unable) is None and used_bytes(unable) is None


@pytest.mark.parametrize(
    ("wide", "narrow", "is_fast"), [(1.0, 0.5, True), (1.0, 0.9, False), (1.0, 3.0, False)]
)
def test_bf16_is_taken_where_it_is_clearly_faster(
    wide: float, narrow: float, is_fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {torch.float32: wide, torch.bfloat16: narrow}
    monkeypatch.setattr(devices, "_convolve", lambda device, dtype: seconds[dtype])
    is_fast_at_bf16.cache_clear()
    assert is_fast_at_bf16(torch.device("cpu")) == is_fast
    is_fast_at_bf16.cache_clear()


def test_what_is_tried_can_be_done_where_there_is_torch() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        assert devices._convolve(torch.device("cpu"), dtype, side=8, rounds=1) > 0


@pytest.fixture
def without_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the CPU pass for a device without float64, as Apple's and some of Intel's are."""
    for module in (devices, optimiser):
        monkeypatch.setattr(module, "widest_float", lambda device: torch.float32)


def test_without_float64_the_optimiser_keeps_narrower_numbers_and_gets_as_far(
    request: pytest.FixtureRequest,
) -> None:
    start = torch.rand(2, 20, generator=torch.Generator().manual_seed(0))
    wide = optimiser.minimise(Lbfgs(differentiate(rosenbrock), start), 60)
    request.getfixturevalue("without_float64")
    narrow = Lbfgs(differentiate(rosenbrock), start)
    found = optimiser.minimise(narrow, 60)
    kinds = {value.dtype for value in narrow.state().values() if value.is_floating_point()}
    assert kinds == {torch.float32}
    assert (rosenbrock(found.point) < 1.5 * rosenbrock(wide.point)).all()


def test_without_float64_a_picture_is_painted_as_well(request: pytest.FixtureRequest) -> None:
    def paint() -> Any:
        recipe = small_recipe(iterations=20, init="style-colors", colors="matched")
        (result,) = transfer(recipe).run(picture(seed=1), [picture(seed=2)])
        return result

    wide = paint()
    request.getfixturevalue("without_float64")
    narrow = paint()
    assert narrow.start.total == pytest.approx(wide.start.total, rel=1e-3)
    assert narrow.end.total == pytest.approx(wide.end.total, rel=0.05)
    assert np.abs(narrow.pixels.astype(int) - wide.pixels).mean() < 8


def test_moments_are_float64_on_every_device() -> None:
    for alpha in (None, torch.rand(1, 1, 8, 8)):
        mean, covariance = colour.moments(torch.rand(1, 3, 8, 8), alpha)
        assert (mean.dtype, covariance.dtype) == (torch.float64, torch.float64)


@pytest.mark.parametrize(
    "text",
    [
        "MPS backend out of memory (MPS allocated: 5.56 GB, other allocations: 1.10 GB, max "
        "allowed: 6.80 GB). Tried to allocate 768.00 MB on private pool.",
        "Invalid buffer size: 9.75 GB",
        "level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)",
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory",
    ],
)
def test_errors_of_every_device_that_mean_no_memory_are_known(text: str) -> None:
    assert is_out_of_memory(RuntimeError(text))
    assert not is_out_of_memory(RuntimeError("an illegal memory access"))
    assert not is_out_of_memory(ValueError(text))


@pytest.mark.skipif("mps" in THERE, reason="it is there, and answers")
def test_an_error_of_a_device_that_does_not_answer_says_that_it_is_lost() -> None:
    with (
        pytest.raises(DeviceLostError, match="MPS is lost to this process, start it again"),
        detect_lost_device(torch.device("mps")),
    ):
        raise RuntimeError("a kernel failed")


def test_a_lost_device_is_told_from_a_failed_job(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    device = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "synchronize", broken)
    with (
        pytest.raises(DeviceLostError, match="illegal memory access"),
        detect_lost_device(device),
    ):
        broken()
    with pytest.raises(torch.OutOfMemoryError), detect_lost_device(device):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_precision_is_what_was_asked_for() -> None:
    cpu = torch.device("cpu")
    assert resolve_precision("fp32", cpu) == torch.float32
    assert resolve_precision("bf16", cpu) == torch.bfloat16
    assert transfer(small_recipe(), precision="bf16").describe()[1] == "bf16"


def test_an_error_that_is_kept_holds_no_tensors() -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def fail() -> None:
        large = torch.ones(10)
        held.append(weakref.ref(large))
        raise ValueError("no luck")

    def fail_twice() -> None:
        try:
            fail()
        except ValueError as error:
            raise RuntimeError("worse") from error

    try:
        fail_twice()
    except RuntimeError as error:
        kept = error
        assert held[0]() is not None
        release_memory(error, torch.device("cpu"))
    assert held[0]() is None and kept.__cause__ is not None
