"""The digests that tags have now, asked for as quickly as can be.

A mirror that has everything needs nothing else, and importing an HTTP client takes longer than to ask. So this knows the plain
case alone: a registry that answers at once and wants no credentials. All others are left to `registry_client.py`. The answer to a
HEAD is lines without a body, so several questions go out at once on one connection, and their answers come in that order:
https://www.rfc-editor.org/rfc/rfc9112#section-9.3.2
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from itertools import groupby
from typing import BinaryIO

from bkrules.images.protocol import ACCEPT, authorities, is_loopback, server
from bkrules.images.reference import Reference

_AT_ONCE = 16
_TIMEOUT = 5.0
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def glance(references: Iterable[Reference]) -> dict[Reference, str]:
    """The digests `sha256:...` that these tags have now, of those that their registries tell anyone at once."""
    found: dict[Reference, str] = {}
    if any(name.lower() in _PROXIES for name in os.environ):
        return found
    for host, group in groupby(sorted(references), lambda reference: reference.host):
        with suppress(OSError):  # what is wrong with a registry is said by its client
            found.update(_told(host, list(group)))
    return found


def _told(host: str, references: list[Reference]) -> Iterator[tuple[Reference, str]]:
    """The digests, up to the first that is not told."""
    with closing(_connection(host)) as connection, connection.makefile("rb") as answers:
        for first in range(0, len(references), _AT_ONCE):
            some = references[first : first + _AT_ONCE]
            connection.sendall("".join(_question(host, reference) for reference in some).encode())
            for reference in some:
                digest = _digest(answers)
                if not digest:
                    return
                yield reference, digest


def _question(host: str, reference: Reference) -> str:
    path = f"/v2/{reference.repository}/manifests/{reference.tag}"
    return f"HEAD {path} HTTP/1.1\r\nHost: {server(host)}\r\nAccept: {ACCEPT}\r\n\r\n"


def _digest(answers: BinaryIO) -> str:
    """The digest that the next answer tells, or nothing."""
    status = answers.readline().split()
    digest = ""
    while line := answers.readline().strip():
        name, _, value = line.partition(b":")
        if name.lower() == b"docker-content-digest":
            digest = value.strip().decode(errors="replace")
    return digest if status[1:2] == [b"200"] else ""


def _connection(host: str) -> socket.socket:
    name, _, port = server(host).partition(":") if not host.startswith("[") else host[1:].partition("]:")
    if is_loopback(host):
        return socket.create_connection((name.strip("[]"), int(port or 80)), _TIMEOUT)
    import ssl

    trusted = ssl.create_default_context(cafile=authorities())
    plain = socket.create_connection((name, int(port or 443)), _TIMEOUT)
    return trusted.wrap_socket(plain, server_hostname=name)
