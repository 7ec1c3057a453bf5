"""The digests that tags have now, asked for as quickly as can be.

A mirror that has everything needs nothing else, and importing requests takes longer than to ask. So this knows the plain case
alone: a registry that answers at once and wants no credentials. All others are left to `registry_client.py`.
"""

from __future__ import annotations

import http.client
import os
import threading
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from itertools import groupby

from bkrules.images.protocol import ACCEPT, authorities, is_loopback, server
from bkrules.images.reference import Reference

_CONNECTIONS = 4
_TIMEOUT = 5.0
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def glance(references: Iterable[Reference]) -> dict[Reference, str]:
    """The digests `sha256:...` that these tags have now, of those that their registries tell anyone at once."""
    found: dict[Reference, str] = {}
    if any(name.lower() in _PROXIES for name in os.environ):
        return found
    wanted = sorted(references)
    shares = [share for number in range(_CONNECTIONS) if (share := wanted[number::_CONNECTIONS])]
    threads = [threading.Thread(target=_ask, args=(share, found)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def _ask(references: Sequence[Reference], found: dict[Reference, str]) -> None:
    for host, group in groupby(references, lambda reference: reference.host):
        # what is wrong with a registry is said by its client
        with suppress(OSError, http.client.HTTPException), closing(_connection(host)) as connection:
            for reference in group:
                path = f"/v2/{reference.repository}/manifests/{reference.tag}"
                connection.request("HEAD", path, headers={"Accept": ACCEPT})
                answer = connection.getresponse()
                answer.read()
                digest = answer.getheader("Docker-Content-Digest")
                if answer.status != http.client.OK or not digest:
                    break
                found[reference] = digest


def _connection(host: str) -> http.client.HTTPConnection:
    if is_loopback(host):
        return http.client.HTTPConnection(host, timeout=_TIMEOUT)
    import ssl

    trusted = ssl.create_default_context(cafile=authorities())
    return http.client.HTTPSConnection(server(host), timeout=_TIMEOUT, context=trusted)
