"""The dockerd worker: the BuildKit in Docker's daemon, behind the daemon's own socket."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bk_worker_containerd as containerd

from bkrules.plugin import (
    FEATURES,
    Backend,
    Daemons,
    Mirror,
    Register,
    Worker,
    buildkitd,
    hookimpl,
    listening,
    one_of,
    setting,
)

STORES = {"containerd": "dockerd-containerd", "graphdriver": "dockerd"}
"""The image stores, and the worker's name in BuildKit's harness for each."""

HOSTS = Path("/etc/docker/certs.d")
"""The folder of dockerd's mirrors, which is not configurable."""

# The features that the harness lacks, and the caches that dockerd answers with "unknown cache exporter"; the second with
# images in a graph driver.
_NOWHERE = frozenset({"cni_network", "security_mode", "cache_backend_azblob", "cache_backend_s3"})
_GRAPHDRIVER = frozenset(
    {
        *("cache_export", "cache_import", "multi_cache_export"),
        *("cache_backend_gha", "cache_backend_local", "cache_backend_registry"),
        *("image_exporter", "oci_exporter", "oci_layout", "direct_push"),
        *("multi_platform", "provenance", "sbom"),
    }
)


def daemon_json(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return Docker's configuration with the meaning of this buildkitd.toml, derived as in BuildKit's harness."""
    return {
        "builder": {"gc": {"enabled": False}, "entitlements": _entitlements(document), "history": _history(document)},
        "data-root": str(Daemons.state / "docker"),
        "exec-root": str(Daemons.run / "docker"),
        "pidfile": str(Daemons.run / "docker.pid"),
        "containerd": containerd.socket(),
        "cdi-spec-dirs": list(document.get("cdi", {}).get("specDirs", [])),
        "debug": True,
        "dns": list(document.get("dns", {}).get("nameservers", [])),
        # The cell's network is private, and has no way out.
        "iptables": False,
        "ip6tables": False,
        "ip-forward": False,
        "userland-proxy": False,
    }


def _entitlements(document: Mapping[str, Any]) -> dict[str, bool]:
    """Return what builds may ask for. Devices are granted unless CDI is disabled, as by buildkitd."""
    granted = document.get("insecure-entitlements", [])
    return {
        "network-host": "network.host" in granted,
        "security-insecure": "security.insecure" in granted,
        "device": "device" in granted or not document.get("cdi", {}).get("disabled", False),
    }


def _history(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the limits of the history of builds; `maxEntries = 0` keeps none."""
    limits = document.get("history", {})
    found: dict[str, Any] = {"maxEntries": limits["maxEntries"]} if "maxEntries" in limits else {}
    return {**found, **({"maxAge": str(limits["maxAge"])} if "maxAge" in limits else {})}


def hosts_toml(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the files of HOSTS for the mirrors of this buildkitd.toml, by registry."""
    plain = {host for host, said in document["registry"].items() if said.get("http")}
    found = {}
    for host, said in document["registry"].items():
        mirrors = [f"{'http' if mirror in plain else 'https'}://{mirror}" for mirror in said.get("mirrors", ())]
        found[host] = "".join(f'[host."{mirror}"]\ncapabilities = ["pull", "resolve"]\n' for mirror in mirrors)
    return {host: text for host, text in found.items() if text}


@dataclass(frozen=True)
class DockerdWorker(Worker):
    """dockerd on the cell's own containerd."""

    name = "dockerd"

    store: str = setting("containerd", "the image store: containerd, or graphdriver, Docker's former one")

    def check(self) -> None:
        one_of("store", self.store, tuple(STORES))

    def id(self) -> str:
        return STORES[self.store]

    def tools(self) -> tuple[str, ...]:
        return ("dockerd", "containerd", "containerd-shim-runc-v2", "ctr", "runc")

    def features(self) -> frozenset[str]:
        return FEATURES - _NOWHERE - (_GRAPHDRIVER if self.store == "graphdriver" else frozenset())

    def no_jail(self) -> str:
        return ""

    def configuration(self, mirror: Mirror) -> Mapping[str, Mapping[str, Any]]:
        return {
            buildkitd.CONFIGURATION: buildkitd.configuration(mirror),
            containerd.CONFIGURATION: containerd.configuration(),
        }

    @contextmanager
    def start(self, daemons: Daemons) -> Iterator[Backend]:
        document = tomllib.loads((daemons.configuration / buildkitd.CONFIGURATION).read_text())
        settings = daemons.run / "daemon.json"
        settings.write_text(json.dumps(daemon_json(document)))
        for host, text in hosts_toml(document).items():
            (HOSTS / host).mkdir(parents=True)
            (HOSTS / host / "hosts.toml").write_text(text)
        daemons.start("containerd", containerd.arguments())
        path = daemons.run / "docker.sock"
        flags = ["--config-file", str(settings), "--host", "fd://"]
        flags += ["--feature", f"containerd-snapshotter={str(self.store == 'containerd').lower()}"]
        with listening(path) as listener:
            daemons.start("dockerd", ["dockerd", *flags], listener=listener)
        address = f"unix://{path}"
        yield Backend(
            address=address,
            docker_address=address,
            debug_address=address,
            snapshotter="overlayfs" if self.store == "containerd" else "",
            containerd_address=containerd.socket(),
            cdi_spec_dir=str(buildkitd.CDI_SPEC_DIR),
        )


@hookimpl
def bk_register_workers(register: Register) -> None:
    """Register the workers of this distribution."""
    register(DockerdWorker)
