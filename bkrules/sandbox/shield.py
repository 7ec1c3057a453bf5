"""Become the zygote, with its program and libraries protected from writes through the memory of its forks.

`python -I -S shield.py DESCRIPTOR ...`. A process with CAP_SYS_ADMIN can open each file that is mapped into its memory
by /proc/self/map_files, at the mount by which it was mapped. A cell's first process and its test are forks of the
zygote, so these mounts are read-only, in a mount namespace that no cell can enter. They must be read-only before the
program starts.

This is a separate program, and imports nothing of bk: it runs before each zygote.
"""

from __future__ import annotations

import ctypes
import os
import sys

ZYGOTE = "bkrules.cell.zygote"
LOCALES = "/usr/lib/locale"
_CLONE_NEWNS, _MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_SLAVE = 0x20000, 1, 32, 4096, 16384, 1 << 19
_KEPT_FLAGS = 2 | 4 | 8  # nosuid, nodev, noexec have the same numbers for statvfs


def mapped_folders() -> set[str]:
    """Return the folders of all files that this program has mapped, which are those of the zygote's libraries too."""
    with open("/proc/self/maps") as file:
        paths = {line.split(maxsplit=5)[5].strip() for line in file if "/" in line}
    # The folders of the environment's libraries, and of the interpreter's libraries that are not mapped yet.
    environment = os.path.dirname(os.path.dirname(sys.executable))
    more = {os.path.dirname(os.__file__), LOCALES}
    if os.path.exists(f"{environment}/pyvenv.cfg"):
        more.add(environment)
    return {os.path.realpath(os.path.dirname(path)) for path in paths} | set(map(os.path.realpath, more))


def shield(folders: set[str]) -> None:
    """Move to a mount namespace in which these folders are read-only. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)

    def check(result: int) -> None:
        if result:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def mount(path: str, flags: int) -> None:
        name = os.fsencode(path)
        check(libc.mount(name, name, None, ctypes.c_ulong(flags), None))

    check(libc.unshare(_CLONE_NEWNS))
    mount("/", _MS_REC | _MS_SLAVE)
    for folder in sorted(folders):
        if os.path.isdir(folder) and folder != "/":
            mount(folder, _MS_BIND | _MS_REC)
            kept = os.statvfs(folder).f_flag & _KEPT_FLAGS
            mount(folder, _MS_BIND | _MS_REMOUNT | _MS_RDONLY | kept)


def main(arguments: list[str]) -> None:
    """Become the zygote. Its last descriptor is the mount namespace outside, where it may keep compiled modules."""
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    try:
        shield(mapped_folders())
    except OSError:
        os.close(home)  # without root there are no cells
        home = -1
    if home >= 0:
        os.set_inheritable(home, True)
    os.execv(sys.executable, [sys.executable, "-I", "-m", ZYGOTE, arguments[0], str(home), *arguments[1:]])


if __name__ == "__main__":
    main(sys.argv[1:])
