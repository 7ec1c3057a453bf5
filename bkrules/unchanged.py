"""The shortest way to an answer: when nothing that it depends on has changed since it was last given, it is given again.

Only a build in which every result came from the cache leaves such an answer. It holds for the same command line in the same folder,
as long as `stat` says the same of every file and folder that the build looked at: build files, sources, tools, interpreter and
libraries, bk's own code, cache entries with their blobs, and the outputs in `bk-out`. Entries and blobs are never written to, so a
folder of the cache in which nothing came or went vouches for those in it. When something has changed, `settled.py` says what need
not be looked at again all the same.

This module is imported before anything else, so it imports next to nothing.
"""

from __future__ import annotations

import marshal
import os
import sys
import time

FORMAT = 3
COMMANDS = ("build", "test")
RACY_NS = 2_000_000_000
"""How young a file may be for `stat` to tell nothing: it can change once more without its time changing."""
SECONDS = "\0"
BETWEEN = "\0"
_MOST = (1 << 63) - 1
_FOLDER = "bk-out/.state/answers"
_MARKER = "WORKSPACE.py"
_VARIABLES = ("PATH", "HOME", "XDG_CACHE_HOME")
_PREFIXES = ("BK_", "BUILDKIT_", "SKIP_INTEGRATION_TESTS")
_SECRET = "BK_REMOTE_HEADER"
_FACTS = ("/proc/filesystems", "/proc/sys/user/max_user_namespaces", "/proc/self/uid_map")
_MOUNTS = "/proc/self/mountinfo"
_KEPT = 64

Stamp = tuple[int, int, int]
MISSING: Stamp = (-1, -1, -1)
Folder = tuple[str, Stamp | None, str, bytes]
"""A folder of the disk cache or nothing, its own stamp when that vouches for what is in it, names, and a stamp for each."""
Kept = tuple[tuple[str, ...], int, float, str, bytes]
"""What is kept of a package: see `settled.Package`, whose fields these are."""

BEGAN = time.time_ns()
last: tuple[list[Folder], set[int], bytes, dict[str, Kept]] | None = None


def answer(argv: list[str], began: float) -> int | None:
    """Print the kept answer to this command line; the exit code, or None when it has to be worked out.

    What was kept, and what of it has changed, is then in `last`.
    """
    global last
    root = _root()
    if root is None or next((word for word in argv if word[:1] != "-"), "") not in COMMANDS:
        return None
    try:
        with open(_place(root, argv), "rb") as file:
            form, asked, facts, folders, text = marshal.load(file)
            if form != FORMAT or asked != _asked(argv) or facts != _facts():
                return None
            changed = _changed(folders)
            if changed or text is None:
                last = (folders, changed, *marshal.load(file))
                return None
    except (OSError, ValueError, EOFError, TypeError):
        return None
    sys.stdout.write(text.replace(SECONDS, f"{time.monotonic() - began:.2f}"))
    sys.stdout.flush()
    return 0


def _changed(folders: list[Folder]) -> set[int]:
    """The files of which `stat` says something else now, as numbers: they are counted through all folders."""
    stat = os.stat
    changed = set()
    start = 0
    for folder, vouched, names, stamps in folders:
        numbers = memoryview(stamps).cast("q")
        count = len(numbers) // 3
        if vouched is None or stamp(folder) != vouched:
            rows = zip(names.split(BETWEEN), numbers[::3], numbers[1::3], numbers[2::3], strict=True)
            for number, (name, modified, size, inode) in enumerate(rows, start):
                try:
                    found = stat(folder + name)
                except OSError:
                    if (modified, size, inode) != MISSING:
                        changed.add(number)
                    continue
                if (modified, size, inode) != (found.st_mtime_ns, found.st_size, found.st_ino & _MOST):
                    changed.add(number)
        start += count
    return changed


def keep(
    argv: list[str], root: str, folders: list[Folder], text: str | None, for_all: bytes, packages: dict[str, Kept]
) -> None:
    """Keep an answer for the next time: its `text`, when that holds as long as nothing changes, and what it rests on.

    Of the files in `folders`, by their numbers, the whole rests on those `for_all`, and what is said of a package on its own.
    """
    place = _place(root, argv)
    os.makedirs(os.path.dirname(place), exist_ok=True)
    scratch = f"{place}.{os.getpid()}.tmp"
    with open(scratch, "wb") as file:
        marshal.dump((FORMAT, _asked(argv), _facts(), folders, text), file)
        marshal.dump((for_all, packages), file)
    os.rename(scratch, place)
    kept = sorted(os.scandir(os.path.dirname(place)), key=lambda entry: entry.stat().st_mtime_ns)
    for entry in kept[:-_KEPT]:
        os.unlink(entry.path)


def stamp(path: str) -> Stamp | None:
    """What `stat` says of a file: the time of its last change in nanoseconds, its bytes, its inode. None when it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino & _MOST


def _root() -> str | None:
    folder = os.getcwd()
    while not os.path.exists(f"{folder}/{_MARKER}"):
        folder, name = os.path.split(folder)
        if not name:
            return None
    return folder


def _place(root: str, argv: list[str]) -> str:
    """A name for the command line; two that share one by chance take turns, since the whole is compared."""
    number = 0
    for word in (os.getcwd(), *argv):
        for byte in word.encode():
            number = (number * 31 + byte + 1) & 0xFFFFFFFFFFFFFFFF
        number = number * 31 & 0xFFFFFFFFFFFFFFFF
    return f"{root}/{_FOLDER}/{number:016x}"


def _asked(argv: list[str]) -> tuple[tuple[str, ...], str, tuple[tuple[str, str], ...], int, str, str]:
    environment = {
        name: value for name, value in os.environ.items() if name in _VARIABLES or name.startswith(_PREFIXES)
    }
    environment.pop(_SECRET, None)  # of a remote cache, and no answer of a build with one is kept
    return tuple(argv), os.getcwd(), tuple(sorted(environment.items())), os.geteuid(), sys.executable, sys.version


def _facts() -> tuple[str, ...]:
    found = []
    for path in _FACTS:
        with open(path) as file:
            found.append(file.read())
    with open(_MOUNTS) as file:
        found += [line for line in file if " - cgroup" in line]
    return tuple(found)
