"""What importing the engine does to the process."""

import subprocess
import sys

import pytest

IMPORT = """
import gc, sys
gc.{setting}()
looked = []
def note(*_):
    looked.append("torch" in sys.modules and not gc.get_freeze_count())
gc.callbacks.append(note)
import nst_pipeline.engine
print(gc.isenabled(), any(looked), gc.get_freeze_count() > 100_000)
"""
RING = """
import gc, weakref, nst_pipeline.engine
class Ring: pass
one = Ring()
one.ring, seen = one, weakref.ref(one)
del one
gc.collect()
print(seen())
"""


def said(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(("setting", "is_enabled"), [("enable", True), ("disable", False)])
def test_no_garbage_is_looked_for_in_torch_and_the_setting_stays(
    setting: str, is_enabled: bool
) -> None:
    assert said(IMPORT.format(setting=setting)) == f"{is_enabled} False True"


def test_garbage_of_later_is_still_found() -> None:
    assert said(RING) == "None"
