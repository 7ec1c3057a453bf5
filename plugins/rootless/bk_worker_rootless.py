"""The rootless worker: buildkitd under an unprivileged user, in a user namespace that rootlesskit makes.

With `containerd`, rootlesskit runs a containerd, and buildkitd joins its namespaces.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from bkrules.plugin import (
    Backend,
    Daemons,
    Host,
    Lack,
    Mirror,
    Register,
    SettingsError,
    User,
    Worker,
    buildkitd,
    hookimpl,
    host,
    one_of,
    setting,
    snapshotters,
    subordinate_range,
)

RANGES = "ranges.toml"
HELPERS = ("newuidmap", "newgidmap")
FIRST_ID, IDS = 100_000, 65_536
UID = 51_000
USER = User("bk", UID, UID, "/home/bk")
RUN = Daemons.run / "user"
KIT = RUN / "rootlesskit"
ADDRESS = f"unix://{RUN}/buildkitd.sock"
# The commands of the machine by which rootlesskit makes each kind of network, in addition to the tool `ip`. These are util-linux,
# which is on every Debian.
DETACHED = ("mount", "nsenter", "unshare")
NETWORKS = {"host": (), "gvisor-tap-vsock": DETACHED, "slirp4netns": (*DETACHED, "slirp4netns")}
SNAPSHOTTERS = ("overlayfs", "native", "fuse-overlayfs", "stargz")
SNAPSHOTTERS_OF_CONTAINERD = ("overlayfs", "native")


@dataclass(frozen=True)
class RootlessWorker(Worker):
    """buildkitd with its OCI or containerd worker, as a user without privileges."""

    name = "rootless"
    rootless = True
    wants_ext4 = True  # on a tmpfs, containerd mounts overlays without `userxattr`, and they have no opaque directories

    user: str = setting(
        "",
        "a user of this machine with ranges in /etc/subuid and /etc/subgid; by default each cell makes its own",
    )
    snapshotter: str = setting(
        "overlayfs", "overlayfs, native, fuse-overlayfs or stargz; with containerd the first two"
    )
    net: str = setting("host", "rootlesskit's network: host, gvisor-tap-vsock or slirp4netns")
    detach_netns: bool = setting(False, "buildkitd stays in the cell's network, outside of rootlesskit's")
    containerd: bool = setting(False, "buildkitd uses a containerd in the same user namespace")

    def check(self) -> None:
        known = SNAPSHOTTERS_OF_CONTAINERD if self.containerd else SNAPSHOTTERS
        one_of("snapshotter", self.snapshotter, known)
        one_of("net", self.net, ("host",) if self.containerd else tuple(NETWORKS))
        if self.net != "host" and not self.detach_netns:
            raise SettingsError(
                "net", f"'net' {self.net!r} needs 'detach_netns': the mirror answers in the cell's own network alone"
            )
        if self.net == "host" and self.detach_netns:
            raise SettingsError("detach_netns", "'detach_netns' needs another 'net' than 'host', to detach from")

    def id(self) -> str:
        name = "containerd-rootless" if self.containerd else self.name
        snapshotter = "" if self.snapshotter == "overlayfs" else f"+{self.snapshotter}"
        return name + snapshotter + (f"-{self.net}-detachnetns" if self.detach_netns else "")

    def tools(self) -> tuple[str, ...]:
        more = _containerd().TOOLS if self.containerd else ()
        more += () if self.net == "host" else ("ip",)
        return tuple(dict.fromkeys(("buildkitd", "rootlesskit", "runc", *more, *snapshotters.tools(self.snapshotter))))

    def host_tools(self) -> tuple[str, ...]:
        return (*HELPERS, *NETWORKS[self.net], *snapshotters.host_tools(self.snapshotter))

    def modules(self) -> tuple[ModuleType, ...]:
        return (*super().modules(), *((_containerd(),) if self.containerd else ()))

    def preflight(self, host: Host) -> tuple[Lack, ...]:
        lacks = [*snapshotters.lacks(self.snapshotter, host)]
        if not host.user_namespaces:
            lacks.append(
                Lack(
                    "no user namespaces", "rootlesskit makes one", "allow them:  sysctl user.max_user_namespaces=15000"
                )
            )
        if self.net != "host" and not host.tun:
            lacks.append(
                Lack(
                    "no /dev/net/tun",
                    "rootlesskit's network begins at a tap device",
                    host.device_remedy("/dev/net/tun"),
                )
            )
        if self.user:
            files = [
                name for name in ("subuid", "subgid") if subordinate_range(host.read(f"/etc/{name}"), self.user) is None
            ]
            add = f"usermod --add-subuids {FIRST_ID}-{FIRST_ID + IDS - 1} --add-subgids {FIRST_ID}-{FIRST_ID + IDS - 1} {self.user}"
            lacks += [
                Lack(
                    f"no range for {self.user!r} in /etc/{name}",
                    f"a rootless buildkitd maps {IDS} ids",
                    f"add one:  {add}",
                )
                for name in files
            ]
        elif host.mapped_ids < FIRST_ID + IDS:
            why = f"a rootless buildkitd maps {IDS} ids from {FIRST_ID}, and only {host.mapped_ids} exist in this user namespace"
            lacks.append(Lack("no subuid range", why, "run bk outside of it, or give it more ids"))
        return tuple(lacks)

    def no_jail(self) -> str:
        if self.user:
            return f"the ranges of {self.user!r} are the machine's, and a jail has other ids"
        if self.net == "slirp4netns":
            return "slirp4netns is untested in jails"
        return snapshotters.no_jail(self.snapshotter)

    def configuration(self, mirror: Mirror) -> Mapping[str, Mapping[str, Any]]:
        ranges = {}
        for name in ("subuid", "subgid"):
            found = subordinate_range(host.read(f"/etc/{name}"), self.user) if self.user else None
            start, count = found or (FIRST_ID, IDS)
            ranges[name] = f"{start}:{count}"
        files = {buildkitd.CONFIGURATION: buildkitd.configuration(mirror, self.snapshotter), RANGES: ranges}
        if self.containerd:
            files[_containerd().CONFIGURATION] = _containerd().configuration(RUN)
        return files

    @hookimpl
    def bk_state(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = _containerd().state(_containerd().socket(RUN)) if self.containerd else {}
        return found

    @contextmanager
    def start(self, daemons: Daemons) -> Iterator[Backend]:
        make_user(daemons)
        rootlesskit = ["rootlesskit", f"--net={self.net}", f"--state-dir={KIT}"]
        environment = {"XDG_RUNTIME_DIR": str(RUN), **buildkitd.environment(RUN, self.snapshotter)}
        state = ["--root", str(daemons.state / "buildkit")]
        more: dict[str, Any] = {"rootless": True, "netns_detached": self.detach_netns}
        if self.containerd:
            containerd = _containerd()
            daemons.start("containerd", [*rootlesskit, *containerd.arguments()], environment=environment, user=USER)
            command = buildkitd.arguments(ADDRESS, RUN, [*containerd.flags(self.snapshotter, RUN), *state])
            environment |= {"HOME": USER.home, "USER": USER.name}
            daemons.start("buildkitd", command, environment=environment, inside=KIT / "child_pid")
            more["containerd_address"] = containerd.socket(RUN)
        else:
            if self.detach_netns:
                rootlesskit += ["--detach-netns", "--disable-host-loopback"]
            flags = [*buildkitd.OCI_FLAGS, "--oci-worker-snapshotter", self.snapshotter, *state]
            command = [*rootlesskit, *buildkitd.arguments(ADDRESS, RUN, flags)]
            daemons.start("buildkitd", command, environment=environment, user=USER)
        yield buildkitd.backend(ADDRESS, self.snapshotter, RUN, **more)


def make_user(daemons: Daemons) -> None:
    """Make the cell's user, with ranges of ids and with folders for state and sockets."""
    for name, line in (("passwd", f":{UID}:{UID}::{USER.home}:/bin/sh"), ("group", f":{UID}:")):
        file = Path("/etc", name)
        file.write_text(f"{file.read_text()}{USER.name}:x{line}\n")
    for name, ids in tomllib.loads((daemons.configuration / RANGES).read_text()).items():
        Path(f"/etc/{name}").write_text(f"{USER.name}:{ids}\n")
    # The last is for the sockets of containerd's shims, wherever its own state is.
    for folder in (
        Path(USER.home),
        RUN,
        daemons.state / "buildkit",
        daemons.state / "containerd",
        Path("/run/containerd"),
    ):
        folder.mkdir(parents=True)
        os.chown(folder, UID, UID)


def _containerd() -> Any:
    """Return the plugin that knows containerd; only `containerd` needs it."""
    try:
        return import_module("bk_worker_containerd")
    except ModuleNotFoundError as error:
        raise SettingsError(
            "containerd", "'containerd' needs its own plugin", "pip install bk-worker-containerd"
        ) from error


@hookimpl
def bk_register_workers(register: Register) -> None:
    """Register the workers of this distribution."""
    register(RootlessWorker)
