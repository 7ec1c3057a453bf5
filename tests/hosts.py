"""Hosts of a test: network namespaces, of which each can reach the first one and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from spaces import wait_for

SERVER = "10.0.0.1"
"""The address of the first host. Each other one reaches it at the end of a link too, `10.0.NUMBER.1`."""


@dataclass(frozen=True)
class Host:
    """A network namespace, which lives as long as that process."""

    process: int

    @property
    def prefix(self) -> tuple[str, ...]:
        """The beginning of a command that runs there."""
        return ("nsenter", f"--net=/proc/{self.process}/ns/net", "--")

    def ip(self, *words: str) -> None:
        """Run `ip` there."""
        done = subprocess.run([*self.prefix, "ip", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


def why_not() -> str:
    """Return why this machine cannot have hosts, or nothing."""
    if missing := [name for name in ("ip", "nsenter", "unshare") if not shutil.which(name)]:
        return f"{missing[0]} is not here"
    return "" if os.geteuid() == 0 else "only root can make network namespaces"


@contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """That many hosts, with a link from the first one to each other."""
    own = os.readlink("/proc/self/ns/net")
    with ExitStack() as stack:
        made: list[Host] = []
        for number in range(count):
            process = stack.enter_context(subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE))
            stack.callback(process.kill)
            wait_for(lambda pid=process.pid: os.readlink(f"/proc/{pid}/ns/net") != own)  # type: ignore[misc]
            host = Host(process.pid)
            host.ip("link", "set", "lo", "up")
            if not number:
                host.ip("address", "add", f"{SERVER}/32", "dev", "lo")
            else:
                first, link = made[0], f"link{number}"
                first.ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(process.pid))
                for end, name, last in ((first, link, 1), (host, "eth0", 2)):
                    end.ip("address", "add", f"10.0.{number}.{last}/24", "dev", name)
                    end.ip("link", "set", name, "up")
                host.ip("route", "add", f"{SERVER}/32", "via", f"10.0.{number}.1")
            made.append(host)
        yield made
