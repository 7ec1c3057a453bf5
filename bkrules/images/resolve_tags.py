"""Resolve tags to their current digests, without the registry client.

A sync of unmoved images needs only these digests, and the import of the client takes longer than the requests. So this module knows
the plain case alone: a registry that answers at once, needs no credentials and has no proxy. All others are left to
`registry_client.py`. Each registry has one connection, which is kept for all of its tags.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from itertools import groupby
from typing import BinaryIO
from urllib.parse import urlsplit

from bkrules.images.digests import ImageDigest
from bkrules.images.protocol import ACCEPT, authorities, is_loopback, server
from bkrules.model.reference import Reference
from bkrules.web.limits import Limits, Watch
from bkrules.web.proxies import PORTS, Proxies
from bkrules.web.wire import Wire

_LIMITS = Limits(connect=3, idle=5, total=5)
_OK = 200


def resolve_tags(references: Iterable[Reference]) -> dict[Reference, str]:
    """Return the current digest `sha256:...` of each tag whose registry sends it at once and to anyone."""
    found: dict[Reference, str] = {}
    for host, group in groupby(sorted(references), lambda reference: reference.host):
        with suppress(OSError, ValueError):  # the registry client reports the error
            found.update(_tags(host, group))
    return found


def _tags(host: str, references: Iterable[Reference]) -> Iterator[tuple[Reference, str]]:
    """Yield the digests of tags, up to the first that the registry does not send."""
    scheme = "http" if is_loopback(host) else "https"
    place = urlsplit(f"//{server(host)}")
    name, port = place.hostname or "", place.port or PORTS[scheme]
    if Proxies().of(scheme, name, port) is not None:
        return
    with closing(Wire(_dialled(scheme, name, port), Watch(_LIMITS))) as wire, wire.makefile("rb") as answers:
        for reference in references:
            wire.begin(Watch(_LIMITS))
            path = f"/v2/{reference.repository}/manifests/{reference.tag}"
            wire.sendall(f"HEAD {path} HTTP/1.1\r\nHost: {server(host)}\r\nAccept: {ACCEPT}\r\n\r\n".encode())
            wire.watch.expect_head()
            digest = _digest(answers)
            if not digest:
                return
            yield reference, ImageDigest(digest)


def _digest(answers: BinaryIO) -> str:
    """Return the digest in the headers of the next answer, or an empty text."""
    status = answers.readline().split()
    digest = ""
    while line := answers.readline().strip():
        name, _, value = line.partition(b":")
        if name.lower() == b"docker-content-digest":
            digest = value.strip().decode("latin-1")
    return digest if status[1:2] == [b"200"] else ""


def _dialled(scheme: str, host: str, port: int) -> socket.socket:
    if scheme == "http":
        return socket.create_connection((host, port), _LIMITS.connect)
    from bkrules.web.trust import trust

    context = trust(authorities())()
    return context.wrap_socket(socket.create_connection((host, port), _LIMITS.connect), server_hostname=host)
