"""What each action took and how it ended when it last ran, in this workspace.

It decides what runs first, and never what a result is: removing it costs time only. It is read when something has to run, so that a
build that finds everything cached does not open it.
"""

from __future__ import annotations

import marshal

from bkrules.cache import atomic
from bkrules.system.files import open_regular

NAME = "history"
_KEPT = 100_000


# Wall seconds, of the last run that passed when there was one, and whether the last run failed.
Run = tuple[float, bool]


class History:
    """The last run of each action by its id. `store` is the file; `save()` adds to it what `note` was told."""

    def __init__(self, store: str) -> None:
        self._store = store
        self._known: dict[str, Run] | None = None
        self._noted: dict[str, Run] = {}

    def seconds(self, name: str) -> float | None:
        """What the action takes, in wall seconds; None when it never ran here."""
        run = self._get(name)
        return None if run is None else run[0]

    def failed_last(self, name: str) -> bool:
        """Return whether the action failed or timed out when it last ran."""
        run = self._get(name)
        return run is not None and run[1]

    def note(self, name: str, seconds: float, *, failed: bool) -> None:
        """Record a run. One that failed may have ended early, so it does not replace what a run that passed took."""
        before = self._get(name)
        kept = before[0] if failed and before is not None else seconds
        self._noted[name] = (round(kept, 3), failed)

    def save(self) -> None:
        """Write what was noted, when something was, beside what other builds wrote meanwhile. Raises OSError."""
        if not self._noted:
            return
        known = _read(self._store)
        for name in self._noted:  # what ran last comes last, so that what is cut off is what nobody builds any more
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
        with open_regular(store) as file:
            return {str(name): (float(seconds), bool(failed)) for name, (seconds, failed) in marshal.load(file).items()}
    except (OSError, ValueError, EOFError, TypeError, AttributeError):
        return {}
