"""The wait for descriptors."""

from __future__ import annotations

import select
from collections.abc import Iterable


def readable(descriptors: Iterable[int], patience: float | None = None) -> list[int]:
    """Return the descriptors that can be read or have ended, waiting up to `patience` seconds for the first; None is forever.

    select() refuses descriptors from 1024 on, and bk has two for each connection of a cell to its mirror.
    """
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return [descriptor for descriptor, _ in poll.poll(None if patience is None else 1000 * max(0, patience))]
