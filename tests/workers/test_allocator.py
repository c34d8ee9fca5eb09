"""Freed memory stays for the next step, and goes back when there is no work."""

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")

PROGRAM = """
import resource, threading
from pathlib import Path
import numpy as np
from nst_pipeline.workers.allocator import give_back_memory, keep_memory

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) // 1024

def use():
    for _ in range(3):
        np.empty(64 * 2**20, np.uint8).fill(1)

def in_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

{prepare}
in_thread(use)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
in_thread(use)
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
kept = resident()
give_back_memory()
print(faults, kept - resident())
"""


def measured(prepare: str) -> tuple[int, int]:
    """Return the page faults of using 64 MB anew, and the MB that were kept and then given back."""
    code = PROGRAM.format(prepare=prepare)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    faults, megabytes = map(int, done.stdout.split())
    return faults, megabytes


def test_memory_is_used_again_by_the_engines_thread_and_given_back_at_the_end() -> None:
    faults, megabytes = measured("keep_memory()")
    assert faults < 1000 and megabytes > 50


def test_without_that_each_large_block_is_a_new_one() -> None:
    faults, megabytes = measured("")
    assert megabytes < 10 and faults > 90  # fewer by huge pages
