"""The output of tests, beyond the tails of failed ones: each log as a block, or line by line while a test runs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from bkrules.execution.result import Result
from bkrules.model.action import Action, Cell, FileNode
from bkrules.plugin.spec import hookimpl
from bkrules.report.ci import current_ci
from bkrules.report.progress import Progress
from bkrules.sandbox import outputs
from bkrules.system.files import read_text

LOG = "test.log"
_PERIOD = 0.1
_RULE = "=" * 80


def block(result: Result, out: Path) -> str:
    """Return the whole output of a cell's test, between two rules as in Bazel; empty without a log."""
    cell = result.action.cell
    assert cell is not None
    log = result.outputs.get(LOG)
    path = Path(log.path) if isinstance(log, FileNode) else out / folder_of(cell) / LOG
    if not path.is_file():
        return ""
    head = f"==================== Test output for {cell.label}:"
    return f"{head}\n{read_text(path).rstrip()}\n{_RULE}"


def folder_of(cell: Cell) -> Path:
    """Return the folder of a cell's logs below `bk-out`."""
    return Path(cell.matrix.package, cell.matrix.name, cell.folder)


class Follower:
    """Prints each line that is written to a log from now on, until `stop`. Existing lines belong to another run.

    A new log may replace the log meanwhile, as for each attempt.
    """

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self._path, self._say = path, say
        self._over = threading.Event()
        self._file = self._opened()
        self._rest = b""
        if self._file is not None:
            self._file.seek(0, os.SEEK_END)
        self._thread = threading.Thread(target=self._follow, name="follower", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Print the rest, and end."""
        self._over.set()
        self._thread.join()
        if self._file is not None:
            self._file.close()

    def _follow(self) -> None:
        over = False
        while not over:
            over = self._over.wait(_PERIOD)  # lines written before that are read afterwards
            newer = self._opened()
            self._read()
            if newer is not None and (self._file is None or not _is_same(newer, self._file)):
                self._end()
                self._file, newer = newer, self._file
                self._read()
            if newer is not None:
                newer.close()
        self._end()

    def _opened(self) -> BinaryIO | None:
        """Return the log, or None when its test has replaced it by a link or a FIFO."""
        with (
            suppress(FileNotFoundError, outputs.BadOutput),
            outputs.opened(self._path.parent) as folder,
            outputs.file(folder, self._path.name) as descriptor,
        ):
            return os.fdopen(os.dup(descriptor), "rb")
        return None

    def _read(self) -> None:
        if self._file is not None:
            *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
            for line in lines:
                self._say(line.decode(errors="replace"))

    def _end(self) -> None:
        """Print the last line, which has no end."""
        if self._rest:
            self._say(self._rest.decode(errors="replace"))
        self._rest = b""


class Display:
    """The display of a running build: its progress, and the output of its tests by `choice`, one of TEST_OUTPUTS.

    `seconds` is how long an action took when it last ran, if ever.
    """

    def __init__(
        self, progress: Progress, out: Path, choice: str, seconds: Callable[[str], float | None] = lambda _: None
    ) -> None:
        self._seconds = seconds
        self._progress, self._out, self._choice = progress, out, choice
        self._followers: dict[str, Follower] = {}

    @hookimpl
    def bk_build_started(self, actions: int) -> None:
        """Count up to so many actions."""
        self._progress.total = actions

    @hookimpl
    def bk_action_started(self, action: Action) -> None:
        """Show what runs."""
        self._progress.start(action, self._seconds(action.id))
        if action.cell is not None and self._choice == "streamed":
            self._followers[action.id] = Follower(self._out / folder_of(action.cell) / LOG, self._progress.say)

    @hookimpl
    def bk_action_finished(self, result: Result) -> None:
        """Show what became of an action."""
        if result.action.id in self._followers:
            self._followers.pop(result.action.id).stop()
        self._progress.end(result)
        if result.action.cell is not None and self._choice == "all" and (text := block(result, self._out)):
            self._progress.say(current_ci().grouped(result.action.title, text))

    def close(self) -> None:
        """Stop: nothing runs any more, or it no longer matters."""
        while self._followers:
            self._followers.popitem()[1].stop()
        self._progress.close()


def _is_same(left: BinaryIO, right: BinaryIO) -> bool:
    """Return whether two open files are the same. While one of them is open, no new file gets its number."""
    return os.path.samestat(os.fstat(left.fileno()), os.fstat(right.fileno()))
