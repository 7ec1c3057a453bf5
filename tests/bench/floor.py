"""The floor below a cell: its daemons and its build, on this machine as it is.

The daemons are started by the worker's own code, with the configuration and the environment that it gives them in a cell. Only
the cell is missing, and pytest.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tarfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import enclosure
import tomli_w
from bench.matrix.test_hello import DOCKERFILE

from bkrules.plugin import Daemons, Mirror
from bkrules.plugin.installed import Plugins
from bkrules.plugin.worker import MIRROR_ADDRESS, MIRROR_PORT, Worker
from bkrules.sandbox import syscalls

_REGISTRY = f"""version: 0.1
log: {{level: info}}
storage:
  filesystem: {{rootdirectory: {enclosure.ASSETS}/mirror}}
  maintenance: {{readonly: {{enabled: true}}}}
http: {{addr: {MIRROR_ADDRESS}}}
"""
_START_SECONDS = 10


@dataclass(frozen=True)
class Floor:
    """Seconds until the last daemon said READY=1, and those of the first `buildctl build` after that."""

    boot: float
    build: float


class _Daemons(Daemons):
    logs = Path("/run/bk/log")  # there is no /out outside of a cell


def measure(assets: Path, plugins: Plugins, cell: Mapping[str, Any]) -> Floor:
    """The floor of one cell, given as bk declares it. Raises enclosure.Broken."""
    worker = plugins.workers[cell["plugin"]].from_settings(cell["settings"])
    return Floor(**enclosure.run(lambda: _measure(worker, cell["environment"]), assets))


def _measure(worker: Worker, environment: Mapping[str, str]) -> dict[str, float]:
    """Inside: start the registry, then the daemons, then build."""
    os.environ.clear()
    os.environ.update(environment)
    _start_registry()
    _configure(worker)
    context = enclosure.SCRATCH / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(DOCKERFILE)
    archive = enclosure.SCRATCH / "out.tar"
    build = ["buildctl", "build", "--progress=plain", "--frontend=dockerfile.v0"]
    build += ["--local", f"context={context}", "--local", f"dockerfile={context}"]
    build += ["--output", f"type=tar,dest={archive}"]
    began = time.monotonic()
    with worker.start(_Daemons(environment)) as backend:
        ready = time.monotonic()
        variables = {**environment, "BUILDKIT_HOST": backend.address, **backend.extra_env}
        done = subprocess.run(build, env=variables, capture_output=True, text=True, check=False)
        built = time.monotonic()
    if done.returncode:
        raise RuntimeError(f"{' '.join(build)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    with tarfile.open(archive) as tar:
        member = tar.extractfile("hello.txt")
        if member is None or member.read() != b"hello\n":
            raise RuntimeError(f"{archive}: hello.txt does not say hello")
    return {"boot": ready - began, "build": built - ready}


def _configure(worker: Worker) -> None:
    """Lay out the folders that a worker finds in a cell."""
    for folder in (_Daemons.run, _Daemons.logs, _Daemons.configuration, _Daemons.state, Path("/etc/buildkit")):
        folder.mkdir(parents=True, exist_ok=True)
    syscalls.mount("floor", str(_Daemons.state), "tmpfs", 0, "mode=755")
    for name, document in worker.configuration(Mirror(MIRROR_ADDRESS, ("docker.io",))).items():
        (_Daemons.configuration / name).write_text(tomli_w.dumps(dict(document)))
    default = Path("/etc/buildkit/buildkitd.toml")
    default.unlink(missing_ok=True)
    default.symlink_to(_Daemons.configuration / "buildkitd.toml")


def _start_registry() -> None:
    config = enclosure.SCRATCH / "registry.yml"
    config.write_text(_REGISTRY)
    command = ["registry", "serve", str(config)]
    quiet = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
    registry = subprocess.Popen(command, env=quiet, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + _START_SECONDS
    while registry.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", MIRROR_PORT)).close()
            return
        except OSError:
            time.sleep(0.005)
    raise RuntimeError("the registry did not start")
