from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from shelf import Shelf

from bkrules.errors import UsageError
from bkrules.images.copy_all import copy_all
from bkrules.images.destination import opened
from bkrules.model.reference import Reference

REFERENCE = Reference("a.example", "library/sample", "1")


def copy(folder: Path) -> int:
    shelf = Shelf()
    shelf.put(shelf.image(b"one"))
    with opened(str(folder)) as destination:
        _, copied = copy_all({REFERENCE: (shelf, REFERENCE.repository, "1")}, destination)
        assert destination.tagged(REFERENCE)
    return copied


@pytest.mark.parametrize("place", ["lock", "link", "manifest"])
def test_a_fifo_in_a_mirror_holds_nothing_up(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "kept"
    assert copy(folder)
    (link,) = folder.rglob("tags/1/current/link")
    (manifest,) = (path for path in folder.rglob("data") if path.is_file() and b"schemaVersion" in path.read_bytes())
    path = {"lock": folder / "lock", "link": link, "manifest": manifest}[place]
    path.unlink()
    os.mkfifo(path)
    copy(folder)
    assert place == "lock" or path.is_file()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: folder.write_text("x"), "kept: File exists"),
        (lambda folder: (folder / "lock").mkdir(parents=True), "lock: Is a directory"),
        (lambda folder: (folder.mkdir(), (folder / "lock").symlink_to("/etc/hostname")), "lock: Too many levels"),
        (lambda folder: (folder.mkdir(), (folder / "data").write_text("x")), "data.*: Not a directory"),
        (lambda folder: _replaced(folder, "current/link"), "Is a directory"),
        (lambda folder: _replaced(folder, "data/**/data"), "Is a directory"),
    ],
)
def test_what_stands_in_the_way_is_named(tmp_path: Path, make: Callable[[Path], object], said: str) -> None:
    make(tmp_path / "kept")
    with pytest.raises(UsageError, match=said) as caught:
        copy(tmp_path / "kept")
    assert "remove it, or name another folder" in caught.value.hint


def _replaced(folder: Path, pattern: str) -> None:
    """Put folders with something in them in the place of files."""
    copy(folder)
    for path in [found for found in folder.rglob(pattern) if found.is_file()]:
        path.unlink()
        (path / "x").mkdir(parents=True)
