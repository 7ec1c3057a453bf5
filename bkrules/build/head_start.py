"""A head start: the folder of a run and its zygote, begun before targets are analysed when actions will probably run.

The zygote then imports what it needs while bk loads and analyses targets, on another processor.
"""

from __future__ import annotations

from contextlib import suppress

from bkrules.build.open_context import Prepared, prepare
from bkrules.incremental import stamps
from bkrules.incremental.dependencies import current


class HeadStart:
    """The head start of one build. Close it when the build ends."""

    def __init__(self) -> None:
        self._prepared: Prepared | None = None
        self._tests = False

    def begin(self, cache: str, *, tests: bool) -> None:
        """Begin; `cache` is the disk cache, and `tests` tells whether cells will be among the actions."""
        with suppress(OSError):  # the first action that runs meets the fault too, and reports it
            self._prepared, self._tests = prepare(cache), tests
            self._prepared.processes.begin(tests=tests)

    def take(self, *, tests: bool) -> Prepared | None:
        """Return what has begun, unless there are `tests` that it cannot serve.

        The zygote may have imported a file before it was changed, and would then run other code than the key of a cell has.
        """
        if tests and (not self._tests or any(stamps.is_young(stamps.of(path)) for path in current().for_all)):
            self.close()
        prepared, self._prepared = self._prepared, None
        return prepared

    def close(self) -> None:
        """End what nobody has taken."""
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            prepared.processes.abandon()
            prepared.close()
