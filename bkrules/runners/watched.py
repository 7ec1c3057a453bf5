"""The progress of a running command, by the files that it writes. Nothing is read unless somebody looks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from bkrules.execution.doing import bytes_text
from bkrules.system.files import open_regular

_STEP = re.compile(rb'"name":"Executing action \((build|link) (?!check cache )[^"]*\)","ph":"([BE])"')
_WHEEL = re.compile(rb"\.whl \((\d+(?:\.\d+)?) (bytes|kB|MB|GB)\)")
_UNITS = {b"bytes": 1, b"kB": 10**3, b"MB": 10**6, b"GB": 10**9}
"""The units of pip."""


class GrowingFile:
    """A file to which another process appends."""

    def __init__(self, path: Path) -> None:
        self._path, self._place, self._rest = path, 0, b""

    def lines(self) -> Iterator[bytes]:
        """Yield the whole lines that are new since the last call; none while there is no such file."""
        with suppress(OSError), open_regular(str(self._path)) as file:
            file.seek(self._place)
            data = file.read()
            self._place += len(data)
            *lines, self._rest = (self._rest + data).split(b"\n")
            yield from lines


class Compiled:
    """The packages that Go has compiled, or taken from its cache, by the trace that `go build -debug-trace` writes.

    `total` is how many there are; 0 means that nobody knows. Each call returns the words for now.
    """

    def __init__(self, trace: Path, total: int) -> None:
        self._file, self._total = GrowingFile(trace), total
        self._done, self._links = 0, False

    def __call__(self) -> str:
        """Return `212/843 packages`, or that Go links."""
        for line in self._file.lines():
            if step := _STEP.search(line):
                self._links |= step[1] == b"link"
                self._done += step[1] == b"build" and step[2] == b"E"
        if self._links:
            return "links"
        of_all = f"/{max(self._total, self._done)}" if self._total else ""
        return f"{self._done}{of_all} packages"


class FetchedModules:
    """The modules that Go has begun to fetch, by its log. How many there are, only the end of it tells."""

    def __init__(self, log: Path) -> None:
        self._file, self._count = GrowingFile(log), 0

    def __call__(self) -> str:
        """Return how many there are so far."""
        self._count += sum(line.startswith(b"go: downloading ") for line in self._file.lines())
        return f"fetches modules: {self._count} so far" if self._count else "looks for modules"


class FetchedWheel:
    """The bytes of a wheel that pip has fetched to somewhere below a folder, of so many as its log tells."""

    def __init__(self, folder: Path, log: Path) -> None:
        self._folder, self._file = folder, GrowingFile(log)
        self._done = self._total = 0

    def __call__(self) -> str:
        """Return `12.3 of 65.0 MiB`; nothing before the first byte."""
        for line in self._file.lines():
            if size := _WHEEL.search(line):
                self._total = round(float(size[1]) * _UNITS[size[2]])
        with suppress(OSError):  # pip moves the file meanwhile
            self._done = max(self._done, *(path.stat().st_size for path in self._folder.rglob("*.whl")), 0)
        return bytes_text(self._done, max(self._total, self._done)) if self._done else ""
