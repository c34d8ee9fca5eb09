"""Draws the sample pictures: three contents and three styles, all procedural.

Usage: python scripts/make_samples.py [FOLDER]

Nothing is downloaded or copied. The seeds are fixed, so the same machine writes the same
bytes every time. It takes about a minute.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from samples.brushwork import brushwork
from samples.cityscape import cityscape
from samples.common import Array, save
from samples.landscape import landscape
from samples.mosaic import mosaic
from samples.still_life import still_life
from samples.woodcut import woodcut

DEFAULT_FOLDER = Path(__file__).resolve().parent.parent / "nst_pipeline" / "samples"
PICTURES: dict[str, Callable[[], Array]] = {
    "contents/landscape.jpg": landscape,
    "contents/still-life.jpg": still_life,
    "contents/cityscape.jpg": cityscape,
    "styles/brushwork.jpg": brushwork,
    "styles/mosaic.jpg": mosaic,
    "styles/woodcut.jpg": woodcut,
}


def main(argv: list[str] | None = None) -> int:
    """Writes every picture below the folder given.

    Args:
        argv: Command line without the program's name; the process's own when left out.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description="Draw the procedural sample pictures.")
    parser.add_argument("folder", nargs="?", type=Path, default=DEFAULT_FOLDER)
    folder: Path = parser.parse_args(argv).folder
    for name, draw in PICTURES.items():
        began = time.perf_counter()
        path = folder / name
        save(draw(), path)
        size, took = path.stat().st_size / 1024, time.perf_counter() - began
        sys.stdout.write(f"{path}: {size:.0f} KB in {took:.1f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
