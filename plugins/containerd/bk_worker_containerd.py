"""The containerd worker: buildkitd leaves images, snapshots and containers to a containerd of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bkrules.plugin import Backend, Daemons, Mirror, Register, Worker, buildkitd, hookimpl, setting

CONFIGURATION = "containerd.toml"
NAMESPACE = "buildkit"
TOOLS = ("buildkitd", "containerd", "containerd-shim-runc-v2", "ctr", "runc")

# What BuildKit does not use and what costs time at start or touches devices. Without the introspection service, which
# these leave alone, ctr and BuildKit cannot speak to containerd.
DISABLED = (
    "io.containerd.cri.v1.images",
    "io.containerd.cri.v1.runtime",
    "io.containerd.differ.v1.erofs",
    "io.containerd.grpc.v1.cri",
    "io.containerd.image-verifier.v1.bindir",
    "io.containerd.internal.v1.opt",
    "io.containerd.monitor.container.v1.restart",
    "io.containerd.mount-handler.v1.erofs",
    "io.containerd.nri.v1.nri",
    "io.containerd.podsandbox.controller.v1.podsandbox",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.erofs",
    "io.containerd.snapshotter.v1.zfs",
)


def configuration() -> dict[str, Any]:
    """containerd.toml, to which a worker may add proxy plugins."""
    return {
        "version": 3,
        "root": str(Daemons.state / "containerd"),
        "state": str(Daemons.run / "containerd"),
        "disabled_plugins": list(DISABLED),
        "grpc": {"address": socket()},
        "ttrpc": {"address": f"{socket()}.ttrpc"},
        "debug": {"address": str(Daemons.run / "containerd-debug.sock"), "level": "debug"},
    }


def socket() -> str:
    """The path of containerd's socket in a cell."""
    return str(Daemons.run / "containerd.sock")


@contextmanager
def start(daemons: Daemons, snapshotter: str) -> Iterator[Backend]:
    """Start containerd and a buildkitd on it that uses `snapshotter`. Other plugins may call this."""
    daemons.start("containerd", ["containerd", "--config", str(daemons.configuration / CONFIGURATION)])
    flags = ["--containerd-worker-addr", socket(), "--containerd-worker-snapshotter", snapshotter]
    environment = buildkitd.environment(daemons.run, snapshotter)
    address = buildkitd.start(daemons, [*buildkitd.CONTAINERD_FLAGS, *flags], environment=environment)
    yield buildkitd.backend(address, snapshotter, containerd_address=socket())


def state() -> dict[str, list[str]]:
    """What containerd has of BuildKit's, beside its content and snapshots, which go when its collector comes round."""
    lists = {
        "images": ("images", "ls", "-q"),
        "containers": ("containers", "ls", "-q"),
        "leases": ("leases", "ls", "-q"),
    }
    found = {}
    for name, words in lists.items():
        command = ["ctr", "--address", socket(), "--namespace", NAMESPACE, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[f"containerd's {name}"] = sorted(done.stdout.split())
    return found


@dataclass(frozen=True)
class ContainerdWorker(Worker):
    """buildkitd with its containerd worker."""

    name = "containerd"

    snapshotter: str = setting("overlayfs", "a snapshotter of containerd: overlayfs or native")

    def id(self) -> str:
        return self.name if self.snapshotter == "overlayfs" else f"{self.name}+{self.snapshotter}"

    def tools(self) -> tuple[str, ...]:
        return TOOLS

    def configuration(self, mirror: Mirror) -> Mapping[str, Mapping[str, Any]]:
        return {buildkitd.CONFIGURATION: buildkitd.configuration(mirror), CONFIGURATION: configuration()}

    def state(self, daemons: Daemons) -> Mapping[str, list[str]]:
        return state()

    @contextmanager
    def start(self, daemons: Daemons) -> Iterator[Backend]:
        with start(daemons, self.snapshotter) as backend:
            yield backend


@hookimpl
def bk_register_workers(register: Register) -> None:
    """The workers of this distribution."""
    register(ContainerdWorker)
