"""Two ways of doing one thing, timed side by side: on a busy machine only ratios hold."""

import statistics
import time
from collections.abc import Callable, Sequence

import torch

Pairs = list[tuple[float, float]]
"""Seconds of the one and the other, measured right after each other."""


def synchronise() -> None:
    """Wait until a CUDA device, if there is one in use, has done all it was asked to."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def seconds(work: Callable[[], object]) -> float:
    """Return the wall time of ``work()``."""
    synchronise()
    begun = time.perf_counter()
    work()
    synchronise()
    return time.perf_counter() - begun


def alternate(
    a: Callable[[], object], b: Callable[[], object], rounds: int, warm_up: int = 1
) -> Pairs:
    """Return the seconds of ``a`` and ``b``, ``rounds`` times; each goes first every other time.

    Args:
        a: the one.
        b: the other.
        rounds: pairs to measure.
        warm_up: pairs run before, which do not count.
    """
    for _ in range(warm_up):
        a(), b()
    pairs = []
    for i in range(rounds):
        if i % 2:
            second = seconds(b)
            pairs.append((seconds(a), second))
        else:
            pairs.append((seconds(a), seconds(b)))
    return pairs


def rounds_at(size: int, asked: int | None) -> int:
    """Return how many pairs to measure at a size: what was asked for, else 5, or 3 of the large."""
    return asked or (5 if size <= 512 else 3)


def ratios(pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Return the median of a / b, the lowest and the highest."""
    values = [a / b for a, b in pairs]
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def row(pairs: Sequence[tuple[float, float]], a: str, b: str, **facts: object) -> dict[str, object]:
    """Return the facts, the median seconds of ``a`` and ``b``, and how many times faster b is."""
    first, second = (statistics.median(column) for column in zip(*pairs, strict=True))
    found = ratios(pairs)
    return {
        **facts,
        "rounds": len(pairs),
        f"{a} ms": first * 1000,
        f"{b} ms": second * 1000,
        "ratio": found["median"],
        "low": found["low"],
        "high": found["high"],
    }
