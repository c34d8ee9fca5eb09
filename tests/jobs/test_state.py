"""The states of a job, and what is said of them."""

import re
from pathlib import Path

from nst_pipeline.jobs.state import TRANSITIONS, JobState

ARCHITECTURE = Path(__file__).parents[2] / "docs" / "architecture.md"


def test_the_drawn_transitions_are_those_of_the_table() -> None:
    text = ARCHITECTURE.read_text(encoding="utf-8").partition("stateDiagram")[2].partition("```")[0]
    drawn = set(re.findall(r"^    ([a-z]+) --> ([a-z]+)", text, re.MULTILINE))
    assert drawn == {(str(s), str(t)) for s, targets in TRANSITIONS.items() for t in targets}


def test_every_state_but_the_first_can_be_reached() -> None:
    reached = {target for targets in TRANSITIONS.values() for target in targets}
    assert reached == set(JobState) == set(TRANSITIONS)
