"""Files that a cluster's workers ask for, in Ray's object store."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

STORE_BYTES = 2**30
"""Of files that the workers asked for, so much stays in the object store for the next."""


class Store:
    """Files in the object store, each once, the least recently asked for out first."""

    def __init__(self, ray: Any) -> None:
        """Hold none."""
        self._ray, self._files = ray, OrderedDict[str, tuple[Any, int]]()

    def put(self, sha256: str, read: Callable[[], bytes]) -> Any:
        """Return a reference to the file with this digest, which is read if it is not there."""
        if sha256 not in self._files:
            data = read()
            self._files[sha256] = self._ray.put(data), len(data)
        self._files.move_to_end(sha256)
        reference, _ = self._files[sha256]
        while len(self._files) > 1 and sum(size for _, size in self._files.values()) > STORE_BYTES:
            self._files.popitem(last=False)
        return reference
