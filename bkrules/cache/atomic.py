"""Atomic writes: readers see a file whole or not at all."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

_NAME_MAX = 255
"""How many bytes the name of a file has at most on Linux's file systems."""
_SHORT = 32
"""How many characters stay of a name that is too long for a suffix: with four bytes each, there is room for one."""


def temporary(path: str) -> str:
    """Return a name next to `path` that no other thread or process uses, and that is never too long."""
    folder, name = os.path.split(path)
    suffix = f".{os.urandom(8).hex()}.tmp"
    if len(os.fsencode(name)) + len(suffix) > _NAME_MAX:
        name = name[:_SHORT]
    return os.path.join(folder, name + suffix)


@contextmanager
def _renamed(path: str) -> Iterator[str]:
    """Yield a temporary name, which is renamed to `path` at the end, or removed after an exception."""
    scratch = temporary(path)
    try:
        yield scratch
        os.rename(scratch, path)
    except BaseException:
        if os.path.exists(scratch):
            os.unlink(scratch)
        raise


def write(path: str, data: bytes, mode: int = 0o644) -> None:
    """Write a file by rename; create its folder when it is missing."""
    with _renamed(path) as scratch:
        fd = _create(scratch, mode)
        try:
            os.fchmod(fd, mode)  # whatever the umask
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        finally:
            os.close(fd)


def write_chunks(path: str, chunks: Iterable[bytes], mode: int) -> None:
    """Write a file by rename, as its bytes arrive. An exception of `chunks` leaves no file."""
    with _renamed(path) as scratch, open(_create(scratch, mode), "wb") as file:
        os.fchmod(file.fileno(), mode)
        for chunk in chunks:
            file.write(chunk)


def copy(source: str, target: str, mode: int) -> None:
    """Copy a file's bytes by rename; create the target's folder when it is missing."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with _renamed(target) as scratch:
        shutil.copyfile(source, scratch)
        os.chmod(scratch, mode)


def place(source: str, target: str | os.PathLike[str]) -> None:
    """Put a stored file at `target`, whole or not at all: as a hard link, or as a copy when the cache is on another file system."""
    try:
        _link(source, os.fspath(target))
    except OSError:
        copy(source, os.fspath(target), stat.S_IMODE(os.stat(source).st_mode))


def _link(source: str, target: str) -> None:
    try:
        try:
            os.link(source, target)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.link(source, target)
    except FileExistsError:
        scratch = temporary(target)
        os.link(source, scratch)
        try:
            os.rename(scratch, target)
        finally:
            # rename(2) keeps both names when `target` is already a link to the same file.
            with suppress(FileNotFoundError):
                os.unlink(scratch)


def _create(path: str, mode: int) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, mode)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return os.open(path, flags, mode)
