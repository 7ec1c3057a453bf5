"""The check that a backend has released all resources."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bkrules.plugin.daemon import Daemons

if TYPE_CHECKING:
    from bkrules.testing.sandbox import Sandbox

_PATIENCE = 10.0
_PAUSE = 0.1
_CONTAINERD = {
    "content of containerd": ("content", "ls", "-q"),
    "images of containerd": ("images", "ls", "-q"),
    "leases of containerd": ("leases", "ls", "-q"),
    "containers of containerd": ("containers", "ls", "-q"),
}


def check_released(sandbox: Sandbox) -> None:
    """Empty the history and the build cache. Raises AssertionError with everything that a backend still holds after 10 seconds."""
    sandbox.run("prune-histories")
    deadline = time.monotonic() + _PATIENCE
    while True:
        sandbox.run("prune --all")
        held = {name: found for name, found in holdings(sandbox).items() if found}
        if not held:
            return
        if time.monotonic() > deadline:
            lines = "\n".join(f"{name}: {', '.join(found)}" for name, found in held.items())
            raise AssertionError(f"the backend still holds\n{lines}")
        time.sleep(_PAUSE)  # released content is collected in the background, and no event tells when


def holdings(sandbox: Sandbox) -> dict[str, list[str]]:
    """Return the resources of a backend by their kind: records, blobs, snapshots and mounts of BuildKit; images, leases
    of containerd.
    """
    records = json.loads(sandbox.run(["du", "--format={{json .}}"]).stdout or "[]") or []
    found = {
        "records": [one["id"] for one in records],
        **_stored(sandbox.state),
        "mounts": _mounts(sandbox.state),
    }
    if sandbox.containerd_address:
        ctr = ["ctr", "--address", sandbox.containerd_address, "--namespace", "buildkit"]
        snapshots = ("snapshots", "--snapshotter", sandbox.snapshotter, "ls")
        for name, words in {**_CONTAINERD, "snapshots of containerd": snapshots}.items():
            done = subprocess.run([*ctr, *words], env=sandbox.environment, capture_output=True, text=True, check=True)
            lines = done.stdout.splitlines()
            found[name] = [line.split()[0] for line in lines if not line.startswith("KEY")]
    return found


def _stored(state: Path) -> dict[str, list[str]]:
    """Return the blobs and snapshots in the daemons' state, without reading their content."""
    found: dict[str, list[str]] = {"blobs": [], "snapshots": []}
    for folder, folders, files in os.walk(state):
        place = os.path.relpath(folder, state)
        if place.endswith("/blobs/sha256"):
            found["blobs"] += [f"{place}/{name}" for name in files]
        if place.endswith("/snapshots"):
            numbers = [name for name in folders if name.isdigit()]
            found["snapshots"] += [f"{place}/{name}" for name in numbers]
            folders[:] = [name for name in folders if name not in numbers]
    return found


def _mounts(state: Path) -> list[str]:
    """Return the mounts below the daemons' state, in the mount namespace of any process of the cell.

    The daemons of an extra worker see its state where those of the first worker have theirs, by a mount of that folder.
    """
    found: set[str] = set()
    for table in Path("/proc").glob("[0-9]*/mountinfo"):
        try:
            lines = table.read_text().splitlines()
        except OSError:
            continue  # it has ended
        places = [(parts[3], parts[4]) for line in lines if (parts := line.split())]
        seen = [root for root, place in places if place == str(Daemons.state)]
        own = seen[-1].endswith(str(state)) if seen else state == Daemons.state
        if not own:
            continue  # it is of another worker
        for root, place in places:
            # A folder mounted on itself holds nothing: dockerd changes propagation of its root that way.
            itself = place.replace(str(Daemons.state), str(state), 1)
            if place.startswith(f"{Daemons.state}/") and not root.endswith(itself):
                found.add(place)
    return sorted(found)
