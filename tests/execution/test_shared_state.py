"""The comparison of a shared worker's state skips what no process can change, and nothing else."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from fresh import in_fresh_process

from bkrules.cell import state
from bkrules.sandbox import syscalls

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
_REMOUNT = 32


def test_only_an_overlay_without_an_upper_folder_is_constant(tmp_path: Path) -> None:
    in_fresh_process(_mount_and_compare, str(tmp_path))


def _mount_and_compare(place: str) -> None:
    """Mount folders in a new mount namespace, with a file in each."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
    syscalls.mount("test", place, "tmpfs", 0, "")
    folder = Path(place)
    for name in (
        "source",
        "empty",
        "upper",
        "work",
        "watched/view",
        "watched/written",
        "watched/bind",
        "watched/covered",
    ):
        (folder / name).mkdir(parents=True)
    (folder / "source/file").touch()
    watched = folder / "watched"
    for name in ("view", "covered"):
        syscalls.overlay(f"{place}/source", f"{place}/empty", f"{watched}/{name}")
    layers = f"lowerdir={place}/source,upperdir={place}/upper,workdir={place}/work"
    syscalls.mount("test", f"{watched}/written", "overlay", 0, layers)
    syscalls.bind(f"{place}/source", f"{watched}/bind", read_only=True)
    assert state.names(str(watched)) == [f"{watched}/bind/file", f"{watched}/written/file"]

    for flags in (_REMOUNT, _REMOUNT | syscalls.MS_BIND):
        try:
            syscalls.mount("test", f"{watched}/view", flags=flags)
            (watched / "view/new").touch()
            raise AssertionError("a view was written to")
        except OSError as error:
            assert error.errno == errno.EROFS

    syscalls.mount("test", f"{watched}/covered", "tmpfs", 0, "")
    (watched / "covered/new").touch()
    assert f"{watched}/covered/new" in state.names(str(watched))
