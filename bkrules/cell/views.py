"""The files of this machine that cells may read, as file systems that no process can write to.

A read-only bind protects nothing from a process with CAP_SYS_ADMIN, which can remount it writable. An overlay without
an upper folder is always read-only, and has no file handles by which other files of its file system could be opened.
There is one for each folder of the machine, mounted once a run in the mount namespace of the zygote; each cell binds
the parts that it needs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from bkrules.sandbox import syscalls


class Views:
    """The overlays of a run. They end with the mount namespace of the process that made them."""

    def __init__(self) -> None:
        self._paths: dict[str, str] = {}

    def of(self, binds: Iterable[tuple[str, str]], folder: str) -> list[tuple[str, str]]:
        """Return the same binds with each source replaced by its view. `folder` is an empty folder of the run.

        A file is shown through the view of its folder. Raises OSError that names the source.
        """
        found = []
        for source, target in binds:
            path = os.path.realpath(source)
            try:
                os.stat(path)
                if os.path.isdir(path):
                    found.append((self._view(path, folder), target))
                else:
                    found.append((f"{self._view(os.path.dirname(path), folder)}/{os.path.basename(path)}", target))
            except OSError as error:
                raise OSError(
                    error.errno, f"{source} cannot be shown at {target}: {os.strerror(error.errno or 0)}"
                ) from error
        return found

    def _view(self, source: str, folder: str) -> str:
        if not self._paths:
            syscalls.mount("bk", folder, "tmpfs", 0, "mode=700")
            os.mkdir(f"{folder}/empty")
        if source not in self._paths:
            view = f"{folder}/{len(self._paths)}"
            os.mkdir(view)
            syscalls.overlay(source, f"{folder}/empty", view)
            self._paths[source] = view
        return self._paths[source]
