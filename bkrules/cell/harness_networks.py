"""The networks that BuildKit's integration tests expect, for a program that runs the tests of networks.

Source: hack/fixtures and the stage integration-tests-base of BuildKit's sources.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

ASKED = "BUILDKIT_RUN_NETWORK_INTEGRATION_TESTS"
_PREFIX = "buildkit-cni-"


def prepare(environment: Mapping[str, str], root: Path = Path("/")) -> None:
    """Write the configuration of CNI, and show the plugins among the tools, if the program runs tests of networks. Raises OSError.

    A bridge becomes the network of each RUN step then. A plugin is a tool with BuildKit's name for it, `buildkit-cni-bridge`.
    """
    if not environment.get(ASKED):
        return
    configuration, plugins = root / "etc/buildkit", root / "opt/cni/bin"
    for folder in (configuration, plugins):
        folder.mkdir(parents=True, exist_ok=True)
    default = {"cniVersion": "1.0.0", "name": "buildkit", "forceAddress": False, **_bridge("buildkit0", "10.10.0.0/16")}
    (configuration / "cni.json").write_text(json.dumps(default))
    chain = [
        _bridge("buildkitdns0", "10.11.0.0/16"),
        {"type": "firewall"},
        {"type": "dnsname", "domainName": "dns.buildkit"},
    ]
    named = {"cniVersion": "0.4.0", "name": "buildkitdns", "plugins": chain}
    (configuration / "dns-cni.conflist").write_text(json.dumps(named))
    for place in environment["PATH"].split(":"):
        for tool in Path(place).glob(f"{_PREFIX}*"):
            (plugins / tool.name.removeprefix(_PREFIX)).symlink_to(tool)


def _bridge(name: str, subnet: str) -> dict[str, object]:
    addresses = {"type": "host-local", "ranges": [[{"subnet": subnet}]]}
    return {
        "type": "bridge",
        "bridge": name,
        "isDefaultGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": addresses,
    }
