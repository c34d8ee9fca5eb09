"""The network weights of a run: found on disk, not loaded (that is the engine's)."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nst_pipeline.config.networks import VGG16, VGG19, file_layers, file_metadata
from nst_pipeline.digests import file_digest
from nst_pipeline.errors import UnavailableError
from nst_pipeline.files import shown

COMPACT_PATH = Path(__file__).with_name("compact.safetensors")
DIGITS = 8
"""Of a file's SHA-256, those that its name ends in, as torchvision has it."""
SOURCE_KEY = "source_sha256"
"""Where a file of convolutions alone has the SHA-256 of the file they were taken from."""


@dataclass(frozen=True)
class Weights:
    """A network's weights on disk.

    Attributes:
        id: ``imagenet``, ``vgg16``, ``compact``, or the file's path as given.
        path: the file.
        sha256: of the file, in hexadecimal; where it holds only the convolutions of a published
            file, of that one, for it makes the same pictures.
        note: one line on how they were chosen, for people.
        layers: names of the network's layers, in order.
    """

    id: str
    path: Path
    sha256: str
    note: str
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Published:
    """Weights trained on ImageNet, as torchvision publishes them.

    Attributes:
        id: what the settings call them.
        name: what torchvision calls them.
        basename: the file's name, which ends in the first digits of its SHA-256.
        megabytes: of the file, and of its convolutions alone.
        layers: names of the network's layers, in order.
    """

    id: str
    name: str
    basename: str
    megabytes: tuple[int, int]
    layers: tuple[str, ...]

    @property
    def path(self) -> Path:
        """Where torch hub keeps the file, whether it is there or not.

        Raises:
            UnavailableError: that would be in the home of somebody who has none.
        """
        cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        home = os.environ.get("TORCH_HOME") or f"{cache}/torch"
        try:
            return Path(home).expanduser() / "hub" / "checkpoints" / self.basename
        except RuntimeError as error:
            raise UnavailableError(
                f"weights: {shown(home)}: nobody's home; set TORCH_HOME to the folder that keeps "
                "downloaded weights"
            ) from error

    def convolutions_path(self, digits: str) -> Path:
        """Return where the convolutions alone are kept, given the digits of that file's SHA-256."""
        return self.path.with_name(f"{self.path.stem}-convolutions-{digits}.safetensors")

    def paths(self) -> list[Path]:
        """Return its files that are on disk: first the whole one, then the convolutions alone."""
        try:
            pattern = self.convolutions_path("?" * DIGITS)
        except UnavailableError:
            return []
        found = [self.path, *sorted(pattern.parent.glob(pattern.name))]
        return [path for path in found if path.is_file()]

    def check(self, path: Path, sha256: str) -> str:
        """Return the SHA-256 of the whole file, given that of one of `paths`.

        Raises:
            UnavailableError: it is damaged.
        """
        wanted = path.stem[-DIGITS:]
        if not sha256.startswith(wanted):
            raise UnavailableError(
                f"weights: {shown(path)}: damaged (its SHA-256 starts with {sha256[:DIGITS]}, not "
                f"{wanted}); delete it, then {self.hint}"
            )
        if path == self.path:
            return sha256
        source = file_metadata(path).get(SOURCE_KEY, "")
        if not source.startswith(self.path.stem[-DIGITS:]):
            raise UnavailableError(
                f"weights: {shown(path)}: not the convolutions of {self.basename}; delete it, "
                f"then {self.hint}"
            )
        return source

    @property
    def command(self) -> str:
        """The command that downloads them."""
        argument = "" if self.id == "imagenet" else f" {self.id}"
        return f"nst-pipeline weights fetch{argument}"

    @property
    def hint(self) -> str:
        """How to get them."""
        whole, convolutions = self.megabytes
        return (
            f"`{self.command}` downloads {self.name} ({whole} MB, of which "
            f"--convolutions-only keeps {convolutions})"
        )


PUBLISHED = {
    one.id: one
    for one in (
        Published(
            "imagenet", "VGG19_Weights.IMAGENET1K_V1", "vgg19-dcbb9e9d.pth", (575, 80), VGG19
        ),
        Published("vgg16", "VGG16_Weights.IMAGENET1K_V1", "vgg16-397923af.pth", (553, 59), VGG16),
    )
}
"""By id, in the order that ``auto`` prefers them in."""
CHOICES = ("auto", *PUBLISHED, "compact")
"""What weights can be called besides the path of a file."""


def is_downloadable(choice: str) -> bool:
    """Tell whether ``choice`` names weights that have to be downloaded first."""
    return choice in PUBLISHED and not PUBLISHED[choice].paths()


def resolve(choice: str, digest: Callable[[Path], str] = file_digest) -> Weights:
    """Return the weights that ``choice`` means; never touches the network.

    Args:
        choice: ``imagenet`` (VGG-19), ``vgg16``, ``compact``, ``auto`` (the first of these that is
            on disk), or the path of a .pth or .safetensors file.
        digest: gives the SHA-256 of a file (a caller may remember them).

    Raises:
        UnavailableError: the file is missing, unreadable or damaged, or of another network.
    """
    for published in PUBLISHED.values():
        if choice in ("auto", published.id) and (paths := published.paths()):
            return _published(published, paths[0], digest)
    if choice in PUBLISHED:
        wanted = PUBLISHED[choice]
        raise UnavailableError(f"weights: {shown(wanted.path)} is not there; {wanted.hint}")
    if choice in ("auto", "compact"):
        note = "the small network shipped with nst-pipeline"
        if choice == "auto":
            note += f"; for better pictures, {PUBLISHED['imagenet'].hint}"
        return _own("compact", COMPACT_PATH, note, digest)
    path = Path(choice).expanduser()
    try:
        return _own(choice, path, f"the file {shown(path)}", digest)
    except OSError as error:
        raise UnavailableError(
            f"weights: {shown(path)}: {error.strerror}; give {', '.join(CHOICES)}, "
            "or the path of a .pth or .safetensors file"
        ) from error


def _published(published: Published, path: Path, digest: Callable[[Path], str]) -> Weights:
    sha256 = published.check(path, digest(path))
    note = f"torchvision {published.name}"
    if path != published.path:
        note += ", its convolutions alone"
    return Weights(published.id, path, sha256, note, published.layers)


def _own(name: str, path: Path, note: str, digest: Callable[[Path], str]) -> Weights:
    return Weights(name, path, digest(path), note, file_layers(path))
