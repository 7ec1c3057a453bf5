"""The folder of a cell in `bk-out`, before a run of the cell."""

from __future__ import annotations

from pathlib import Path

from bkrules.execution.layout import KEY, PREVIOUS
from bkrules.sandbox import outputs
from bkrules.system.files import read_regular


def empty(folder: Path) -> None:
    """Remove the files of an earlier run in a cell's folder, except its key, by which `bk why` explains why this one ran."""
    key = folder / KEY
    known = read_regular(key) if key.is_file() and not key.is_symlink() else None
    outputs.remove_tree(folder)
    if known is not None:
        folder.mkdir(parents=True)
        (folder / PREVIOUS).write_bytes(known)
