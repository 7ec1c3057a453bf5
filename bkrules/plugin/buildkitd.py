"""buildkitd: the configuration and the start that all workers share."""

from __future__ import annotations

import platform
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bkrules.plugin.daemon import Daemons
from bkrules.plugin.worker import Mirror

CONFIGURATION = "buildkitd.toml"


def configuration(mirror: Mirror) -> dict[str, Any]:
    """The part of buildkitd.toml that does not depend on the worker.

    The platform is said here because buildkitd otherwise runs a probe for each that QEMU knows; name servers are,
    because it would fill in public ones for a loopback resolver.
    """
    goarch = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    platforms = {"platforms": [f"linux/{goarch}"]}
    return {
        "root": str(Daemons.state / "buildkit"),
        "dns": {"nameservers": ["127.0.0.1"]},
        "worker": {"oci": dict(platforms), "containerd": dict(platforms)},
        "registry": {
            **{host: {"mirrors": [mirror.address]} for host in mirror.hosts},
            mirror.address: {"http": True},
        },
    }


def start(daemons: Daemons, flags: Sequence[str], *, environment: Mapping[str, str] | None = None) -> str:
    """Start buildkitd as root on a socket that is bound before it runs; its address."""
    path = daemons.run / "buildkitd.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen(64)
        daemons.start("buildkitd", arguments("fd://", daemons.run, flags), environment=environment, listener=listener)
    return f"unix://{path}"


def arguments(address: str, run: Path, flags: Sequence[str]) -> list[str]:
    """The command line of a buildkitd that keeps to its cell. `run` is a folder it may write sockets to."""
    return [
        *("buildkitd", "--debug", "--config", str(Daemons.configuration / CONFIGURATION), "--addr", address),
        *("--otel-socket-path", str(run / "otel.sock"), "--cdi-disabled", *flags),
    ]


OCI_FLAGS = ("--oci-worker=true", "--oci-worker-gc=false", "--containerd-worker=false")
CONTAINERD_FLAGS = ("--oci-worker=false", "--containerd-worker=true", "--containerd-worker-gc=false")
