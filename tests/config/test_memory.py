"""The memory that defaults depend on."""

import os
import resource
import subprocess
import sys
from pathlib import Path

from nst_pipeline.config.memory import control_groups, machine_bytes
from nst_pipeline.config.pipeline import Limits

SCRIPT = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
from nst_pipeline.config.memory import machine_bytes
print(machine_bytes())
"""


def test_the_memory_is_the_machines_or_what_this_process_may_have_of_it() -> None:
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 2**26 < machine_bytes() <= machine
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True)
    assert int(done.stdout) == min(2**30, machine_bytes())
    assert resource.getrlimit(resource.RLIMIT_AS)[0] != 2**30


def test_half_of_it_may_be_used_to_decode_unless_the_settings_say_otherwise() -> None:
    assert Limits().memory_bytes == machine_bytes() // 2
    assert Limits(max_memory_bytes=2**27).memory_bytes == 2**27


def test_groups_above_count_too(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("0::/a/b\n")
    assert control_groups(tmp_path, own) == [tmp_path / "a/b", tmp_path / "a", tmp_path]
