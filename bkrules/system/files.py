"""Open files by names that anybody may have created.

Opening a FIFO waits for its other end, and a device has no end. A folder of the user, of a cache or of outputs can
contain all of these, so bk opens files there without waiting, and only regular files.
"""

from __future__ import annotations

import errno
import io
import os
from stat import S_ISDIR, S_ISREG


def open_regular(path: str | os.PathLike[str], *, follow: bool = True) -> io.BufferedReader:
    """Open a regular file for reading. `follow` says whether `path` may be a symbolic link.

    Raises OSError: EISDIR for a folder, ELOOP for a link that is not followed, ENXIO for anything else that is no file.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    return os.fdopen(_regular(os.open(path, flags), path), "rb")


def _regular(descriptor: int, path: str | os.PathLike[str]) -> int:
    mode = os.fstat(descriptor).st_mode
    if S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    raise OSError(errno.ENXIO, "it is not a regular file", os.fspath(path))


def open_lock(path: str | os.PathLike[str]) -> int:
    """Return a descriptor of a lock's file, which is made when it is missing.

    Raises OSError as `open_regular` does, and ELOOP for a symbolic link that leads nowhere.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return _regular(os.open(path, flags, 0o644), path)
    except FileNotFoundError as error:
        if not os.path.islink(path):
            raise
        raise OSError(errno.ELOOP, "the link leads nowhere", os.fspath(path)) from error


def read_text(path: str | os.PathLike[str]) -> str:
    """Return the text of a regular file, with a mark for each byte that is not UTF-8. Raises OSError as `open_regular` does."""
    return read_regular(path).decode(errors="replace")


def text_or_nothing(path: str | os.PathLike[str]) -> str:
    """Return the text of a regular file as `read_text` does, and an empty text for one that cannot be read."""
    try:
        return read_text(path)
    except OSError:
        return ""


def read_regular(path: str | os.PathLike[str], most: int = -1) -> bytes:
    """Return the bytes of a regular file, at most `most` of them when that is given. Raises OSError as `open_regular` does."""
    with open_regular(path) as file:
        return file.read(most)
