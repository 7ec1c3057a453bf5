"""The registries of a run: one read-only registry for each set of images, serving hard links of the CAS on a unix socket."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bkrules.cache.links import LinkFolders
from bkrules.errors import ActionFailed
from bkrules.images.storage import SOCKET, files_of, write_tree
from bkrules.model.action import DirectoryNode, FileNode
from bkrules.model.reference import Reference
from bkrules.sandbox import syscalls
from bkrules.sandbox.run_folder import RunFolder
from bkrules.sandbox.spawner import Processes
from bkrules.sandbox.started import Started
from bkrules.system.waiting import readable

REGISTRY = "registry"
"""The reason of the error for a registry that does not start."""
_START_SECONDS = 20
_POLL_SECONDS = 0.001


@dataclass(frozen=True)
class Registry:
    """A started registry: the path of its socket, its process, and the folder of its storage."""

    target: str
    process: Started
    storage: str

    def has_ended(self, patience: float = 0) -> bool:
        """Return whether the registry has ended, waiting up to `patience` seconds."""
        return self.process.has_ended(patience)


class Registries:
    """The registries of a run by their content. A registry that has ended is started again; all end with the run."""

    def __init__(self, processes: Processes, folder: RunFolder, links: LinkFolders) -> None:
        self._processes = processes
        self._folder = folder
        self._links = links
        self._lock = threading.Lock()
        self._started = 0
        self._registries: dict[tuple[object, ...], Registry] = {}
        self._open = ExitStack()

    def get(self, images: Mapping[Reference, DirectoryNode], binary: FileNode, configuration: FileNode) -> Registry:
        """Return a registry of this binary and configuration with these images. Raises ActionFailed when it does not start."""
        content = sorted((reference, layout.digest) for reference, layout in images.items())
        key = (binary.digest, configuration.digest, *content)
        with self._lock:
            if key not in self._registries or self._registries[key].has_ended():
                self._registries[key] = self._start(images, binary.path, configuration.path)
            return self._registries[key]

    def close(self) -> None:
        """End all registries."""
        self._open.close()

    def _start(self, images: Mapping[Reference, DirectoryNode], binary: str, configuration: str) -> Registry:
        folder = self._folder.new(f"registry-{self._started}")
        self._started += 1
        files = {name: file if isinstance(file, bytes) else file.path for name, file in files_of(images).items()}
        storage = self._links.get(files, lambda: _filled(folder / "images", images))
        (folder / "data").symlink_to(storage)
        shutil.copyfile(configuration, folder / "config.yml")
        log = folder / "registry.log"
        with ExitStack() as opened, syscalls.watch_folder(str(folder)) as changes:
            process = opened.enter_context(
                self._processes.command(
                    [binary, "serve", "config.yml"], str(folder), {"OTEL_TRACES_EXPORTER": "none"}, str(log)
                )
            )
            # The path goes through the descriptor of the folder, since the path of a unix socket is limited to 107 bytes.
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, handle)
            target = f"/proc/self/fd/{handle}/{SOCKET}"
            deadline = time.monotonic() + _START_SECONDS
            while not accepts(target):
                left = deadline - time.monotonic()
                watched = [process.channel.fileno(), *([] if changes is None else [changes])]
                # Nothing tells when it listens on its socket, which it does one system call after it has made it.
                is_silent = changes is None or os.path.exists(target)
                patience = min(left, _POLL_SECONDS) if is_silent else left
                ready = readable(watched, patience)
                if left <= 0 or process.channel.fileno() in ready:
                    text = log.read_text(errors="replace")
                    raise ActionFailed(REGISTRY, "the mirror's registry did not start", log=text)
                if changes is not None and changes in ready:
                    os.read(changes, 4096)
            self._open.push(opened.pop_all())
        return Registry(target, process, storage)


def _filled(folder: Path, images: Mapping[Reference, DirectoryNode]) -> Path:
    folder.mkdir()
    write_tree(folder, images)
    return folder


def accepts(target: str) -> bool:
    """Return whether a registry accepts connections on its socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(target)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True
