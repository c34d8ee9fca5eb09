"""Devices and precisions: which there are, what they are called, and how they fail."""

import contextlib
import traceback
from collections.abc import Iterator
from typing import Literal

import torch

from nst_pipeline.errors import DeviceLostError, UnavailableError

Precision = Literal["auto", "fp32", "bf16"]


def resolve_device(name: str) -> torch.device:
    """Return the device that ``name`` means; ``auto`` is CUDA when there is one.

    Raises:
        UnavailableError: CUDA is asked for and not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UnavailableError(
            f"device: {name}: this machine has {torch.cuda.device_count()} CUDA devices that "
            "torch can use; give auto or cpu"
        )
    return device


def describe_device(device: torch.device) -> str:
    """Return a device's name, for people."""
    if device.type == "cuda":
        return f"{device}: {torch.cuda.get_device_name(device)}"
    model = torch.cpu.get_capabilities().get("cpu_name", "unknown model")
    return f"cpu: {model}, {torch.get_num_threads()} threads"


def resolve_precision(name: Precision, device: torch.device) -> torch.dtype:
    """Return what the network runs in: for ``auto``, bf16 where ``device`` is fast at it."""
    if name != "auto":
        return torch.bfloat16 if name == "bf16" else torch.float32
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = torch.cpu.get_capabilities()
        fast = bool(able.get("amx_bf16") or able.get("avx512_bf16"))
    return torch.bfloat16 if fast else torch.float32


def describe_precision(dtype: torch.dtype) -> str:
    """Return a precision by its short name, ``bf16`` or ``fp32``."""
    return "bf16" if dtype == torch.bfloat16 else "fp32"


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error of torch or Python says that there is no memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def release_memory(error: BaseException, device: torch.device) -> None:
    """Free what the frames that an error went through hold, so that it may be kept."""
    chained: BaseException | None = error
    while chained is not None:
        traceback.clear_frames(chained.__traceback__)
        chained = chained.__cause__ or chained.__context__
    if device.type == "cuda":
        torch.cuda.empty_cache()


@contextlib.contextmanager
def detect_lost_device(device: torch.device) -> Iterator[None]:
    """Raise `DeviceLostError` for an error after which CUDA answers nothing but errors."""
    try:
        yield
    except RuntimeError as error:
        if device.type != "cuda" or is_out_of_memory(error):
            raise
        try:
            torch.cuda.synchronize(device)
            torch.zeros(1, device=device).add_(1).item()
        except RuntimeError as broken:
            raise DeviceLostError(
                f"device: {device}: {error}; CUDA is lost to this process, start it again"
            ) from broken
        raise


@contextlib.contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Ask CUDA for the same bytes every time.

    CPU kernels give them for the same number of threads: how they cut dot products, sums and, at
    some sizes, the gradients of convolutions depends on it.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
