"""One loss and gradient: the engine against the PyTorch tutorial's own code."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks import pairs, workload
from nst_pipeline.engine.devices import resolve_device

SIZES = 256, 512, 1024


def measure(
    rounds: int | None = None,
    sizes: Sequence[int] | None = None,
    device: str = "auto",
    images: Path | None = None,
    quick: bool = False,
) -> list[dict[str, object]]:
    """Return a row a network, size and precision.

    The tutorial runs in fp32, and its weights require gradients.

    Args:
        rounds: pairs of evaluations; None: as `pairs.rounds_at` says.
        sizes: longer sides of the picture.
        device: as `StyleTransfer` takes it.
        images: folder of pictures; None: noise.
        quick: tiny, with the compact network alone.
    """
    place = resolve_device(device)
    rows = []
    for name in workload.networks(quick):
        for size in sizes or (workload.QUICK_SIZES if quick else SIZES):
            ((content, style),) = workload.pictures(images, size, 1)
            content, style = content.to(place), style.to(place)
            losses = workload.reference(name, place, content, style)
            theirs = workload.reference_evaluation(losses, content)
            for precision in workload.precisions(place):
                transfer = workload.engine(name, device, precision, workload.recipe())
                ours = workload.engine_evaluation(transfer, content, [style])
                facts = {"network": name, "size": size, "precision": transfer.describe()[1]}
                timed = pairs.alternate(theirs, ours, pairs.rounds_at(size, rounds))
                rows.append(pairs.row(timed, "tutorial", "engine", **facts))
    return rows
