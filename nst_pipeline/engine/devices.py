"""Devices: which there are, what they can do, what memory they have, and how they fail.

All that asks a kind of device by its own functions stands here, but for CUDA's graphs. ROCm's
devices are torch's ``cuda``.
"""

import contextlib
import functools
import platform
import time
import traceback
from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
import torch.utils.deterministic
from torch import Tensor

from nst_pipeline.errors import DeviceLostError, UnavailableError

Precision = Literal["auto", "fp32", "bf16"]

KINDS = ("cuda", "xpu", "mps")
"""What is faster than a CPU, in the order that ``auto`` takes it."""

CLEARLY_FASTER = 0.75
"""A device is fast at bf16 if that takes at most so much of fp32's time: noise decides nothing."""
NO_MEMORY = (
    "can't allocate memory", "MPS backend out of memory", "Invalid buffer size",
    "OUT_OF_DEVICE_MEMORY",
)  # fmt: skip
"""What errors say that mean it: of a CPU, of Apple's GPUs, and of Intel's."""


def resolve_device(name: str) -> torch.device:
    """Return the device that ``name`` means; ``auto`` is the first of `KINDS` that is there.

    Raises:
        UnavailableError: torch has no such device.
    """
    if name == "auto":
        return torch.device(next(filter(_count, KINDS), "cpu"))
    device = torch.device(name)
    if device.type in KINDS and (device.index or 0) >= _count(device.type):
        raise UnavailableError(
            f"device: {name}: this machine has {_count(device.type)} {device.type.upper()} devices "
            "that torch can use; give auto or cpu"
        )
    return device


def _count(kind: str) -> int:
    """Return how many devices of a kind torch can use."""
    if kind == "mps":
        return int(torch.backends.mps.is_available())
    return torch.cuda.device_count() if kind == "cuda" else torch.xpu.device_count()


def _functions(device: torch.device) -> Any:
    """Return torch's module for a device's kind."""
    return getattr(torch, device.type)


def describe_device(device: torch.device) -> str:
    """Return a device's name, for people."""
    if device.type in ("cuda", "xpu"):
        return f"{device}: {_functions(device).get_device_name(device)}"
    if device.type == "mps":
        return f"mps: GPU of this {platform.machine()}"
    model = torch.cpu.get_capabilities().get("cpu_name", "unknown model")
    return f"cpu: {model}, {torch.get_num_threads()} threads"


def resolve_precision(name: Precision, device: torch.device) -> torch.dtype:
    """Return what the network runs in: for ``auto``, bf16 where ``device`` is fast at it."""
    if name != "auto":
        return torch.bfloat16 if name == "bf16" else torch.float32
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        fast = bool(able.get("amx_bf16") or able.get("avx512_bf16"))
    elif device.type == "cuda" and torch.version.hip is None:
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = is_fast_at_bf16(device)
    return torch.bfloat16 if fast else torch.float32


@functools.cache
def is_fast_at_bf16(device: torch.device) -> bool:
    """Tell, by trying, whether a device can convolve in bf16, and clearly faster than in fp32."""
    try:
        wide, narrow = (_convolve(device, dtype) for dtype in (torch.float32, torch.bfloat16))
    except (RuntimeError, TypeError):
        return False
    return narrow < CLEARLY_FASTER * wide


def _convolve(device: torch.device, dtype: torch.dtype, side: int = 256, rounds: int = 5) -> float:
    """Return the seconds that a convolution and its gradient take, at the least.

    Raises:
        RuntimeError, TypeError: the device cannot do it.
    """
    values = torch.linspace(-1, 1, 64 * side * side).view(1, 64, side, side)
    image = values.to(device, dtype).requires_grad_()
    kernel = torch.linspace(-0.1, 0.1, 64 * 64 * 9).view(64, 64, 3, 3).to(device, dtype)
    seconds = []
    for _ in range(rounds):
        begun = time.perf_counter()
        loss = F.conv2d(image, kernel, padding=1).relu().float().square().mean()
        (gradient,) = torch.autograd.grad(loss, image)
        if not gradient.float().square().mean().isfinite().item():  # which waits for the device
            raise RuntimeError("a gradient that is not finite")
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def can_widen(device: torch.device) -> bool:
    """Tell whether a device gives products of bf16 matrices in float32, in which it adds them."""
    return device.type == "cuda" and torch.version.hip is None


@functools.cache
def widest_float(device: torch.device) -> torch.dtype:
    """Return float64, or float32 for a device without it, as Apple's GPUs and some of Intel's."""
    if device.type not in ("cpu", "cuda"):
        try:
            torch.ones(1, dtype=torch.float64, device=device).add_(1).item()
        except (RuntimeError, TypeError):
            return torch.float32
    return torch.float64


def in_float64(tensor: Tensor) -> Tensor:
    """Return a tensor as float64: on its device, or on the CPU if that has no such numbers."""
    if widest_float(tensor.device) == torch.float64:
        return tensor.double()
    return tensor.cpu().double()


def free_bytes(device: torch.device) -> int | None:
    """Return the bytes that this process can still take on a GPU; None where nobody tells."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "xpu":  # not all of Intel's drivers tell what is free
        total: int = torch.xpu.get_device_properties(device).total_memory
        return total - torch.xpu.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return None


def used_bytes(device: torch.device) -> int | None:
    """Return the bytes of a GPU's memory that this process's tensors take; None for a CPU."""
    if device.type == "mps":
        return torch.mps.current_allocated_memory()
    used: int | None = None
    if device.type in KINDS:
        used = _functions(device).memory_allocated(device)
    return used


def describe_precision(dtype: torch.dtype) -> Literal["bf16", "fp32"]:
    """Return a precision by its short name, ``bf16`` or ``fp32``."""
    return "bf16" if dtype == torch.bfloat16 else "fp32"


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error of torch or Python says that there is no memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in NO_MEMORY)
    )


def release_memory(error: BaseException, device: torch.device) -> None:
    """Free what the frames that an error went through hold, so that it may be kept."""
    chained: BaseException | None = error
    while chained is not None:
        traceback.clear_frames(chained.__traceback__)
        chained = chained.__cause__ or chained.__context__
    if device.type in KINDS:
        _functions(device).empty_cache()


@contextlib.contextmanager
def detect_lost_device(device: torch.device) -> Iterator[None]:
    """Raise `DeviceLostError` for an error after which a GPU answers nothing but errors."""
    try:
        yield
    except RuntimeError as error:
        if device.type == "cpu" or is_out_of_memory(error):
            raise
        try:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            torch.zeros(1, device=device).add_(1).item()
        except RuntimeError as broken:
            raise DeviceLostError(
                f"device: {device}: {error}; {device.type.upper()} is lost to this process, "
                "start it again"
            ) from broken
        raise


@contextlib.contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Ask a GPU for the same bytes every time.

    CPU kernels give them for the same number of threads: how they cut dot products, sums and, at
    some sizes, the gradients of convolutions depends on it.
    """
    if device.type == "cpu":
        yield
        return
    memory: Any = torch.utils.deterministic
    before, fills = torch.are_deterministic_algorithms_enabled(), memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = False  # with NaN, where something is written anyway
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        memory.fill_uninitialized_memory = fills
