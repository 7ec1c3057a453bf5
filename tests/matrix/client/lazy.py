"""What there is of an image that may be pulled lazily: what the tests of lazy pulling share.

`bulk` has two layers of 6 MiB, each of six files of 1 MiB that do not compress.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bkrules.testing.sandbox import Sandbox

STATE = Path("/var/lib/bk")


def image(sandbox: Sandbox) -> str:
    return f"docker.io/library/bulk:{sandbox.value('compression')}"


def is_lazy(sandbox: Sandbox) -> bool:
    return sandbox.snapshotter == "stargz" and sandbox.choice("compression") == "estargz"


def layers(sandbox: Sandbox) -> dict[str, int]:
    """The layers of the image: digest to size."""
    return {layer["digest"]: layer["size"] for layer in sandbox.manifest(image(sandbox))["layers"]}


def stored() -> dict[str, Path]:
    """The digests that the content stores of this cell have, each with a file.

    Daemons delete folders meanwhile: those are passed over (`Path.glob` raises), and so are mounts that nobody serves any more.
    """
    stores = ((folder, names) for folder, _, names in os.walk(STATE) if folder.endswith("/blobs/sha256"))
    return {f"sha256:{name}": Path(folder, name) for folder, names in stores for name in names}


def lazy_mounts() -> set[str]:
    """Where layers are mounted by FUSE, in the mount namespace of any daemon."""
    return {line.split()[4] for line in mounts() if " - fuse" in line and " stargz " in line}


def mounts() -> Iterator[str]:
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                yield from (process / "mountinfo").read_text().splitlines()
            except OSError:
                continue  # it has ended meanwhile


def fetched(sandbox: Sandbox, *digests: str) -> int:
    """How many bytes of these layers, or of all that the image has, came from the mirror."""
    wanted = digests or layers(sandbox)
    requested = [one for one in sandbox.mirror_requests() if one.path.rpartition("/")[2] in wanted]
    return sum(one.body_bytes for one in requested if one.method == "GET")


def wait(condition: Callable[[], bool], problem: str, seconds: float = 20) -> None:
    """Return when the condition holds: garbage is collected behind the scenes."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, problem
        time.sleep(0.02)
