"""A started process, as bk holds it: its messages, its orderly end, and its end by force."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from bkrules.model.wire import Document
from bkrules.sandbox.command_groups import Group
from bkrules.sandbox.ipc import receive
from bkrules.system.waiting import readable


@dataclass
class Started:
    """A process that the zygote started. It lives while `death` is open; `channel` ends when all its processes are gone.

    `far` names the other end of `channel`, as the links in /proc/PID/fd do.
    """

    channel: socket.socket
    death: int
    far: str = ""
    group: Group | None = None

    def has_ended(self, patience: float = 0) -> bool:
        """Return whether it has ended, waiting up to `patience` seconds."""
        return bool(readable([self.channel.fileno()], patience))

    def next(self, timeout: float) -> tuple[Document | None, list[int]]:
        """Return the next message and its descriptors; no message at the end. Raises TimeoutError after `timeout` seconds."""
        self.channel.settimeout(timeout)
        return receive(self.channel)

    def kill(self) -> None:
        """End it, with all its processes."""
        death, self.death = self.death, -1
        if death >= 0:
            os.close(death)

    def is_gone(self, patience: float) -> bool:
        """Return whether it is gone, waiting up to `patience` seconds. Its messages are dropped."""
        deadline = time.monotonic() + patience
        try:
            while True:
                message, descriptors = self.next(max(0.001, deadline - time.monotonic()))
                for descriptor in descriptors:
                    os.close(descriptor)
                if message is None:
                    return True
        except TimeoutError:
            return False

    def force(self) -> bool:
        """Kill the process that holds the other end of the channel, even a stopped one. Return whether there is such a process."""
        is_there = False
        for folder in os.listdir("/proc"):
            if folder.isdigit() and int(folder) != os.getpid():
                with suppress(OSError):  # it has ended, or belongs to another user
                    process = os.pidfd_open(int(folder))
                    try:
                        if self.far in _links(f"/proc/{folder}/fd"):
                            signal.pidfd_send_signal(process, signal.SIGKILL)
                            is_there = True
                    finally:
                        os.close(process)
        return is_there


def _links(folder: str) -> Iterator[str]:
    """Yield the targets of the links in /proc/PID/fd."""
    for name in os.listdir(folder):
        with suppress(OSError):  # closed meanwhile
            yield os.readlink(f"{folder}/{name}")
