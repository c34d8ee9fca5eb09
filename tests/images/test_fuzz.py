"""Damaged files are decoded or refused with a reason, in little time and memory, and end nothing.

``--fuzz-seconds 3600`` goes on for an hour, ``--fuzz-from 5000000`` with other files than the last
time; what it finds is kept in ``tests/data/fuzz``.
"""

import os
from itertools import count
from pathlib import Path

import fuzzing
import pytest
from fuzzing import Report, check, damaged, fuzz, originals

KEPT = Path(__file__).parents[1] / "data" / "fuzz"
FILES = 10_000


def told(report: Report) -> str:
    return (
        f"{sum(report.counts.values())} files: {dict(report.counts)}; at worst "
        f"{report.worst_seconds[0]:.2f} s (number {report.worst_seconds[1]}), "
        f"{report.worst_bytes[0] / 2**20:.0f} MiB (number {report.worst_bytes[1]}); address space "
        f"up to {report.address_bytes / 2**20:.0f} MiB; of {dict(sorted(report.kinds.items()))}; "
        f"findings: {report.findings}; last words: {report.last_words}"
    )


def keep(number: int) -> None:
    """Keep a file that something was found in."""
    KEPT.mkdir(parents=True, exist_ok=True)
    name, data = damaged(number)
    (KEPT / f"{name}-{number}").write_bytes(data)


def test_damaged_files_are_decoded_or_refused(request: pytest.FixtureRequest) -> None:
    seconds = request.config.getoption("--fuzz-seconds")
    first = request.config.getoption("--fuzz-from")
    report = fuzz(count(first), seconds, keep) if seconds else fuzz(range(FILES))
    print(told(report))  # noqa: T201
    assert not report.findings, told(report)
    assert report.counts["decoded"] and report.counts["refused"]


def test_what_was_found_once_is_not_found_again() -> None:
    paths = sorted(KEPT.glob("*"))
    report = check(paths)
    assert not {paths[number].name: what for number, what in report.findings.items()}


def test_the_undamaged_files_are_decoded(tmp_path: Path) -> None:
    paths = []
    for name, data in originals().items():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(data)
    report = check(paths)
    assert report.counts == {"decoded": len(paths)}, report.findings


def test_a_child_that_ends_or_hangs_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "nobody-writes")
    (tmp_path / "good").write_bytes(originals()["png"])
    monkeypatch.setattr(fuzzing, "HANG_SECONDS", 3.0)
    report = check([tmp_path / "not-there", tmp_path / "nobody-writes", tmp_path / "good"])
    assert report.findings == {0: "crashed: status 1", 1: "hung"}
    assert report.counts["decoded"] == 1
