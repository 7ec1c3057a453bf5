"""The surroundings that BuildKit's integration harness expects: a user for rootless workers, and sudo.

Source: the stage integration-tests-base of BuildKit's Dockerfile.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from bkrules.sandbox import syscalls

ID, NAME, HOME = 1000, "user", "/home/user"
_RANGE = "100000:65536"


def prepare(mirror: str) -> None:
    """Make the user 1000 with ranges of ids, install `sudo`, and let the harness add images to the folder of its mirror.

    Raises OSError.
    """
    _open(Path(mirror))
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
