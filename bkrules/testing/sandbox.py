"""The sandbox: a running backend, its mirror, and the point of the matrix, as a test sees them."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from bkrules.execution.mirror_door import MirrorRequest
from bkrules.plugin.worker import MIRROR_ADDRESS, Backend

_WAIT = 10.0


def mirror_requests() -> list[MirrorRequest]:
    """The requests that the daemons of this cell have made to the mirror since it began."""
    answer = requests.get(f"http://{MIRROR_ADDRESS}/_bk/requests", timeout=_WAIT)
    answer.raise_for_status()
    return [MirrorRequest(**item) for item in answer.json()]


class CommandFailed(AssertionError):
    """A command that a test ran ended with another status than 0. Its message holds all that it printed."""

    def __init__(self, arguments: list[str], completed: subprocess.CompletedProcess[str]) -> None:
        super().__init__(
            f"{shlex.join(arguments)}: exit status {completed.returncode}\n{completed.stdout}{completed.stderr}"
        )
        self.completed = completed


@dataclass(frozen=True)
class Sandbox:
    """What the `sandbox` fixture gives to a test.

    `name` is the cell's name; `worker` the worker's; the addresses are empty where a backend has no such thing.
    """

    name: str
    worker: str
    backend: Backend
    axes: Mapping[str, Mapping[str, Any]]
    log_folder: Path = field(default=Path("/out"))
    seen: Mapping[str, Any] = field(default_factory=dict, repr=False)
    _serial: Any = field(default_factory=itertools.count, repr=False)

    @property
    def address(self) -> str:
        """The address of buildkitd, for BUILDKIT_HOST."""
        return self.backend.address

    @property
    def snapshotter(self) -> str:
        """The name of the snapshotter."""
        return self.backend.snapshotter

    @property
    def rootless(self) -> bool:
        """Whether buildkitd runs without privileges."""
        return self.backend.rootless

    @property
    def containerd_address(self) -> str:
        """The path of containerd's socket, or nothing."""
        return self.backend.containerd_address

    @property
    def mirror(self) -> str:
        """Where the mirror answers, as `host:port`."""
        return MIRROR_ADDRESS

    def value(self, axis: str) -> Any:
        """The value of this cell on an axis. Raises KeyError that names the axes there are."""
        return self._point(axis)["value"]

    def choice(self, axis: str) -> str:
        """The name of this cell's value on an axis."""
        return str(self._point(axis)["choice"])

    def _point(self, axis: str) -> Mapping[str, Any]:
        if axis not in self.axes:
            raise KeyError(f"no axis {axis!r}; this matrix has: {', '.join(sorted(self.axes)) or 'none'}")
        return self.axes[axis]

    def run(self, arguments: str | list[str], *, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
        """Run buildctl with these arguments against this backend; a string is split as a shell would.

        Raises CommandFailed, with all that it printed, when its status is not 0, and TimeoutExpired after `timeout` seconds.
        """
        words = shlex.split(arguments) if isinstance(arguments, str) else list(arguments)
        command = ["buildctl", *words]
        completed = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
        )
        print(f"$ {shlex.join(command)}\n{completed.stdout}{completed.stderr}", end="")
        if completed.returncode:
            raise CommandFailed(command, completed)
        return completed

    @property
    def environment(self) -> dict[str, str]:
        """The environment of commands that talk to this backend."""
        return {**os.environ, "BUILDKIT_HOST": self.address, **self.backend.extra_env}

    @property
    def logs(self) -> dict[str, str]:
        """What each daemon has logged so far, by its name."""
        before = self.seen.get("logs", {})
        files = sorted(self.log_folder.glob("*.log"))
        return {
            file.stem: file.read_bytes()[before.get(file.name, 0) :].decode(errors="replace")
            for file in files
            if file.name != "test.log"
        }

    def mirror_requests(self) -> list[MirrorRequest]:
        """The requests that this cell's daemons have made to the mirror so far, in their order."""
        return mirror_requests()[self.seen.get("requests", 0) :]

    def manifest(self, reference: str) -> dict[str, Any]:
        """The manifest that the mirror has for a reference such as `docker.io/library/busybox:latest`."""
        _, _, path = reference.partition("/")
        repository, _, tag = path.rpartition(":")
        accept = "application/vnd.oci.image.manifest.v1+json"
        answer = requests.get(
            f"http://{MIRROR_ADDRESS}/v2/{repository}/manifests/{tag}", headers={"Accept": accept}, timeout=_WAIT
        )
        answer.raise_for_status()
        manifest: dict[str, Any] = answer.json()
        return manifest

    def new_registry(self) -> str:
        """Start one more registry, empty and writable, that lives as long as this cell; its `host:port`."""
        folder = Path(tempfile.mkdtemp(prefix="registry-"))
        log = self.log_folder / f"registry-{next(self._serial)}.log"
        config = folder / "config.yml"
        storage = f"storage: {{filesystem: {{rootdirectory: {folder}/data}}, delete: {{enabled: true}}}}"
        config.write_text(f"version: 0.1\nlog: {{level: info}}\n{storage}\nhttp: {{addr: '127.0.0.1:0'}}\n")
        with log.open("w") as output:
            process = subprocess.Popen(["registry", "serve", str(config)], stdout=output, stderr=output)
        deadline = time.monotonic() + _WAIT
        while time.monotonic() < deadline and process.poll() is None:
            found = re.search(r"listening on (127\.0\.0\.1:\d+)", log.read_text())
            if found:
                return found[1]
            time.sleep(0.005)
        raise RuntimeError(f"the registry did not start: {log.read_text()}")
