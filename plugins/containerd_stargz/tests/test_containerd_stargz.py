from __future__ import annotations

from bk_worker_containerd_stargz import ContainerdStargzWorker, configuration, socket

from bkrules.analysis.cell_inputs import plugin_files
from bkrules.plugin import Mirror

MIRROR = Mirror("127.0.0.1:5000", ("docker.io",))


def test_the_snapshotter_learns_the_mirror_itself() -> None:
    hosts = configuration(MIRROR)["resolver"]["host"]

    assert hosts["docker.io"]["mirrors"] == [{"host": "127.0.0.1:5000", "insecure": True}]


def test_nothing_is_fetched_that_no_build_asked_for() -> None:
    assert configuration(MIRROR)["no_background_fetch"]
    assert configuration(MIRROR)["noprefetch"]


def test_containerd_knows_the_snapshotter() -> None:
    document = ContainerdStargzWorker().configuration(MIRROR)["containerd.toml"]

    assert document["proxy_plugins"]["stargz"] == {"type": "snapshot", "address": socket()}


def test_the_code_of_the_plugin_below_is_in_the_key_too() -> None:
    assert set(plugin_files(ContainerdStargzWorker())) == {"bk_worker_containerd.py", "bk_worker_containerd_stargz.py"}
