"""How long `stop` waits for a daemon: as long as the daemon itself says."""

from pathlib import Path

import pytest
from support import Watch, configure, make_home

from nst_pipeline.daemon.ending import CLUSTER_SECONDS, STEP_SECONDS, end_seconds, times_of
from nst_pipeline.jobs.lock import Holder, holder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_home(tmp_path / "home", watch={"settle_seconds": 0, "stop_seconds": 5})


def test_a_cluster_has_longer_to_end(home: Path) -> None:
    assert end_seconds(configure(home, watch={"stop_seconds": 5})) == 5 + STEP_SECONDS
    config = configure(home, watch={"stop_seconds": 5}, cluster={"address": "auto"})
    assert end_seconds(config) == 5 + CLUSTER_SECONDS


def test_who_tells_nothing_is_known_by_the_settings(home: Path) -> None:
    config = configure(home, watch={"stop_seconds": 5})
    assert times_of(Holder(1, 0.0, "watch"), config) == (5, 5 + STEP_SECONDS)


def test_a_daemon_tells_how_long_it_may_take_with_the_cluster_that_it_was_given(
    home: Path,
) -> None:
    with Watch(home, "--cluster", "auto") as watch:
        watch.until_idle()
        changed = configure(home, watch={"stop_seconds": 50})  # and not read again
        who = holder(changed.state)
        assert who and times_of(who, changed) == (5, 5 + CLUSTER_SECONDS)
        assert watch.stop() == 0
