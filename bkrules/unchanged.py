"""The shortest way to an answer: when nothing that it depends on has changed since it was last given, it is given again.

Only a build in which every result came from the cache leaves such an answer. It holds for the same command line in the same folder,
as long as `stat` says the same of every file and folder that the build looked at: build files, sources, tools, interpreter and
libraries, bk's own code, cache entries with their blobs, and the outputs in `bk-out`. Entries and blobs are never written to, so a
folder of the cache in which nothing came or went vouches for those in it.

This module is imported before anything else, so it imports next to nothing.
"""

from __future__ import annotations

import marshal
import os
import sys
import time

FORMAT = 2
COMMANDS = ("build", "test")
RACY_NS = 2_000_000_000
"""How young a file may be for `stat` to tell nothing: it can change once more without its time changing."""
SECONDS = "\0"
_BETWEEN = "\0"
_MOST = (1 << 63) - 1
_FOLDER = "bk-out/.state/answers"
_MARKER = "WORKSPACE.py"
_VARIABLES = ("PATH", "HOME", "XDG_CACHE_HOME")
_PREFIXES = ("BK_", "BUILDKIT_", "SKIP_INTEGRATION_TESTS")
_SECRET = "BK_REMOTE_HEADER"
_FACTS = ("/proc/filesystems", "/proc/sys/user/max_user_namespaces", "/proc/self/uid_map")
_MOUNTS = "/proc/self/mountinfo"
_KEPT = 64

Stamp = tuple[int, int, int] | None


def answer(argv: list[str], began: float) -> int | None:
    """Print the kept answer to this command line; the exit code, or None when it has to be worked out."""
    root = _root()
    if root is None or next((word for word in argv if word[:1] != "-"), "") not in COMMANDS:
        return None
    try:
        with open(_place(root, argv), "rb") as file:
            form, asked, facts, folders, text = marshal.load(file)
        if form != FORMAT or asked != _asked(argv) or facts != _facts():
            return None
        for folder, vouched, names, stamps in folders:
            if (vouched is None or _stamp(folder) != vouched) and not _as_before(folder, names, stamps):
                return None
    except (OSError, ValueError, EOFError, TypeError):
        return None
    sys.stdout.write(text.replace(SECONDS, f"{time.monotonic() - began:.2f}"))
    sys.stdout.flush()
    return 0


def _as_before(folder: str, names: str, stamps: bytes) -> bool:
    """Whether `stat` says the same of what has these names in a folder."""
    stat = os.stat
    numbers = iter(memoryview(stamps).cast("q"))
    for name, *stamp in zip(names.split(_BETWEEN), numbers, numbers, numbers, strict=True):
        try:
            found = stat(folder + name)
        except OSError:
            if stamp != [-1, -1, -1]:
                return False
            continue
        if stamp != [found.st_mtime_ns, found.st_size, found.st_ino & _MOST]:
            return False
    return True


def keep(argv: list[str], root: str, paths: list[str], text: str, cache: str) -> None:
    """Keep an answer for the next time. One that rests on files of the workspace which are too young to trust is not kept.

    `cache` is the folder of the disk cache.
    """
    names: dict[str, list[str]] = {}
    for path in paths:
        folder = path[: path.rindex("/") + 1] if path.startswith((f"{cache}/ac/", f"{cache}/cas/")) else ""
        names.setdefault(folder, []).append(path[len(folder) :])
    now = time.time_ns()
    folders = []
    for folder, found in names.items():
        own = _stamp(folder) if folder else None
        vouched = own if own and now - own[0] > RACY_NS else None  # looked at before what is in it
        stamps = [_stamp(folder + name) for name in found]
        if any(
            stamp and now - stamp[0] < RACY_NS
            for name, stamp in zip(found, stamps, strict=True)
            if (folder + name).startswith(f"{root}/") and not _is_output(folder + name, root)
        ):
            return
        packed = b"".join(
            number.to_bytes(8, sys.byteorder, signed=True) for stamp in stamps for number in stamp or (-1, -1, -1)
        )
        folders.append((folder, vouched, _BETWEEN.join(found), packed))
    place = _place(root, argv)
    os.makedirs(os.path.dirname(place), exist_ok=True)
    scratch = f"{place}.{os.getpid()}.tmp"
    with open(scratch, "wb") as file:
        marshal.dump((FORMAT, _asked(argv), _facts(), folders, text), file)
    os.rename(scratch, place)
    kept = sorted(os.scandir(os.path.dirname(place)), key=lambda entry: entry.stat().st_mtime_ns)
    for entry in kept[:-_KEPT]:
        os.unlink(entry.path)


def _is_output(path: str, root: str) -> bool:
    return path.startswith(f"{root}/bk-out/")


def _stamp(path: str) -> Stamp:
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
