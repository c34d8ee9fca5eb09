"""What those who look on are told when something goes wrong with finding it out."""

import asyncio
import json
import math

import pytest

from nst_pipeline.daemon import events
from nst_pipeline.daemon.live import Live


def told(states: list[object], monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """Return all that one is told who looks on until every state was given, or raised."""
    monkeypatch.setattr(events, "EVENT_SECONDS", 0.0)
    monkeypatch.setattr(events, "VIEWER_SECONDS", 0.0)
    monkeypatch.setattr(events, "TICK_SECONDS", 0.001)
    left = list(states)

    async def state() -> dict[str, object]:
        one = left.pop(0) if left else {"is": "over"}
        if isinstance(one, Exception):
            raise one
        assert isinstance(one, dict)
        return one

    async def look_on() -> list[dict[str, object]]:
        found: list[dict[str, object]] = []
        async for text in events.Events(Live(), state, lambda: False).stream():
            kind, _, data = text.partition("\n")
            assert kind != "event: end", data
            if kind == "event: state":
                found.append(json.loads(data.removeprefix("data: ")))
                if "is" in found[-1]:
                    break
        return found

    return asyncio.run(look_on())


def test_an_error_that_nobody_foresaw_is_told_and_logged_once_and_ends_no_stream(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = told([KeyError("x"), KeyError("x"), KeyError("x")], monkeypatch)
    assert found[0]["unknown"] == "KeyError: 'x'" and found[-1]["is"] == "over"
    assert len([one for one in caplog.records if one.levelname == "ERROR"]) == 1


def test_no_number_is_told_that_browsers_cannot_read(monkeypatch: pytest.MonkeyPatch) -> None:
    found = told([{"loss": math.inf}], monkeypatch)
    assert "ValueError" in str(found[0]["unknown"]) and found[-1]["is"] == "over"
