"""What a cell takes from this machine: the interpreter, the shared libraries it needs, and setuid helpers.

Everything else in a cell is pinned. Which libraries these are is asked of the dynamic linker once, and kept beside what
`stat` says of every file, so that an unchanged machine is not asked again.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Any

import bkrules
from bkrules import stamps
from bkrules.cache import atomic
from bkrules.errors import MachineLacks
from bkrules.observed import note_for_all
from bkrules.plugin.host import Host, probe

_LINKER = ("/etc/ld.so.cache", "/etc/ld.so.preload")
"""What else decides which libraries the dynamic linker loads."""
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
IN_CELLS = (
    "audit",
    "cell",
    "cgroups",
    "control",
    "devices",
    "egress",
    "janitor",
    "linux",
    "messages",
    "mirror_door",
    "mirror_traffic",
    "shared_cell",
    "stacks",
    "update",
    "zygote",
)
PACKAGES = {
    **{"newuidmap": "uidmap", "newgidmap": "uidmap", "gcc": "gcc", "ldd": "libc-bin", "pkg-config": "pkg-config"},
    **{"fuse-overlayfs": "fuse-overlayfs", "slirp4netns": "slirp4netns", "ip": "iproute2"},
    **{"mount": "mount", "nsenter": "util-linux", "unshare": "util-linux"},
}


@dataclass(frozen=True)
class Machine:
    """This machine as cells see it. `binds` are the folders that a cell sees at the same path."""

    host: Host
    interpreter: str
    binds: tuple[str, ...]
    libraries: tuple[str, ...]
    packages: str
    runtime: tuple[tuple[str, str], ...]
    store: str

    def helpers(self, commands: Iterable[str]) -> dict[str, str]:
        """The files of commands of this machine and of the libraries they load, by their names in a key. Raises MachineLacks."""
        paths = [find(command) for command in commands]
        return {os.path.basename(path): path for path in [*paths, *_closure(tuple(paths), self.store)]}


@functools.cache
def find(command: str) -> str:
    """The path of a command of this machine, or `command` itself when it is absolute. Raises MachineLacks."""
    path: str | None = command
    if not command.startswith("/"):
        folders = f"{os.environ.get('PATH', '')}:{SEARCH_PATH}"
        path = which(command, path=folders)
        for folder in folders.split(":"):  # a command that appears in an earlier folder would be found instead
            if note_for_all(f"{folder}/{command}") == path:
                break
    if path is None or not os.path.isfile(path):
        name = PACKAGES.get(os.path.basename(command), "")
        hint = f"on Debian and Ubuntu:  apt-get install {name}" if name else "install it, or name another one"
        raise MachineLacks("missing-host-file", f"this machine has no {command}", hint=hint)
    return os.path.realpath(path)


def load(store: str) -> Machine:
    """This machine. `store` is a folder where answers of the dynamic linker are kept."""
    interpreter = os.path.realpath(sys.executable)
    stdlib = sysconfig.get_path("stdlib")
    extensions = [
        str(path) for path in sorted(Path(stdlib, "lib-dynload").glob("*.so")) if not path.name.startswith("_tkinter")
    ]
    package = os.path.dirname(bkrules.__file__)
    runtime = [
        (f"bkrules/{path.relative_to(package)}", str(path))
        for pattern in (
            "errors.py",
            "mirror_faults.py",
            *(f"execution/{name}.py" for name in IN_CELLS),
            "plugin/*.py",
            "testing/*.py",
        )
        for path in sorted(Path(package).glob(pattern))
    ]
    return Machine(
        host=probe(),
        interpreter=interpreter,
        binds=tuple(sorted({stdlib, sys.prefix, package})),
        libraries=_closure((interpreter, *extensions), store),
        packages=_packages(),
        runtime=tuple(runtime),
        store=store,
    )


def _packages() -> str:
    """The installed distributions, one `name-version` a line."""
    folder = note_for_all(sysconfig.get_path("purelib"))
    names = (name.removesuffix(".dist-info") for name in os.listdir(folder) if name.endswith(".dist-info"))
    return "".join(f"{name}\n" for name in sorted(names))


@functools.cache
def _closure(binaries: tuple[str, ...], store: str) -> tuple[str, ...]:
    """The shared libraries that the dynamic linker would load for `binaries`, sorted."""
    if not binaries:
        return ()
    memory = f"{store}/libraries-{os.path.basename(binaries[0])}.json"
    known = _remembered(memory)
    if known is not None and known["for"] == list(binaries):
        return tuple(known["libraries"])
    moment = time.time_ns()
    before = {path: stamps.of(note_for_all(path)) for path in [*binaries, *_LINKER]}
    libraries = _ask_linker(binaries)
    before |= {path: stamps.of(note_for_all(path)) for path in libraries}
    if not any(stamps.is_racy(stamp, moment) for stamp in before.values()):
        record = {"for": binaries, "libraries": libraries, "stamps": before}
        atomic.write(memory, json.dumps(record).encode())
    return tuple(libraries)


def _remembered(path: str) -> dict[str, Any] | None:
    try:
        with open(path) as file:
            record: dict[str, Any] = json.load(file)
        for name, stamp in record["stamps"].items():
            if stamps.of(note_for_all(name)) != (stamp and tuple(stamp)):
                return None
        if not record["stamps"].keys() >= {*record["for"], *record["libraries"], *_LINKER}:
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return record


def _ask_linker(binaries: Iterable[str]) -> list[str]:
    environment = {"PATH": SEARCH_PATH, "LC_ALL": "C"}
    answer = subprocess.run([find("ldd"), *binaries], env=environment, capture_output=True, text=True, check=False)
    if "not found" in answer.stdout:
        missing = next(line.strip() for line in answer.stdout.splitlines() if "not found" in line)
        raise MachineLacks(
            "missing-library", f"a library of the interpreter is missing: {missing}", hint="reinstall Python"
        )
    found = set()
    for line in answer.stdout.splitlines():
        words = line.split()
        path = words[2] if "=>" in words and len(words) > 2 else words[0] if words else ""
        if path.startswith("/") and not path.endswith(":"):
            found.add(path)
    return sorted(found)
