"""A file that may have ended the process is decoded in another one first."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from nst_pipeline.errors import ImageError

CRASHES = frozenset(
    (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGSYS,
     signal.SIGTRAP)
)  # fmt: skip
"""What a process is ended by for its own fault; any other signal comes from somebody else."""


def try_apart(data: bytes, name: str, max_pixels: int) -> None:
    """Decode an image file in another process, and refuse it if that process crashes.

    Whatever else comes of it there decides nothing: it comes of it here, too.

    Args:
        data: the whole file.
        name: of the file, for messages.
        max_pixels: as `decode` takes it.

    Raises:
        ImageError: a decoder crashes.
    """
    code = 0
    with contextlib.suppress(OSError):  # no room for another process says nothing of the file
        code = subprocess.run(
            [sys.executable, "-m", __name__, str(max_pixels)],
            input=data, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
            cwd=Path(__file__).parents[2],
            start_new_session=True,  # a Ctrl-C for this process is none for that one
        ).returncode  # fmt: skip
    if -code in CRASHES:
        raise ImageError(
            f"{name}: ended the process that decoded it ({signal.Signals(-code).name}, a fault of "
            "the decoder); save it anew with another program"
        )


def tried_apart(
    look: Callable[[bytes, str, int], object],
) -> Callable[[bytes, str, int], object]:
    """Return ``look``, done only to a file that another process can decode without a crash."""

    def both(data: bytes, name: str, max_pixels: int) -> object:
        try_apart(data, name, max_pixels)
        return look(data, name, max_pixels)

    return both


def main() -> None:
    """Decode what comes on standard input; what is no picture is none."""
    from nst_pipeline.images.decoding import decode  # here, for it takes long to import

    with contextlib.suppress(ImageError):
        decode(sys.stdin.buffer.read(), "it", int(sys.argv[1]))


if __name__ == "__main__":
    main()
