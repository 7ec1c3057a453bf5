"""The inputs of a cell from this machine: the interpreter, its shared libraries, and setuid helpers.

Everything else in a cell is pinned. bk asks the dynamic linker once for the libraries, and keeps the answer with the
stamp of every file, so that it does not ask again on an unchanged machine.
"""

from __future__ import annotations

import functools
import json
import os
import re
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
from bkrules.cache import atomic
from bkrules.errors import MachineLacks
from bkrules.incremental import stamps
from bkrules.incremental.dependencies import current
from bkrules.loading.modules import GROUP as MODULES
from bkrules.model import digest
from bkrules.plugin.host import Host, notice_reads, probe
from bkrules.system.files import read_regular
from bkrules.system.kernel import SERIES

_LINKER = ("/etc/ld.so.cache", "/etc/ld.so.preload")
"""The files and variables that also decide which libraries the dynamic linker loads."""
_KERNELS = ("/proc/", "/sys/")
"""Folders in which `stat` does not show a change of a file."""
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
IN_CELLS = (
    "cell/*.py",
    "errors.py",
    "mirror/faults.py",
    "mirror/record.py",
    *(f"model/{name}.py" for name in ("cases", "collected", "parameters", "reference", "status", "wire")),
    "plugin/*.py",
    *(f"sandbox/{name}.py" for name in ("cgroups", "devices", "ipc", "loop", "syscalls")),
    *(f"system/{name}.py" for name in ("files", "kernel", "waiting")),
    "testing/*.py",
)
"""bk's own code that runs in cells and in the processes from which they are forked."""
AROUND_CELLS = (
    "cache/links.py",
    "execution/context.py",
    *(f"images/{name}.py" for name in ("digests", "documents", "json_object", "layout_source", "storage")),
    *(f"mirror/{name}.py" for name in ("connections", "http1", "proxy", "registry")),
    *(f"runners/{name}.py" for name in ("cell_pool", "open_cell", "pulled", "test_cell")),
    *(f"sandbox/{name}.py" for name in ("shield", "spawner", "started")),
)
"""bk's own code outside of a cell that decides what the cell sees, and how its end is reported."""
REGISTRY = "registry/config.yml"
"""The configuration of the registry behind a cell's mirror, among the inputs of the cell."""
HELPERS = "host/helpers/"
"""The folder of the machine's commands among the inputs of a cell; `lib` has the libraries that they load."""
COMMANDS = "/usr/bin"
"""The folder in a cell for such commands, wherever the machine has them: it is on PATH, and the same everywhere."""
PACKAGES = {
    **{"newuidmap": "uidmap", "newgidmap": "uidmap", "gcc": "gcc", "ldd": "libc-bin", "pkg-config": "pkg-config"},
    **{"fuse-overlayfs": "fuse-overlayfs", "slirp4netns": "slirp4netns", "ip": "iproute2"},
    **{"mount": "mount", "nsenter": "util-linux", "unshare": "util-linux"},
}


_DISTRIBUTION = ".dist-info"
_PLACE = re.compile(rb"\.\./|/|__editable__|[^,]*\.dist-info/|[^/,]*\.pth,|[^,]*__pycache__/").match


@dataclass(frozen=True)
class Machine:
    """This machine as cells see it. `binds` are the folders that a cell sees at the same path."""

    host: Host
    interpreter: str
    binds: tuple[str, ...]
    extensions: tuple[str, ...]
    runtime: tuple[tuple[str, str], ...]
    store: str
    kernel_key: str = SERIES

    @functools.cached_property
    def libraries(self) -> tuple[str, ...]:
        """The libraries of the interpreter and its extension modules. Only cells need them. Raises MachineLacks."""
        return _closure((self.interpreter, *self.extensions), self.store)

    @functools.cached_property
    def packages(self) -> str:
        """The installed distributions, as in the keys of cells."""
        return _packages(self.store)

    @property
    def platform(self) -> dict[str, str]:
        """The kernel's properties in the keys of cells."""
        return self.host.platform(self.kernel_key)

    def helpers(self, commands: Iterable[str]) -> dict[str, str]:
        """Return the files of this machine's commands by their names, and the libraries they load, below `lib`. Raises
        MachineLacks.
        """
        paths = {os.path.basename(command): find(command) for command in commands}
        libraries = _closure(tuple(paths.values()), self.store)
        return {**paths, **{f"lib/{os.path.basename(path)}": path for path in libraries}}

    def libraries_of(self, command: str) -> tuple[str, ...]:
        """Return the paths of the libraries that a command of this machine loads. Raises MachineLacks."""
        return _closure((find(command),), self.store)


def note_reads_of_plugins() -> None:
    """Note from now on the files of this machine that plugins read. Call this before plugins load."""
    notice_reads(_note_read)


def _note_read(path: str) -> None:
    if os.path.realpath(path).startswith(_KERNELS):
        current().doubts.append(f"a plugin reads {path}, whose stamp the kernel makes up")
    current().note_for_all(path)


@functools.cache
def find(command: str) -> str:
    """Return the path of a command of this machine, or `command` itself when it is absolute. Raises MachineLacks."""
    path: str | None = command
    if command.startswith("/"):
        current().note_for_all(command)  # it may be a link, which may lead elsewhere at the next build
    else:
        folders = [
            folder for folder in f"{os.environ.get('PATH', '')}:{SEARCH_PATH}".split(":") if folder.startswith("/")
        ]
        path = which(command, path=":".join(folders))
        for folder in folders:  # a command that appears in an earlier folder would be found instead
            if current().note_for_all(f"{folder}/{command}") == path:
                break
    if path is None or not os.path.isfile(path):
        name = PACKAGES.get(os.path.basename(command), "")
        hint = f"on Debian and Ubuntu:  apt-get install {name}" if name else "install it, or name another one"
        raise MachineLacks("missing-host-file", f"this machine has no {command}", hint=hint)
    return os.path.realpath(path)


def load(store: str, kernel_key: str = SERIES) -> Machine:
    """Return this machine. `store` is a folder that keeps answers of the dynamic linker; `kernel_key` is one of `kernel.KEYS`."""
    interpreter = os.path.realpath(sys.executable)
    stdlib = sysconfig.get_path("stdlib")
    extensions = [
        str(path) for path in sorted(Path(stdlib, "lib-dynload").glob("*.so")) if not path.name.startswith("_tkinter")
    ]
    package = os.path.dirname(bkrules.__file__)
    runtime = [
        (f"bkrules/{path.relative_to(package)}", str(path))
        for pattern in (*IN_CELLS, *AROUND_CELLS)
        for path in sorted(Path(package).glob(pattern))
    ]
    return Machine(
        host=probe(),
        interpreter=interpreter,
        binds=tuple(sorted({stdlib, *_environment(), package})),
        extensions=tuple(extensions),
        runtime=tuple(runtime),
        store=store,
        kernel_key=kernel_key,
    )


def _environment() -> set[str]:
    """Return the folders of this Python's packages: a whole virtual environment, or the packages of a plain interpreter.

    The folder of a plain interpreter is often `/usr`, of which a cell must see nothing else.
    """
    if sys.prefix != sys.base_prefix:
        return {sys.prefix}
    return {path for name in ("purelib", "platlib") if os.path.isdir(path := sysconfig.get_path(name))}


def _packages(store: str) -> str:
    """Return the installed distributions, one `name-version digest` a line.

    The digest is that of the digests in its RECORD, without files that tell where and how it was installed, and from
    where. Distributions of modules are left out: keys have the files of a module that a build uses, wherever it lies.
    """
    folder = current().note_for_all(sysconfig.get_path("purelib"))
    names = sorted(name for name in os.listdir(folder) if name.endswith(_DISTRIBUTION))
    records = {name: f"{folder}/{name}/RECORD" for name in names}
    memory = f"{store}/packages.json"
    known = _remembered(memory)
    if known is not None and known["for"] == list(records.values()):
        return str(known["packages"])
    moment = time.time_ns()
    before = {path: stamps.of(current().note_for_all(path)) for path in records.values()}
    packages = "".join(
        f"{name.removesuffix(_DISTRIBUTION)} {_content(path)}\n"
        for name, path in records.items()
        if not _is_module(os.path.dirname(path))
    )
    if not any(stamps.is_racy(stamp, moment) for stamp in before.values()):
        record = {"for": list(records.values()), "packages": packages, "stamps": before}
        atomic.write(memory, json.dumps(record).encode())
    return packages


def _is_module(folder: str) -> bool:
    """Return whether a distribution offers modules of build files, and nothing else."""
    try:
        text = read_regular(f"{folder}/entry_points.txt").decode(errors="replace")
    except OSError:
        return False
    return re.findall(r"^\s*\[(.*?)\]", text, re.MULTILINE) == [MODULES]


def _content(record: str) -> str:
    try:
        lines = read_regular(record).splitlines()
    except OSError:
        return "unknown"
    kept = [line for line in lines if not _PLACE(line)]
    return digest.of_bytes(b"\n".join(sorted(kept))).hash[:32]


@functools.cache
def _closure(binaries: tuple[str, ...], store: str) -> tuple[str, ...]:
    """Return the shared libraries that the dynamic linker would load for `binaries`, sorted."""
    if not binaries:
        return ()
    memory = f"{store}/libraries-{os.path.basename(binaries[0])}.json"
    known = _remembered(memory, *_LINKER)
    if known is not None and known["for"] == list(binaries):
        return tuple(known["libraries"])
    moment = time.time_ns()
    before = {path: stamps.of(current().note_for_all(path)) for path in [*binaries, *_LINKER]}
    libraries = _ask_linker(binaries)
    before |= {path: stamps.of(current().note_for_all(path)) for path in libraries}
    if not any(stamps.is_racy(stamp, moment) for stamp in before.values()):
        record = {"for": binaries, "libraries": libraries, "stamps": before}
        atomic.write(memory, json.dumps(record).encode())
    return tuple(libraries)


def _remembered(path: str, *needed: str) -> dict[str, Any] | None:
    """Return a kept answer, unless a file that it depends on has another stamp; `needed` are some of these files."""
    try:
        record: dict[str, Any] = json.loads(read_regular(path))
        for name, stamp in record["stamps"].items():
            if stamps.of(current().note_for_all(name)) != (stamp and tuple(stamp)):
                return None
        if not record["stamps"].keys() >= {*record["for"], *record.get("libraries", ()), *needed}:
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
    libraries = set()
    for line in answer.stdout.splitlines():
        words = line.split()
        path = words[2] if "=>" in words and len(words) > 2 else words[0] if words else ""
        if path.startswith("/") and not path.endswith(":"):
            libraries.add(path)
    return sorted(libraries)
