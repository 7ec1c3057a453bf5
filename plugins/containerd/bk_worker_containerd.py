"""The containerd worker: buildkitd leaves images, snapshots and containers to a separate containerd."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bkrules.plugin import (
    Backend,
    Daemons,
    Host,
    Lack,
    Mirror,
    Register,
    Worker,
    buildkitd,
    hookimpl,
    networks,
    one_of,
    setting,
    snapshotters,
)

CONFIGURATION = "containerd.toml"
NAMESPACE = "buildkit"
SNAPSHOTTERS = ("overlayfs", "native", "fuse-overlayfs")
FUSE_OVERLAYFS = "containerd-fuse-overlayfs-grpc"
TOOLS = ("buildkitd", "containerd", "containerd-shim-runc-v2", "ctr", "runc")

# The plugins that BuildKit does not use and that cost time at start or touch devices. The introspection service stays: ctr
# and BuildKit cannot talk to containerd without it.
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


def configuration(run: Path = Daemons.run) -> dict[str, Any]:
    """Return containerd.toml, to which a worker may add proxy plugins; sockets are in the folder `run`.

    It is in version 2 of the format, which releases before 2.0 read too. A release ignores the names in DISABLED that
    it lacks.
    """
    return {
        "version": 2,
        "root": str(Daemons.state / "containerd"),
        "state": str(run / "containerd"),
        "disabled_plugins": list(DISABLED),
        "grpc": {"address": socket(run)},
        "ttrpc": {"address": f"{socket(run)}.ttrpc"},
        "debug": {"address": str(run / "containerd-debug.sock"), "level": "debug"},
    }


def proxy(snapshotter: str, address: str) -> dict[str, Any]:
    """Return the part of containerd.toml that makes a daemon at `address` a snapshotter of that name."""
    return {"proxy_plugins": {snapshotter: {"type": "snapshot", "address": address}}}


def socket(run: Path = Daemons.run) -> str:
    """Return the path of containerd's socket in a cell."""
    return str(run / "containerd.sock")


def arguments() -> list[str]:
    """Return the command line of containerd."""
    return ["containerd", "--config", str(Daemons.configuration / CONFIGURATION)]


def flags(snapshotter: str, run: Path = Daemons.run) -> list[str]:
    """Return the flags of a buildkitd that uses containerd."""
    address = ("--containerd-worker-addr", socket(run))
    return [*buildkitd.CONTAINERD_FLAGS, *address, "--containerd-worker-snapshotter", snapshotter]


@contextmanager
def start(daemons: Daemons, snapshotter: str) -> Iterator[Backend]:
    """Start containerd and a buildkitd on it that uses `snapshotter`. Other plugins may call this."""
    daemons.start("containerd", arguments())
    environment = buildkitd.environment(daemons.run, snapshotter)
    address = buildkitd.start(daemons, flags(snapshotter), environment=environment)
    yield buildkitd.backend(address, snapshotter, containerd_address=socket())


def state(address: str) -> dict[str, list[str]]:
    """Return BuildKit's resources in containerd, except content and snapshots, which its garbage collector removes later."""
    lists = {
        "images": ("images", "ls", "-q"),
        "containers": ("containers", "ls", "-q"),
        "leases": ("leases", "ls", "-q"),
    }
    found = {}
    for name, words in lists.items():
        command = ["ctr", "--address", address, "--namespace", NAMESPACE, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[f"containerd's {name}"] = sorted(done.stdout.split())
    return found


@dataclass(frozen=True)
class ContainerdWorker(Worker):
    """buildkitd with its containerd worker."""

    name = "containerd"

    snapshotter: str = setting("overlayfs", "overlayfs, native or fuse-overlayfs")
    network: str = setting(networks.HOST, "the network of steps: host, the cell's own, or cni, one for each step")

    def check(self) -> None:
        one_of("snapshotter", self.snapshotter, SNAPSHOTTERS)
        one_of("network", self.network, networks.MODES)

    def id(self) -> str:
        suffix = "" if self.snapshotter == "overlayfs" else f"+{self.snapshotter}"
        return self.name + suffix + ("+cni" if self.network == networks.CNI else "")

    def tools(self) -> tuple[str, ...]:
        fuse = (FUSE_OVERLAYFS,) if self._fuse else ()
        return (*TOOLS, *fuse, *snapshotters.tools(self.snapshotter), *networks.tools(self.network))

    def host_tools(self) -> tuple[str, ...]:
        return snapshotters.host_tools(self.snapshotter)

    def preflight(self, host: Host) -> tuple[Lack, ...]:
        return snapshotters.lacks(self.snapshotter, host)

    def no_jail(self) -> str:
        return snapshotters.no_jail(self.snapshotter) or networks.no_jail(self.network)

    def features(self) -> frozenset[str]:
        return networks.features(self.network)

    def configuration(self, mirror: Mirror) -> Mapping[str, Mapping[str, Any]]:
        daemon = proxy(self.snapshotter, _fuse_socket()) if self._fuse else {}
        document = networks.configured(buildkitd.configuration(mirror), "containerd", self.network)
        return {buildkitd.CONFIGURATION: document, CONFIGURATION: {**configuration(), **daemon}}

    @hookimpl
    def bk_state(self) -> dict[str, list[str]]:
        return state(socket())

    @contextmanager
    def start(self, daemons: Daemons) -> Iterator[Backend]:
        networks.prepare(self.network)
        if self._fuse:  # containerd has no built-in one
            daemons.start("fuse-overlayfs", [FUSE_OVERLAYFS, _fuse_socket(), str(daemons.state / "fuse-overlayfs")])
        with start(daemons, self.snapshotter) as backend:
            yield backend

    @property
    def _fuse(self) -> bool:
        return self.snapshotter == snapshotters.FUSE_OVERLAYFS


def _fuse_socket() -> str:
    return str(Daemons.run / "fuse-overlayfs.sock")


@hookimpl
def bk_register_workers(register: Register) -> None:
    """Register the workers of this distribution."""
    register(ContainerdWorker)
