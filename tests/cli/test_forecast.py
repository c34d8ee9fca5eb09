"""What a run would do, looked at beside others who look at the same time, and how long it takes."""

from pathlib import Path

import pytest
from support import configure, draw, make_home

from nst_pipeline.cli.forecast import forecast, time_needed
from nst_pipeline.config.weights import resolve
from nst_pipeline.inbox.patience import LOOKS_NAME, Patience
from nst_pipeline.jobs.ledger import Ledger, ledger_path
from nst_pipeline.jobs.pace import note_pace
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


def needed(home: Path, there: int | None = None, is_known: bool = True, **cluster: object) -> str:
    """Return how long five pictures take, of which each takes a worker 100 s, as people read it."""
    config = configure(home, cluster=cluster)
    for number in range(5):
        draw(home / f"inbox/{number}.png", number)
    found = forecast(config)
    if is_known:
        with Ledger(ledger_path(config.state)) as ledger:
            weights = resolve(config.weights)
            note_pace(ledger, config, weights, 100.0, found.painted[0].style.cost)
        found = forecast(config)
    return time_needed(config, found, there)


@pytest.mark.parametrize(("workers", "time"), [(4, "about 3 min on 4"), (2, "about 5 min on 2")])
def test_a_dry_run_reckons_with_as_many_workers_as_are_asked_for(
    tmp_path: Path, workers: int, time: str
) -> None:
    said = needed(make_home(tmp_path / "home"), address="auto", workers=workers)
    assert said == f"{time} workers, as fast as the last ones"


def test_check_reckons_with_as_many_workers_as_the_cluster_has(tmp_path: Path) -> None:
    said = needed(make_home(tmp_path / "home"), there=5, address="auto")
    assert said.startswith("about 2 min on 5 workers, ")


def test_where_nobody_knows_how_many_workers_there_are_the_time_is_that_of_one(
    tmp_path: Path,
) -> None:
    said = needed(make_home(tmp_path / "home"), address="auto")
    assert said.startswith("about 8 min on one worker, ") and "`check`" in said


def test_what_a_cluster_takes_that_painted_nothing_yet_is_not_known(tmp_path: Path) -> None:
    said = needed(make_home(tmp_path / "home"), is_known=False, address="auto", workers=4)
    assert said.startswith("not known: ")


def test_without_a_cluster_nobody_speaks_of_workers(tmp_path: Path) -> None:
    said = needed(make_home(tmp_path / "home"))
    assert said == "about 8 min, as fast as the last ones here"
