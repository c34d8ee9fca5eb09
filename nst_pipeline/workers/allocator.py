"""What glibc's allocator does with the memory that a CPU's tensors leave.

By itself it gives each large block back to the system at once, which has to clear another for the
next: a tenth of the time of pictures of 1024 pixels. So it is told to keep them while it works.
"""

import ctypes
import functools
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Of glibc's malloc.h."""
LARGEST_KEPT_BYTES = 2**30
"""What is larger is given back at once, for it would leave large holes."""


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def keep_memory() -> None:
    """Have this process keep the memory that is freed, for what is allocated next."""
    if libc := _glibc():
        libc.mallopt(M_ARENA_MAX, 1)  # threads have arenas of their own else, that keep less
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, -1)  # never by itself


def give_back_memory() -> None:
    """Give what is free back to the system."""
    if libc := _glibc():
        libc.malloc_trim(0)
