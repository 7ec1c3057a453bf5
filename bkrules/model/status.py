"""How actions end: the status of a result, and the class of a failure.

Both are texts, with these values in reports, in messages and in files.
"""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """The status of an action or of one attempt of a cell. A report shows *cached* next to it."""

    PASSED = "passed"
    FLAKY = "flaky"
    FAILED = "failed"
    TIMED_OUT = "timed out"
    SKIPPED = "skipped"
    NOT_RUN = "not run"


class FailureClass(StrEnum):
    """Why an action did not pass at once. It decides whether a cell runs again, and the exit code of the build."""

    NONE = ""
    TEST = "test"
    TIMEOUT = "timeout"
    INFRASTRUCTURE = "infrastructure"
    RESOURCES = "resources"
    LEAK = "leak"
    MACHINE = "machine"
    SKIP = "skip"
    BUILD = "build"
    PLUGIN = "plugin"
    INTERRUPTED = "interrupted"


GOOD = frozenset({Status.PASSED, Status.FLAKY})
BAD = frozenset({Status.FAILED, Status.TIMED_OUT})
ABSENT = frozenset({Status.SKIPPED, Status.NOT_RUN})
"""The statuses of an action that has passed, that has failed, and that has not done its work for another reason."""
