"""buildkitd: the configuration and the start that all workers share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bkrules.plugin.daemon import Daemons, listening
from bkrules.plugin.host import goarch
from bkrules.plugin.worker import Backend, Mirror

CONFIGURATION = "buildkitd.toml"
CDI_SPEC_DIR = Daemons.run / "cdi"


def configuration(mirror: Mirror, built_in: str = "") -> dict[str, Any]:
    """Return the part of buildkitd.toml that all workers share. `built_in` is the snapshotter inside of buildkitd, if
    that is used.

    The platform is set because buildkitd otherwise probes each one that QEMU knows; name servers are, because buildkitd
    would replace a loopback resolver by public ones. Options of newer releases are set here and not by flags: an older
    release ignores an unknown key, and ends at an unknown flag.
    """
    worker = {"platforms": [f"linux/{goarch()}"], "labels": {"org.mobyproject.buildkit.worker.sandbox": "true"}}
    oci: dict[str, Any] = dict(worker)
    if built_in == "stargz":
        # Otherwise a background fetch would distort a test's measurements at the mirror.
        oci["stargzSnapshotter"] = {"no_background_fetch": True, "noprefetch": True}
    return {
        "root": str(Daemons.state / "buildkit"),
        "cdi": {"specDirs": [str(CDI_SPEC_DIR)]},
        "dns": {"nameservers": ["127.0.0.1"]},
        "worker": {"oci": oci, "containerd": dict(worker)},
        "registry": {
            **{host: {"mirrors": [mirror.address]} for host in mirror.hosts},
            mirror.address: {"http": True},
        },
    }


def environment(run: Path, snapshotter: str) -> dict[str, str]:
    """Return the variables of a buildkitd under test: those of BuildKit's own harness, and its debug address.

    The debug address is a variable and not a flag, so that releases that do not know it still start.
    """
    return {
        "BUILDKITD_DEBUGADDR": f"unix://{run}/buildkitd-debug.sock",
        "BUILDKIT_DEBUG_EXEC_OUTPUT": "1",
        "BUILDKIT_DEBUG_PANIC_ON_ERROR": "1",
        **_extra(snapshotter),
    }


def backend(address: str, snapshotter: str, run: Path = Daemons.run, **more: Any) -> Backend:
    """Return the backend of a buildkitd with that `environment`; `more` are fields that only the worker knows."""
    debug = f"unix://{run}/buildkitd-debug.sock"
    common: dict[str, Any] = {
        "debug_address": debug,
        "extra_env": _extra(snapshotter),
        "cdi_spec_dir": str(CDI_SPEC_DIR),
    }
    return Backend(address=address, snapshotter=snapshotter, **{**common, **more})


def _extra(snapshotter: str) -> dict[str, str]:
    """Return the variables for snapshotters with overlays, which BuildKit can compare as such, and fail where it cannot."""
    return {"BUILDKIT_DEBUG_FORCE_OVERLAY_DIFF": "true"} if snapshotter in ("overlayfs", "stargz") else {}


def start(daemons: Daemons, flags: Sequence[str], *, environment: Mapping[str, str] | None = None) -> str:
    """Start buildkitd as root on a socket that is bound before it runs. Return its address."""
    path = daemons.run / "buildkitd.sock"
    with listening(path) as listener:
        daemons.start("buildkitd", arguments("fd://", daemons.run, flags), environment=environment, listener=listener)
    return f"unix://{path}"


def arguments(address: str, run: Path, flags: Sequence[str]) -> list[str]:
    """Return the command line of a buildkitd that keeps to its cell. `run` is a folder for its sockets."""
    return [
        *("buildkitd", "--debug", "--config", str(Daemons.configuration / CONFIGURATION), "--addr", address),
        *("--otel-socket-path", str(run / "otel.sock"), *flags),
    ]


OCI_FLAGS = ("--oci-worker=true", "--oci-worker-gc=false", "--containerd-worker=false")
CONTAINERD_FLAGS = ("--oci-worker=false", "--containerd-worker=true", "--containerd-worker-gc=false")
