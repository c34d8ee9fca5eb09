"""How long jobs take on this machine, by those that were done here."""

import json

from nst_pipeline.config.pipeline import Config
from nst_pipeline.config.weights import Weights
from nst_pipeline.jobs.ledger import Ledger, ledger_path


def note_pace(
    ledger: Ledger, config: Config, weights: Weights, seconds: float, pixels: int
) -> None:
    """Remember how long some jobs took.

    Args:
        ledger: remembers it.
        config: says what they were painted on.
        weights: the network's.
        seconds: that they took.
        pixels: that they cost.
    """
    ledger.set_fact("pace", json.dumps([*_conditions(config, weights), seconds / pixels]))


def seconds_per_pixel(ledger: Ledger, config: Config, weights: Weights) -> float | None:
    """Return what the last jobs took; None: none were done by this network on this device."""
    *conditions, pace = json.loads(ledger.fact("pace") or "[null]")
    return float(pace) if conditions == _conditions(config, weights) else None


def known_pace(config: Config, weights: Weights) -> float | None:
    """Return what `seconds_per_pixel` does, beside whoever works with the ledger."""
    ledger = Ledger.to_read(ledger_path(config.state))
    if ledger is None:
        return None
    with ledger:
        return seconds_per_pixel(ledger, config, weights)


def _conditions(config: Config, weights: Weights) -> list[str]:
    return [config.device, config.precision, weights.sha256]
