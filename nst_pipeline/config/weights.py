"""The network weights of a run: found on disk, not loaded (that is the engine's)."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nst_pipeline.digests import file_digest
from nst_pipeline.errors import UnavailableError
from nst_pipeline.files import shown

COMPACT_PATH = Path(__file__).with_name("compact.safetensors")
IMAGENET_FILE = "vgg19-dcbb9e9d.pth"
"""File of torchvision's ``VGG19_Weights.IMAGENET1K_V1``; its name holds the digest's start."""
IMAGENET_DIGEST = "dcbb9e9d"
FETCH_HINT = "`nst-pipeline weights fetch` downloads the ImageNet weights (548 MB)"


@dataclass(frozen=True)
class Weights:
    """A network's weights on disk.

    Attributes:
        id: ``imagenet``, ``compact``, or the file's path as given.
        path: the file.
        sha256: of the file, in hexadecimal.
        note: one line on how they were chosen, for people.
    """

    id: str
    path: Path
    sha256: str
    note: str


def imagenet_path() -> Path:
    """Return where torch hub keeps the ImageNet weights, whether they are there or not."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or f"{cache}/torch"
    return Path(home).expanduser() / "hub" / "checkpoints" / IMAGENET_FILE


def is_downloadable(choice: str) -> bool:
    """Tell whether ``choice`` names weights that have to be downloaded first."""
    return choice == "imagenet" and not imagenet_path().is_file()


def resolve(choice: str, digest: Callable[[Path], str] = file_digest) -> Weights:
    """Return the weights that ``choice`` means; never touches the network.

    Args:
        choice: ``auto`` (imagenet when it is on disk, else compact), ``imagenet``, ``compact``,
            or the path of a .pth or .safetensors file.
        digest: gives the SHA-256 of a file (a caller may remember them).

    Raises:
        UnavailableError: the file is missing, unreadable or damaged.
    """
    if choice in ("auto", "imagenet") and imagenet_path().is_file():
        return _imagenet(digest)
    if choice == "imagenet":
        raise UnavailableError(f"weights: {shown(imagenet_path())} is not there; {FETCH_HINT}")
    if choice in ("auto", "compact"):
        note = "the small network shipped with nst-pipeline"
        if choice == "auto":
            note += f"; {FETCH_HINT} for better pictures"
        return Weights("compact", COMPACT_PATH, digest(COMPACT_PATH), note)
    path = Path(choice).expanduser()
    try:
        return Weights(choice, path, digest(path), f"the file {shown(path)}")
    except OSError as error:
        raise UnavailableError(
            f"weights: {shown(path)}: {error.strerror}; give auto, imagenet, compact, "
            "or the path of a .pth or .safetensors file"
        ) from error


def _imagenet(digest: Callable[[Path], str]) -> Weights:
    path = imagenet_path()
    sha256 = digest(path)
    if not sha256.startswith(IMAGENET_DIGEST):
        raise UnavailableError(
            f"weights: {shown(path)}: damaged (its SHA-256 starts with {sha256[:8]}, not "
            f"{IMAGENET_DIGEST}); delete it, then {FETCH_HINT}"
        )
    return Weights("imagenet", path, sha256, "torchvision VGG19_Weights.IMAGENET1K_V1")
