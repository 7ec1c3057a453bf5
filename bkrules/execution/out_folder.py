"""The folder /out of a cell, seen from outside: a tmpfs of the cell's own, whose files bk copies to its folder of results.

A cell never sees a folder of the machine that it may write to: from one, a root could reach every file of that file system. Logs
are copied while they grow, so that a user can read them meanwhile, and all the rest when the cell has ended. No link is followed.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

LIVE = (".log",)
_OF_A_TEST = (".log", ".stacks")
_DEEPEST = 100
_PIECE = 1 << 24
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


class OutFolder:
    """`source` is a descriptor of the cell's folder, `target` the path of bk's. Logs that are there already belong to others."""

    def __init__(self, source: int, target: str) -> None:
        self._source, self._target = source, target
        self._begin: dict[str, tuple[int, int]] = {}
        self._copied: dict[str, tuple[int, int]] = {}
        self.strange: list[str] = []

    def begin(self, target: str) -> None:
        """From now on, what is written belongs to another test, and its folder of results is `target`."""
        self._target = target
        self._begin = {name: (status.st_ino, status.st_size) for name, status in self._files(LIVE)}
        self._copied = {}

    def sync(self) -> None:
        """Copy what has been added to the logs. Raises OSError."""
        for name, _ in self._files(LIVE):
            self._append(name)

    def finish_test(self) -> None:
        """Copy the logs of the test that `begin` was told of. Raises OSError."""
        for name, _ in self._files(_OF_A_TEST):
            self._append(name)

    def finish(self) -> None:
        """Copy all that is left. Raises OSError. What is neither a file, a folder nor a link is named in `strange`."""
        self.sync()
        target = os.open(self._target, _FOLDER)
        try:
            self._copy(self._source, target, self._target, 0)
        finally:
            os.close(target)

    def _files(self, endings: tuple[str, ...]) -> list[tuple[str, os.stat_result]]:
        """The regular files at the top with one of these endings."""
        found = []
        for name in sorted(os.listdir(self._source)):
            if name.endswith(endings):
                with suppress(FileNotFoundError):
                    status = os.stat(name, dir_fd=self._source, follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        found.append((name, status))
        return found

    def _append(self, name: str) -> None:
        try:
            file = os.open(name, _READ, dir_fd=self._source)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
                return  # the test has replaced it meanwhile
            raise
        try:
            status = os.fstat(file)
            inode, start = self._begin.get(name, (0, 0))
            start = start if inode == status.st_ino else 0
            inode, done = self._copied.get(name, (status.st_ino, start))
            done = done if inode == status.st_ino else start
            if not stat.S_ISREG(status.st_mode) or (done == status.st_size and name in self._copied):
                return
            if name not in self._copied and start and start == status.st_size:
                return  # nothing of it is new
            out = os.open(f"{self._target}/{name}", _APPEND, 0o644)
            try:
                if status.st_size < done:  # its end was moved to another file
                    os.ftruncate(out, max(0, status.st_size - start))
                    done = status.st_size
                self._copied[name] = (status.st_ino, done + _pour(file, out, done, status.st_size))
            finally:
                os.close(out)
        finally:
            os.close(file)

    def _copy(self, source: int, target: int, shown: str, depth: int) -> None:
        with os.scandir(source) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if depth or entry.name not in self._copied:
                    self._copy_one(entry, source, target, f"{shown}/{entry.name}", depth)

    def _copy_one(self, entry: os.DirEntry[str], source: int, target: int, shown: str, depth: int) -> None:
        status = entry.stat(follow_symlinks=False)
        mode = stat.S_IMODE(status.st_mode) & 0o777
        if entry.is_symlink():  # kept as one, so that bk can say what it was; nobody follows it
            os.symlink(os.readlink(entry.name, dir_fd=source), entry.name, dir_fd=target)
        elif stat.S_ISDIR(status.st_mode) and depth < _DEEPEST:
            os.mkdir(entry.name, dir_fd=target)
            inner, outer = os.open(entry.name, _FOLDER, dir_fd=source), os.open(entry.name, _FOLDER, dir_fd=target)
            try:
                self._copy(inner, outer, shown, depth + 1)
                os.fchmod(outer, mode | 0o700)
            finally:
                os.close(inner)
                os.close(outer)
        elif stat.S_ISREG(status.st_mode):
            file = os.open(entry.name, _READ, dir_fd=source)
            out = os.open(
                entry.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=target
            )
            try:
                _pour(file, out, 0, status.st_size)
                os.fchmod(out, mode | 0o600)
            finally:
                os.close(file)
                os.close(out)
        else:
            self.strange.append(shown)


def _pour(file: int, out: int, start: int, end: int) -> int:
    """Copy the bytes from `start` to `end` to the end of `out`, holes as holes. Return how many there were."""
    place = start
    while place < end:
        try:
            data = os.lseek(file, place, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # nothing but a hole is left
                raise
            data = end
        if data > place:
            os.ftruncate(out, os.fstat(out).st_size + min(data, end) - place)
            place = min(data, end)
            continue
        hole = min(os.lseek(file, place, os.SEEK_HOLE), end)
        os.lseek(out, 0, os.SEEK_END)
        while place < hole:
            piece = os.pread(file, min(_PIECE, hole - place), place)
            if not piece:
                return place - start
            place += len(piece)
            while piece:
                piece = piece[os.write(out, piece) :]
    return place - start
