"""Files that wait, each for twice as long as the last time."""

from dataclasses import replace
from pathlib import Path, PurePath

import pytest

from nst_pipeline.inbox.patience import LONGEST_SECONDS, Patience
from nst_pipeline.inbox.scanner import SourceFile

A = SourceFile(Path("/inbox/a.png"), PurePath(), Path("/inbox"), "1 2 3 4")


def test_a_file_waits_twice_as_long_each_time_but_not_for_ever() -> None:
    patience = Patience(30)
    waits = [patience.put_off(A, "no luck") for _ in range(50)]
    assert waits[:4] == [30, 60, 120, 240] and set(waits[4:]) == {LONGEST_SECONDS}
    assert Patience(1000).put_off(A, "no luck") == 1000


def test_a_file_that_changed_waits_no_more_and_was_never_tried() -> None:
    patience = Patience(30)
    patience.put_off(A, "no luck")
    assert not patience.take_up(A) and patience.tries(A, "system") == 1
    changed = replace(A, signature="1 2 3 5")
    assert patience.take_up(changed) and patience.tries(changed, "system") == 0


def test_what_is_taken_up_waits_no_more_and_keeps_its_tries() -> None:
    patience = Patience(0)
    patience.put_off(A, "no luck")
    assert [one.reason for one in patience.waiting()] == ["no luck"]
    assert patience.take_up(A) and not patience.waiting()
    assert patience.tries(A, "system") == 1


@pytest.mark.parametrize("kind", ["refused", "error"])
def test_tries_are_counted_for_one_kind_of_reason(kind: str) -> None:
    patience = Patience(30)
    for _ in range(3):
        patience.put_off(A, "no luck")
    assert patience.tries(A, kind) == 0  # type: ignore[arg-type]
    assert patience.put_off(A, "no picture", kind) == 30  # type: ignore[arg-type]
    assert patience.tries(A, "system") == 0


def test_files_that_are_gone_are_forgotten() -> None:
    patience = Patience(30)
    patience.put_off(A, "no luck")
    patience.forget_all_but({A.path})
    assert patience.tries(A, "system") == 1
    patience.forget_all_but(set())
    assert patience.tries(A, "system") == 0 and not patience.waiting()


def test_what_is_looked_at_in_a_shared_memory_is_suspect_and_counts_as_no_try(
    tmp_path: Path,
) -> None:
    memory = tmp_path / "looks.json"
    Patience(0, memory).begin_look(A)  # by a process that lives, or one that ended there
    for _ in range(3):
        other = Patience(0, memory, is_shared=True)
        other.check(A, 1)
        assert other.is_suspect(A)
        other.begin_look(A)
    other.forget(A.path)
    other.end_look()
    assert not memory.exists()


def test_notes_that_an_earlier_process_left_go_with_their_files(tmp_path: Path) -> None:
    memory = tmp_path / "looks.json"
    Patience(0, memory).begin_look(A)  # the process ends
    Patience(0, memory).end_look()
    assert Patience(0, memory).is_suspect(A)
    third = Patience(0, memory)
    third.forget_all_but(set())
    third.end_look()
    assert not memory.exists()
