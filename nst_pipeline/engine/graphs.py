"""A step captured once in a CUDA graph and replayed: no kernel launches from the host."""

import functools
import threading
from collections.abc import Callable

import torch

WARM_UP = 1
"""Steps run before the capture: libraries choose their kernels and workspaces in them."""


def captured(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Return a function of which each call does what one call of ``step`` does.

    On CUDA the first `WARM_UP` calls run ``step``, the next captures it, and that one and all
    after it replay the graph. Where a step cannot be captured, it goes on being run. On other
    devices ``step`` itself is returned.

    Args:
        step: changes tensors in place only, and keeps nothing on the host; must not ask the
            device for numbers.
        device: where its tensors are.
    """
    return _Replay(step, device) if device.type == "cuda" else step


@functools.cache
def _stream(device: torch.device, thread: int) -> torch.cuda.Stream:
    """Return a thread's stream: cuBLAS keeps memory for each that there ever was, some 64 MB."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class _Replay:
    """Runs a step on a stream beside the current one until it is captured."""

    def __init__(self, step: Callable[[], None], device: torch.device) -> None:
        self._step = step
        self._stream = _stream(device, threading.get_ident())
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        if self._calls == WARM_UP:
            self._graph = self._capture()
        self._calls += 1
        if self._graph is not None:
            self._graph.replay()
            return
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            self._step()
        current.wait_stream(self._stream)

    def _capture(self) -> torch.cuda.CUDAGraph | None:
        """Return the graph of a step; None where it cannot be had.

        Nothing runs during a capture, so a failed one has changed nothing. Other threads may
        use the device meanwhile.
        """
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                self._step()
        except RuntimeError:
            torch.cuda.synchronize(self._stream.device)
            return None
        return graph
