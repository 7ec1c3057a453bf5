from __future__ import annotations

import dataclasses

import pytest
from bk_worker_rootless import RootlessWorker

from bkrules.analysis.plugin_files import plugin_files
from bkrules.plugin import Mirror, SettingsError
from bkrules.plugin.host import probe

HOST = dataclasses.replace(probe("/nowhere/"), user_namespaces=1000, mapped_ids=4294967295)
GVISOR = RootlessWorker(net="gvisor-tap-vsock", detach_netns=True)


def test_a_range_is_made_in_each_cell_by_default() -> None:
    ranges = RootlessWorker().configuration(Mirror("127.0.0.1:5000", ()))["ranges.toml"]

    assert ranges == {"subuid": "100000:65536", "subgid": "100000:65536"}
    assert RootlessWorker().preflight(HOST) == ()


def test_a_kernel_without_user_namespaces() -> None:
    lacks = RootlessWorker().preflight(dataclasses.replace(HOST, user_namespaces=0))

    assert [lack.what for lack in lacks] == ["no user namespaces"]


def test_too_few_ids_to_map() -> None:
    lacks = RootlessWorker().preflight(dataclasses.replace(HOST, mapped_ids=65536))

    assert [lack.what for lack in lacks] == ["no subuid range"]


def test_a_user_without_ranges_is_named_with_what_to_do() -> None:
    lacks = RootlessWorker(user="nobody-has-this").preflight(HOST)

    assert [lack.what for lack in lacks] == [
        f"no range for 'nobody-has-this' in /etc/{name}" for name in ("subuid", "subgid")
    ]
    assert all("usermod --add-subuids 100000-165535" in lack.remedy for lack in lacks)


def test_a_kernel_without_tap_devices() -> None:
    assert [lack.what for lack in GVISOR.preflight(HOST)] == ["no /dev/net/tun"]
    assert GVISOR.preflight(dataclasses.replace(HOST, tun=True)) == ()


def test_ids_differ_where_results_may() -> None:
    settings: list[dict[str, object]] = [
        {},
        {"snapshotter": "native"},
        {"net": "gvisor-tap-vsock", "detach_netns": True},
        {"net": "slirp4netns", "detach_netns": True},
        {"containerd": True},
        {"containerd": True, "snapshotter": "native"},
    ]

    ids = [RootlessWorker.from_settings(one).id() for one in settings]

    assert ids == [
        *("rootless", "rootless+native", "rootless-gvisor-tap-vsock-detachnetns"),
        *("rootless-slirp4netns-detachnetns", "containerd-rootless", "containerd-rootless+native"),
    ]


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"snapshotter": "zfs"}, "snapshotter"),
        ({"snapshotter": "stargz", "containerd": True}, "snapshotter"),
        ({"net": "pasta", "detach_netns": True}, "net"),
        ({"net": "slirp4netns"}, "net"),
        ({"net": "slirp4netns", "detach_netns": True, "containerd": True}, "net"),
        ({"detach_netns": True}, "detach_netns"),
    ],
)
def test_settings_that_do_not_fit_together(settings: dict[str, object], name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        RootlessWorker.from_settings(settings)

    assert caught.value.name == name


def test_commands_of_the_machine_only_where_they_are_used() -> None:
    ids = {"newuidmap", "newgidmap"}
    network = {"mount", "nsenter", "unshare"}

    assert set(RootlessWorker().host_tools()) == ids
    assert set(GVISOR.host_tools()) == ids | network
    assert "ip" in GVISOR.tools()
    assert "ip" not in RootlessWorker().tools()
    assert set(RootlessWorker(net="slirp4netns", detach_netns=True).host_tools()) == ids | network | {"slirp4netns"}
    assert set(RootlessWorker(snapshotter="fuse-overlayfs").host_tools()) == ids | {"fuse-overlayfs"}


def test_a_containerd_brings_its_tools_its_file_and_its_code() -> None:
    worker = RootlessWorker(containerd=True)

    assert {"containerd", "containerd-shim-runc-v2", "ctr"} <= set(worker.tools())
    assert len(set(worker.tools())) == len(worker.tools())
    document = worker.configuration(Mirror("127.0.0.1:5000", ()))["containerd.toml"]
    assert document["grpc"]["address"] == "/run/bk/user/containerd.sock"
    assert "bk_worker_containerd.py" in plugin_files(worker)
    assert "containerd" not in RootlessWorker().tools()
