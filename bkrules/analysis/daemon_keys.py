"""Keys of buildkitd.toml that are misspelled: buildkitd ignores a key that it does not know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bkrules.errors import is_near

FILE = "buildkitd.toml"
_OF_WORKERS = (
    "apparmor-profile bridgeName bridgeSubnet cniBinaryPath cniConfigPath cniPoolSize defaultCgroupParent enabled gc "
    "gckeepstorage gcpolicy labels max-parallelism maxUsedSpace minFreeSpace networkMode platforms reservedSpace rootless "
    "selinux snapshotter"
)
_TABLES = {
    "": "cache cdi compaction debug dns frontend grpc history insecure-entitlements log otel provenanceEnvDir proxyNetwork "
    "registry root system trace worker",
    "worker.": "containerd oci",
    "worker.oci.": f"{_OF_WORKERS} binary noProcessSandbox proxySnapshotterPath stargzSnapshotter userRemapUnsupported",
    "worker.containerd.": f"{_OF_WORKERS} address hypervIsolation namespace runtime",
}
"""The keys of v0.34.2 by their table. Other releases have others, so only a key that is nearly one of these is a mistake."""


def misspelled(document: Mapping[str, Any], table: str = "") -> Iterator[tuple[str, str]]:
    """Yield the misspelled keys of a buildkitd.toml, each with the key that is meant, as `worker.oci.gc`."""
    known = _TABLES.get(table, "").split()
    for key, value in document.items():
        if key in known:
            if isinstance(value, Mapping):
                yield from misspelled(value, f"{table}{key}.")
        elif near := [one for one in known if is_near(key, one)]:
            yield f"{table}{key}", f"{table}{near[0]}"
