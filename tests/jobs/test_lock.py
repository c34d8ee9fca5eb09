"""One process a state folder, for as long as there is that folder."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support import as_nobody

from nst_pipeline.errors import LockedError, StateGoneError
from nst_pipeline.jobs.lock import LOCK_NAME, Lock


def test_two_do_not_hold_the_same_lock(tmp_path: Path) -> None:
    with Lock(tmp_path, "watch") as lock:
        lock.check()
        with pytest.raises(LockedError, match="nst-pipeline watch"), Lock(tmp_path, "run"):
            pass


@pytest.mark.parametrize(
    "change",
    [
        lambda state: shutil.rmtree(state),
        lambda state: state.rename(state.with_name("elsewhere")),
        lambda state: (state / LOCK_NAME).unlink(),
        lambda state: (shutil.rmtree(state), state.mkdir(), (state / LOCK_NAME).touch()),
        lambda state: (shutil.rmtree(state), state.touch()),
    ],
    ids=["deleted", "renamed", "the lock alone", "made anew", "a file"],
)
def test_a_lock_that_others_could_take_is_noticed(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    state = tmp_path / "state"
    with Lock(state, "watch") as lock:
        lock.check()
        change(state)
        assert not lock.is_held()
        with pytest.raises(StateGoneError, match="deleted or renamed"):
            lock.check()


def test_a_lock_that_another_user_left_names_him(anybodys_folder: Path) -> None:
    def take() -> None:
        with Lock(anybodys_folder, "watch"):
            pass

    take()
    said = as_nobody(take)
    assert f"{anybodys_folder / LOCK_NAME} belongs to root (mode 0644)" in said
    assert "runs as nobody: `chown` gives it away" in said


def test_who_waited_for_a_lock_that_was_deleted_takes_the_new_one(tmp_path: Path) -> None:
    state, held, over = tmp_path / "state", threading.Event(), threading.Event()

    def wait() -> None:
        with Lock(state, "watch", wait=True) as second:
            second.check()
            held.set()
            assert over.wait(60)

    with Lock(state, "watch"):
        waiter = threading.Thread(target=wait)
        waiter.start()
        assert not held.wait(0.1)
        shutil.rmtree(state)
    assert held.wait(60)
    with pytest.raises(LockedError), Lock(state, "run"):
        pass
    over.set()
    waiter.join()
