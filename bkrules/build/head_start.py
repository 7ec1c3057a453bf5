"""A head start: the folder of a run and its zygote, begun before targets are analysed when actions will probably run.

The zygote then imports what it needs while bk loads and analyses targets, on another processor.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from bkrules.build.open_context import Prepared, prepare
from bkrules.incremental import stamps
from bkrules.incremental.dependencies import current


class HeadStart:
    """The head start of one build. Close it when the build ends."""

    def __init__(self) -> None:
        self._prepared: Prepared | None = None
        self._tests = False

    def begin(self, root: str, cache: str, *, tests: bool) -> None:
        """Begin; `tests` tells whether cells will be among the actions.

        Nothing begins with the disk cache `cache` in the workspace at `root`, where globs and the search for packages may see the
        new folder of the run.
        """
        if f"{os.path.realpath(cache)}/".startswith(f"{os.path.realpath(root)}/"):
            return
        with suppress(OSError):  # the first action that runs meets the fault too, and reports it
            self._prepared, self._tests = prepare(cache), tests
            self._prepared.processes.begin(tests=tests)

    def take(self, *, tests: bool, code: Iterable[str] = ()) -> Prepared | None:
        """Return what has begun, unless there are `tests` that it cannot serve; `code` are the files of bk that cells run.

        The zygote may have imported a file before it was changed, and would then run other code than the key of a cell has.
        """
        if tests and (not self._tests or any(map(_may_have_changed, {*code, *current().for_all}))):
            self.close()
        prepared, self._prepared = self._prepared, None
        return prepared

    def close(self) -> None:
        """End what nobody has taken."""
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            prepared.processes.abandon()
            prepared.close()


def _may_have_changed(path: str) -> bool:
    """Return whether a file may have changed since this process began."""
    stamp = stamps.of(path)
    return stamps.is_young(stamp) or stamp != current().first(path)
