"""Devices: precisions, memory that is let go, and a device that breaks."""

import weakref

import pytest
import torch
from painting import small_recipe, transfer

from nst_pipeline.engine.devices import detect_lost_device, release_memory, resolve_precision
from nst_pipeline.errors import DeviceLostError


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
