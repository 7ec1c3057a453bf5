"""What actions are expected to take, from what they took when they last ran."""

from __future__ import annotations

from collections.abc import Collection

from bkrules.cache.history import History
from bkrules.model.action import Action

_UNKNOWN = 1.0


def expected_seconds(actions: Collection[Action], history: History) -> dict[str, float]:
    """Wall seconds by id. One that never ran is expected to take the mean of those of its mnemonic; where none ran, a second."""
    known: dict[str, float] = {}
    by_mnemonic: dict[str, list[float]] = {}
    for action in actions:
        seconds = history.seconds(action.id)
        if seconds is not None:
            known[action.id] = seconds
            by_mnemonic.setdefault(action.mnemonic, []).append(seconds)
    means = {mnemonic: sum(found) / len(found) for mnemonic, found in by_mnemonic.items()}
    return {action.id: known.get(action.id, means.get(action.mnemonic, _UNKNOWN)) for action in actions}
