"""The root folder of a workspace."""

from __future__ import annotations

import os

from bkrules.errors import UsageError

MARKER = "WORKSPACE.py"


def find_root(start: str) -> str:
    """Return the nearest folder at or above `start` that has a WORKSPACE.py. Raises UsageError."""
    root = root_of(start)
    if root is None:
        raise UsageError(
            "no-workspace",
            f"{os.path.abspath(start)} is not in a workspace: no {MARKER} here or in a folder above",
            hint="run bk inside a workspace, or make this folder one:  bk init",
        )
    return root


def root_of(start: str) -> str | None:
    """Return the same as `find_root`, or None."""
    folder = os.path.realpath(start)
    while not os.path.isfile(f"{folder}/{MARKER}"):
        parent = os.path.dirname(folder)
        if parent == folder:
            return None
        folder = parent
    return folder
