"""The digests that tags have now, asked for as quickly as can be.

A mirror that has everything needs nothing else, and to import a client takes longer than to ask. So this knows the plain case
alone: a registry that answers at once, wants no credentials and has no proxy. All others are left to `registry_client.py`. Each
registry has one connection, which is kept for all of its tags.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException
from itertools import groupby
from typing import cast

from bkrules.images.digests import ImageDigest
from bkrules.images.protocol import ACCEPT, authorities, is_loopback, server
from bkrules.images.reference import Reference
from bkrules.web.limits import Limits, Watch
from bkrules.web.proxies import PORTS, Proxies
from bkrules.web.wire import Wire

_LIMITS = Limits(connect=3, idle=5, total=5)
_OK = 200


def glance(references: Iterable[Reference]) -> dict[Reference, str]:
    """Return the digests `sha256:...` that these tags have now, of those that their registries tell anyone at once."""
    found: dict[Reference, str] = {}
    for host, group in groupby(sorted(references), lambda reference: reference.host):
        with suppress(OSError, ValueError, HTTPException):  # what is wrong with a registry is said by its client
            found.update(_tags(host, group))
    return found


def _tags(host: str, references: Iterable[Reference]) -> Iterator[tuple[Reference, str]]:
    """Return the digests, up to the first that the registry does not tell."""
    scheme = "http" if is_loopback(host) else "https"
    connection = HTTPConnection(server(host), PORTS[scheme] if ":" not in host.rpartition("]")[2] else None)
    if Proxies().of(scheme, connection.host, connection.port) is not None:
        return
    connection.auto_open = 0  # one that the server closes is not opened again, without its limits
    with closing(connection):
        wire = Wire(_dialled(scheme, connection.host, connection.port), Watch(_LIMITS))
        connection.sock = cast(socket.socket, wire)
        for reference in references:
            wire.begin(Watch(_LIMITS))
            connection.request(
                "HEAD", f"/v2/{reference.repository}/manifests/{reference.tag}", headers={"Accept": ACCEPT}
            )
            wire.watch.expect_head()
            with connection.getresponse() as answer:
                if answer.status != _OK:
                    return
                yield reference, ImageDigest(answer.getheader("Docker-Content-Digest", ""))


def _dialled(scheme: str, host: str, port: int) -> socket.socket:
    if scheme == "http":
        return socket.create_connection((host, port), _LIMITS.connect)
    from bkrules.web.trust import trust

    context = trust(authorities())()
    return context.wrap_socket(socket.create_connection((host, port), _LIMITS.connect), server_hostname=host)
