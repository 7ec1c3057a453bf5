"""The OCI worker: buildkitd runs containers directly by runc."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from bkrules.plugin import (
    Backend,
    Daemons,
    Host,
    Lack,
    Mirror,
    Register,
    SettingsError,
    Worker,
    buildkitd,
    hookimpl,
    networks,
    one_of,
    setting,
    snapshotters,
)

SNAPSHOTTERS = ("overlayfs", "native", "fuse-overlayfs", "stargz")


@dataclass(frozen=True)
class OciWorker(Worker):
    """buildkitd with its OCI worker, on one of its built-in snapshotters."""

    name = "oci"

    snapshotter: str = setting("overlayfs", "overlayfs, native, fuse-overlayfs or stargz")
    proxy: bool = setting(False, "with stargz: use the snapshotter daemon instead of buildkitd's own")
    network: str = setting(networks.HOST, "the network of steps: host, the cell's own, or cni, one for each step")

    def check(self) -> None:
        one_of("snapshotter", self.snapshotter, SNAPSHOTTERS)
        one_of("network", self.network, networks.MODES)
        if self.proxy and self.snapshotter != "stargz":
            raise SettingsError("proxy", f"'proxy' needs snapshotter 'stargz', but it is {self.snapshotter!r}")

    def id(self) -> str:
        suffix = "" if self.snapshotter == "overlayfs" else f"+{self.snapshotter}"
        return self.name + suffix + ("-proxy" if self.proxy else "") + ("+cni" if self.network == networks.CNI else "")

    def tools(self) -> tuple[str, ...]:
        proxy = ("containerd-stargz-grpc",) if self.proxy else ()
        return ("buildkitd", "runc", *proxy, *snapshotters.tools(self.snapshotter), *networks.tools(self.network))

    def host_tools(self) -> tuple[str, ...]:
        return snapshotters.host_tools(self.snapshotter)

    def preflight(self, host: Host) -> tuple[Lack, ...]:
        return snapshotters.lacks(self.snapshotter, host)

    def no_jail(self) -> str:
        return snapshotters.no_jail(self.snapshotter) or networks.no_jail(self.network)

    def features(self) -> frozenset[str]:
        return networks.features(self.network)

    def modules(self) -> tuple[ModuleType, ...]:
        return (*super().modules(), *((_stargz(),) if self.proxy else ()))

    def configuration(self, mirror: Mirror) -> Mapping[str, Mapping[str, Any]]:
        built_in = "" if self.proxy else self.snapshotter
        document = networks.configured(buildkitd.configuration(mirror, built_in), "oci", self.network)
        files = {buildkitd.CONFIGURATION: document}
        if self.proxy:
            files[_stargz().CONFIGURATION] = _stargz().configuration(mirror)
        return files

    @contextmanager
    def start(self, daemons: Daemons) -> Iterator[Backend]:
        flags = [*buildkitd.OCI_FLAGS, "--oci-worker-snapshotter", self.snapshotter]
        if self.proxy:
            flags += ["--oci-worker-proxy-snapshotter-path", _stargz().start(daemons)]
        networks.prepare(self.network)
        environment = buildkitd.environment(daemons.run, self.snapshotter)
        yield buildkitd.backend(buildkitd.start(daemons, flags, environment=environment), self.snapshotter)


def _stargz() -> Any:
    """Return the plugin that owns the snapshotter daemon; only the proxy needs it."""
    try:
        return import_module("bk_worker_containerd_stargz")
    except ModuleNotFoundError as error:
        raise SettingsError(
            "proxy", "'proxy' needs the snapshotter daemon", "pip install bk-worker-containerd-stargz"
        ) from error


@hookimpl
def bk_register_workers(register: Register) -> None:
    """Register the workers of this distribution."""
    register(OciWorker)
