"""The requests of a cell to its mirror: a log next to those of its daemons, and the sums by repository."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from bkrules.mirror.record import Counted
from bkrules.sandbox import outputs

LOG = "mirror.log"
_OF_REPOSITORY = re.compile(r"/v2/(.{1,255})/(?:manifests|blobs)/[^/]+")
_MOST_REPOSITORIES = 100


def keep(requests: Sequence[Counted], folder: str) -> None:
    """Write a log of the requests into the folder of a cell that has ended, in the format of its daemons."""
    if requests or os.path.lexists(f"{folder}/{LOG}"):  # a test may have written one
        outputs.replace(folder, LOG, "".join(map(_line, requests)).encode())


def _line(counted: Counted) -> str:
    time = datetime.fromtimestamp(counted.at, UTC).isoformat(timespec="microseconds")
    request = counted.request()
    text = f"{request.method} {request.path} {request.status} {request.body_bytes}"
    return f'time="{time}" level=info msg={json.dumps(text)}\n'


def pulled(requests: Iterable[Counted]) -> dict[str, tuple[int, int]]:
    """Return the number of requests, and of bytes of their answers, by repository; of at most 100 repositories."""
    sums: dict[str, tuple[int, int]] = {}
    for counted in requests:
        match = _OF_REPOSITORY.fullmatch(counted.path)
        if match is not None and (match[1] in sums or len(sums) < _MOST_REPOSITORIES):
            count, size = sums.get(match[1], (0, 0))
            sums[match[1]] = count + 1, size + counted.request().body_bytes
    return sums
