"""Messages between the processes of a run, with open descriptors."""

from __future__ import annotations

import array
import fcntl
import json
import os
import socket

from bkrules.model.wire import Document, Wire

_LONGEST = 1 << 16
_LONG = "long message"
_DESCRIPTORS = 5


def send(channel: socket.socket, message: Wire, descriptors: tuple[int, ...] = ()) -> None:
    """Send a message with descriptors. A message that is too long for a socket goes through a file in memory."""
    data = json.dumps(message.to()).encode()
    if len(data) <= _LONGEST:
        _send(channel, data, descriptors)
        return
    with open(os.memfd_create("bk-message", os.MFD_CLOEXEC), "w+b") as file:
        file.write(data)
        file.flush()
        _send(channel, json.dumps({_LONG: len(data)}).encode(), (*descriptors, file.fileno()))


def _send(channel: socket.socket, data: bytes, descriptors: tuple[int, ...]) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    channel.sendmsg([data], rights)


def receive(channel: socket.socket, most: int = 0) -> tuple[Document | None, list[int]]:
    """Return the next message and its descriptors; no message at the end.

    With `most`, the other end is untrusted: a message of more bytes, or a malformed one, raises ValueError. When the
    other end closed with unread messages of ours, the kernel reports that before its messages: once.
    """
    size = socket.CMSG_SPACE(_DESCRIPTORS * array.array("i").itemsize)
    try:
        data, ancillary, _, _ = channel.recvmsg(_LONGEST, size, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        data, ancillary, _, _ = channel.recvmsg(_LONGEST, size, socket.MSG_CMSG_CLOEXEC)
    descriptors: list[int] = []
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors += array.array("i", payload[: len(payload) // 4 * 4])
    try:
        return _read(data, descriptors, most) if data else None, descriptors
    except (ValueError, TypeError, IndexError, OSError, RecursionError) as error:
        for descriptor in descriptors:
            os.close(descriptor)
        raise ValueError(f"it is not a message: {error}") from error


def _read(data: bytes, descriptors: list[int], most: int) -> Document:
    message = json.loads(data)
    if _LONG in message:
        size = message[_LONG]
        with open(descriptors.pop(), "rb", buffering=0) as file:
            fcntl.fcntl(file, fcntl.F_GET_SEALS)  # otherwise it is not a file in memory, and reading it may never end
            if most and size > most:
                raise ValueError(f"it has {size} bytes")
            message = json.loads(os.pread(file.fileno(), size, 0))
    if not isinstance(message, dict):
        raise TypeError("it has no fields")
    return message
