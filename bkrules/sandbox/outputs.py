"""The outputs of actions and cells: regular files and folders beneath one folder, read without following a link.

The folder belongs to bk. Its content is untrusted: there may be a link, a FIFO or a device in the place of a declared
file. So nothing here opens a path that could lead out of the folder, or waits for another process.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bkrules.cache.cas import Cas
from bkrules.errors import MachineLacks
from bkrules.model.digest import Digest
from bkrules.sandbox import syscalls

LONGEST = 1024
"""The limit in bytes of a file's path beneath an output: with the path of the user's folder before it, it must still be valid."""
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
    stat.S_IFREG: "a file",
}
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class BadOutput(Exception):
    """An output is not as declared. The text names the output, and what it is instead."""


class TooLarge(BadOutput):
    """Outputs exceed the limit of their action."""


class Room:
    """The remaining bytes for outputs, of `most` together; unlimited when that is 0."""

    def __init__(self, most: int) -> None:
        self._limited, self._left = bool(most), most

    def take(self, size: int, name: str) -> None:
        """Raise TooLarge when a file of that size, including its holes, exceeds the rest."""
        self._left -= size
        if self._limited and self._left < 0:
            raise TooLarge(f"{shown(name)} has {size >> 20} MiB")


@contextmanager
def opened(folder: str | os.PathLike[str]) -> Iterator[int]:
    """Open a folder that belongs to bk."""
    descriptor = os.open(folder, _FOLDER)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def file(folder: int, name: str) -> Iterator[int]:
    """Open the regular file `name` beneath a folder. Raises BadOutput, and FileNotFoundError when it does not exist."""
    with _pinned_file(folder, name) as pin:
        descriptor = os.open(f"/proc/self/fd/{pin}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def check_file(folder: int, name: str) -> None:
    """Raise BadOutput when `name` beneath a folder is not a regular file, FileNotFoundError when it does not exist."""
    with _pinned_file(folder, name):
        pass


def store(folder: int, name: str, cas: Cas, room: Room) -> tuple[Digest, bool]:
    """Store the bytes of a file beneath a folder. Return their digest, and whether the file is executable. Raises as `file` does.

    The bytes are copied and hashed through one descriptor. Raises TooLarge when they exceed the rest.
    """
    with file(folder, name) as descriptor:
        status = os.fstat(descriptor)
        room.take(status.st_size, name)
        try:
            return cas.put_open(descriptor), bool(status.st_mode & stat.S_IXUSR)
        except ValueError:
            raise BadOutput(f"{shown(name)} changed while bk read it") from None


def files(folder: int, name: str) -> Iterator[str]:
    """Yield the files of the output folder `name`, by their paths below it. Raises BadOutput for anything but files and folders."""
    with _pinned(folder, name) as (_, mode):
        if not stat.S_ISDIR(mode):
            raise BadOutput(f"{shown(name)} is {kind(mode)}, not a folder")
    for path, mode in _walk(folder, name):
        if stat.S_ISREG(mode):
            yield path.removeprefix(f"{name}/")
        elif not stat.S_ISDIR(mode):
            raise BadOutput(f"{shown(path)} is {kind(mode)}, neither a file nor a folder")


def clean(folder: str | os.PathLike[str], most: int = 0) -> list[str]:
    """Remove from a folder everything but files and folders, and files larger than `most` bytes. Return a text for each.

    Afterwards, no path in the folder leads out of it.
    """
    found = []
    with opened(folder) as top:
        for path, mode in list(_walk(top, ".", forgiving=True)):
            name = path.removeprefix("./")
            problem = "" if stat.S_ISDIR(mode) else _problem(top, name, mode, most)
            if problem:
                found.append(problem)
                _remove(top, name)
    return found


def replace(folder: str | os.PathLike[str], name: str, data: bytes) -> None:
    """Write a file of bk into a folder that others wrote to. An existing file of that name is removed, and not written to."""
    with opened(folder) as top:
        _remove(top, name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(name, flags, 0o644, dir_fd=top), "wb") as out:
            out.write(data)


def read(folder: str | os.PathLike[str], name: str, most: int) -> bytes | None:
    """Return the last `most` bytes of a file beneath a folder; empty when there is no such regular file."""
    with suppress(FileNotFoundError, BadOutput), opened(folder) as top, file(top, name) as descriptor:
        size = os.fstat(descriptor).st_size
        return os.pread(descriptor, most, max(0, size - most))
    return None


def remove_tree(path: str | os.PathLike[str]) -> None:
    """Remove a folder with all its content, at any depth, without following links. Content that cannot be removed stays."""
    with suppress(OSError):
        with opened(path) as top:
            _empty(top)
        os.rmdir(path)


def kind(mode: int) -> str:
    """Return what a mode stands for: `a FIFO`."""
    return _KINDS.get(stat.S_IFMT(mode), "something unknown")


def shown(name: str) -> str:
    """Return a name for a message: undecodable bytes and line breaks are escaped."""
    text = os.fsencode(name).decode(errors="backslashreplace")
    return text if text.isprintable() else text.encode("unicode_escape").decode()


@contextmanager
def _pinned(folder: int, name: str) -> Iterator[tuple[int, int]]:
    """Open a descriptor that only names something beneath a folder, and return its mode. This opens no device and no FIFO."""
    try:
        pin = syscalls.open_beneath(folder, name, os.O_PATH | os.O_NOFOLLOW)
    except OSError as error:
        raise _told(error, folder, name) from error
    try:
        mode = os.fstat(pin).st_mode
        if stat.S_ISLNK(mode):
            raise BadOutput(f"{shown(name)} is a symbolic link")
        yield pin, mode
    finally:
        os.close(pin)


@contextmanager
def _pinned_file(folder: int, name: str) -> Iterator[int]:
    with _pinned(folder, name) as (pin, mode):
        if not stat.S_ISREG(mode):
            raise BadOutput(f"{shown(name)} is {kind(mode)}, not a file")
        yield pin


def _told(error: OSError, folder: int, name: str) -> Exception:
    if error.errno == errno.ENOSYS:
        hint = "use Linux 5.6 or newer"
        return MachineLacks("kernel", "bk reads outputs with openat2, which this kernel does not have", hint=hint)
    if error.errno == errno.ELOOP:
        parts = name.split("/")
        above = ("/".join(parts[:count]) for count in range(1, len(parts)))
        link = next((path for path in above if _is_link(folder, path)), name)
        return BadOutput(f"{shown(name)} is behind {shown(link)}, a symbolic link")
    if error.errno == errno.EXDEV:
        return BadOutput(f"{shown(name)} is not below its folder")
    if error.errno in (errno.ENOTDIR, errno.ENAMETOOLONG):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return error


def _is_link(folder: int, path: str) -> bool:
    return stat.S_ISLNK(os.stat(path, dir_fd=folder, follow_symlinks=False).st_mode)


def _walk(folder: int, name: str, *, forgiving: bool = False) -> Iterator[tuple[str, int]]:
    """Yield everything beneath `name` with its mode, up to a depth of LONGEST. Deeper content is removed, or raises BadOutput."""
    waiting = [name]
    while waiting:
        parent = waiting.pop()
        descriptor = syscalls.open_beneath(folder, parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            entries = sorted(os.listdir(descriptor))
            modes = [os.stat(entry, dir_fd=descriptor, follow_symlinks=False).st_mode for entry in entries]
        finally:
            os.close(descriptor)
        for entry, mode in zip(entries, modes, strict=True):
            path = f"{parent}/{entry}"
            problem = _unfit(path)
            if problem and not forgiving:
                raise BadOutput(problem)
            yield path, 0 if problem else mode
            if stat.S_ISDIR(mode) and not problem:
                waiting.append(path)


def _unfit(path: str) -> str:
    """Return why a path cannot be one of REAPI, which are UTF-8, or not one below a folder of the user; usually empty."""
    raw = os.fsencode(path)
    try:
        raw.decode()
    except UnicodeDecodeError:
        return f"{shown(path)} has a name that is not UTF-8"
    return f"{shown(path)[:64]}... has a path of more than {LONGEST} bytes" if len(raw) > LONGEST else ""


def _problem(folder: int, name: str, mode: int, most: int) -> str:
    if not mode:
        return _unfit(name) or f"{shown(name)[:64]}... has a path of more than {LONGEST} bytes"
    if not stat.S_ISREG(mode):
        return f"{shown(name)} is {kind(mode)}"
    size = os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
    return f"{shown(name)} has {size >> 20} MiB" if most and size > most else ""


def _remove(folder: int, name: str) -> None:
    """Remove whatever has that name beneath a folder; a name with `/` leads over no link."""
    parent, _, last = name.rpartition("/")
    with _below(folder, parent or ".") as descriptor:
        try:
            os.unlink(last, dir_fd=descriptor)
        except FileNotFoundError:
            return
        except (IsADirectoryError, PermissionError):
            with _below(descriptor, last) as inner:
                _empty(inner)
            os.rmdir(last, dir_fd=descriptor)


@contextmanager
def _below(folder: int, path: str) -> Iterator[int]:
    descriptor = syscalls.open_beneath(folder, path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _empty(top: int) -> None:
    """Empty a folder. Nested folders are moved up first, so that each can be reached."""
    while names := os.listdir(top):
        for name in names:
            try:
                os.unlink(name, dir_fd=top)
            except IsADirectoryError:
                _flatten(top, name)


def _flatten(top: int, name: str) -> None:
    """Remove a folder, and move the folders in it up to `top`."""
    with _below(top, name) as descriptor:
        for inner in os.listdir(descriptor):
            try:
                os.unlink(inner, dir_fd=descriptor)
            except IsADirectoryError:
                os.rename(inner, os.urandom(8).hex(), src_dir_fd=descriptor, dst_dir_fd=top)
    os.rmdir(name, dir_fd=top)


def tail(path: str | os.PathLike[str], most: int = 1 << 20) -> str:
    """Return the last `most` bytes of a log of bk, as text."""
    where = Path(path)
    return (read(where.parent, where.name, most) or b"").decode(errors="replace")
