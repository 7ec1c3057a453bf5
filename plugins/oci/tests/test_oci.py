from __future__ import annotations

from typing import Any

import pytest
from bk_worker_oci import OciWorker

from bkrules.plugin import Mirror, SettingsError, buildkitd
from bkrules.plugin.host import probe

MIRROR = Mirror("127.0.0.1:5000", ("docker.io", "quay.io"))


def test_ids_differ_where_results_may() -> None:
    settings: list[dict[str, object]] = [
        {},
        {"snapshotter": "native"},
        {"snapshotter": "fuse-overlayfs"},
        {"snapshotter": "stargz"},
        {"snapshotter": "stargz", "proxy": True},
        {"network": "cni"},
        {"snapshotter": "stargz", "network": "cni"},
    ]

    ids = [OciWorker.from_settings(one).id() for one in settings]

    assert ids == [
        *("oci", "oci+native", "oci+fuse-overlayfs", "oci+stargz", "oci+stargz-proxy"),
        *("oci+cni", "oci+stargz+cni"),
    ]


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"snapshotter": "zfs"}, "snapshotter"),
        ({"proxy": True}, "proxy"),
        ({"network": "bridge"}, "network"),
        ({"snapshotter": 1}, "snapshotter"),
        ({"x": 1}, "x"),
    ],
)
def test_bad_settings_name_the_setting(settings: dict[str, object], name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        OciWorker.from_settings(settings)
    assert caught.value.name == name


def test_every_mirrored_host_goes_to_the_mirror() -> None:
    registries = OciWorker().configuration(MIRROR)[buildkitd.CONFIGURATION]["registry"]

    assert registries == {
        "docker.io": {"mirrors": ["127.0.0.1:5000"]},
        "quay.io": {"mirrors": ["127.0.0.1:5000"]},
        "127.0.0.1:5000": {"http": True},
    }


def test_a_network_for_each_step_brings_its_tools_its_configuration_and_the_feature() -> None:
    plain, cni = OciWorker(), OciWorker(network="cni")

    assert set(cni.tools()) - set(plain.tools()) == {
        f"buildkit-cni-{name}" for name in ("bridge", "host-local", "loopback")
    }
    assert cni.features() - plain.features() == {"cni_network"}
    assert plain.no_jail() == "" != cni.no_jail()
    before, after = (one.configuration(MIRROR)[buildkitd.CONFIGURATION]["worker"] for one in (plain, cni))
    assert "networkMode" not in before["oci"]
    assert after["oci"]["networkMode"] == "cni"
    assert {**after["oci"], **before["oci"]} == after["oci"]
    assert after["containerd"] == before["containerd"]


def test_the_proxy_brings_its_tool_its_file_and_its_code() -> None:
    worker = OciWorker(snapshotter="stargz", proxy=True)

    assert "containerd-stargz-grpc" in worker.tools()
    assert "stargz.toml" in worker.configuration(MIRROR)
    assert [module.__name__ for module in worker.modules()] == ["bk_worker_oci", "bk_worker_containerd_stargz"]
    assert "containerd-stargz-grpc" not in OciWorker(snapshotter="stargz").tools()


def test_background_fetch_is_off_where_stargz_is_built_in() -> None:
    def section(**settings: object) -> dict[str, Any]:
        document = OciWorker.from_settings(settings).configuration(MIRROR)[buildkitd.CONFIGURATION]
        found: dict[str, Any] = document["worker"]["oci"]
        return found

    assert section(snapshotter="stargz")["stargzSnapshotter"] == {"no_background_fetch": True, "noprefetch": True}
    assert "stargzSnapshotter" not in section(snapshotter="stargz", proxy=True)
    assert "stargzSnapshotter" not in section()


def test_fuse_overlayfs_brings_its_mount_helper_and_asks_for_the_machines_command() -> None:
    worker = OciWorker(snapshotter="fuse-overlayfs")

    assert "mount.fuse3" in worker.tools()
    assert worker.host_tools() == ("fuse-overlayfs",)
    assert OciWorker().host_tools() == ()


@pytest.mark.parametrize("snapshotter", ["fuse-overlayfs", "stargz"])
def test_what_mounts_by_fuse_needs_it(snapshotter: str) -> None:
    machine = probe("/nowhere/")

    assert OciWorker().preflight(machine) == ()
    assert [lack.what for lack in OciWorker(snapshotter=snapshotter).preflight(machine)] == ["no /dev/fuse"]
