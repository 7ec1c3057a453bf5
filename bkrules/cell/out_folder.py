"""The folder /out of a cell, seen from outside: a tmpfs of the cell, whose files bk copies to its folder of results.

A cell never sees a writable folder of the machine: from one, a root could reach every file of that file system. bk
copies logs while they grow, so that a user can read them meanwhile, and all other files when the cell has ended. It
follows no link, and enters no mount of the cell, whose server may never answer. The copies have a separate limit, since
a log that is rewritten again and again never fills /out.
"""

from __future__ import annotations

import errno
import os
import stat

from bkrules.model.cases import TEST_OUTPUTS
from bkrules.sandbox import syscalls

LIVE = (".log",)
_OF_A_TEST = (".log", ".stacks")
_DEEPEST = 100
_PIECE = 1 << 24
MOST_FILES = 100_000
"""The limit of files in /out at a time."""
_TIMES = 2
"""The limit of copies, as a multiple of the size of /out: logs may be truncated and rewritten."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_AWAY = (errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.EXDEV)
"""The errors for files that the test has replaced meanwhile by nothing, a link, a FIFO, a mount."""
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


class OutFolder:
    """`source` is a descriptor of the cell's folder, `target` the path of bk's. Existing logs belong to others.

    `size` is the limit in bytes of the cell's folder. `is_over`: more was written there than bk keeps. `strange` are
    the paths of entries that are neither files, folders nor links.
    """

    def __init__(self, source: int, target: str, size: int) -> None:
        self._source, self._target = source, target
        self._most = self._left = (_TIMES * size, _TIMES * MOST_FILES)
        self.is_over = False
        self._begin: dict[str, tuple[int, int]] = {}
        self._copied: dict[str, tuple[int, int]] = {}
        self.strange: list[str] = []

    def begin(self, target: str) -> None:
        """Begin another test: new files belong to it, and its folder of results is `target`."""
        self._target, self._left = target, self._most
        self._begin = {name: (status.st_ino, status.st_size) for name, status in self._files(LIVE)}
        self._copied = {}

    def sync(self) -> None:
        """Copy the new parts of the logs. Raises OSError."""
        for name, _ in self._files(LIVE):
            self._append(name)

    def finish_test(self) -> None:
        """Copy the logs of the test that has begun last, and its undeclared outputs. Raises OSError."""
        for name, _ in self._files(_OF_A_TEST):
            self._append(name)
        target = os.open(self._target, _FOLDER)
        try:
            self._copy(self._source, target, self._target, 0, only=(TEST_OUTPUTS,))
        finally:
            os.close(target)

    def finish(self) -> None:
        """Copy all that is left. Raises OSError."""
        self.sync()
        target = os.open(self._target, _FOLDER)
        try:
            self._copy(self._source, target, self._target, 0)
        finally:
            os.close(target)

    def _files(self, endings: tuple[str, ...]) -> list[tuple[str, os.stat_result]]:
        """Yield the regular files at the top with one of these suffixes."""
        found = []
        for name in sorted(os.listdir(self._source)):
            if name.endswith(endings):
                status = self._status(name)
                if status is not None and stat.S_ISREG(status.st_mode):
                    found.append((name, status))
        return found

    def _status(self, name: str) -> os.stat_result | None:
        """Return the status of an entry at the top; None when it is gone, or covered by a mount, whose server may never answer."""
        try:
            pin = syscalls.open_beneath(self._source, name, os.O_PATH | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno in _AWAY:
                return None
            raise
        try:
            return os.fstat(pin)
        finally:
            os.close(pin)

    def _take(self, size: int, files: int) -> bool:
        """Return whether so many more bytes and files are within the limit."""
        self._left = (self._left[0] - size, self._left[1] - files)
        self.is_over |= min(self._left) < 0
        return min(self._left) >= 0

    def _append(self, name: str) -> None:
        try:
            file = syscalls.open_beneath(self._source, name, _READ)
        except OSError as error:
            if error.errno in _AWAY:
                return
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
                return  # it has no new bytes
            new = max(0, min(status.st_size - done, _used(status)))
            if not self._take(new, name not in self._copied):
                return
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

    def _copy(self, source: int, target: int, shown: str, depth: int, only: tuple[str, ...] = ()) -> None:
        with os.scandir(source) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if depth or (entry.name not in self._copied and (not only or entry.name in only)):
                    self._copy_one(entry, source, target, f"{shown}/{entry.name}", depth)

    def _copy_one(self, entry: os.DirEntry[str], source: int, target: int, shown: str, depth: int) -> None:
        status = entry.stat(follow_symlinks=False)
        mode = stat.S_IMODE(status.st_mode) & 0o777
        if not self._take(_used(status), 1):
            return
        if entry.is_symlink():  # copied as a link, for the report; it is never followed
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
            file = syscalls.open_beneath(source, entry.name, _READ)
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


def _used(status: os.stat_result) -> int:
    """Return the size of a file in bytes, without its holes."""
    return status.st_blocks * 512


def _pour(file: int, out: int, start: int, end: int) -> int:
    """Copy the bytes from `start` to `end` to the end of `out`, holes as holes. Return their number."""
    place = start
    while place < end:
        try:
            data = os.lseek(file, place, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # only a hole is left
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
