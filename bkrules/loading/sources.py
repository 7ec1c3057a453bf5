"""The files that loading reads of a workspace, and a record of them: files, names that match a glob, places of packages."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from bkrules.errors import LoadError
from bkrules.incremental.dependencies import current
from bkrules.loading.glob import BUILD_FILE, Glob
from bkrules.loading.meter import MOST_BYTES
from bkrules.loading.modules import Modules
from bkrules.loading.root import MARKER
from bkrules.model import digest
from bkrules.model.digest import Digest
from bkrules.model.label import Label, module_of, root_of
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
    name = MARKER if package == root_of(package) else BUILD_FILE
    return f"{package}/{name}" if package else name


class Sources:
    """The files of the workspace at `root` and of its modules, or none without it. `seen` is called after each read."""

    def __init__(
        self,
        root: str | None,
        seen: Callable[[Record], None] = lambda _record: None,
        modules: Modules | None = None,
    ) -> None:
        self._modules = modules or (Modules(root) if root is not None else None)
        self._seen = seen

    def read(self, path: str, record: Record) -> bytes | None:
        """Return the bytes of a file, or None when it does not exist. Raises OSError when it cannot be read, and LoadError
        for a link that leads out of a module.
        """
        if self._modules is None:
            return None
        place = current().note(self._modules.place(path))
        if module_of(path) and os.path.isfile(place) and not self._modules.inside(path):
            raise LoadError("link-out", f"{path}: it is a link that leads out of the module", where=f"{path}:1")
        try:
            data = read_regular(place, MOST_BYTES + 1)  # larger files are refused
        except OSError as error:
            if error.errno in _NO_FILE:
                return None
            raise
        self._note(record, Record(files={path: digest.of_bytes(data)}))
        return data

    def is_package(self, package: str, record: Record) -> bool:
        """Return whether a folder is a package."""
        path = build_file(package)
        exists = self._modules is not None and os.path.isfile(current().note(self._modules.place(path)))
        self._note(record, Record(exists={path: exists}))
        return exists

    def inside(self, path: str) -> bool:
        """Return whether a path of the workspace stays in it, or in its module, symbolic links followed."""
        return self._modules is not None and self._modules.inside(path)

    def check(self, label: Label, by: str) -> None:
        """Raise LoadError for a label of a module that the package `by` cannot use."""
        if self._modules is not None:
            self._modules.check(label.package, by)

    def glob(self, glob: Glob, record: Record, charge: Callable[[int], None] = lambda _steps: None) -> tuple[str, ...]:
        """Return the names that a glob finds. `charge` is called with the steps of the search. Raises BadGlob."""
        names = self._modules.find(glob, charge).names if self._modules is not None else ()
        self._note(record, Record(globs={glob: names}))
        return names

    def beside(self, package: str) -> list[str]:
        """Return the macro files of a package, for a hint."""
        return list(self.glob(Glob(package, ("*.py",), (BUILD_FILE, MARKER)), Record()))

    def _note(self, record: Record, facts: Record) -> None:
        record.add(facts)
        self._seen(facts)
