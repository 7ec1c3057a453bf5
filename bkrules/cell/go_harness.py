"""The surroundings that BuildKit's integration harness expects: a user for rootless workers, and sudo.

Source: the stage integration-tests-base of BuildKit's Dockerfile.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from bkrules.sandbox import syscalls

ID, NAME, HOME = 1000, "user", "/home/user"
_RANGE = "100000:65536"
INTERFACE, ADDRESS, _MASK = "bk0", "198.51.100.1", "255.255.255.0"
"""An interface that leads nowhere: some tests look for an address of the machine that is not a loopback."""
CGROUP = "/sys/fs/cgroup"


def prepare(mirror: str) -> None:
    """Make the user 1000 with ranges of ids, install `sudo`, and let the harness add images to the folder of its mirror.

    Tests find an interface that is no loopback, and the cell's controllers in each cgroup that they make. Raises OSError.
    """
    _open(Path(mirror))
    hand_down_controllers(Path(CGROUP))
    with suppress(OSError):  # a kernel without tap devices, where only tests that look for the interface fail
        syscalls.add_interface(INTERFACE, ADDRESS, _MASK)
    for name, line in (("passwd", f":{ID}:{ID}::{HOME}:/bin/sh"), ("group", f":{ID}:")):
        with open(f"/etc/{name}", "a") as file:
            file.write(f"{NAME}:x{line}\n")
    for name in ("subuid", "subgid"):
        Path("/etc", name).write_text(f"{NAME}:{_RANGE}\n")
    for folder, mode in ((HOME, 0o755), (f"/run/user/{ID}", 0o700)):
        os.makedirs(folder)
        os.chmod(folder, mode)
        os.chown(folder, ID, ID)
    sudo = Path("/usr/sbin/sudo")
    sudo.write_bytes(Path(__file__).with_name("sudo.py").read_bytes())
    sudo.chmod(0o755)


def _open(mirror: Path) -> None:
    """Make the folder of the mirror writable; what is written stays in the cell. Raises OSError.

    Where bk itself is on an overlay, the kernel has no room for one more: there the mirror has what it had.
    """
    lower, upper, work = (mirror / name for name in ("data", "written", "work"))
    for folder in (upper, work):
        folder.mkdir()
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    try:
        syscalls.mount("bk", str(lower), "overlay", syscalls.MS_NODEV, options)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


def hand_down_controllers(group: Path) -> None:
    """Give the controllers of a cgroup to those below it, as the entry point of BuildKit's test image does. Raises OSError."""
    for name in (group / "cgroup.controllers").read_text().split():
        (group / "cgroup.subtree_control").write_text(f"+{name}")
