"""The context of a run: the stores and processes that runners share."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bkrules.analysis.host_inputs import Machine
from bkrules.cache.atomic import place
from bkrules.cache.cas import Cas
from bkrules.cache.links import LinkFolders
from bkrules.execution.result import Outcome
from bkrules.model.action import Action, FileNode, Node
from bkrules.model.resources import Limits
from bkrules.plugin.installed import Plugins
from bkrules.sandbox import outputs
from bkrules.sandbox.command import MOST_OUTPUT
from bkrules.sandbox.run_folder import RunFolder
from bkrules.sandbox.spawner import Ended, Processes

if TYPE_CHECKING:
    from bkrules.mirror.proxy import MirrorProxy
    from bkrules.mirror.registry import Registries
    from bkrules.runners.cell_pool import SharedCells

# Every fetch is checked by digest, so no key covers how bk reaches the network.
NETWORK = ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_DIR", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
_LAST_WORDS = 4096
NETWORK_PREFIXES = ("GOPROXY", "GONOPROXY", "GOSUMDB", "GONOSUMDB", "GOINSECURE", "GOPRIVATE", "PIP_", "UV_")


class ForCells(NamedTuple):
    """The parts of a context for cells alone: registries, the proxy in front of them, shared workers."""

    registries: Registries
    mirror: MirrorProxy
    shared: SharedCells


@dataclass
class RunContext:
    """The context of a run, with everything that a runner may use.

    `cache` is the disk cache's folder; `out` is `bk-out`. `test_attempts` is the limit of runs of a failing test,
    unless its matrix sets one. `test_timeouts` are seconds by size that replace a matrix's own. `of_cells` is made by
    `make_for_cells` when the first cell uses it.
    """

    cache: Path
    out: Path
    cas: Cas
    folder: RunFolder
    processes: Processes
    make_for_cells: Callable[[], ForCells]
    machine: Callable[[], Machine]
    plugins: Plugins
    jobs: int
    runners: Mapping[str, Runner]
    links: LinkFolders
    test_timeouts: Mapping[str, int] = field(default_factory=dict)
    test_attempts: int | None = None
    of_cells: ForCells | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _tool_folders: dict[tuple[tuple[str, str], ...], str] = field(default_factory=dict)
    _logs: list[Path] = field(default_factory=list)
    _serial: Iterator[int] = field(default_factory=itertools.count)

    def for_cells(self) -> ForCells:
        """Return what only cells use. A build without cells does not import it."""
        with self._lock:
            if self.of_cells is None:
                self.of_cells = self.make_for_cells()
            return self.of_cells

    def timeout(self, action: Action) -> int:
        """Return the timeout of an action in seconds; 0 means none."""
        return self.test_timeouts.get(action.cell.size, action.timeout) if action.cell else action.timeout

    def scratch(self, action: Action) -> Path:
        """Return a new folder for this action, removed after the run."""
        return self.folder.new(f"action-{abs(hash(action.id))}")

    @contextmanager
    def command_log(self) -> Iterator[Path]:
        """Yield the path for the output of a command; another command gets that file, emptied, unless this one failed.

        To make and remove a file costs more than the sandbox of a command, on ext4 up to a millisecond.
        """
        with self._lock:
            log = self._logs.pop() if self._logs else None
        if log is None:
            log = self.folder.new(f"action-log-{next(self._serial)}") / "log"
        yield log
        if log.stat().st_size:
            os.truncate(log, 0)
        with self._lock:
            self._logs.append(log)

    def tool_folder(self, tools: Mapping[str, FileNode]) -> str:
        """Return a folder with these tools by their names.

        It is a folder, since runc runs itself from an overlay of its folder, and an overlay does not see through a bind
        mount of a single file. Its files are links into the cache, and copies of this machine's tools: a link would
        change the ctime of a file that is not bk's, as if it had been written to. A folder with links alone is kept for
        other builds. Cells whose tools have the same bytes share a folder, whatever their keys have of them.
        """
        blobs = {name: node.path for name, node in tools.items() if node.path.startswith(f"{self.cas.root}/")}
        key = tuple(sorted((name, blobs.get(name) or str(node.digest)) for name, node in tools.items()))
        with self._lock:
            if key not in self._tool_folders:

                def make() -> Path:
                    return _fill(self.folder.new(f"tools-{len(self._tool_folders)}"), tools, blobs)

                kept = len(blobs) == len(tools)
                self._tool_folders[key] = self.links.get(blobs, make) if kept else str(make())
            return self._tool_folders[key]

    def log(self, action: Action) -> Path:
        """Return the path of the log of an action's command."""
        folder = self.out / action.label.package / action.label.name
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{action.mnemonic}.log"

    def cell_folder(self, action: Action) -> Path:
        """Return the folder for the logs of a cell."""
        assert action.cell is not None
        return self.out / action.label.package / action.label.name / action.cell.folder


def _fill(folder: Path, tools: Mapping[str, FileNode], blobs: Collection[str]) -> Path:
    """Put links to `blobs` and copies of the other tools into a folder. Daemons without privileges read it too."""
    folder.chmod(0o755)  # whatever the umask
    for name, node in tools.items():
        make_folders(folder, os.path.dirname(name))
        if name in blobs:
            place(node.path, folder / name)
        else:
            shutil.copyfile(node.path, folder / name)
            (folder / name).chmod(0o755)
    return folder


def make_folders(root: Path, path: str) -> None:
    """Make the folders of a relative path, readable for everyone whatever the umask."""
    for part in path.split("/") if path else ():
        root /= part
        root.mkdir(exist_ok=True)
        root.chmod(0o755)


Runner = Callable[[Action, Mapping[str, Node], RunContext], Outcome]


def network_environment() -> dict[str, str]:
    """Return the variables by which this machine reaches package registries."""
    variables = {}
    for name, value in os.environ.items():
        if name.upper() in NETWORK or name.startswith(NETWORK_PREFIXES):
            variables[name] = value
    return variables


def limit_met(ended: Ended, log: Path) -> str:
    """Return the limit that ended a command: `timeout`, `output`, `memory`, `pids` or `disk`; empty for none."""
    if ended.over or not ended.code:
        return ended.over
    return "disk" if os.strerror(errno.ENOSPC) in outputs.tail(log, _LAST_WORDS) else ""


def limit_text(limits: Limits, name: str) -> str:
    """Return how a command met this limit, as the end of a sentence about it; empty for no limit."""
    texts = {
        "timeout": f"took more than {limits.timeout} s",
        "output": f"printed more than {MOST_OUTPUT >> 20} MiB",
        "memory": f"met its limit of {limits.memory} MiB of memory",
        "pids": f"met its limit of {limits.pids} processes",
        "disk": f"filled its disk of {limits.disk} MiB",
    }
    return texts[name] if name else ""
