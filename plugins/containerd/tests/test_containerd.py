from __future__ import annotations

from bk_worker_containerd import CONFIGURATION, ContainerdWorker, configuration

from bkrules.plugin import Mirror


def test_containerd_keeps_to_its_cell() -> None:
    document = configuration()

    assert document["root"].startswith("/var/lib/bk/")
    assert document["grpc"]["address"].startswith("/run/bk/")
    assert "io.containerd.grpc.v1.cri" in document["disabled_plugins"]


def test_the_introspection_service_stays() -> None:
    """Without it neither ctr nor BuildKit can speak to containerd."""
    assert not any("introspection" in name for name in configuration()["disabled_plugins"])


def test_both_daemons_are_configured() -> None:
    assert set(ContainerdWorker().configuration(Mirror("127.0.0.1:5000", ()))) == {"buildkitd.toml", CONFIGURATION}


def test_ids() -> None:
    assert ContainerdWorker().id() == "containerd"
    assert ContainerdWorker(snapshotter="native").id() == "containerd+native"
