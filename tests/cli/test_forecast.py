"""What a run would do, looked at beside others who look at the same time."""

from pathlib import Path

from support import configure, draw, make_home

from nst_pipeline.cli.forecast import forecast
from nst_pipeline.inbox.patience import LOOKS_NAME, Patience
from nst_pipeline.jobs.planning import make_scanner


def test_what_another_looks_at_at_the_same_time_is_no_lost_file(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    config = configure(home, watch={"max_attempts": 1})
    draw(home / "inbox/a.png", 1)
    config.state.mkdir()
    notes = config.state / f"forecast-{LOOKS_NAME}"
    (found,) = make_scanner(config, None, 0).scan().stable
    Patience(0, notes).begin_look(found)  # the other is alive, and in the middle of it
    for _ in range(2):
        seen = forecast(config)
        assert len(seen.painted) == 1 and not seen.plan.broken
    assert not notes.exists()  # it is sound
