"""Every error that bk reports, as one tree.

    BkError
    |- UsageError       2   the command line is wrong
    |- LoadError        1   a WORKSPACE.py or BUILD.py is wrong
    |- ActionFailed     1   an action ran and failed
    |- RemoteFailed    34   a remote cache or an engine failed, without which there is no answer
    |- MachineLacks    36   this machine cannot run what was asked
    `- Interrupted      8   Ctrl-C, SIGTERM or SIGHUP

Exit codes are Bazel's. An exception outside this tree is a bug of bk: exit code 37, with its traceback.
"""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Iterable

SUCCESS = 0
BUILD_FAILED = 1
USAGE = 2
TESTS_FAILED = 3
NOTHING_RAN = 4
ANOTHER_OUTCOME = 5
INTERRUPTED = 8
REMOTE_FAILED = 34
MACHINE_LACKS = 36
BUG = 37


_LONGEST = 4_000
"""The limit of characters of a line of an error."""


def _cut(text: str) -> str:
    """Return a text whose long lines lack their middle."""
    return text if len(text) <= _LONGEST else "\n".join(map(_cut_line, text.splitlines()))


def _cut_line(line: str) -> str:
    if len(line) <= _LONGEST:
        return line
    begin, end = line[:3_000], line[-800:]
    return f"{begin} ... {len(line) - len(begin) - len(end):,} characters ... {end}"


class BkError(Exception):
    """An error that a user can act on.

    `reason` is a stable slug that tests compare. `where` is `file:line`, optionally followed by the attribute; `hint`
    says what to do next. A line of more than 4,000 characters, such as a value of a build file, loses its middle. `str()` is
    the whole message, without the leading `error: `.
    """

    exit_code = BUILD_FAILED

    def __init__(self, reason: str, message: str, *, where: str = "", hint: str = "") -> None:
        message, hint = _cut(message), _cut(hint)
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.message]
        lines += [f"  {line}" for part in (self.where, self.hint) if part for line in part.splitlines()]
        return "\n".join(lines)


class UsageError(BkError):
    """The command line cannot be understood."""

    exit_code = USAGE


class LoadError(BkError):
    """A WORKSPACE.py or BUILD.py cannot be loaded or analysed."""


class ActionFailed(BkError):
    """An action ran and failed. `log` is the tail of its output."""

    def __init__(self, reason: str, message: str, *, where: str = "", hint: str = "", log: str = "") -> None:
        super().__init__(reason, message, where=where, hint=hint)
        self.log = log


class RemoteFailed(BkError):
    """A remote cache or an engine failed, and there is no answer without it."""

    exit_code = REMOTE_FAILED


class MachineLacks(BkError):
    """This machine lacks something that the work needs."""

    exit_code = MACHINE_LACKS


class Interrupted(BkError):
    """The user asked bk to stop."""

    exit_code = INTERRUPTED


CACHE, OUTPUT = "disk cache", "bk-out"
PLACES: dict[str, str] = {}
"""The folders that this process writes to, by CACHE and OUTPUT, as soon as they are known."""

_OTHER = {CACHE: ", or choose another place with --disk_cache"}
_ROOM = {
    CACHE: "make room there, as with `bk cache gc --max_size=2G`, or choose another place with --disk_cache",
    OUTPUT: "make room there, where bk writes outputs, logs and reports, or make bk-out a link to a folder elsewhere",
}
_FULL = (errno.ENOSPC, errno.EDQUOT)
_CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)
_TAKEN = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP, errno.ENXIO)
_REMEDIES = {
    errno.EFBIG: "allow larger files:  ulimit -f unlimited",
    errno.ENAMETOOLONG: "choose shorter names, or a place nearer to the root of the disk",
    errno.EMFILE: "allow more open files:  ulimit -n 4096",
    errno.ENFILE: "allow more open files:  sysctl fs.file-max",
    errno.EAGAIN: "allow more processes, or run fewer at once with --jobs",
    errno.ENOMEM: "free some memory, or run fewer actions at once with --jobs",
    errno.EIO: "look at the disk: the kernel's log says more",
}


def of_machine(error: OSError) -> MachineLacks | None:
    """Return a BkError for an error of the machine's state, such as a full disk; None when the cause must be a bug of bk.

    It names the path, and the remedy for the folder of PLACES in which that is. A write to a full disk names no path:
    then it is the fullest of PLACES.
    """
    number = error.errno or 0
    path = _path(error)
    text = error.strerror or str(error)
    if number in _FULL:
        path = path or min(PLACES.values(), key=_room, default="")
        text = "no free inodes" if number == errno.ENOSPC and _has_no_inodes(path) else text
    place = next((name for name, folder in PLACES.items() if f"{path}/".startswith(f"{folder}/")), "")
    if number == errno.ENOENT and path:
        # bk makes this folder with all those above it; where it cannot, as in /proc, they do not exist.
        place = next((name for name, folder in PLACES.items() if f"{folder}/".startswith(f"{path}/")), "")
        remedy = f"make the folders above it{_OTHER.get(place, '')}" if place else None
    elif number in _FULL:
        remedy = _ROOM.get(place, "make room there")
    elif number in _CLOSED:
        remedy = f"make it writable{_OTHER.get(place, '')}"
    elif number in _TAKEN:
        remedy = f"something else is in the place of a file or folder of bk: remove it{_OTHER.get(place, '')}"
    else:
        remedy = _REMEDIES.get(number)
    if remedy is None:
        return None
    return MachineLacks("machine", f"{path}: {text}" if path else text, hint=remedy)


def _path(error: OSError) -> str:
    """Return the path of an error. Of two, the second one is the new name, which takes the room."""
    for name in (error.filename2, error.filename):
        if isinstance(name, str | bytes) and name:
            return os.fsdecode(name)
    return ""


def _statistics(path: str) -> os.statvfs_result | None:
    """Return the room of the file system of a path, or of the nearest folder above it that exists."""
    above = path
    while above:
        try:
            return os.statvfs(above)
        except OSError:
            above = os.path.dirname(above) if above not in ("/", os.path.dirname(above)) else ""
    return None


def _room(path: str) -> int:
    found = _statistics(path)
    return found.f_bavail * found.f_frsize if found else 0


def _has_no_inodes(path: str) -> bool:
    few = 16  # the failed write may have freed some
    found = _statistics(path)
    return found is not None and found.f_files > 0 and found.f_favail < few and found.f_bavail > 0


def exit_code_of(error: BaseException) -> int:
    """Return the exit code of a bk that ends with this error."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    lack = of_machine(error) if isinstance(error, OSError) else None
    known = error if isinstance(error, BkError) else lack
    return known.exit_code if known is not None else BUG


def error_text(error: BkError) -> str:
    """Return an error as it is printed."""
    return f"error: {error}"


def did_you_mean(word: str, known: Iterable[str], what: str = "known") -> str:
    """Return a hint that names the nearest of `known`, followed by all of `known`, in order, unless that is too long: more
    than a few when one is near, or more than a screen.
    """
    letters, compared, few, named = 100, 2_000, 15, 100
    choices = sorted(known)
    short = [choice for choice in choices[:compared] if len(choice) <= letters]  # comparing two words is cubic
    near = difflib.get_close_matches(word, short, n=1) if len(word) <= letters else []
    if near and len(choices) > few:
        return f"did you mean {near[0]!r}?"
    start = f"did you mean {near[0]!r}? " if near else ""
    more = [f"and {len(choices) - named} more"] if len(choices) > named else []
    return f"{start}{what}: {', '.join([*choices[:named], *more]) or 'none'}"


def is_near(word: str, other: str) -> bool:
    """Return whether two words differ in one letter, or by two letters that are swapped."""
    if len(word) == len(other):
        places = [place for place, pair in enumerate(zip(word, other, strict=True)) if pair[0] != pair[1]]
        swapped = len(places) == 2 and word[places[0]] + word[places[1]] == other[places[1]] + other[places[0]]
        return len(places) == 1 or swapped
    short, long = sorted((word, other), key=len)
    return len(long) - len(short) == 1 and any(long[:at] + long[at + 1 :] == short for at in range(len(long)))
