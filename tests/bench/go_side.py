"""One side of the race: BuildKit's harness in Go, in an enclosure.

As it is, it keeps its state on disk, and does not tell the stargz snapshotter of its mirror: every cell of containerd with stargz
first asks Docker Hub for the layer, again and again for more than a second, since there is no Hub in an enclosure. `tuned`, its
state is in memory and the snapshotter knows the mirror, as in a cell of bk, and the comparison is one of work and not of waiting.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import bk_worker_containerd_stargz as stargz
import enclosure
import tomli_w
from bench.kinds import COPIES, KINDS, Cell, Failed, Run
from bk_worker_rootless import FIRST_ID, IDS, UID

from bkrules.plugin import Mirror
from bkrules.plugin.worker import MIRROR_ADDRESS
from bkrules.sandbox import syscalls

_PATH = f"{enclosure.ASSETS}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OVERRIDES = enclosure.SCRATCH / "bin"
_REGISTRY = f"""version: 0.1
loglevel: debug
storage: {{filesystem: {{rootdirectory: {enclosure.SCRATCH}/mirror/data}}}}
http: {{addr: {MIRROR_ADDRESS}}}
"""
_USER, _HOME = "bk", Path("/home/bk")
_PASSED = re.compile(r"^ *--- PASS: TestIntegration/TestHello/worker=(\S+)/copy=\d+ \((.+)s\)$", re.MULTILINE)


def run(assets: Path, parallel: int, *, tuned: bool) -> Run:
    """Run all cells, so many at a time. Raises Failed unless every one of them passed."""
    with tempfile.TemporaryDirectory(dir=assets.parent) as disk:
        Path(disk).chmod(0o1777)
        answer = enclosure.run(lambda: _harness(parallel, tuned), assets, disk=None if tuned else Path(disk))
    passed = _PASSED.findall(answer["output"])
    cells = {kind: [Cell(float(seconds)) for worker, seconds in passed if worker == kind.go] for kind in KINDS}
    if answer["status"] or any(len(found) != COPIES for found in cells.values()):
        raise Failed(f"the Go harness ended with status {answer['status']}:\n{answer['output']}")
    return Run(answer["seconds"], cells)


def _harness(parallel: int, tuned: bool) -> dict[str, Any]:
    """Inside: run the harness to its end. Only that is timed."""
    _add_user()
    _add_sudo()
    mirror = enclosure.SCRATCH / "mirror"
    mirror.mkdir()
    (mirror / "data").symlink_to(enclosure.ASSETS / "mirror")
    if tuned:
        _tell_of_mirror(mirror)
    environment = {
        "PATH": f"{_OVERRIDES}:{_PATH}",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "TMPDIR": "/tmp",
        "GOMAXPROCS": str(parallel),
        "BUILDKIT_REGISTRY_MIRROR_DIR": str(mirror),
        "BK_BENCH_CELLS": str(COPIES),
        "BK_BENCH_ROOTLESS": f"{UID}:{UID}",
    }
    binary = str(enclosure.ASSETS / "bin/go_harness")
    return enclosure.run_command([binary, "-test.v", f"-test.parallel={parallel}"], environment)


def _tell_of_mirror(mirror: Path) -> None:
    """Fix the port of the registry, whose configuration the harness leaves alone when there is one, and name it to stargz."""
    (mirror / "config.yaml").write_text(_REGISTRY)
    config = enclosure.SCRATCH / stargz.CONFIGURATION
    config.write_text(tomli_w.dumps(stargz.configuration(Mirror(MIRROR_ADDRESS, ("docker.io",)))))
    _OVERRIDES.mkdir(exist_ok=True)
    script = _OVERRIDES / stargz.TOOL
    script.write_text(f'#!/bin/sh\nexec {enclosure.ASSETS}/bin/{stargz.TOOL} --config {config} "$@"\n')
    script.chmod(0o755)


def _add_sudo() -> None:
    """Put sudo where it looks for its own files, when the machine has none."""
    sudo = enclosure.ASSETS / "sudo"
    if sudo.is_dir():
        shutil.copytree(sudo / "etc", "/etc", dirs_exist_ok=True)
        _OVERRIDES.mkdir(exist_ok=True)
        (_OVERRIDES / "sudo").symlink_to(sudo / "usr/bin/sudo")
        libraries = "/usr/libexec"
        syscalls.mount("sudo", libraries, "overlay", 0, f"lowerdir={sudo}{libraries}:{libraries}")


def _add_user() -> None:
    """The user of the rootless worker. Its daemon comes from `sudo -i`, which takes PATH and the rest from the profile."""
    runtime = enclosure.SCRATCH / "user"
    for folder in (_HOME, runtime):
        folder.mkdir()
        os.chown(folder, UID, UID)
    (_HOME / ".profile").write_text(f"export PATH={_PATH} XDG_RUNTIME_DIR={runtime}\n")
    lines = {
        "passwd": f"{_USER}:x:{UID}:{UID}::{_HOME}:/bin/sh",
        "group": f"{_USER}:x:{UID}:",
        "shadow": f"{_USER}:*:::::::",
        "subuid": f"{_USER}:{FIRST_ID}:{IDS}",
        "subgid": f"{_USER}:{FIRST_ID}:{IDS}",
    }
    for name, line in lines.items():
        with open(f"/etc/{name}", "a") as file:
            file.write(f"{line}\n")
