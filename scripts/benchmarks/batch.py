"""Styles of one content painted together, against one by one."""

from pathlib import Path

from benchmarks import pairs, workload

STYLES = 8


def measure(
    rounds: int, device: str = "auto", images: Path | None = None, quick: bool = False
) -> list[dict[str, object]]:
    """Return a row a network and size: ten iterations of eight styles.

    Args:
        rounds: pairs of runs.
        device: as `StyleTransfer` takes it.
        images: folder of pictures; None: noise.
        quick: tiny, with the compact network alone.
    """
    rows = []
    networks, sizes = (("compact",), (64,)) if quick else (("vgg19", "compact"), (256, 512))
    for name in networks:
        made = workload.recipe(name, 1 if quick else 10, preset="gatys")
        one, all_ = (
            workload.engine(name, device, "auto", made, batch=batch) for batch in (1, STYLES)
        )
        for size in sizes:
            loaded = list(workload.pictures(images, size, STYLES))
            content, styles = loaded[0][0], [style for _, style in loaded]
            timed = pairs.alternate(
                lambda content=content, styles=styles, one=one: one.run(content, styles),
                lambda content=content, styles=styles, all_=all_: all_.run(content, styles),
                rounds,
            )
            facts = {"network": name, "size": size, "precision": one.describe()[1]}
            rows.append(pairs.row(timed, "one by one", "together", **facts))
    return rows
