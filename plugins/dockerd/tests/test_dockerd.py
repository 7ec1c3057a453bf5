from __future__ import annotations

import tomllib

import pytest
from bk_worker_dockerd import DockerdWorker, daemon_json, hosts_toml

from bkrules.plugin import Mirror, SettingsError, buildkitd

MIRROR = Mirror("127.0.0.1:5000", ("docker.io", "ghcr.example"))


def test_ids_are_those_of_the_harness() -> None:
    assert DockerdWorker().id() == "dockerd-containerd"
    assert DockerdWorker(store="graphdriver").id() == "dockerd"


def test_a_store_that_is_not_there() -> None:
    with pytest.raises(SettingsError, match="one of containerd, graphdriver"):
        DockerdWorker.from_settings({"store": "zfs"})


def test_every_mirrored_host_goes_to_the_mirror() -> None:
    files = hosts_toml(buildkitd.configuration(MIRROR))

    assert set(files) == {"docker.io", "ghcr.example"}
    for text in files.values():
        assert tomllib.loads(text) == {"host": {"http://127.0.0.1:5000": {"capabilities": ["pull", "resolve"]}}}


def test_dockerd_keeps_to_its_cell() -> None:
    document = daemon_json(buildkitd.configuration(MIRROR))

    assert document["data-root"].startswith("/var/lib/bk/")
    assert document["exec-root"].startswith("/run/bk/")
    assert document["iptables"] is False
    assert document["dns"] == ["127.0.0.1"]


@pytest.mark.parametrize("granted", [[], ["network.host"], ["network.host", "security.insecure"]])
def test_entitlements_are_those_of_buildkitd(granted: list[str]) -> None:
    document = {**buildkitd.configuration(MIRROR), "insecure-entitlements": granted}

    assert daemon_json(document)["builder"]["entitlements"] == {
        "network-host": "network.host" in granted,
        "security-insecure": "security.insecure" in granted,
        "device": True,
    }


def test_devices_are_refused_without_cdi() -> None:
    document = {**buildkitd.configuration(MIRROR), "cdi": {"disabled": True}}
    assert daemon_json(document)["builder"]["entitlements"]["device"] is False

    document["insecure-entitlements"] = ["device"]
    assert daemon_json(document)["builder"]["entitlements"]["device"] is True


@pytest.mark.parametrize(
    ("limits", "expected"),
    [({}, {}), ({"maxEntries": 0}, {"maxEntries": 0}), ({"maxAge": 172800}, {"maxAge": "172800"})],
)
def test_the_history_has_the_limits_of_buildkitd(limits: dict[str, int], expected: dict[str, object]) -> None:
    document = {**buildkitd.configuration(MIRROR), "history": limits}

    assert daemon_json(document)["builder"]["history"] == expected


def test_a_graph_driver_does_less() -> None:
    more, less = DockerdWorker().features(), DockerdWorker(store="graphdriver").features()

    assert less < more
    assert "oci_exporter" in more - less
    assert not {"cni_network", "cache_backend_s3"} & more
