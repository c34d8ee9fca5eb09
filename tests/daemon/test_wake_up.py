"""What wakes the daemon."""

from pathlib import Path

import pytest

from nst_pipeline.daemon.wake_up import SOCKET_NAME, WakeUp, wake
from nst_pipeline.errors import CannotCreateError


def test_a_wake_up_is_set_until_it_is_cleared() -> None:
    wake_up = WakeUp()
    assert not wake_up.is_set()
    for _ in range(100_000):
        wake_up.set()  # more than a pipe holds
    assert wake_up.is_set() and wake_up.wait(60)
    wake_up.clear()
    assert not wake_up.is_set() and not wake_up.wait(0)
    wake_up.close()


def test_others_wake_through_the_state_folder_however_long_its_path(tmp_path: Path) -> None:
    state = tmp_path / ("d" * 200) / "state"  # longer than the address of a socket can be
    state.mkdir(parents=True)
    wake(state)  # nobody listens
    for _ in range(2):  # the second finds what the first left
        wake_up = WakeUp()
        wake_up.listen(state)
        assert not wake_up.is_set()
        for _ in range(1000):
            wake(state)  # more than a socket holds
        assert wake_up.wait(60)
        wake_up.clear()
        assert not wake_up.is_set()
        wake_up.close()
        wake(state)


def test_what_is_in_the_socket_s_place_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / SOCKET_NAME).write_text("no socket")
    wake(tmp_path)
    wake_up = WakeUp()
    wake_up.listen(tmp_path)
    wake(tmp_path)
    assert wake_up.is_set()
    with pytest.raises(CannotCreateError, match="no socket can be made here"):
        wake_up.listen(tmp_path / "gone")
    wake_up.close()
