"""The rootless worker: buildkitd under an unprivileged user, in a user namespace that rootlesskit makes."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bkrules.plugin import (
    Backend,
    Daemons,
    Host,
    Lack,
    Mirror,
    Register,
    User,
    Worker,
    buildkitd,
    hookimpl,
    setting,
    subordinate_range,
)

RANGES = "ranges.toml"
HELPERS = ("newuidmap", "newgidmap")
FIRST_ID, IDS = 100_000, 65_536
UID = 51_000


@dataclass(frozen=True)
class RootlessWorker(Worker):
    """buildkitd with its OCI worker, as a user without privileges."""

    name = "rootless"
    rootless = True

    user: str = setting(
        "",
        "a user of this machine whose ranges in /etc/subuid and /etc/subgid are used; by default each cell makes its own",
    )

    def tools(self) -> tuple[str, ...]:
        return ("buildkitd", "rootlesskit", "runc")

    def host_tools(self) -> tuple[str, ...]:
        return HELPERS

    def preflight(self, host: Host) -> tuple[Lack, ...]:
        lacks = []
        if not host.user_namespaces:
            lacks.append(
                Lack(
                    "no user namespaces", "rootlesskit makes one", "allow them:  sysctl user.max_user_namespaces=15000"
                )
            )
        if self.user:
            files = [
                name for name in ("subuid", "subgid") if subordinate_range(_read(f"/etc/{name}"), self.user) is None
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

    def configuration(self, mirror: Mirror) -> Mapping[str, Mapping[str, Any]]:
        ranges = {}
        for name in ("subuid", "subgid"):
            found = subordinate_range(_read(f"/etc/{name}"), self.user) if self.user else None
            start, count = found or (FIRST_ID, IDS)
            ranges[name] = f"{start}:{count}"
        return {buildkitd.CONFIGURATION: buildkitd.configuration(mirror), RANGES: ranges}

    @contextmanager
    def start(self, daemons: Daemons) -> Iterator[Backend]:
        user = User("bk", UID, UID, "/home/bk")
        run, state = daemons.run / "user", daemons.state / "buildkit"
        Path("/etc/passwd").write_text(
            f"{Path('/etc/passwd').read_text()}{user.name}:x:{UID}:{UID}::{user.home}:/bin/sh\n"
        )
        Path("/etc/group").write_text(f"{Path('/etc/group').read_text()}{user.name}:x:{UID}:\n")
        for name, ids in tomllib.loads((daemons.configuration / RANGES).read_text()).items():
            Path(f"/etc/{name}").write_text(f"{user.name}:{ids}\n")
        for folder in (Path(user.home), run, state):
            folder.mkdir(parents=True)
            os.chown(folder, UID, UID)
        address = f"unix://{run}/buildkitd.sock"
        flags = [*buildkitd.OCI_FLAGS, "--root", str(state)]
        daemons.start(
            "buildkitd",
            ["rootlesskit", "--net=host", f"--state-dir={run}/rootlesskit", *buildkitd.arguments(address, run, flags)],
            environment={"XDG_RUNTIME_DIR": str(run), **buildkitd.environment(run, "overlayfs")},
            user=user,
        )
        yield buildkitd.backend(address, "overlayfs", run, rootless=True)


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except FileNotFoundError:
        return ""


@hookimpl
def bk_register_workers(register: Register) -> None:
    """The workers of this distribution."""
    register(RootlessWorker)
