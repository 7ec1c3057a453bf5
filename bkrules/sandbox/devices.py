"""The device nodes of a root. Separate from cells, so that the commands of ordinary actions import as little as possible."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

DEVICES = {
    **{"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9)},
    **{"tty": (5, 0), "fuse": (10, 229), "net/tun": (10, 200)},
}
"""Names with their major and minor numbers."""


def make_devices(root: str, names: Iterable[str]) -> None:
    """Make device nodes of these names, usable by everyone, and the usual links next to them."""
    umask = os.umask(0)
    for name in names:
        major, minor = DEVICES[name]
        os.mknod(f"{root}/dev/{name}", 0o666 | stat.S_IFCHR, os.makedev(major, minor))
    os.umask(umask)
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        os.symlink(f"/proc/self/fd{target}", f"{root}/dev/{name}")
