"""What wakes the daemon."""

from nst_pipeline.daemon.signals import WakeUp


def test_a_wake_up_is_set_until_it_is_cleared() -> None:
    wake_up = WakeUp()
    assert not wake_up.is_set()
    for _ in range(100_000):
        wake_up.set()  # more than a pipe holds
    assert wake_up.is_set() and wake_up.wait(60)
    wake_up.clear()
    assert not wake_up.is_set() and not wake_up.wait(0)
    wake_up.close()
