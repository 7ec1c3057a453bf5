"""The surroundings that BuildKit's integration harness expects: a user for rootless workers, and sudo.

Source: the stage integration-tests-base of BuildKit's Dockerfile.
"""

from __future__ import annotations

import os
from pathlib import Path

ID, NAME, HOME = 1000, "user", "/home/user"
_RANGE = "100000:65536"


def prepare() -> None:
    """Make the user 1000 with ranges of ids, and install `sudo`."""
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
