"""What the live page is told: plain data, with every name and reason fit for people."""

from typing import Any
from urllib.parse import quote_from_bytes

from nst_pipeline.config.pipeline import Config
from nst_pipeline.daemon.live import AtWork, View
from nst_pipeline.daemon.shelf import Result
from nst_pipeline.daemon.status import FAILURES, Status, workers_in_short
from nst_pipeline.files import shown


def page_state(config: Config, view: View, status: Status, results: list[Result]) -> dict[str, Any]:
    """Return all that the page shows.

    Args:
        config: the settings.
        view: what the daemon does at this moment.
        status: what was found out a moment ago.
        results: the last ones, the last first.
    """
    failures = status.failures[-FAILURES:][::-1]
    return {
        "since": status.since,
        "state": view.state,
        "detail": shown(view.detail),
        "paused": status.paused,
        "resume": config.command("resume", is_for_anywhere=True),
        "queue": status.queue,
        "arriving": status.arriving,
        "left_seconds": view.left_seconds,
        "at_work": [_at_work(one, view.device) for one in view.at_work],
        "results": [_result(one) for one in results],
        "failures": [_failure(config, one) for one in failures],
        "more_failures": len(status.failures) - len(failures),
        "waiting": [shown(one["reason"]) for one in status.waiting[:FAILURES]],
        "trouble": _trouble(status),
        "done": status.done,
        "failed_jobs": status.failed_jobs,
        "jobs_last_hour": status.jobs_last_hour,
        "device": view.device,
        "workers": workers_in_short(status.workers),
        "memory_bytes": status.memory_bytes,
        "free_bytes": status.free_bytes,
        "min_free_bytes": status.min_free_bytes,
    }


def _at_work(one: AtWork, device: str | None) -> dict[str, Any]:
    glimpse = one.glimpse
    return {
        "number": one.number,
        "content": one.content,
        "style": shown(one.style),
        "worker": one.worker or (device.partition(", ")[0] if device else None),
        "iteration": one.iteration,
        "iterations": one.iterations,
        "loss": one.loss,
        "curve": one.curve,
        "left_seconds": one.left_seconds,
        "picture": f"/growing?job={one.number}&step={glimpse.done}" if glimpse else None,
        "size": glimpse.picture.size if glimpse else None,
    }


def _result(one: Result) -> dict[str, Any]:
    return {
        "job": one.job,
        "content": shown(one.content),
        "style": shown(one.style),
        "time": one.time,
        "href": f"/{quote_from_bytes(one.place)}",
    }


def _failure(config: Config, failure: dict[str, Any]) -> dict[str, Any]:
    source, place = shown(failure["source"]), shown(failure["place"])
    return {
        "source": source,
        "reason": shown(failure["reason"]),
        "place": None if place == source else place,
        "retry": config.command("retry", source, is_for_anywhere=True),
        "time": failure["time"],
    }


def _trouble(status: Status) -> str | None:
    """Return the last error, unless it is that of a file which is listed."""
    listed = {failure["reason"] for failure in status.failures}
    if status.last_error is None or status.last_error["reason"] in listed:
        return None
    return shown(status.last_error["reason"])
