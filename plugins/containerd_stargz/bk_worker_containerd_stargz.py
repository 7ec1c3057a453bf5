"""The containerd worker on the stargz snapshotter: layers are mounted from the registry and fetched as they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import bk_worker_containerd as containerd

from bkrules.plugin import Backend, Daemons, Host, Lack, Mirror, Register, Worker, buildkitd, hookimpl, snapshotters

CONFIGURATION = "stargz.toml"
TOOL = "containerd-stargz-grpc"
OPTIONS = {"background_fetch": "no_background_fetch", "prefetch": "noprefetch"}


def configuration(mirror: Mirror) -> dict[str, Any]:
    """Return the snapshotter's configuration: it does not read buildkitd's, and must not read the machine's."""
    mirrors = [{"host": mirror.address, "insecure": True}]
    return {
        "no_background_fetch": True,
        "noprefetch": True,
        "resolver": {"host": {host: {"mirrors": mirrors} for host in (*mirror.hosts, mirror.address)}},
    }


def socket() -> str:
    """Return the path of the snapshotter's socket in a cell."""
    return str(Daemons.run / "stargz.sock")


def start(daemons: Daemons) -> str:
    """Start the snapshotter daemon. Return the path of its socket. Other plugins may call this."""
    state = str(daemons.state / "stargz")
    config = str(daemons.configuration / CONFIGURATION)
    daemons.start("stargz", [TOOL, "--log-level=debug", "--address", socket(), "--root", state, "--config", config])
    return socket()


@dataclass(frozen=True)
class ContainerdStargzWorker(Worker):
    """buildkitd on containerd, with stargz as a proxy snapshotter."""

    name = "containerd+stargz"

    def tools(self) -> tuple[str, ...]:
        return (*containerd.TOOLS, TOOL)

    def preflight(self, host: Host) -> tuple[Lack, ...]:
        return snapshotters.lacks("stargz", host)

    def no_jail(self) -> str:
        return ""

    def configuration(self, mirror: Mirror) -> Mapping[str, Mapping[str, Any]]:
        return {
            buildkitd.CONFIGURATION: buildkitd.configuration(mirror),
            containerd.CONFIGURATION: {**containerd.configuration(), **containerd.proxy("stargz", socket())},
            CONFIGURATION: configuration(mirror),
        }

    @hookimpl
    def bk_state(self) -> dict[str, list[str]]:
        return containerd.state(containerd.socket())

    @contextmanager
    def start(self, daemons: Daemons) -> Iterator[Backend]:
        start(daemons)
        with containerd.start(daemons, "stargz") as backend:
            yield backend


def options(value: object) -> dict[str, Any]:
    """Return what the axis key `stargz` stands for: `{"prefetch": True}`, `{"background_fetch": True}`, or both.

    Raises ValueError for anything else.
    """
    if not isinstance(value, dict) or not value or not all(isinstance(one, bool) for one in value.values()):
        raise ValueError(f"it must be a dictionary of {' and '.join(OPTIONS)} with True or False, but was {value!r}")
    if unknown := sorted(value.keys() - OPTIONS.keys()):
        raise ValueError(f"it has {unknown[0]!r}, and not one of {', '.join(OPTIONS)}")
    return {CONFIGURATION: {OPTIONS[name]: not wanted for name, wanted in value.items()}}


@hookimpl
def bk_register_axis_keys(register: Callable[..., None]) -> None:
    """Register the options of the snapshotter daemon."""
    register("stargz", options)


@hookimpl
def bk_register_workers(register: Register) -> None:
    """Register the workers of this distribution."""
    register(ContainerdStargzWorker)
