"""The networks of a cell on BuildKit's harness: configuration and plugins, for a program that runs tests of networks."""

from __future__ import annotations

import json
from pathlib import Path

from bkrules.cell import harness_networks


def test_the_plugins_among_the_tools_have_the_names_of_the_configuration(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bridge", "firewall", "host-local", "dnsname"):
        (tools / f"buildkit-cni-{name}").write_text(name)
    (tools / "buildkitd").write_text("no plugin")
    environment = {harness_networks.ASKED: "1", "PATH": f"{tools}:{tmp_path}/none"}

    harness_networks.prepare(environment, tmp_path)

    plugins = {path.name: path.read_text() for path in (tmp_path / "opt/cni/bin").iterdir()}
    assert plugins == {name: name for name in ("bridge", "firewall", "host-local", "dnsname")}
    default = json.loads((tmp_path / "etc/buildkit/cni.json").read_text())
    chain = json.loads((tmp_path / "etc/buildkit/dns-cni.conflist").read_text())["plugins"]
    used = [default, default["ipam"], *chain, chain[0]["ipam"]]
    assert {plugin["type"] for plugin in used} == set(plugins)
    assert default["ipam"]["ranges"] != chain[0]["ipam"]["ranges"]


def test_other_programs_find_no_configuration(tmp_path: Path) -> None:
    harness_networks.prepare({"PATH": "/usr/bin"}, tmp_path)

    assert list(tmp_path.iterdir()) == []
