"""One loss and gradient: the engine against the PyTorch tutorial's own code."""

from pathlib import Path

from benchmarks import pairs, workload
from nst_pipeline.engine.transfer import resolve_device


def measure(
    rounds: int, device: str = "auto", images: Path | None = None, quick: bool = False
) -> list[dict[str, object]]:
    """Return a row a network, size, precision and kind of reference.

    Args:
        rounds: pairs of evaluations.
        device: as `StyleTransfer` takes it.
        images: folder of pictures; None: noise.
        quick: tiny, with the compact network alone.
    """
    place = resolve_device(device)
    rows = []
    for name in ("compact",) if quick else ("vgg19", "compact"):
        for size in (64,) if quick else (256, 512, 1024):
            ((content, style),) = workload.pictures(images, size, 1)
            content, style = content.to(place), style.to(place)
            for frozen in (False, True):
                losses = workload.reference(name, place, content, style, frozen)
                theirs = workload.reference_evaluation(losses, content)
                for precision in ("auto", "fp32"):
                    transfer = workload.engine(name, device, precision, workload.recipe(name))
                    ours = workload.engine_evaluation(transfer, content, [style])
                    facts = {
                        "network": name,
                        "size": size,
                        "precision": transfer.describe()[1],
                        "weights": "frozen" if frozen else "with gradients",
                    }
                    timed = pairs.alternate(theirs, ours, rounds)
                    rows.append(pairs.row(timed, "tutorial", "engine", **facts))
    return rows
