"""What this process has looked at: every file and folder on which its answer depends, whether it was there or not.

A build that found everything cached keeps the list with what `stat` says of each (`unchanged.py`), so that the next one, when all
is as it was, gives the same answer without working it out again. Who looks at a file notes it here.
"""

from __future__ import annotations

_paths: dict[str, None] = {}
_doubts: list[str] = []


def note(path: str) -> str:
    """Note that the answer depends on what is at `path`, or on there being nothing; the path itself."""
    _paths[path] = None
    return path


def doubt(why: str) -> None:
    """Note that `stat` cannot tell whether the answer still holds; the reason is for who reads the code in a debugger."""
    _doubts.append(why)


def is_in_doubt() -> bool:
    """Whether it was noted that `stat` cannot tell."""
    return bool(_doubts)


def noted() -> list[str]:
    """All that was noted, in order."""
    return list(_paths)
