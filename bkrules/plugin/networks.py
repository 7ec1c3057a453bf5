"""Networks of build steps that need more than buildkitd: CNI, on a bridge that each cell has for itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from typing import Any

from bkrules.plugin.daemon import Daemons
from bkrules.plugin.features import FEATURES

HOST, CNI = "host", "cni"
MODES = (HOST, CNI)
"""The networks of steps: that of buildkitd, which is the cell's own; or one for each step, joined by a bridge."""

SUBNET = "10.10.0.0/16"
_PLUGINS = ("bridge", "host-local", "loopback")
_PREFIX = "buildkit-cni-"
_BINARIES = Daemons.run / "cni"
_CONFLIST = Daemons.run / "cni.conflist"


def tools(mode: str) -> tuple[str, ...]:
    """Return the pinned binaries that a network runs, by the names that BuildKit's own images give them."""
    return tuple(_PREFIX + plugin for plugin in _PLUGINS) if mode == CNI else ()


def features(mode: str) -> frozenset[str]:
    """Return the features of a BuildKit whose steps have this network."""
    return FEATURES if mode == CNI else FEATURES - {"cni_network"}


def no_jail(mode: str) -> str:
    """Return why a network does not run in a jail; empty when it does."""
    return "CNI is untested in jails" if mode == CNI else ""


def configured(document: Mapping[str, Any], kind: str, mode: str) -> dict[str, Any]:
    """Return a buildkitd.toml whose worker of this kind, oci or containerd, has this network."""
    if mode == HOST:
        return dict(document)
    network = {"networkMode": mode, "cniConfigPath": str(_CONFLIST), "cniBinaryPath": str(_BINARIES)}
    workers = document["worker"]
    return {**document, "worker": {**workers, kind: {**workers[kind], **network}}}


def prepare(mode: str) -> None:
    """Write the files of a network in this cell, before buildkitd starts.

    The network is neither masked nor filtered, which would need iptables: a cell has no way out that it could take.
    """
    if mode != CNI:
        return
    _BINARIES.mkdir()
    for plugin in _PLUGINS:
        (_BINARIES / plugin).symlink_to(str(shutil.which(_PREFIX + plugin)))
    addresses = {"type": "host-local", "ranges": [[{"subnet": SUBNET}]]}
    bridge = {"type": "bridge", "bridge": "buildkit0", "isDefaultGateway": True, "hairpinMode": True, "ipam": addresses}
    _CONFLIST.write_text(json.dumps({"cniVersion": "1.0.0", "name": "buildkit", "plugins": [bridge]}))
