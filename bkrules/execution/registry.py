"""The registries of a run: one read-only registry for each set of images, serving hard links of the CAS on a unix socket."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack

from bkrules.action import DirectoryNode
from bkrules.digest import Digest
from bkrules.errors import ActionFailed
from bkrules.execution.processes import Processes
from bkrules.execution.run_folder import RunFolder
from bkrules.images.reference import Reference
from bkrules.images.storage import write_tree

_START_SECONDS = 20
_CONFIG = """version: 0.1
log: {level: info, accesslog: {disabled: false}}
storage:
  filesystem: {rootdirectory: data}
  maintenance: {readonly: {enabled: true}}
http: {net: unix, addr: registry.sock}
"""


class Registries:
    """Registries by what they hold, each started once and ended with the run."""

    def __init__(self, processes: Processes, folder: RunFolder) -> None:
        self._processes = processes
        self._folder = folder
        self._lock = threading.Lock()
        self._targets: dict[tuple[tuple[Reference, Digest], ...], str] = {}
        self._open = ExitStack()

    def target(self, images: Mapping[Reference, DirectoryNode], binary: str) -> str:
        """The unix socket of a registry that holds these images. Raises ActionFailed when it does not start."""
        key = tuple(sorted((reference, layout.digest) for reference, layout in images.items()))
        with self._lock:
            if key not in self._targets:
                self._targets[key] = self._start(images, binary)
            return self._targets[key]

    def close(self) -> None:
        """End them all."""
        self._open.close()

    def _start(self, images: Mapping[Reference, DirectoryNode], binary: str) -> str:
        folder = self._folder.new(f"registry-{len(self._targets)}")
        data = folder / "data"
        data.mkdir()
        write_tree(data, images)
        (folder / "config.yml").write_text(_CONFIG)
        log = folder / "registry.log"
        self._open.enter_context(
            self._processes.command(
                [binary, "serve", "config.yml"], str(folder), {"OTEL_TRACES_EXPORTER": "none"}, str(log)
            )
        )
        # Reached through the descriptor of its folder, since the path of a unix socket may only have 107 bytes.
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._open.callback(os.close, handle)
        target = f"/proc/self/fd/{handle}/registry.sock"
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            with socket.socket(socket.AF_UNIX) as probe:
                try:
                    probe.connect(target)
                    return target
                except OSError:
                    time.sleep(0.002)
        raise ActionFailed("registry", "the mirror's registry did not start", log=log.read_text())
