"""Checkpoints: an unfinished batch, as bytes and back."""

from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

FORMAT = 4
"""Changes whenever what a checkpoint holds, or means, does."""
PROGRESS, CURVE = "progress", "curve"


class CheckpointError(ValueError):
    """A checkpoint that no work can go on from."""


@dataclass(frozen=True)
class Checkpoint:
    """An unfinished batch: all that it needs to go on.

    Attributes:
        scale: index of the scale at work.
        steps_before: done at the scales before it.
        seconds: worked so far.
        history_size: steps that the optimiser remembers.
        curve: losses so far, as `engine.curve.LossCurves` has them.
        tensors: state of the optimiser, on the CPU.
    """

    scale: int
    steps_before: int
    seconds: float
    history_size: int
    curve: list[list[float]]
    tensors: dict[str, Tensor]

    def to_bytes(self) -> bytes:
        """Return the whole of it."""
        progress = torch.tensor(
            [FORMAT, self.scale, self.steps_before, self.seconds, self.history_size],
            dtype=torch.float64,
        )
        tensors = {name: tensor.contiguous() for name, tensor in self.tensors.items()}
        curve = torch.tensor(self.curve, dtype=torch.float64)
        return save({PROGRESS: progress, CURVE: curve, **tensors})


def read_checkpoint(data: bytes) -> Checkpoint | None:
    """Return what `Checkpoint.to_bytes` gave; None if it is damaged or of another format."""
    try:
        tensors = load(data)
        number, scale, steps_before, seconds, history_size = tensors.pop(PROGRESS).tolist()
        curve = tensors.pop(CURVE).tolist()
    except (SafetensorError, KeyError, ValueError):
        return None
    if number != FORMAT:
        return None
    return Checkpoint(int(scale), int(steps_before), seconds, int(history_size), curve, tensors)
