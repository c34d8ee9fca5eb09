"""Styles of one content painted together, against one by one."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks import pairs, workload

STYLES = 8


def measure(
    rounds: int | None = None,
    sizes: Sequence[int] | None = None,
    device: str = "auto",
    images: Path | None = None,
    quick: bool = False,
) -> list[dict[str, object]]:
    """Return a row a network and size: ten iterations of eight styles.

    Args:
        rounds: pairs of runs; None: as `pairs.rounds_at` says.
        sizes: longer sides of the picture.
        device: as `StyleTransfer` takes it.
        images: folder of pictures; None: noise.
        quick: tiny, with the compact network alone.
    """
    rows = []
    for name in workload.networks(quick):
        made = workload.recipe(1 if quick else 10, preset="gatys")
        one, all_ = (
            workload.engine(name, device, "auto", made, batch=batch) for batch in (1, STYLES)
        )
        for size in sizes or (workload.QUICK_SIZES if quick else workload.SIZES):
            loaded = list(workload.pictures(images, size, STYLES))
            content, styles = loaded[0][0], [style for _, style in loaded]
            timed = pairs.alternate(
                lambda content=content, styles=styles, one=one: one.run(content, styles),
                lambda content=content, styles=styles, all_=all_: all_.run(content, styles),
                pairs.rounds_at(size, rounds),
            )
            facts = {"network": name, "size": size, "precision": one.describe()[1]}
            rows.append(pairs.row(timed, "one by one", "together", **facts))
    return rows
