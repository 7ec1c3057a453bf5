"""Messages between the processes of a run, with open descriptors beside them."""

from __future__ import annotations

import array
import json
import socket
from collections.abc import Mapping
from typing import Any

_LONGEST = 1 << 20
_DESCRIPTORS = 4


def send(channel: socket.socket, message: Mapping[str, Any], descriptors: tuple[int, ...] = ()) -> None:
    """Send a message, and descriptors with it."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    channel.sendmsg([json.dumps(message).encode()], rights)


def receive(channel: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """The next message and its descriptors; no message at the end."""
    size = socket.CMSG_SPACE(_DESCRIPTORS * array.array("i").itemsize)
    data, ancillary, _, _ = channel.recvmsg(_LONGEST, size, socket.MSG_CMSG_CLOEXEC)
    descriptors: list[int] = []
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors += array.array("i", payload[: len(payload) // 4 * 4])
    return (json.loads(data) if data else None), descriptors
