"""The download of the weights that torchvision publishes."""

import hashlib
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from safetensors.torch import save

from nst_pipeline.config.weights import DIGITS, SOURCE_KEY, Published
from nst_pipeline.digests import bytes_digest, file_digest
from nst_pipeline.engine.vgg import load_convolutions
from nst_pipeline.errors import CannotCreateError, OutputError, UnavailableError
from nst_pipeline.files import ensure_folder, publish, shown, write_temporary

TIMEOUT_SECONDS = 10.0
"""How long a download may take to connect, and then to send anything at all."""
CHUNK_BYTES = 2**18

OnBytes = Callable[[int, int | None], None]
"""Takes the bytes that came, and those in all if the server says."""


def address(published: Published) -> str:
    """Return where torchvision has weights from."""
    # Here, because it takes as long to import as torch does.
    from torchvision.models import get_weight

    return str(get_weight(published.name).url)


def fetch(
    published: Published,
    url: str | None = None,
    on_progress: OnBytes | None = None,
    convolutions_only: bool = False,
) -> Path:
    """Download weights into torch hub's cache, digest checked, unless they are there.

    Args:
        published: which.
        url: where from, if not `address`; a mirror holds the same bytes, and so does a file.
        on_progress: called with the progress.
        convolutions_only: keep nothing else; a file that is there is left as it is.

    Returns:
        The file, which appears only once its digest has been checked.

    Raises:
        UnavailableError: no connection, no such file, cut short, or another file than expected.
        CannotCreateError: the cache's folder cannot be made, or is not writable.
        OutputError: the file cannot be written, such as on a full disk.
    """
    path = published.path
    there = [found for found in published.paths() if _is_intact(published, found)]
    kept = [found for found in there if found != path or not convolutions_only]
    if kept:
        return kept[0]
    if there:
        return _keep_convolutions(published, path)
    try:
        ensure_folder(path.parent)
    except (CannotCreateError, OutputError) as error:
        raise type(error)(f"{error}, or set TORCH_HOME to another folder") from error
    url = url or address(published)
    if "://" not in url:
        url = Path(url).absolute().as_uri()
    parts = _download(url, path.stem[-DIGITS:], on_progress)
    try:
        if not convolutions_only:
            publish(path, parts)
            return path
        whole = write_temporary(path, parts)
    except UnavailableError as error:
        raise UnavailableError(
            f"weights: {url}: {error}; nothing was kept. Try again, give the url of a mirror, or "
            f"copy the file to {shown(path)}"
        ) from error
    try:
        return _keep_convolutions(published, whole)
    finally:
        whole.unlink()


def _is_intact(published: Published, path: Path) -> bool:
    try:
        return bool(published.check(path, file_digest(path)))
    except (OSError, UnavailableError):  # not to be read, or damaged
        return False


def _keep_convolutions(published: Published, whole: Path) -> Path:
    """Write the convolutions of a whole file into one of their own, and return its path."""
    _, convolutions = load_convolutions(whole)
    data = save(convolutions, {SOURCE_KEY: file_digest(whole)})
    path = published.convolutions_path(bytes_digest(data)[:DIGITS])
    publish(path, data)
    return path


def _download(url: str, digits: str, on_progress: OnBytes | None) -> Iterator[bytes]:
    """Yield the parts of the file whose SHA-256 starts with ``digits``.

    Raises:
        UnavailableError: it does not come, or is another file.
    """
    sha256, done, total = hashlib.sha256(), 0, None
    try:
        request = Request(url, headers={"User-Agent": "torch.hub"})
        with urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() else None
            while chunk := response.read(CHUNK_BYTES):
                sha256.update(chunk)
                done += len(chunk)
                if on_progress:
                    on_progress(done, total)
                yield chunk
    except (OSError, HTTPException, ValueError) as error:  # URLError and HTTPError are OSErrors
        if isinstance(error, HTTPError):
            error.close()
        raise UnavailableError(str(getattr(error, "reason", None) or error)) from error
    if total is not None and done < total:
        raise UnavailableError(f"ends after {done:,} of {total:,} bytes")
    found = sha256.hexdigest()[:DIGITS]
    if found != digits:
        raise UnavailableError(
            f"another file than expected (its SHA-256 starts with {found}, not {digits})"
        )
