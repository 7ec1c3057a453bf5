"""The null build: when no dependency of the last answer has changed, bk prints that answer again.

Only a build in which every result came from the cache leaves such an answer. It holds for the same command line in the
same folder, as long as every file and folder that the build looked at has the same stamp (`stamps.py`): build files,
sources, tools, interpreter and libraries, bk's own code, blobs of the cache, and the outputs in `bk-out`. An unchanged
folder of the cache vouches for the results in it, which add nothing to the answer, and for the blobs whose hard links
in `bk-out` are checked anyway. Where there are thousands of files, a process on each processor looks at some of them.
When something has changed, `up_to_date.py` finds the packages that are still up to date.

This module is imported before anything else, so it imports as little as possible.
"""

from __future__ import annotations

import marshal
import os
import sys
import time

from bkrules.incremental import stamps
from bkrules.incremental.stamps import FIELDS, MISSING, MOST, Stamp
from bkrules.system import colours
from bkrules.system.files import open_regular
from bkrules.system.kernel import texts

FORMAT = 7
_LENGTH = 8
COMMANDS = ("build", "test")
SECONDS = "\0"
BETWEEN = "\0"
_FOLDER = "bk-out/.state/answers"
_MARKER = "WORKSPACE.py"
_VARIABLES = ("PATH", "HOME", "XDG_CACHE_HOME", "GITHUB_ACTIONS", "GITLAB_CI")
_PREFIXES = ("BK_", "BUILDKIT_", "SKIP_INTEGRATION_TESTS", "TEST_BUILDKITD_BINARY")
_SECRET = "BK_REMOTE_HEADER"
_KEPT = 64
_ROW = 8 * FIELDS
_MANY = 4000
"""The least number of files for a further process, whose start takes as long as a look at some hundred."""

Folder = tuple[str, Stamp | None, str, bytes]
"""A folder of the disk cache or an empty text, its stamp when that vouches for its entries, names, and a stamp for each name.
"""
_Listed = tuple[int, str, str, bytes]
"""The number of a folder's first file, the folder, names, and a stamp for each name."""
Kept = tuple[tuple[str, ...], int, float, str, bytes]
"""The kept state of a package, with the fields of `up_to_date.Package`."""

KERNEL = texts()
"""The texts of the kernel, read before anything depends on them."""
last: tuple[list[Folder], set[int], bytes, dict[str, Kept]] | None = None


def answer(argv: list[str], began: float) -> int | None:
    """Print the kept answer to this command line. Return the exit code, or None when no answer holds.

    The kept state, and the numbers of its changed files, are then in `last`.
    """
    global last
    root = _root()
    if root is None or next((word for word in argv if word[:1] != "-"), "") not in COMMANDS:
        return None
    try:
        with open_regular(_place(root, argv)) as file:
            length = int.from_bytes(file.read(_LENGTH), "big")
            if length > os.fstat(file.fileno()).st_size:
                return None
            form, asked, facts, folders, text = marshal.loads(file.read(length))  # in one piece: `load` reads each part
            if form != FORMAT or asked != _asked(argv) or facts != KERNEL or not isinstance(text, str | None):
                return None
            changed = _changed(folders)
            if changed or text is None:
                last = (folders, changed, *marshal.loads(file.read()))
                return None
    except (OSError, ValueError, EOFError, TypeError):
        return None
    choice, _, text = text.partition("\n")
    text = text.replace(SECONDS, f"{time.monotonic() - began:.2f}")
    sys.stdout.write(colours.passes_painted(text) if colours.wanted(sys.stdout, choice) else text)
    sys.stdout.flush()
    return 0


def _changed(folders: list[Folder]) -> set[int]:
    """Return the files whose stamps have changed, as numbers counted through all folders."""
    listed = []
    start = rows = 0
    for folder, vouched, names, packed in folders:
        if vouched is None or stamps.of(folder) != vouched:
            listed.append((start, folder, names, packed))
            rows += len(packed) // _ROW
        start += len(packed) // _ROW
    parts = max(1, min(rows // _MANY, len(os.sched_getaffinity(0))))
    first, *others = [(rows * part // parts, rows * (part + 1) // parts) for part in range(parts)]
    children = [_started(listed, *bounds) for bounds in others]
    changed = _changed_of(listed, *first)
    for child, bounds in zip(children, others, strict=True):
        told = _told(*child) if child else b""
        changed |= marshal.loads(told) if told else _changed_of(listed, *bounds)
    return changed


def _started(listed: list[_Listed], first: int, end: int) -> tuple[int, int] | None:
    """Start a process that writes what `_changed_of` returns, or nothing when it fails. Return its number, and a pipe to read.

    Return None when the machine allows no further process.
    """
    read, write = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        os.close(read)
        os.close(write)
        return None
    if pid:
        os.close(write)
        return pid, read
    try:
        with open(write, "wb") as file:
            marshal.dump(_changed_of(listed, first, end), file)
    finally:
        os._exit(0)


def _told(pid: int, pipe: int) -> bytes:
    """Return all that a process writes, after its end."""
    with open(pipe, "rb") as file:
        told = file.read()
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        return told  # the kernel has reaped it, since the process that started bk ignores SIGCHLD
    return told


def _changed_of(listed: list[_Listed], first: int, end: int) -> set[int]:
    """Return the numbers of those of the files from the place `first` up to `end` whose stamps have changed."""
    stat = os.stat
    changed = set()
    place = 0
    for start, folder, names, packed in listed:
        rows = len(packed) // _ROW
        low, high = max(first - place, 0), min(end - place, rows)
        place += rows
        if low >= high:
            continue
        every = names.split(BETWEEN)
        if len(every) != rows:
            raise ValueError("a name has no stamp, or a stamp no name")
        numbers = memoryview(packed).cast("q")[low * FIELDS : high * FIELDS]
        each = [numbers[field::FIELDS] for field in range(FIELDS)]
        lines = zip(every[low:high], *each, strict=True)
        for number, (name, ctime, mtime, size, inode, device, mode) in enumerate(lines, start + low):
            try:
                found = stat(folder + name)
            except OSError:
                if (ctime, mtime, size, inode, device, mode) != MISSING:
                    changed.add(number)
                continue
            # the same as `stamps.of`, without the call and the tuple: there may be tens of thousands
            if not (
                found.st_ctime_ns == ctime
                and found.st_mtime_ns == mtime
                and found.st_size == size
                and found.st_mode == mode
                and found.st_ino & MOST == inode
                and found.st_dev & MOST == device
            ):
                changed.add(number)
    return changed


def keep(
    argv: list[str], root: str, folders: list[Folder], text: str | None, for_all: bytes, packages: dict[str, Kept]
) -> None:
    """Keep an answer for the next build, and its dependencies. `text` is the answer when all of it holds as long as
    nothing changes, after a line with the choice of colours.

    Files have numbers, counted through `folders`. The whole answer depends on those of `for_all`, and each package on
    its own.
    """
    place = _place(root, argv)
    os.makedirs(os.path.dirname(place), exist_ok=True)
    scratch = f"{place}.{os.getpid()}.tmp"
    with open(scratch, "wb") as file:
        data = marshal.dumps((FORMAT, _asked(argv), KERNEL, folders, text))
        file.writelines((len(data).to_bytes(_LENGTH, "big"), data, marshal.dumps((for_all, packages))))
    os.rename(scratch, place)
    kept = sorted(os.scandir(os.path.dirname(place)), key=lambda entry: entry.stat().st_mtime_ns)
    for entry in kept[:-_KEPT]:
        os.unlink(entry.path)


def _root() -> str | None:
    try:
        folder = os.getcwd()
    except FileNotFoundError:  # it was removed
        return None
    while not os.path.exists(f"{folder}/{_MARKER}"):
        folder, name = os.path.split(folder)
        if not name:
            return None
    return folder


def _place(root: str, argv: list[str]) -> str:
    """Return a name for the command line. Two that share a name replace each other, since the whole command line is compared."""
    number = 0
    for word in (os.getcwd(), *argv):
        for byte in os.fsencode(word):
            number = (number * 31 + byte + 1) & 0xFFFFFFFFFFFFFFFF
        number = number * 31 & 0xFFFFFFFFFFFFFFFF
    return f"{root}/{_FOLDER}/{number:016x}"


def _asked(argv: list[str]) -> tuple[tuple[str, ...], str, tuple[tuple[str, str], ...], int, str, str]:
    environment = {
        name: value for name, value in os.environ.items() if name in _VARIABLES or name.startswith(_PREFIXES)
    }
    environment.pop(_SECRET, None)  # the file belongs to a remote cache, and builds with a remote cache keep no answer
    return tuple(argv), os.getcwd(), tuple(sorted(environment.items())), os.geteuid(), sys.executable, sys.version
