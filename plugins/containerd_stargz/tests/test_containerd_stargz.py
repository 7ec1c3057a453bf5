from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest
from bk_worker_containerd_stargz import ContainerdStargzWorker, configuration, options, socket, start

from bkrules.analysis.plugin_files import plugin_files
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


def test_the_snapshotter_is_told_of_the_registries_of_the_mirror_and_of_no_other() -> None:
    files = ContainerdStargzWorker().configuration(Mirror("127.0.0.1:5000", ("docker.io", "ghcr.io")))

    assert set(files["stargz.toml"]["resolver"]["host"]) == {"docker.io", "ghcr.io", "127.0.0.1:5000"}


def test_the_snapshotter_starts_with_its_own_configuration() -> None:
    started = Mock(configuration=Path("/etc/bk"), state=Path("/var/lib/bk"))
    start(started)

    name, arguments = started.start.call_args.args
    assert name == "stargz"
    assert arguments[arguments.index("--config") + 1] == "/etc/bk/stargz.toml"


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ({"prefetch": True}, {"noprefetch": False}),
        ({"background_fetch": True, "prefetch": False}, {"no_background_fetch": False, "noprefetch": True}),
    ],
)
def test_the_axis_key_turns_fetching_on(value: dict[str, bool], meant: dict[str, bool]) -> None:
    assert options(value) == {"stargz.toml": meant}


@pytest.mark.parametrize("value", [True, {}, {"prefetch": 1.5}, {"prefetch": "yes"}, {"prefetching": True}, []])
def test_another_value_of_the_axis_key_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="it "):
        options(value)
