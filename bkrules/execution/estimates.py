"""Estimates of how long actions take, from their last runs."""

from __future__ import annotations

from collections.abc import Collection

from bkrules.cache.history import History
from bkrules.model.action import Action

_UNKNOWN = 1.0


def expected_seconds(actions: Collection[Action], history: History) -> dict[str, float]:
    """Return the expected wall seconds by id. An action that never ran gets the mean of its mnemonic, and a second when
    none ran.
    """
    known: dict[str, float] = {}
    by_mnemonic: dict[str, list[float]] = {}
    for action in actions:
        seconds = history.seconds(action.id)
        if seconds is not None:
            known[action.id] = seconds
            by_mnemonic.setdefault(action.mnemonic, []).append(seconds)
    means = {mnemonic: sum(seconds_each) / len(seconds_each) for mnemonic, seconds_each in by_mnemonic.items()}
    return {action.id: known.get(action.id, means.get(action.mnemonic, _UNKNOWN)) for action in actions}
