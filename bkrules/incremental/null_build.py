"""The shortest way to an answer: when nothing that it depends on has changed since it was last given, it is given again.

Only a build in which every result came from the cache leaves such an answer. It holds for the same command line in the same folder,
as long as every file and folder that the build looked at has the stamp (`stamps.py`) of then: build files, sources, tools,
interpreter and libraries, bk's own code, blobs of the cache, and the outputs in `bk-out`. A folder of the cache in which nothing
came or went vouches for the results in it, which say nothing that the answer does not say itself, and for the blobs whose hard
links in `bk-out` are looked at anyway. When something has changed, `up_to_date.py` says what need not be looked at
again all the same.

This module is imported before anything else, so it imports next to nothing.
"""

from __future__ import annotations

import marshal
import os
import sys
import time

from bkrules.incremental import stamps
from bkrules.incremental.stamps import FIELDS, MISSING, MOST, Stamp
from bkrules.system.files import open_regular
from bkrules.system.kernel import texts

FORMAT = 6
_LENGTH = 8
COMMANDS = ("build", "test")
SECONDS = "\0"
BETWEEN = "\0"
_FOLDER = "bk-out/.state/answers"
_MARKER = "WORKSPACE.py"
_VARIABLES = ("PATH", "HOME", "XDG_CACHE_HOME")
_PREFIXES = ("BK_", "BUILDKIT_", "SKIP_INTEGRATION_TESTS")
_SECRET = "BK_REMOTE_HEADER"
_KEPT = 64

Folder = tuple[str, Stamp | None, str, bytes]
"""A folder of the disk cache or nothing, its own stamp when that vouches for what is in it, names, and a stamp for each."""
Kept = tuple[tuple[str, ...], int, float, str, bytes]
"""What is kept of a package: see `up_to_date.Package`, whose fields these are."""

KERNEL = texts()
"""What the kernel says of itself, read before anything is worked out from it."""
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
        with open_regular(_place(root, argv)) as file:
            length = int.from_bytes(file.read(_LENGTH), "big")
            if length > os.fstat(file.fileno()).st_size:
                return None
            form, asked, facts, folders, text = marshal.loads(file.read(length))  # in one piece: `load` reads each part
            if form != FORMAT or asked != _asked(argv) or facts != KERNEL:
                return None
            changed = _changed(folders)
            if changed or text is None:
                last = (folders, changed, *marshal.loads(file.read()))
                return None
    except (OSError, ValueError, EOFError, TypeError):
        return None
    sys.stdout.write(text.replace(SECONDS, f"{time.monotonic() - began:.2f}"))
    sys.stdout.flush()
    return 0


def _changed(folders: list[Folder]) -> set[int]:
    """Return the files that have another stamp now, as numbers: they are counted through all folders."""
    stat = os.stat
    changed = set()
    start = 0
    for folder, vouched, names, packed in folders:
        numbers = memoryview(packed).cast("q")
        if vouched is None or stamps.of(folder) != vouched:
            each = [numbers[field::FIELDS] for field in range(FIELDS)]
            rows = zip(names.split(BETWEEN), *each, strict=True)
            for number, (name, ctime, mtime, size, inode, device, mode) in enumerate(rows, start):
                try:
                    found = stat(folder + name)
                except OSError:
                    if (ctime, mtime, size, inode, device, mode) != MISSING:
                        changed.add(number)
                    continue
                # What `stamps.of` makes, without the call and the tuple: there may be tens of thousands.
                if not (
                    found.st_ctime_ns == ctime
                    and found.st_mtime_ns == mtime
                    and found.st_size == size
                    and found.st_mode == mode
                    and found.st_ino & MOST == inode
                    and found.st_dev & MOST == device
                ):
                    changed.add(number)
        start += len(numbers) // FIELDS
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
    """Return a name for the command line; two that share one by chance take turns, since the whole is compared."""
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
    environment.pop(_SECRET, None)  # of a remote cache, and no answer of a build with one is kept
    return tuple(argv), os.getcwd(), tuple(sorted(environment.items())), os.geteuid(), sys.executable, sys.version
