"""The files that loading reads of a workspace, and a record of them: files, names that match a glob, places of packages."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from bkrules.incremental.dependencies import current
from bkrules.loading.glob import BUILD_FILE, Glob, search
from bkrules.loading.meter import MOST_BYTES
from bkrules.loading.root import MARKER
from bkrules.model import digest
from bkrules.model.digest import Digest
from bkrules.system.files import read_regular

_NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG}


@dataclass
class Record:
    """The record of reads: files by path, the names that each glob found, and whether build files exist."""

    files: dict[str, Digest] = field(default_factory=dict)
    globs: dict[Glob, tuple[str, ...]] = field(default_factory=dict)
    exists: dict[str, bool] = field(default_factory=dict)

    def add(self, other: Record) -> None:
        """Add the entries of another record."""
        self.files.update(other.files)
        self.globs.update(other.globs)
        self.exists.update(other.exists)


def build_file(package: str) -> str:
    """Return the path of a package's build file."""
    return f"{package}/{BUILD_FILE}" if package else MARKER


class Sources:
    """The files of the workspace at `root`, or none without it. `seen` is called before each read."""

    def __init__(self, root: str | None, seen: Callable[[Record], None] = lambda _record: None) -> None:
        self.root = root
        self._seen = seen

    def read(self, path: str, record: Record) -> bytes | None:
        """Return the bytes of a file, or None when it does not exist. Raises OSError when it cannot be read."""
        if self.root is None:
            return None
        try:
            data = read_regular(current().note(f"{self.root}/{path}"), MOST_BYTES + 1)  # larger files are refused
        except OSError as error:
            if error.errno in _NO_FILE:
                return None
            raise
        self._note(record, Record(files={path: digest.of_bytes(data)}))
        return data

    def is_package(self, package: str, record: Record) -> bool:
        """Return whether a folder is a package."""
        path = build_file(package)
        exists = self.root is not None and os.path.isfile(current().note(f"{self.root}/{path}"))
        self._note(record, Record(exists={path: exists}))
        return exists

    def inside(self, path: str) -> bool:
        """Return whether a path of the workspace stays in it, symbolic links followed."""
        root = os.path.realpath(self.root or "")
        return os.path.realpath(f"{root}/{path}").startswith(f"{root}/")

    def glob(self, glob: Glob, record: Record, charge: Callable[[int], None] = lambda _steps: None) -> tuple[str, ...]:
        """Return the names that a glob finds. `charge` is called with the steps of the search. Raises BadGlob."""
        names = search(self.root, glob, charge).names if self.root is not None else ()
        self._note(record, Record(globs={glob: names}))
        return names

    def beside(self, package: str) -> list[str]:
        """Return the macro files of a package, for a hint."""
        return list(self.glob(Glob(package, ("*.py",), (BUILD_FILE, MARKER)), Record()))

    def _note(self, record: Record, facts: Record) -> None:
        record.add(facts)
        self._seen(facts)
