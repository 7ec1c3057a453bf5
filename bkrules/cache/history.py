"""The history of a workspace's actions: how long each took, and how it ended, when it last ran.

The history decides what runs first, and never what a result is: removing it only costs time. bk reads it when something
has to run, so a fully cached build does not open it.
"""

from __future__ import annotations

import marshal

from bkrules.cache import atomic
from bkrules.system.files import read_regular

NAME = "history"
_KEPT = 100_000


# Wall seconds, of the last run that passed when there is one, and whether the last run failed.
Run = tuple[float, bool]


class History:
    """The last run of each action by its id. `store` is the file; `save()` adds the runs that `note` has recorded."""

    def __init__(self, store: str) -> None:
        self._store = store
        self._known: dict[str, Run] | None = None
        self._noted: dict[str, Run] = {}

    def seconds(self, name: str) -> float | None:
        """Return the wall seconds of an action; None when it never ran here."""
        run = self._get(name)
        return None if run is None else run[0]

    def failed_last(self, name: str) -> bool:
        """Return whether the action failed or timed out when it last ran."""
        run = self._get(name)
        return run is not None and run[1]

    def failed(self) -> frozenset[str]:
        """Return the actions that failed or timed out when they last ran."""
        known = _read(self._store) if self._known is None else self._known
        return frozenset(name for name, (_, failed) in {**known, **self._noted}.items() if failed)

    def note(self, name: str, seconds: float, *, failed: bool) -> None:
        """Record a run. A failed run may have ended early, so it does not replace the seconds of a passed one."""
        before = self._get(name)
        recorded = before[0] if failed and before is not None else seconds
        self._noted[name] = (round(recorded, 3), failed)

    def save(self) -> None:
        """Write the recorded runs, if any, and keep those that other builds wrote meanwhile. Raises OSError."""
        if not self._noted:
            return
        known = _read(self._store)
        for (
            name
        ) in self._noted:  # the latest runs come last, so that the limit cuts off actions that nobody builds any more
            known.pop(name, None)
        runs = list({**known, **self._noted}.items())[-_KEPT:]
        atomic.write(self._store, marshal.dumps(dict(runs)))
        self._known, self._noted = dict(runs), {}

    def _get(self, name: str) -> Run | None:
        if self._known is None:
            self._known = _read(self._store)
        return self._noted.get(name) or self._known.get(name)


def _read(store: str) -> dict[str, Run]:
    """Return the runs in a store; none when it is missing or damaged."""
    try:
        runs = marshal.loads(read_regular(store))
        return {str(name): (float(seconds), bool(failed)) for name, (seconds, failed) in runs.items()}
    except (OSError, ValueError, EOFError, TypeError, AttributeError):
        return {}
