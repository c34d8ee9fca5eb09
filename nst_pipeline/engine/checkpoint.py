"""Work in the middle, as bytes and back."""

from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

FORMAT = 1
"""Changes whenever what a checkpoint holds, or means, does."""
PROGRESS = "progress"


@dataclass(frozen=True)
class Checkpoint:
    """A batch in the middle of its work.

    Attributes:
        scale: index of the scale at work.
        before: steps done at the scales before it.
        seconds: worked so far.
        tensors: state of the optimiser, on the CPU.
    """

    scale: int
    before: int
    seconds: float
    tensors: dict[str, Tensor]

    def fits(self, batch: int, history_size: int) -> bool:
        """Tell whether a batch of this kind can go on from here."""
        pairs = self.tensors.get("pairs")
        return pairs is not None and pairs.shape[:2] == (batch, history_size + 1)

    def to_bytes(self) -> bytes:
        """Return the whole of it."""
        progress = torch.tensor([FORMAT, self.scale, self.before, self.seconds]).double()
        tensors = {name: tensor.contiguous() for name, tensor in self.tensors.items()}
        return save({PROGRESS: progress, **tensors})


def read_checkpoint(data: bytes) -> Checkpoint | None:
    """Return what `Checkpoint.to_bytes` gave; None if it is damaged or of another format."""
    try:
        tensors = load(data)
        number, scale, before, seconds = tensors.pop(PROGRESS).tolist()
    except (SafetensorError, KeyError, ValueError):
        return None
    if number != FORMAT:
        return None
    return Checkpoint(int(scale), int(before), seconds, tensors)
